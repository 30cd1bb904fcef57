"""What scoring accepts: arrays of scores and of truth, checked once and in the same words everywhere. NumPy only."""

from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from lobbycard.errors import InputError


def as_probabilities(probabilities: ArrayLike) -> np.ndarray:
    """Return (N, L) float64 probabilities.

    Raises:
        InputError: not two-dimensional, not numbers, NaN, or outside [0, 1].
    """
    values = _matrix(probabilities, "probabilities")
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise InputError(
            f"probabilities must lie in [0, 1], got {values.min():g} to {values.max():g}; "
            "if these are logits, take their sigmoid first"
        )
    return values


def as_logits(logits: ArrayLike) -> np.ndarray:
    """Return (N, L) float64 logits; infinite ones are allowed.

    Raises:
        InputError: not two-dimensional, not numbers, or NaN.
    """
    return _matrix(logits, "logits")


def as_truth(truth: ArrayLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Return (N, L) bool from booleans or from zeros and ones; `shape` is that of the scores it belongs to.

    Raises:
        InputError: not two-dimensional, values other than 0 and 1, or not of the shape asked for.
    """
    return _booleans(truth, "truth", shape)


def as_decisions(decisions: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """Return (N, L) bool decisions; see `as_truth`."""
    return _booleans(decisions, "decisions", shape)


def as_label_values(values: ArrayLike, n_labels: int, name: str) -> np.ndarray:
    """Return (L,) float64 numbers in [0, 1], one a label; a single number stands for every label.

    Raises:
        InputError: another number of values than labels, NaN, or outside [0, 1].
    """
    array = _numbers(values, name)
    if array.ndim == 0:
        array = np.full(n_labels, float(array))
    if array.shape != (n_labels,):
        raise InputError(
            f"{name} must be one number, or one for each of the {n_labels} labels; got shape {array.shape}"
        )
    check_unit_interval(array, name)
    return array


def check_unit_interval(values: np.ndarray, name: str) -> None:
    """Raises: InputError if any value is NaN or outside [0, 1]."""
    if not np.all((values >= 0) & (values <= 1)):  # written so that NaN fails it
        raise InputError(f"{name} must lie in [0, 1], got {values.min():g} to {values.max():g}; clip or correct them")


def check_count(value: int, name: str, least: int = 1) -> None:
    """Raises: InputError if `value` is not a whole number of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} must be an array of numbers: {error}; check for text or rows of unequal length"
        ) from error


def _matrix(values: ArrayLike, name: str) -> np.ndarray:
    array = _numbers(values, name)
    if array.ndim != 2:
        raise InputError(
            f"{name} must have shape (N items, L labels), got {array.shape}; "
            "put the labels of one item into a row of their own, as in [[0.2, 0.7]]"
        )
    if np.isnan(array).any():
        rows = np.flatnonzero(np.isnan(array).any(axis=1))
        raise InputError(
            f"{name} hold NaN in {len(rows)} of {len(array)} items, the first at row {rows[0]}; "
            "the model diverged or an input was broken: leave these items out or train again"
        )
    return array


def _booleans(values: ArrayLike, name: str, shape: tuple[int, int] | None) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype != bool:
        numbers = _numbers(values, name)
        if not np.all((numbers == 0) | (numbers == 1)):
            raise InputError(f"{name} must hold booleans, or zeros and ones; put probabilities through decide() first")
        array = numbers.astype(bool)
    if array.ndim != 2 or (shape is not None and array.shape != shape):
        expected = "(N items, L labels)" if shape is None else f"{shape}, as the scores have"
        raise InputError(f"{name} must have shape {expected}, got {array.shape}; check that both list the same items")
    return array
