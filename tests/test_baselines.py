"""What no skill scores, by formula and by hand."""

import re

import numpy as np
import pytest

from lobbycard.errors import InputError
from lobbycard.scoring import metrics
from lobbycard.scoring.baselines import baselines
from lobbycard.scoring.bootstrap import METRICS
from lobbycard.scoring.calibrate import cross_fit
from lobbycard.scoring.decide import decide

PRIOR = np.array([0.5, 0.05, 0.3, 0.1])


def drawn(seed=0, n_items=400):
    return np.random.default_rng(seed).random((n_items, 4)) < PRIOR


def test_known_answers():
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
    found = baselines(truth, [0.6, 0.1, 0.3], n_boot=20, seed=0)
    values = {name: {metric: row["value"] for metric, row in rows.items()} for name, rows in found.items()}
    prevalence = (3 / 4 + 1 / 4) / 2  # the third label has no positives
    assert values["none"] == pytest.approx({"mAP": prevalence, "macro_f1": 0, "micro_f1": 0, "samples_f1": 0})
    # The first and the third label for everyone: 3 hits among 8 given, 4 true.
    assert values["top2"]["macro_f1"] == pytest.approx((2 * 3 / (4 + 3) + 0) / 2)
    assert values["top2"]["micro_f1"] == pytest.approx(2 * 3 / (8 + 4))
    assert values["top2"]["samples_f1"] == pytest.approx((2 / 3 + 2 / 4 + 0 + 2 / 3) / 4)
    # Everything for everyone.
    assert values["prior"]["macro_f1"] == pytest.approx((2 * 3 / (4 + 3) + 2 * 1 / (4 + 1)) / 2)


def test_no_baseline_ranks_so_each_has_the_mean_prevalence_as_map():
    truth = drawn()
    for rows in baselines(truth, PRIOR, n_boot=50).values():
        assert list(rows) == list(METRICS)
        assert rows["mAP"]["value"] == pytest.approx(truth.mean())
        assert rows["mAP"]["ci95"][0] < truth.mean() < rows["mAP"]["ci95"][1]


def test_prior_is_the_best_macro_f1_without_skill():
    truth = drawn()
    best = baselines(truth, PRIOR, n_boot=10)["prior"]["macro_f1"]["value"]
    prevalence = truth.mean(axis=0)
    assert best == pytest.approx(np.mean(2 * prevalence / (1 + prevalence)))
    rng = np.random.default_rng(1)
    for share in (0.05, 0.3, 0.5, 0.8):
        assert metrics.macro_f1(truth, rng.random(truth.shape) < share) < best


def test_top2_follows_the_training_side_not_the_side_it_is_scored_on():
    truth = np.tile([True, False, False, False], (20, 1))
    found = baselines(truth, [0.1, 0.2, 0.6, 0.7], n_boot=10)
    assert found["top2"]["micro_f1"]["value"] == 0


def test_pain_16_a_model_without_skill_does_not_beat_the_baselines():
    """A useless model with excellent-looking label accuracy is no better than no skill in the headline numbers."""
    rng = np.random.default_rng(2)
    prior = np.full(20, 0.05)
    truth = rng.random((600, 20)) < prior
    logits = rng.normal(size=truth.shape) - 3
    decisions = decide(*cross_fit(logits, truth))
    nothing = np.zeros_like(truth)
    assert metrics.label_accuracy(truth, nothing).value > 0.93
    rows = baselines(truth, prior, n_boot=200)
    probabilities = 1 / (1 + np.exp(-logits))
    model = metrics.summarize(truth, probabilities, decisions, n_boot=200)
    assert model["macro_f1"]["value"] < rows["prior"]["macro_f1"]["ci95"][1]
    assert model["mAP"]["ci95"][0] < rows["prior"]["mAP"]["ci95"][1]


def test_one_label_is_enough():
    found = baselines([[1], [0]], [0.5], n_boot=10)
    assert found["top2"]["micro_f1"]["value"] == found["prior"]["micro_f1"]["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("truth", "prior", "words"),
    [
        ([[1, 0]], [0.5], "prior must be one number, or one for each of the 2 labels; got shape (1,)"),
        ([[1, 0]], 0.5, "prior must hold one share for each of the 2 labels, got 0.5"),
        ([[1, 0]], [40, 60], "prior must lie in [0, 1], got 40 to 60"),
        ([[0, 0]], [0.5, 0.5], "metrics need at least one positive, got none in 1 items over 2 labels"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(truth, prior, words):
    with pytest.raises(InputError, match=re.escape(words)):
        baselines(truth, prior)
