"""Paired differences: the values of scikit-learn, intervals that hold what they claim, and no label named by chance."""

import itertools
import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from lobbycard.errors import InputError
from lobbycard.scoring.bootstrap import METRICS
from lobbycard.scoring.paired import ALPHA, ENOUGH_POSITIVES, Bootstrapped, Difference, holm

PREVALENCE = np.array([0.1, 0.45, 0.2, 0.12])


def two_models(rng, n_items, strengths=(1.2, 1.2), prevalence=PREVALENCE):
    """Truth (N, L), and the probabilities of two models whose mistakes are much alike, as those of real models are."""
    truth = rng.random((n_items, len(prevalence))) < prevalence
    hardness = rng.normal(size=truth.shape)
    scores = (s * truth + 0.8 * hardness + 0.6 * rng.normal(size=truth.shape) - 1 for s in strengths)
    return truth, *(1 / (1 + np.exp(-score)) for score in scores)


def scored(truth, probabilities, n_boot=200, seed=0):
    return Bootstrapped(truth, probabilities, probabilities > 0.5, n_boot, seed)


def test_the_differences_are_those_of_scikit_learns_metrics():
    truth, first, other = two_models(np.random.default_rng(0), 300, (1.0, 1.5))
    a, b = scored(truth, first), scored(truth, other)
    ap = [
        [average_precision_score(truth[:, j], model[:, j]) for j in range(truth.shape[1])] for model in (first, other)
    ]
    assert b.minus(a)["mAP"].value == pytest.approx(np.mean(ap[1]) - np.mean(ap[0]), abs=1e-12)
    assert [d.value for d in b.minus_by_label(a)] == pytest.approx(np.subtract(ap[1], ap[0]), abs=1e-12)
    for average in ("macro", "micro", "samples"):
        f1 = [f1_score(truth, model > 0.5, average=average, zero_division=0) for model in (first, other)]
        assert b.minus(a)[f"{average}_f1"].value == pytest.approx(f1[1] - f1[0], abs=1e-12)
    f1 = [f1_score(truth, model > 0.5, average=None, zero_division=0) for model in (first, other)]
    assert [d.value for d in b.minus_by_label(a, "f1")] == pytest.approx(f1[1] - f1[0], abs=1e-12)


def test_a_loop_of_explicit_resamples_gives_the_same_interval():
    """Items drawn and copied, each copy scored by scikit-learn: no weights, no ranking of ours."""
    truth, first, other = two_models(np.random.default_rng(1), 80, (0.8, 1.6))
    rng, changes = np.random.default_rng(5), []
    for _ in range(60):
        drawn = rng.integers(0, 80, size=80)
        ap = [
            np.mean([average_precision_score(truth[drawn, j], model[drawn, j]) for j in range(truth.shape[1])])
            for model in (first, other)
        ]
        changes.append(ap[1] - ap[0])
    found = scored(truth, other, 60, seed=5).minus(scored(truth, first, 60, seed=5))["mAP"]
    reach = 1.959964 * np.std(changes, ddof=1)
    assert found.ci95 == pytest.approx([found.value - reach, found.value + reach], abs=1e-6)


def test_a_model_against_itself_differs_by_nothing():
    truth, first, _ = two_models(np.random.default_rng(2), 100)
    a, b = scored(truth, first), scored(truth, first.copy())
    nothing = Difference(0.0, [0.0, 0.0], 1.0)
    assert b.minus(a) == dict.fromkeys(METRICS, nothing) and b.minus_by_label(a) == [nothing] * 4


def test_swapping_the_models_turns_the_sign_and_nothing_else():
    truth, first, other = two_models(np.random.default_rng(3), 100, (1.0, 1.6))
    a, b = scored(truth, first), scored(truth, other)
    there, back = b.minus(a)["mAP"], a.minus(b)["mAP"]
    assert there.value == -back.value and there.p == back.p and there.ci95 == [-back.ci95[1], -back.ci95[0]]


def test_the_paired_interval_is_much_narrower_than_that_of_separate_draws():
    truth, first, _ = two_models(np.random.default_rng(4), 400)
    other = np.clip(first + np.random.default_rng(5).normal(0, 0.05, first.shape), 0, 1)  # the same model, with noise
    a, b, apart = scored(truth, first), scored(truth, other), scored(truth, first, seed=99)
    low, high = b.minus(a)["mAP"].ci95
    unpaired = Difference.of(0.0, b.replicates["mAP"] - apart.replicates["mAP"]).ci95
    assert 0 < high - low < 0.5 * (unpaired[1] - unpaired[0])


def test_intervals_hold_the_truth_as_often_as_they_say_and_p_agrees_with_them():
    """Models of equal skill, so the population's difference is 0; 150 tables, so 95 % is 136 to 148 in most series."""
    rng, held = np.random.default_rng(6), []
    for seed in range(150):
        truth, first, other = two_models(rng, 300)
        changes = scored(truth, other, 120, seed).minus(scored(truth, first, 120, seed)).values()
        assert all((d.ci95[0] <= 0 <= d.ci95[1]) == (d.p >= ALPHA) for d in changes)
        held.append([d.p >= ALPHA for d in changes])
    shares = np.mean(held, axis=0)
    assert np.all((shares >= 0.89) & (shares <= 0.99)), shares


def test_a_better_model_is_found_and_so_are_the_labels_it_is_better_at():
    truth, first, other = two_models(np.random.default_rng(7), 1500)
    other[:, 1] = 0.9 * truth[:, 1] + 0.1 * other[:, 1]  # all but perfect at the second label, as good at the others
    a, b = scored(truth, first), scored(truth, other)
    assert b.minus(a)["mAP"].ci95[0] > 0
    assert (holm([d.p for d in b.minus_by_label(a)]) <= ALPHA).tolist() == [False, True, False, False]


def test_holm_is_the_closure_of_bonferroni_over_every_subset():
    """A second path: a test's adjusted p is the largest Bonferroni p of all sets of tests that it belongs to."""
    for seed in range(20):
        p = np.random.default_rng(seed).choice([0.001, 0.004, 0.012, 0.03, 0.2, 0.9], size=6)
        sets = [s for size in range(1, 7) for s in itertools.combinations(range(6), size)]
        expected = [max(min(1, len(s) * p[list(s)].min()) for s in sets if i in s) for i in range(6)]
        assert holm(p) == pytest.approx(expected)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,)


def test_among_twenty_labels_the_chance_of_naming_one_wrongly_is_at_most_5_percent():
    """Dependent tests, five of them real; without the correction most tables would name a label that is no better."""
    from scipy.stats import norm

    rng, tables = np.random.default_rng(8), 2000
    z = 0.6 * rng.normal(size=(tables, 1)) + 0.8 * rng.normal(size=(tables, 20)) + 3.5 * (np.arange(20) < 5)
    p = 2 * norm.sf(np.abs(z))
    named = np.array([holm(row) <= ALPHA for row in p])
    assert named[:, 5:].any(axis=1).mean() < ALPHA + 3 * np.sqrt(ALPHA / tables)
    assert (p[:, 5:] <= ALPHA).any(axis=1).mean() > 0.3
    assert named[:, :5].mean() > 0.5  # and what is real is found


def test_from_scores_to_named_labels_equal_models_are_seldom_told_apart():
    rng, wrongly = np.random.default_rng(9), 0
    for seed in range(100):
        truth, first, other = two_models(rng, 300, prevalence=np.full(10, 0.15))
        a, b = scored(truth, first, 100, seed), scored(truth, other, 100, seed)
        assert a.testable.all()
        wrongly += bool((holm([d.p for d in b.minus_by_label(a)]) <= ALPHA).any())
    assert wrongly <= 12  # 5 expected


def test_a_label_with_a_handful_of_positives_is_not_tested_because_its_interval_would_not_hold():
    strengths, coverage = (1.0, 1.6), []
    for positives in (3, ENOUGH_POSITIVES):
        rng, prevalence = np.random.default_rng(10), np.array([positives / 400])
        truth, *models = two_models(rng, 400_000, strengths, prevalence)
        ap = [average_precision_score(truth, model) for model in models]
        held = []
        for seed in range(200):
            truth, first, other = two_models(rng, 400, strengths, prevalence)
            truth[:1] |= not truth.any()
            low, high = scored(truth, other, 100, seed).minus(scored(truth, first, 100, seed))["mAP"].ci95
            held.append(low <= ap[1] - ap[0] <= high)
        coverage.append(np.mean(held))
    assert coverage[0] < 0.88 and coverage[1] > 0.91, coverage
    for positives in (ENOUGH_POSITIVES - 1, ENOUGH_POSITIVES):
        truth = np.arange(400)[:, None] < positives
        assert scored(truth, np.full((400, 1), 0.5)).testable.tolist() == [positives == ENOUGH_POSITIVES]


def test_a_label_without_positives_has_no_difference():
    truth, first, other = two_models(np.random.default_rng(10), 60)
    truth[:, 2] = False
    a, b = scored(truth, first), scored(truth, other)
    assert [d is None for d in b.minus_by_label(a)] == [False, False, True, False]
    assert not a.testable[2] and b.minus(a)["mAP"].value == pytest.approx(
        np.mean([d.value for d in b.minus_by_label(a) if d])
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a, t, p: a.minus(scored(t[:-1], p[:-1])), "needs the same items and labels for both models, got truth"),
        (lambda a, t, p: a.minus(scored(~t, p)), "score both on one table"),
        (lambda a, t, p: a.minus(scored(t, p, seed=1)), "same draws for both models, got (n_boot, seed) (200, 0) and (200, 1)"),
        (lambda a, t, p: scored(t & False, p), "a comparison needs at least one positive, got none in 50 items"),
        (lambda a, t, p: scored(t, p, n_boot=1), "n_boot must be a whole number of at least 2, got 1"),
        (lambda a, t, p: scored(t, p * 2), "probabilities must lie in [0, 1]"),
        (lambda a, t, p: holm([0.2, np.nan]), "p must be a list of numbers in [0, 1], got [0.2, nan]"),
    ],
)  # fmt: skip
def test_errors_say_what_was_expected_and_what_came(call, words):
    truth, first, _ = two_models(np.random.default_rng(11), 50)
    with pytest.raises(InputError, match=re.escape(words)):
        call(scored(truth, first), truth, first)
