"""What a set of logits is worth: calibration, thresholds, metrics with intervals, and no skill beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lobbycard.poster.predictor import sigmoid
from lobbycard.scoring import baselines, calibrate, metrics
from lobbycard.scoring.decide import decide


@dataclass(frozen=True)
class Measured:
    """On N validation items: `probabilities` and `decisions` (N, L) were made without having seen their own rows;
    `ranking` (N, L) are those of the model that goes out, from which average precision is taken;
    `calibration` and `thresholds` (L,) are fitted on all of them, for the model that goes out."""

    calibration: calibrate.Calibration
    thresholds: np.ndarray
    ranking: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray
    metrics: dict[str, Any]
    baselines: dict[str, Any]
    per_label: dict[str, Any]
    sweep: list[dict[str, float]]
    ece: tuple[float, float]  # before calibration, after
    reliability: tuple[dict[str, Any], dict[str, Any]]
    misses: np.ndarray  # (L, L)


def measure(
    logits: np.ndarray, truth: np.ndarray, labels: Sequence[str], prior: np.ndarray, groups: np.ndarray, seed: int
) -> Measured:
    """Fit calibration and thresholds, and score them by cross-fitting.

    Args:
        logits: (N, L), of items the network was not trained on.
        truth: (N, L) bool.
        prior: (L,) share of each label on the training side, which is all that no skill knows.
        groups: (N,) items that must not stand on both sides of a fold.
    """
    raw = sigmoid(logits)
    probabilities, fold_thresholds = calibrate.cross_fit(logits, truth, seed=seed, groups=groups)
    decisions = decide(probabilities, fold_thresholds)
    calibration = calibrate.fit_calibration(logits, truth)
    # Average precision depends on the ranking alone, which a calibration keeps: it is taken from the one for all rows,
    # because pooling folds that were calibrated apart would blur it, and because raw logits may be so large that their
    # probabilities all round to 1.
    ranking = sigmoid(calibration.apply(logits))
    thresholds = calibrate.fit_thresholds(ranking, truth)
    return Measured(
        calibration=calibration,
        thresholds=thresholds,
        ranking=ranking,
        probabilities=probabilities,
        decisions=decisions,
        metrics=metrics.summarize(truth, ranking, decisions, seed=seed),
        baselines=baselines.baselines(truth, prior, seed=seed),
        per_label=metrics.per_label(labels, truth, ranking, decisions, thresholds),
        sweep=metrics.sweep(truth, probabilities),
        ece=(
            metrics.expected_calibration_error(raw, truth),
            metrics.expected_calibration_error(probabilities, truth),
        ),
        reliability=(_curve(raw, truth), _curve(probabilities, truth)),
        misses=metrics.confusion_of_misses(truth, decisions),
    )


def _curve(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    curve = metrics.reliability_curve(probabilities, truth)
    return {"confidence": curve.predicted, "frequency": curve.observed, "count": curve.count}
