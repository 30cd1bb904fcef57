"""Calibration and thresholds: recovered, robust on hopeless labels, and never fitted on the rows they score."""

import json
import re

import numpy as np
import pytest
from scipy.special import expit, logit

from lobbycard.errors import InputError
from lobbycard.scoring import metrics
from lobbycard.scoring.calibrate import Calibration, cross_fit, fit_calibration, fit_thresholds
from lobbycard.scoring.decide import decide

PREVALENCE = np.geomspace(0.03, 0.45, 8)


def honest(rng, n_items, strength=1.0):
    """True logits and the truth drawn from them."""
    logits = logit(PREVALENCE) + strength * rng.normal(size=(n_items, len(PREVALENCE)))
    return logits, rng.random(logits.shape) < expit(logits)


def own_best(probabilities, truth):
    """The thresholds with the highest F1 on these very items, tried one by one."""
    thresholds = []
    for scores, true in zip(probabilities.T, truth.T, strict=True):
        cuts = np.unique(scores)
        f1 = [2 * np.sum(true[scores >= cut]) / (np.sum(scores >= cut) + true.sum()) for cut in cuts]
        thresholds.append(cuts[np.argmax(f1)])
    return np.array(thresholds)


@pytest.mark.parametrize("scale", [0.01, 0.4, 1.0, 5.0, 300.0])
def test_recovers_scale_and_bias_of_distorted_logits(scale):
    logits, truth = honest(np.random.default_rng(0), 5000)
    bias = np.linspace(-1, 1, len(PREVALENCE))
    fitted = fit_calibration((logits - bias) * scale, truth)
    np.testing.assert_allclose(fitted.scale * scale, 1, atol=0.2)
    np.testing.assert_allclose(fitted.bias, bias, atol=0.35)
    assert np.mean(fitted.scale) * scale == pytest.approx(1, abs=0.05)


def test_fit_is_the_optimum_of_its_own_loss():
    """A second path to the same number: one label, fitted by logistic regression with next to no penalty."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 1)) * 3
    truth = rng.random(logits.shape) < expit(0.5 * logits - 1)
    model = LogisticRegression(C=1e9).fit(logits, truth[:, 0])
    fitted = fit_calibration(logits, truth)
    assert fitted.scale[0] == pytest.approx(model.coef_[0, 0], rel=0.01)
    assert fitted.bias[0] == pytest.approx(model.intercept_[0], abs=0.01)


def test_calibration_error_falls_on_items_not_seen():
    rng = np.random.default_rng(2)
    (logits, truth), (fresh, fresh_truth) = honest(rng, 1500), honest(rng, 5000)
    calibration = fit_calibration(3 * logits + 0.7, truth)
    before = metrics.expected_calibration_error(expit(3 * fresh + 0.7), fresh_truth)
    after = metrics.expected_calibration_error(expit(calibration.apply(3 * fresh + 0.7)), fresh_truth)
    assert before > 0.05
    assert after < 0.015


def test_ranking_and_average_precision_stay():
    logits, truth = honest(np.random.default_rng(3), 400)
    calibration = fit_calibration(-logits, truth)  # worse than chance: still never turned round
    assert (calibration.scale > 0).all()
    np.testing.assert_allclose(
        metrics.average_precision(truth, calibration.apply(-logits)), metrics.average_precision(truth, -logits)
    )


@pytest.mark.parametrize("n_items", [1, 2, 5, 300])
@pytest.mark.parametrize("scale", [1, 1e6])
def test_labels_without_positives_or_negatives_constants_and_infinities(n_items, scale):
    rng = np.random.default_rng(4)
    logits = scale * rng.normal(size=(n_items, 5))
    truth = rng.random((n_items, 5)) < 0.3
    truth[:, 0], truth[:, 1] = False, True
    logits[:, 2] = 0.7
    logits[0, 3], logits[-1, 4] = np.inf, -np.inf
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        calibration = fit_calibration(logits, truth)
        thresholds = fit_thresholds(expit(calibration.apply(logits)), truth)
    assert np.isfinite(calibration.scale).all() and np.isfinite(calibration.bias).all()
    assert (calibration.scale > 0).all()
    assert ((thresholds > 0) & (thresholds < 1)).all()
    given = expit(calibration.apply(logits)) >= thresholds
    assert not given[:, 0].any()  # no score was ever right for the first label
    assert given[:, 1].all()


def test_a_label_with_few_positives_borrows_the_scale_of_the_others():
    logits, truth = honest(np.random.default_rng(14), 2000)
    logits[:, 0] *= 0.01  # next to nothing tells what scale this label needs
    truth[:, 0] = False
    truth[:2, 0] = True
    scale = fit_calibration(4 * logits, truth).scale
    assert scale[0] == pytest.approx(scale[1:].mean(), rel=0.2)


def test_rounding_never_lifts_a_threshold_above_the_score_it_should_let_through():
    scores = np.random.default_rng(15).random((20, 200))
    truth = np.ones(scores.shape, dtype=bool)  # the best threshold lets every score through, the lowest included
    assert (scores >= fit_thresholds(scores, truth)).all()


def test_perfectly_separated_labels_stay_finite():
    truth = np.repeat([[True], [False]], 50, axis=0)
    calibration = fit_calibration(np.where(truth, 2.0, -2.0), truth)
    assert 1 < calibration.scale[0] < 50
    assert fit_thresholds(np.where(truth, 0.8, 0.4), truth)[0] == pytest.approx(0.6)


def test_calibration_of_nothing():
    assert len(fit_calibration(np.empty((5, 0)), np.empty((5, 0))).scale) == 0
    assert Calibration.identity(3).apply([[1.0, -np.inf, 2.0]]).tolist() == [[1.0, -np.inf, 2.0]]


def test_calibration_survives_json_in_any_order_of_labels():
    calibration = Calibration(np.array([0.5, 2.0]), np.array([-0.1, 0.3]))
    text = json.dumps(calibration.to_dict(["Drama", "Action"]))
    again = Calibration.from_dict(json.loads(text), ["Action", "Drama"])
    assert again.scale.tolist() == [2.0, 0.5] and again.bias.tolist() == [0.3, -0.1]


def test_thresholds_lie_in_the_middle_of_a_gap_between_scores():
    rng = np.random.default_rng(5)
    for _ in range(50):
        scores = np.round(rng.random((30, 3)), 1)
        truth = rng.random(scores.shape) < scores
        for threshold, column in zip(fit_thresholds(scores, truth), scores.T, strict=True):
            edges = np.unique(np.concatenate([[0, 1], column]))
            assert np.abs((edges[1:] + edges[:-1]) / 2 - threshold).min() < 1e-9
            assert np.abs(column - threshold).min() > 0.01


def test_with_many_positives_the_threshold_is_the_best_one():
    logits, truth = honest(np.random.default_rng(6), 40_000)
    probabilities = expit(logits)
    thresholds = fit_thresholds(probabilities, truth)
    fresh, fresh_truth = honest(np.random.default_rng(7), 40_000)
    tuned = metrics.macro_f1(fresh_truth, expit(fresh) >= thresholds)
    grid = np.linspace(0.02, 0.6, 59)
    f1 = np.array([[metrics.macro_f1(fresh_truth[:, [k]], expit(fresh)[:, [k]] >= t) for t in grid] for k in range(8)])
    assert tuned > f1.max(axis=1).mean() - 0.005
    # Lipton, Elkan, Narayanaswamy 2014: with true probabilities the best threshold is half the best F1.
    np.testing.assert_allclose(thresholds, f1.max(axis=1) / 2, atol=0.04)


def test_with_few_positives_shrinking_beats_each_labels_own_best():
    rng = np.random.default_rng(8)
    fresh, fresh_truth = honest(rng, 20_000)
    gains = []
    for _ in range(8):
        logits, truth = honest(rng, 250)
        truth[0] = True
        probabilities = expit(logits)
        own = own_best(probabilities, truth)
        shrunk = fit_thresholds(probabilities, truth)
        gains.append(
            metrics.macro_f1(fresh_truth, expit(fresh) >= shrunk) - metrics.macro_f1(fresh_truth, expit(fresh) >= own)
        )
    assert np.mean(gains) > 0.005


def test_pain_17_fitted_thresholds_rescue_labels_that_one_half_never_gives():
    rng = np.random.default_rng(9)
    logits, truth = honest(rng, 1500)
    cross_fitted = cross_fit(logits, truth)
    at_half = metrics.macro_f1(truth, expit(logits) >= 0.5)
    assert metrics.macro_f1(truth, decide(*cross_fitted)) > at_half + 0.1
    assert decide(*cross_fitted).any(axis=1).all()


def test_cross_fitting_never_sees_the_rows_it_scores():
    """Turning the truth of one fold upside down changes nothing of what that fold is given."""
    rng = np.random.default_rng(10)
    logits, truth = honest(rng, 200)
    groups = np.repeat(np.arange(4), 50)  # four folds, each one group, so that the test knows the folds
    before = cross_fit(logits, truth, folds=4, seed=3, groups=groups)
    for group in range(4):
        rows = groups == group
        turned = truth.copy()
        turned[rows] = ~turned[rows]
        after = cross_fit(logits, turned, folds=4, seed=3, groups=groups)
        np.testing.assert_array_equal(after.probabilities[rows], before.probabilities[rows])
        np.testing.assert_array_equal(after.thresholds[rows], before.thresholds[rows])
        assert (after.thresholds[~rows] != before.thresholds[~rows]).any()


def test_cross_fitting_shows_no_skill_where_there_is_none():
    """Rare labels drawn by lot: the best thresholds for the rows they score look skilled, cross-fitted ones do not."""
    rng = np.random.default_rng(11)
    in_sample, crossed, no_skill = [], [], []
    for run in range(10):
        truth = rng.random((150, 10)) < 0.05
        truth[:5] = True  # every label can be measured
        logits = rng.normal(size=truth.shape)
        in_sample.append(metrics.macro_f1(truth, expit(logits) >= own_best(expit(logits), truth)))
        fitted = cross_fit(logits, truth, seed=run)
        crossed.append(metrics.macro_f1(truth, fitted.probabilities >= fitted.thresholds))
        prevalence = truth.mean(axis=0)
        no_skill.append(np.mean(2 * prevalence / (1 + prevalence)))
    assert np.mean(in_sample) > np.mean(no_skill) + 0.02
    assert np.mean(crossed) < np.mean(no_skill) + 0.01


def test_groups_stay_together_and_folds_are_even():
    """Items of one group get the same thresholds, since they are scored by the same fold."""
    rng = np.random.default_rng(12)
    logits, truth = honest(rng, 120)
    groups = np.array([f"tt{number:07d}" for number in rng.integers(0, 40, 120)])
    thresholds = cross_fit(logits, truth, folds=5, groups=groups).thresholds
    folds, fold_of, sizes = np.unique(thresholds, axis=0, return_inverse=True, return_counts=True)
    assert len(folds) == 5
    assert sizes.min() > 15
    for group in np.unique(groups):
        assert len(set(fold_of.ravel()[groups == group])) == 1


def test_same_seed_same_folds():
    logits, truth = honest(np.random.default_rng(13), 60)
    first, again, other = (cross_fit(logits, truth, seed=seed).thresholds for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_fewer_items_than_folds():
    fitted = cross_fit([[1.0, -1.0], [-1.0, 2.0], [0.5, 0.0]], [[1, 0], [0, 1], [1, 1]], folds=5)
    assert np.isfinite(fitted.probabilities).all() and fitted.thresholds.shape == (3, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_calibration([[np.nan, 1.0]], [[0, 1]]), "logits hold NaN in 1 of 1 items, the first at row 0"),
        (lambda: fit_calibration([[0.0, 1.0]], [[0, 1], [1, 0]]), "truth must have shape (1, 2), as the scores have"),
        (lambda: fit_calibration([[0.0, 1.0]], [[0, 2]]), "truth must hold booleans, or zeros and ones"),
        (lambda: fit_calibration(np.empty((0, 2)), np.empty((0, 2))), "calibration needs at least one item, got none"),
        (lambda: fit_thresholds([[3.0, 1.0]], [[0, 1]]), "probabilities must lie in [0, 1]"),
        (lambda: fit_thresholds(np.empty((0, 2)), np.empty((0, 2))), "calibration needs at least one item"),
        (lambda: cross_fit([[0.0, 1.0]], [[0, 1]]), "cross-fitting needs at least two groups of items, got 1"),
        (
            lambda: cross_fit([[0.0], [1.0]], [[0], [1]], groups=[1]),
            "one group for each of the 2 items, got shape (1,)",
        ),
        (lambda: cross_fit([[0.0], [1.0]], [[0], [1]], folds=1), "folds must be a whole number of at least 2, got 1"),
        (lambda: Calibration.identity(3).apply([[1.0, 2.0]]), "logits must have 3 labels"),
        (lambda: Calibration.from_dict({"Drama": {"scale": 1.0}}, ["Drama"]), "for each of the 1 labels"),
        (lambda: Calibration.from_dict({}, ["Drama"]), "not readable at 'Drama'"),
        (
            lambda: Calibration.from_dict({"a": {"scale": 0, "bias": 0}}, ["a"]),
            "scales above 0; export the model again",
        ),
        (lambda: Calibration.from_dict({"a": {"scale": 1, "bias": "nan"}}, ["a"]), "finite numbers and scales above 0"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(call, words):
    with pytest.raises(InputError, match=re.escape(words)):
        call()
