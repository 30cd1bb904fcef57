"""How good the answers are: mAP and F1s with intervals, tables by label and by threshold, calibration, confusions.

Labels without positives are left out of every mean over labels. F1s score what `decide` returns. Equal to
scikit-learn (zero_division=0) wherever it has the metric.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lobbycard.errors import InputError
from lobbycard.scoring.arrays import as_decisions, as_label_values, as_logits, as_probabilities, as_truth, check_count
from lobbycard.scoring.bootstrap import METRICS, WeightedScores, interval, interval_of_map
from lobbycard.scoring.decide import decide

N_BOOT = 1000
SWEEP = tuple(round(0.1 * step, 1) for step in range(1, 10))


def average_precision(truth: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Return the average precision of each label, (L,), NaN for labels without positives.

    Args:
        truth: (N, L), booleans or zeros and ones.
        scores: (N, L), higher is likelier: logits or probabilities; ties count as one step.

    Raises:
        InputError: shapes that differ, NaN, or no positive in all of truth.
    """
    scores = as_logits(scores)  # probabilities are ranked just as well
    truth = as_truth(truth, scores.shape)
    return _scores(truth, scores, np.zeros_like(truth)).value()["ap"][0]


def macro_f1(truth: ArrayLike, decisions: ArrayLike) -> float:
    """Return the mean F1 over the labels that have positives."""
    return _f1s(truth, decisions)["macro_f1"]


def micro_f1(truth: ArrayLike, decisions: ArrayLike) -> float:
    """Return the F1 over all N x L cells."""
    return _f1s(truth, decisions)["micro_f1"]


def samples_f1(truth: ArrayLike, decisions: ArrayLike) -> float:
    """Return the mean F1 over items; an item without labels scores 0 whatever was given."""
    return _f1s(truth, decisions)["samples_f1"]


class LabelAccuracy(NamedTuple):
    """Share of right cells, and what giving no label to anything scores: never the first without the second."""

    value: float
    predict_nothing: float


def label_accuracy(truth: ArrayLike, decisions: ArrayLike) -> LabelAccuracy:
    """Return the share of the N x L cells that are right. With rare labels it is high whatever the model does.

    Raises:
        InputError: shapes that differ, or nothing to measure.
    """
    truth = as_truth(truth)
    decisions = as_decisions(decisions, truth.shape)
    _check_measurable(truth)
    return LabelAccuracy(float(np.mean(truth == decisions)), float(np.mean(~truth)))


def summarize(
    truth: ArrayLike, probabilities: ArrayLike, decisions: ArrayLike, n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, dict]:
    """Return {"mAP", "macro_f1", "micro_f1", "samples_f1"}, each {"value", "ci95": [low, high]}.

    The 95 % intervals are from a bootstrap over items: percentile for the F1s, reversed for mAP, which needs it (see
    `bootstrap.interval_of_map`).

    Args:
        truth: (N, L), booleans or zeros and ones.
        probabilities: (N, L) in [0, 1]; mAP is taken from these.
        decisions: (N, L); the F1s are taken from these.
        n_boot: bootstrap replicates over items.

    Raises:
        InputError: shapes that differ, values out of range, or no positive in all of truth.
    """
    scores = _checked(truth, probabilities, decisions)
    value, replicates = scores.value(), scores.replicates(n_boot, seed)
    rows = {name: {"value": float(value[name][0]), "ci95": interval(replicates[name])} for name in METRICS}
    rows["mAP"]["ci95"] = interval_of_map(rows["mAP"]["value"], replicates["mAP"])
    return rows


def per_label(
    labels: Sequence[str],
    truth: ArrayLike,
    probabilities: ArrayLike,
    decisions: ArrayLike,
    thresholds: ArrayLike,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> dict[str, dict]:
    """Return, for each label, `ap`, `f1`, `precision`, `recall`, `support`, `threshold`, `ap_ci95`, `f1_ci95`.

    For a label without positives `ap` and the intervals are None, and `f1` and `recall` are 0.

    Args:
        labels: L names.
        thresholds: one number or (L,): those of the model, for display.

    Raises:
        InputError: shapes that differ, values out of range, or no positive in all of truth.
    """
    scores = _checked(truth, probabilities, decisions)
    truth = as_truth(truth)
    decisions = as_decisions(decisions, truth.shape)
    if len(labels) != scores.n_labels:
        raise InputError(f"labels must name the {scores.n_labels} columns of truth, got {len(labels)} names")
    thresholds = as_label_values(thresholds, scores.n_labels, "thresholds")
    value, replicates = scores.value(), scores.replicates(n_boot, seed)
    rows = {}
    for index, label in enumerate(labels):
        hits = int(np.sum(truth[:, index] & decisions[:, index]))
        given, support = int(decisions[:, index].sum()), int(truth[:, index].sum())
        rows[label] = {
            "ap": float(value["ap"][0, index]) if support else None,
            "f1": float(value["f1"][0, index]) if support else 0.0,
            "precision": hits / given if given else 0.0,
            "recall": hits / support if support else 0.0,
            "support": support,
            "threshold": float(thresholds[index]),
            "ap_ci95": interval(replicates["ap"][:, index]),
            "f1_ci95": interval(replicates["f1"][:, index]),
        }
    return rows


def sweep(truth: ArrayLike, probabilities: ArrayLike, thresholds: Sequence[float] = SWEEP) -> list[dict[str, float]]:
    """Score one shared threshold after the other, as `decide` applies it.

    Returns:
        A row a threshold: `threshold`; `accuracy` of cells beside `accuracy_predict_nothing`; `macro_f1`;
        `micro_f1`; `precision` and `recall` over all cells; `best_guess`, the share of items in which nothing reached
        the threshold, so that the most probable label was given instead.

    Raises:
        InputError: shapes that differ, values out of range, or no positive in all of truth.
    """
    probabilities = as_probabilities(probabilities)
    truth = as_truth(truth, probabilities.shape)
    rows = []
    for threshold in thresholds:
        decisions = decide(probabilities, threshold)
        accuracy = label_accuracy(truth, decisions)
        hits = float(np.sum(truth & decisions))
        rows.append(
            {
                "threshold": float(threshold),
                "accuracy": accuracy.value,
                "accuracy_predict_nothing": accuracy.predict_nothing,
                "macro_f1": macro_f1(truth, decisions),
                "micro_f1": micro_f1(truth, decisions),
                "precision": hits / float(decisions.sum()),  # never 0: decide() leaves no item empty
                "recall": hits / float(truth.sum()),
                "best_guess": float(np.mean((probabilities < threshold).all(axis=1))),
            }
        )
    return rows


class ReliabilityCurve(NamedTuple):
    """Equal-width bins of probability, each array (bins,): where predictions lay and how often they came true."""

    edges: np.ndarray  # (bins + 1,)
    predicted: np.ndarray  # mean probability in the bin, NaN where it is empty
    observed: np.ndarray  # share of positives in the bin, NaN where it is empty
    count: np.ndarray  # cells in the bin


def reliability_curve(probabilities: ArrayLike, truth: ArrayLike, bins: int = 15) -> ReliabilityCurve:
    """Bin all N x L cells by probability; a bin holds its upper edge, the first one also 0.

    Raises:
        InputError: shapes that differ, values out of range, no cells, or `bins` below 1.
    """
    probabilities = as_probabilities(probabilities)
    truth = as_truth(truth, probabilities.shape)
    check_count(bins, "bins")
    _check_measurable(truth)
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.searchsorted(edges[1:-1], probabilities.ravel(), side="left")
    count = np.bincount(bin_of, minlength=bins)
    sums = (np.bincount(bin_of, values.ravel(), minlength=bins) for values in (probabilities, truth))
    predicted, observed = (np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums)
    return ReliabilityCurve(edges, predicted, observed, count)


def expected_calibration_error(probabilities: ArrayLike, truth: ArrayLike, bins: int = 15) -> float:
    """Return the mean distance between predicted and observed over all cells: 0 is perfect, 1 the worst.

    Raises:
        InputError: as `reliability_curve`.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3, with 15 bins as there; here
        over the probability of each label instead of the confidence in the best class.
    """
    curve = reliability_curve(probabilities, truth, bins)
    return float(np.nansum(curve.count * np.abs(curve.predicted - curve.observed)) / curve.count.sum())


def confusion_of_misses(truth: ArrayLike, decisions: ArrayLike) -> np.ndarray:
    """Return (L, L) counts of items in which the row's label was missed while the column's was wrongly given.

    An item with two misses and three wrong labels counts in six cells. The diagonal is 0.
    """
    truth = as_truth(truth)
    decisions = as_decisions(decisions, truth.shape)
    return (truth & ~decisions).astype(int).T @ (decisions & ~truth).astype(int)


def cooccurrence(truth: ArrayLike) -> np.ndarray:
    """Return (L, L) counts of items that carry both labels; the diagonal counts the items of each label."""
    truth = as_truth(truth).astype(int)
    return truth.T @ truth


def _checked(truth: ArrayLike, probabilities: ArrayLike, decisions: ArrayLike) -> WeightedScores:
    probabilities = as_probabilities(probabilities)
    truth = as_truth(truth, probabilities.shape)
    return _scores(truth, probabilities, as_decisions(decisions, truth.shape))


def _scores(truth: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray) -> WeightedScores:
    _check_measurable(truth)
    if not truth.any():
        raise InputError(
            f"metrics need at least one positive, got none in {truth.shape[0]} items over {truth.shape[1]} labels; "
            "check that the table uses the labels of the model"
        )
    return WeightedScores(truth, probabilities, decisions)


def _f1s(truth: ArrayLike, decisions: ArrayLike) -> dict[str, float]:
    truth = as_truth(truth)
    decisions = as_decisions(decisions, truth.shape)
    value = _scores(truth, np.zeros(truth.shape), decisions).value()
    return {name: float(value[name][0]) for name in METRICS}


def _check_measurable(truth: np.ndarray) -> None:
    if not truth.size:
        raise InputError(f"metrics need items and labels, got shape {truth.shape}; check that the table has rows left")
