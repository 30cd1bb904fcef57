"""Measuring a set of logits: the ranking survives whatever scale a network answers in."""

import numpy as np
import pytest

from lobbycard.poster.measure import measure


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_map_is_of_the_logits_ranking_even_where_probabilities_round_to_one(scale):
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    truth = rng.random((300, 3)) < 0.3
    logits = ((truth + rng.normal(size=truth.shape)) * scale).astype(np.float32)
    measured = measure(logits, truth, list("abc"), truth.mean(axis=0), np.arange(300), seed=0)
    expected = average_precision_score(truth, logits, average="macro")
    assert measured.metrics["mAP"]["value"] == pytest.approx(expected, abs=1e-6)
    assert measured.per_label["a"]["ap"] == pytest.approx(average_precision_score(truth[:, 0], logits[:, 0]), abs=1e-6)
