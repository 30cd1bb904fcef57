"""`python -m lobbycard evaluate`: a model folder measured on any movie table whose posters are on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lobbycard.errors import InputError
from lobbycard.files import write_text
from lobbycard.poster.answers import Choice
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.progress import tracked

OWN_THRESHOLDS = Choice()


def evaluate_model(
    predictor: PosterPredictor,
    csv: Path,
    images: Path,
    choice: Choice = OWN_THRESHOLDS,
    tta: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Metrics of the model as it stands: its own calibration and thresholds, nothing fitted on this table.

    Movies without a readable poster or without any genre that the model knows are left out, and counted.

    Returns:
        `n`, `labels`, `metrics`, `baselines` (`none`, `top2`, `prior`: what is known without looking, from the training
        posters), `per_label`, and further `ece`, `trained_on` (how many of the N the model was trained
        on), `left_out`, `unknown_labels`.

    Raises:
        InputError: the table cannot be read, or nothing in it can be measured.
    """
    from lobbycard.catalog.select import label_matrix
    from lobbycard.catalog.table import read_table
    from lobbycard.scoring import baselines, metrics

    table = read_table(csv, need_url=False)
    say(table.summary())
    frame, labels = table.frame, predictor.labels
    unknown = sorted({label for row in frame["labels"] for label in row} - set(labels))
    known = frame["labels"].map(lambda row: any(label in labels for label in row)).to_numpy()
    there = frame["file"].map(lambda name: (images / name).is_file()).to_numpy()
    left_out = {"no genre that the model knows": int((~known).sum()), "no poster on disk": int((known & ~there).sum())}
    frame = frame[known & there]
    rows, errors = [], 0
    paths = [images / name for name in frame["file"]]
    for _, row, error in tracked(predictor.stream(paths, tta), len(paths), "posters"):
        rows.append(np.full(len(labels), np.nan, np.float32) if error else row)
        errors += bool(error)
    left_out["poster cannot be read"] = errors
    if len(rows) == errors:
        raise InputError(f"{csv}: nothing to measure ({_told(left_out)}); is --images {images} the right folder?")
    probabilities = np.stack(rows)
    readable = ~np.isnan(probabilities[:, 0])
    probabilities, truth = probabilities[readable], label_matrix(frame, labels)[readable]
    decisions = choice(probabilities, predictor.thresholds)
    trained_on = _trained_on(predictor, set(frame["item_id"][readable]))
    if trained_on:
        say(
            f"  {trained_on} of these {len(truth)} movies were trained on: this is no measure of how the model does on others"
        )
    prior = predictor.folder.prior
    if prior is None:
        prior = truth.mean(axis=0)
        say("  this learner does not say how common each genre was in training: the prior is taken from this table")
    if any(left_out.values()):
        say(f"  left out: {_told(left_out)}")
    if unknown:
        say(f"  genres the model does not know, not measured: {', '.join(unknown)}")
    return {
        "n": len(truth),
        "labels": labels,
        "metrics": metrics.summarize(truth, probabilities, decisions),
        "baselines": baselines.baselines(truth, prior),
        "per_label": metrics.per_label(labels, truth, probabilities, decisions, predictor.thresholds),
        "ece": metrics.expected_calibration_error(probabilities, truth),
        "trained_on": trained_on,
        "left_out": left_out,
        "unknown_labels": unknown,
    }


def write_evaluation(found: dict[str, Any], path: Path) -> None:
    """The result of `evaluate_model` as JSON, whole or not at all."""
    write_text(path, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _trained_on(predictor: PosterPredictor, item_ids: set[str]) -> int:
    from lobbycard.catalog.split import read_split

    if "split.csv" not in predictor.folder.about.get("files", {}):
        return 0
    sides = read_split(predictor.folder.file("split.csv"))
    return len(item_ids & set(sides.loc[~sides["is_valid"], "item_id"]))


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in counts.items() if count)
