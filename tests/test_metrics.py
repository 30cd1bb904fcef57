"""Metrics: equal to scikit-learn, right by hand, and intervals that hold what they claim."""

import json
import re

import numpy as np
import pytest
from sklearn import metrics as reference

from lobbycard.errors import InputError
from lobbycard.scoring import metrics
from lobbycard.scoring.bootstrap import METRICS, WeightedScores, bootstrap_weights, interval_of_map
from lobbycard.scoring.decide import decide

LABELS = ["Action", "Drama", "Horror", "War"]


def simulated(rng, n_items, prevalence=(0.1, 0.45, 0.2, 0.03), strength=1.2):
    """Truth and probabilities of a model with some skill."""
    truth = rng.random((n_items, len(prevalence))) < prevalence
    noise = rng.normal(size=truth.shape)
    return truth, 1 / (1 + np.exp(-(strength * truth + noise - 1.5)))


def coarse_tables(seed, count):
    """Small random tables with many ties and now and then a label without positives, or an item without labels."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shape = rng.integers(2, 30), rng.integers(1, 6)
        truth = rng.random(shape) < rng.choice([0.05, 0.3, 0.7])
        truth[0, 0] = True
        yield truth, rng.integers(0, 5, shape) / 4, rng.random(shape) < 0.4


def test_average_precision_by_hand():
    # Ranked: right, wrong, right. Precision 1 at the first hit, 2/3 at the second.
    assert metrics.average_precision([[1], [0], [1]], [[0.9], [0.8], [0.1]])[0] == pytest.approx((1 + 2 / 3) / 2)
    # All tied: one step, at the prevalence.
    assert metrics.average_precision([[1], [0], [0], [0]], np.full((4, 1), 0.5))[0] == pytest.approx(0.25)


def test_average_precision_equals_sklearn_with_ties_and_empty_labels():
    for truth, scores, _ in coarse_tables(seed=0, count=300):
        found = metrics.average_precision(truth, scores)
        for label in range(truth.shape[1]):
            if truth[:, label].any():
                by_sklearn = reference.average_precision_score(truth[:, label], scores[:, label])
                assert found[label] == pytest.approx(by_sklearn, abs=1e-12)
            else:
                assert np.isnan(found[label])


def test_average_precision_takes_infinite_logits():
    assert metrics.average_precision([[1], [0], [1]], [[np.inf], [0.0], [-np.inf]])[0] == pytest.approx(5 / 6)


def test_f1s_equal_sklearn():
    for truth, _, decisions in coarse_tables(seed=1, count=300):
        with_positives = np.flatnonzero(truth.any(axis=0))
        macro = reference.f1_score(
            truth[:, with_positives], decisions[:, with_positives], average="macro", zero_division=0
        )
        if len(with_positives) == 1:  # scikit-learn reads a single column as binary and would average both classes
            macro = reference.f1_score(truth[:, with_positives[0]], decisions[:, with_positives[0]], zero_division=0)
        assert metrics.macro_f1(truth, decisions) == pytest.approx(macro, abs=1e-12)
        if truth.shape[1] > 1:
            micro = reference.f1_score(truth, decisions, average="micro", zero_division=0)
            samples = reference.f1_score(truth, decisions, average="samples", zero_division=0)
            assert metrics.micro_f1(truth, decisions) == pytest.approx(micro, abs=1e-12)
            assert metrics.samples_f1(truth, decisions) == pytest.approx(samples, abs=1e-12)


def test_f1s_by_hand():
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    given = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1]])
    assert metrics.macro_f1(truth, given) == pytest.approx((1 + 0) / 2)  # the third label has no positives
    assert metrics.micro_f1(truth, given) == pytest.approx(2 * 2 / (5 + 3))
    assert metrics.samples_f1(truth, given) == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_replicates_equal_metrics_of_the_items_really_drawn():
    rng = np.random.default_rng(3)
    truth, probabilities = simulated(rng, 40)
    probabilities = np.round(probabilities, 1)
    decisions = decide(probabilities, 0.4)
    weights = np.concatenate(list(bootstrap_weights(40, 25, seed=5)))
    replicates = WeightedScores(truth, probabilities, decisions).at(weights)
    assert (weights.sum(axis=1) == 40).all()
    for row, weight in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(40), weight)
        with_positives = truth[drawn].any(axis=0)
        ap = metrics.average_precision(truth[drawn], probabilities[drawn])
        np.testing.assert_allclose(replicates["ap"][row], ap, atol=1e-12)
        assert replicates["mAP"][row] == pytest.approx(ap[with_positives].mean())
        for name in ("macro_f1", "micro_f1", "samples_f1"):
            again = getattr(metrics, name)(truth[drawn], decisions[drawn])
            assert replicates[name][row] == pytest.approx(again)


def test_draws_do_not_depend_on_how_many_fit_into_memory(monkeypatch):
    whole = np.concatenate(list(bootstrap_weights(30, 20, seed=1)))
    monkeypatch.setattr("lobbycard.scoring.bootstrap.CELLS_AT_ONCE", 100)
    pieces = list(bootstrap_weights(30, 20, seed=1))
    assert len(pieces) == 7
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_summary_is_plain_json_and_repeats_with_its_seed():
    truth, probabilities = simulated(np.random.default_rng(4), 200)
    decisions = decide(probabilities, 0.4)
    summary = metrics.summarize(truth, probabilities, decisions, n_boot=100, seed=7)
    assert list(summary) == list(METRICS) == ["mAP", "macro_f1", "micro_f1", "samples_f1"]
    for row in summary.values():
        assert row["ci95"][0] < row["value"] < row["ci95"][1]
        assert type(row["value"]) is float and type(row["ci95"][0]) is float
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert metrics.summarize(truth, probabilities, decisions, n_boot=100, seed=7) == summary
    assert metrics.summarize(truth, probabilities, decisions, n_boot=100, seed=8) != summary


def test_a_perfect_model_scores_one_with_no_doubt():
    truth = np.random.default_rng(5).random((50, 4)) < 0.5
    truth[np.arange(50), np.arange(50) % 4] = True
    for row in metrics.summarize(truth, truth.astype(float), truth, n_boot=50).values():
        assert row == {"value": 1.0, "ci95": [1.0, 1.0]}


def test_intervals_hold_the_population_value_about_as_often_as_they_say():
    rng = np.random.default_rng(6)
    prevalence = np.geomspace(0.03, 0.45, 12)
    truth, probabilities = simulated(rng, 100_000, prevalence)
    population = WeightedScores(truth, probabilities, decide(probabilities, 0.35)).value()
    held = dict.fromkeys(METRICS, 0)
    for run in range(100):
        truth, probabilities = simulated(rng, 600, prevalence)
        found = metrics.summarize(truth, probabilities, decide(probabilities, 0.35), n_boot=200, seed=run)
        for name in METRICS:
            low, high = found[name]["ci95"]
            held[name] += low <= population[name][0] <= high
    # 95 expected; 86 is four standard deviations below. Plain percentiles of mAP hold it far less often than this.
    assert min(held.values()) >= 86, held


def test_interval_of_map_stays_in_range_and_around_the_value():
    assert interval_of_map(0.9, np.full(10, 0.5)) == [0.9, 1.0]
    assert interval_of_map(0.1, np.full(10, 0.9)) == [0.0, 0.1]


def test_per_label_known_answers_and_an_absent_label():
    truth = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]])
    probabilities = np.array([[0.9, 0.2, 0.7, 0.6], [0.8, 0.9, 0.1, 0.1], [0.3, 0.6, 0.2, 0.1], [0.1, 0.7, 0.1, 0.1]])
    rows = metrics.per_label(LABELS, truth, probabilities, probabilities >= 0.5, [0.5, 0.5, 0.5, 0.6], n_boot=50)
    action = rows["Action"]
    assert (action["precision"], action["recall"], action["f1"], action["support"]) == (0.5, 0.5, 0.5, 2)
    assert action["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert action["ap_ci95"][0] <= action["ap"] <= action["ap_ci95"][1]
    assert rows["Drama"]["f1"] == rows["Drama"]["ap"] == 1.0
    assert rows["War"] == {
        "ap": None,
        "f1": 0.0,
        "precision": 0.0,
        "recall": 0.0,
        "support": 0,
        "threshold": 0.6,
        "ap_ci95": None,
        "f1_ci95": None,
    }
    json.dumps(rows, allow_nan=False)


def test_per_label_means_are_the_summary():
    truth, probabilities = simulated(np.random.default_rng(8), 300)
    decisions = decide(probabilities, 0.4)
    rows = metrics.per_label(LABELS, truth, probabilities, decisions, 0.4, n_boot=10).values()
    summary = metrics.summarize(truth, probabilities, decisions, n_boot=10)
    assert np.mean([row["ap"] for row in rows]) == pytest.approx(summary["mAP"]["value"])
    assert np.mean([row["f1"] for row in rows]) == pytest.approx(summary["macro_f1"]["value"])


def test_sweep_scores_what_decide_returns():
    truth, probabilities = simulated(np.random.default_rng(9), 300)
    rows = metrics.sweep(truth, probabilities)
    assert [row["threshold"] for row in rows] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for row in rows:
        decisions = decide(probabilities, row["threshold"])
        assert row["precision"] == pytest.approx(reference.precision_score(truth, decisions, average="micro"))
        assert row["recall"] == pytest.approx(reference.recall_score(truth, decisions, average="micro"))
        assert row["macro_f1"] == pytest.approx(reference.f1_score(truth, decisions, average="macro"))
        assert row["accuracy"] == pytest.approx(1 - reference.hamming_loss(truth, decisions))
        assert row["best_guess"] == pytest.approx(np.mean(probabilities.max(axis=1) < row["threshold"]))
    assert rows[0]["best_guess"] < rows[-1]["best_guess"]
    assert rows[0]["recall"] > rows[-1]["recall"]


def test_pain_16_label_accuracy_never_comes_without_what_predicting_nothing_scores():
    truth = np.zeros((100, 20), dtype=bool)
    truth[np.arange(100), np.arange(100) % 20] = True
    useless = np.zeros_like(truth)
    useless[:, 0] = True
    accuracy = metrics.label_accuracy(truth, useless)
    assert accuracy.value > 0.9  # looks great ...
    assert accuracy.predict_nothing == 0.95 > accuracy.value  # ... and is worse than saying nothing
    for row in metrics.sweep(truth, np.full(truth.shape, 0.2)):
        assert row["accuracy_predict_nothing"] == 0.95
    assert not any("accuracy" in name for name in metrics.summarize(truth, useless, useless, n_boot=5))


def test_expected_calibration_error_by_hand():
    # Ten cells at 0.15, none true: off by 0.15. Ten at 0.85, eight true: off by 0.05.
    probabilities = np.array([[0.15] * 10, [0.85] * 10])
    truth = np.array([[0] * 10, [1] * 8 + [0] * 2])
    assert metrics.expected_calibration_error(probabilities, truth, bins=2) == pytest.approx(0.10)
    assert metrics.expected_calibration_error(truth.astype(float), truth) == 0
    assert metrics.expected_calibration_error(1.0 - truth, truth) == 1


def test_expected_calibration_error_is_small_where_probabilities_are_true():
    rng = np.random.default_rng(10)
    probabilities = rng.random((5000, 10))
    truth = rng.random(probabilities.shape) < probabilities
    assert metrics.expected_calibration_error(probabilities, truth) < 0.01
    assert metrics.expected_calibration_error(probabilities**2, truth) > 0.1


def test_reliability_curve_equals_sklearn_and_shows_empty_bins():
    rng = np.random.default_rng(11)
    probabilities = rng.uniform(0.0, 0.6, (400, 3))
    truth = rng.random(probabilities.shape) < probabilities
    curve = metrics.reliability_curve(probabilities, truth, bins=10)
    observed, predicted = reference_curve(truth.ravel(), probabilities.ravel())
    np.testing.assert_allclose(curve.observed[:6], observed)
    np.testing.assert_allclose(curve.predicted[:6], predicted)
    assert np.isnan(curve.observed[6:]).all() and curve.count[6:].sum() == 0
    assert curve.count.sum() == probabilities.size and len(curve.edges) == 11
    ends = metrics.reliability_curve([[0.0, 0.5, 1.0]], [[0, 1, 1]], bins=2)
    assert ends.count.tolist() == [2, 1]


def reference_curve(truth, probabilities):
    from sklearn.calibration import calibration_curve

    return calibration_curve(truth, probabilities, n_bins=10)


def test_confusion_of_misses_by_hand():
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    given = np.array([[0, 1, 0], [0, 1, 1], [0, 0, 1]])
    assert metrics.confusion_of_misses(truth, given).tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert metrics.confusion_of_misses(truth, truth).sum() == 0
    assert metrics.cooccurrence(truth).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.summarize(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))), "none in 3 items over 2"),
        (
            lambda: metrics.summarize(np.ones((3, 2)), np.zeros((4, 2)), np.zeros((4, 2))),
            "truth must have shape (4, 2), as the scores have, got (3, 2)",
        ),
        (lambda: metrics.summarize(np.ones((3, 2)), np.zeros((3, 2)), np.full((3, 2), 0.4)), "through decide() first"),
        (lambda: metrics.summarize(np.ones((3, 2)), np.zeros((3, 2)), np.ones((3, 2)), n_boot=0), "n_boot must be a"),
        (lambda: metrics.macro_f1(np.zeros((0, 2)), np.zeros((0, 2))), "got shape (0, 2); check that the table has"),
        (lambda: metrics.average_precision([[1, 0]], [[np.nan, 0.2]]), "hold NaN in 1 of 1 items"),
        (lambda: metrics.label_accuracy(np.empty((3, 0)), np.empty((3, 0))), "metrics need items and labels"),
        (lambda: metrics.reliability_curve([[0.5]], [[1]], bins=0), "bins must be a whole number of at least 1, got 0"),
        (
            lambda: metrics.per_label(["a"], np.ones((3, 2)), np.zeros((3, 2)), np.ones((3, 2)), 0.5),
            "labels must name the 2 columns of truth, got 1 names",
        ),
    ],
)
def test_errors_say_what_was_expected_and_what_came(call, words):
    with pytest.raises(InputError, match=re.escape(words)):
        call()
