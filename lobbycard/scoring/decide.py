"""From probabilities to answers. The page, the REST API, the command line and every F1 use this one function."""

import math

import numpy as np
from numpy.typing import ArrayLike

from lobbycard.errors import InputError
from lobbycard.scoring.arrays import as_label_values, as_probabilities, check_count, check_unit_interval


def decide(
    probabilities: ArrayLike, thresholds: ArrayLike = 0.5, top_k: int | None = None, shift: float = 0.0
) -> np.ndarray:
    """Choose the labels of each item.

    A label is given where its probability reaches its threshold, and of those at most the `top_k` most probable
    ones. Where nothing passes, the most probable label is given, so no answer is empty. Between equal
    probabilities the label that stands first wins.

    Args:
        probabilities: (N, L) in [0, 1].
        thresholds: in [0, 1]: one number, (L,), or (N, L) where every item has its own (cross-fitting).
        top_k: most labels an item may get; None sets no limit.
        shift: moves every threshold by this much in log-odds: above 0 fewer labels are given, below 0 more, and
            +0.69 asks for twice the odds. Thresholds of exactly 0 and 1 stay what they are.

    Returns:
        (N, L) bool. With no labels to choose from (L = 0) the answers are empty.

    Raises:
        InputError: a shape, a value outside [0, 1], NaN, a `top_k` below 1 or an infinite `shift`.
    """
    probabilities = as_probabilities(probabilities)
    n_items, n_labels = probabilities.shape
    passes = probabilities >= shift_thresholds(_thresholds(thresholds, probabilities.shape), shift)
    if top_k is not None:
        check_count(top_k, "top_k")
        if top_k < n_labels:
            ranked = np.argsort(np.where(passes, -probabilities, np.inf), axis=1, kind="stable")
            np.put_along_axis(passes, ranked[:, top_k:], False, axis=1)
    if n_items and n_labels:
        empty = np.flatnonzero(~passes.any(axis=1))
        passes[empty, probabilities[empty].argmax(axis=1)] = True
    return passes


def shift_thresholds(thresholds: np.ndarray, shift: float) -> np.ndarray:
    """Move thresholds in [0, 1] by `shift` in log-odds.

    Raises:
        InputError: `shift` is not a finite number.
    """
    if not isinstance(shift, (int, float, np.number)) or not math.isfinite(shift):
        raise InputError(f"shift must be a finite number, got {shift!r}; 0 keeps the thresholds as they are")
    if shift == 0:
        return thresholds
    # Algebra of sigmoid(logit(t) + shift) that never takes log(0). Always the small factor exp(-|shift|), so nothing
    # overflows; 700 is where it would become 0 and 0 / 0 appear.
    factor = math.exp(-min(abs(float(shift)), 700.0))
    if shift > 0:
        return thresholds / (thresholds + (1 - thresholds) * factor)
    return thresholds * factor / (thresholds * factor + (1 - thresholds))


def _thresholds(thresholds: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    if np.ndim(thresholds) < 2:
        return as_label_values(thresholds, shape[1], "thresholds")
    values = np.asarray(thresholds, dtype=float)
    if values.shape != shape:
        raise InputError(
            f"thresholds must be one number, one for each of the {shape[1]} labels, or of shape {shape}; "
            f"got shape {values.shape}"
        )
    check_unit_interval(values, "thresholds")
    return values
