"""What is fitted on validation data: calibration, one threshold a label, and both without seeing the row they score.

The fitted numbers are plain arrays; SciPy is needed to fit them, never to use them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lobbycard.errors import InputError
from lobbycard.scoring.arrays import as_logits, as_probabilities, as_truth, check_count

# Widths (standard deviations) of the normal priors of `fit_calibration`. The shared scale and bias are all but
# free; a label's own bias may leave them by about 1 and its own log scale by about 0.2. On simulated scores of
# 300 and 1,500 items this predicted fresh items at least as well as a shared temperature with free biases.
SHARED_WIDTH = 3.0
BIAS_WIDTH = 1.0
LOG_SCALE_WIDTH = 0.2

# Positives at which a label's own best threshold and the one its calibrated probabilities expect weigh the same.
# Of 30, 100 and 300 the best on simulated scores; own-best, shared, and own-with-shared thresholds all did worse.
HALF_TRUST = 100

EPSILON = 1e-12  # keeps the log-odds of saturated probabilities finite


@dataclass(frozen=True)
class Calibration:
    """A scale above 0 and a bias for each label, both (L,), applied to logits.

    A positive scale keeps every label's ranking, so average precision does not change, and the two fold into the
    last layer of a network.
    """

    scale: np.ndarray
    bias: np.ndarray

    @classmethod
    def identity(cls, n_labels: int) -> "Calibration":
        """The calibration that changes nothing."""
        return cls(np.ones(n_labels), np.zeros(n_labels))

    def apply(self, logits: ArrayLike) -> np.ndarray:
        """Return calibrated logits, (N, L).

        Raises:
            InputError: NaN, or another number of labels than this calibration has.
        """
        values = as_logits(logits)
        if values.shape[1] != len(self.scale):
            raise InputError(
                f"logits must have {len(self.scale)} labels, as the calibration has, got shape {values.shape}; "
                "use the calibration of this model"
            )
        return self.scale * values + self.bias

    def to_dict(self, labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return {label: {"scale", "bias"}} as plain floats, for JSON."""
        return {
            label: {"scale": float(scale), "bias": float(bias)}
            for label, scale, bias in zip(labels, self.scale, self.bias, strict=True)
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> "Calibration":
        """Read what `to_dict` wrote, in the order of `labels`.

        Raises:
            InputError: a label is missing, or its numbers are not a finite bias and a finite scale above 0.
        """
        try:
            scale = np.array([data[label]["scale"] for label in labels], dtype=float)
            bias = np.array([data[label]["bias"] for label in labels], dtype=float)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f'calibration must hold {{"scale": number, "bias": number}} for each of the {len(labels)} labels; '
                f"not readable at {error}; export the model again"
            ) from error
        if not (np.isfinite(scale).all() and np.isfinite(bias).all() and (scale > 0).all()):
            raise InputError("calibration must hold finite numbers and scales above 0; export the model again")
        return cls(scale, bias)


def fit_calibration(logits: ArrayLike, truth: ArrayLike) -> Calibration:
    """Fit a scale and a bias for each label by penalised maximum likelihood.

    Every label has the shared temperature and bias, plus deviations of its own that are drawn to 0 by normal priors,
    so a label with few positives, or none, borrows from the others.

    Args:
        logits: (N, L); infinite ones count as the largest finite ones.
        truth: (N, L), booleans or zeros and ones.

    Raises:
        InputError: NaN, shapes that differ, or no items.

    Source:
        Platt, "Probabilistic outputs for support vector machines", 1999 (a slope and an intercept a class);
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (one shared temperature).
    """
    from scipy.optimize import minimize  # here: a served model has no use for SciPy
    from scipy.special import expit

    logits = _finite(as_logits(logits))
    truth = as_truth(truth, logits.shape).astype(float)
    n_items, n_labels = logits.shape
    if n_labels == 0:
        return Calibration.identity(0)
    if n_items == 0:
        raise InputError("calibration needs at least one item, got none; give more validation items")

    # Fitted on logits of ordinary size, whatever the network's units, so that one step length suits them all.
    sizes = np.abs(logits[logits != 0])
    unit = float(np.median(sizes)) if sizes.size else 1.0
    scaled = logits / unit

    def unpack(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shared, own = parameters[:2], parameters[2:].reshape(2, n_labels)
        return np.exp(shared[0] + own[0]), shared[1] + own[1]

    widths = np.repeat([SHARED_WIDTH, LOG_SCALE_WIDTH, BIAS_WIDTH], [2, n_labels, n_labels])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = unpack(parameters)
        calibrated = scale * scaled + bias
        residual = expit(calibrated) - truth
        by_log_scale = scale * (residual * scaled).sum(axis=0)
        by_bias = residual.sum(axis=0)
        gradient = np.concatenate([[by_log_scale.sum(), by_bias.sum()], by_log_scale, by_bias])
        value = (np.logaddexp(0, calibrated) - truth * calibrated).sum() + 0.5 * np.sum((parameters / widths) ** 2)
        return value / n_items, (gradient + parameters / widths**2) / n_items

    # exp(+-20) either way of the unit: far beyond any real temperature, and out of reach of overflow.
    bounds = [(-10, 10), (-50, 50)] + [(-10, 10)] * n_labels + [(-50, 50)] * n_labels
    fitted = minimize(loss, np.zeros(2 + 2 * n_labels), jac=True, method="L-BFGS-B", bounds=bounds)
    scale, bias = unpack(fitted.x)
    return Calibration(scale / unit, bias)


def fit_thresholds(probabilities: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Choose for each label the threshold with the best F1 to be expected on new items.

    The mean, in log-odds, of two answers: the threshold that was best on these items, and the one that would be best
    if the (re)calibrated probabilities were true. The first weighs n / (n + HALF_TRUST), n being the label's
    positives. The result is moved to the middle of the gap between observed scores that it falls into, so rounding
    cannot turn a decision. A label without positives gets a threshold above all its scores.

    Args:
        probabilities: (N, L) in [0, 1]; need not be calibrated.
        truth: (N, L), booleans or zeros and ones.

    Returns:
        (L,), all strictly between 0 and 1.

    Raises:
        InputError: NaN, values outside [0, 1], shapes that differ, or no items.

    Source:
        Lipton, Elkan, Narayanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML 2014.
    """
    from scipy.special import expit, logit

    probabilities = as_probabilities(probabilities)
    truth = as_truth(truth, probabilities.shape)
    probabilities = np.clip(probabilities, EPSILON, 1 - EPSILON)
    expected = expit(fit_calibration(logit(probabilities), truth).apply(logit(probabilities)))
    thresholds = np.empty(probabilities.shape[1])
    for label, scores in enumerate(probabilities.T):
        positives = truth[:, label].sum()
        if positives == 0:
            thresholds[label] = (scores.max() + 1) / 2
            continue
        trust = positives / (positives + HALF_TRUST)
        own = _lowest_given(scores, truth[:, label])
        calm = _lowest_given(scores, expected[:, label])
        thresholds[label] = _middle_of_gap(expit(trust * logit(own) + (1 - trust) * logit(calm)), scores)
    return thresholds


class CrossFitted(NamedTuple):
    """What `cross_fit` returns; row i of both was fitted without item i. Score `decide(*cross_fitted)`."""

    probabilities: np.ndarray  # (N, L), calibrated
    thresholds: np.ndarray  # (N, L)


def cross_fit(
    logits: ArrayLike, truth: ArrayLike, folds: int = 5, seed: int = 0, groups: ArrayLike | None = None
) -> CrossFitted:
    """Calibrate and choose thresholds for each item from the other folds only.

    For F1s and the calibration error. Average precision needs no cross-fitting, since calibration keeps the ranking;
    pooling folds that were calibrated apart would only blur it.

    Args:
        logits: (N, L).
        truth: (N, L), booleans or zeros and ones.
        folds: at least 2; fewer are made when there are fewer groups.
        groups: (N,), numbers or strings; items of one group share a fold. None: every item is its own group.

    Raises:
        InputError: NaN, shapes that differ, fewer than two items or groups, or `folds` below 2.
    """
    from scipy.special import expit

    logits = as_logits(logits)
    truth = as_truth(truth, logits.shape)
    fold_of = _folds(len(logits), folds, seed, groups)
    fitted = CrossFitted(np.empty(logits.shape), np.empty(logits.shape))
    for fold in range(fold_of.max() + 1):
        held_out = fold_of == fold
        calibration = fit_calibration(logits[~held_out], truth[~held_out])
        seen = expit(calibration.apply(logits[~held_out]))
        fitted.probabilities[held_out] = expit(calibration.apply(logits[held_out]))
        fitted.thresholds[held_out] = fit_thresholds(seen, truth[~held_out])
    return fitted


def _folds(n_items: int, folds: int, seed: int, groups: ArrayLike | None) -> np.ndarray:
    """The fold of each item, (N,): groups in random order, the next always into the smallest fold."""
    check_count(folds, "folds", least=2)
    groups = np.arange(n_items) if groups is None else np.asarray(groups)
    if groups.shape != (n_items,):
        raise InputError(f"groups must name one group for each of the {n_items} items, got shape {groups.shape}")
    names, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(
            f"cross-fitting needs at least two groups of items, got {len(names)}; give more validation items"
        )
    filled = np.zeros(min(folds, len(names)), dtype=int)
    fold_of_group = np.empty(len(names), dtype=int)
    for group in np.random.default_rng(seed).permutation(len(names)):
        fold_of_group[group] = filled.argmin()
        filled[fold_of_group[group]] += sizes[group]
    return fold_of_group[group_of]


def _finite(logits: np.ndarray) -> np.ndarray:
    finite = np.abs(logits[np.isfinite(logits)])
    limit = finite.max() if finite.size and finite.max() > 0 else 1.0
    return np.clip(logits, -limit, limit)


def _lowest_given(scores: np.ndarray, truth: np.ndarray) -> float:
    """The lowest score still given when F1 is best; `truth` may hold probabilities of being true (expected F1)."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_tie = np.append(ordered[:-1] > ordered[1:], True)
    given = np.flatnonzero(last_of_tie) + 1
    hits = np.cumsum(truth[order], dtype=float)[last_of_tie]
    return ordered[given[np.argmax(2 * hits / (given + truth.sum()))] - 1]


def _middle_of_gap(threshold: float, scores: np.ndarray) -> float:
    edges = np.concatenate([[0.0], np.unique(scores), [1.0]])
    # A threshold that came back from log-odds a rounding error above a score still means to give that score.
    upper = np.searchsorted(edges, threshold * (1 - 1e-9))
    return (edges[upper - 1] + edges[upper]) / 2
