"""`python -m lobbycard evaluate`: a model folder measured on any movie table whose posters are on disk."""

import json
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lobbycard.errors import InputError
from lobbycard.files import write_text
from lobbycard.poster.answers import Choice
from lobbycard.poster.artifact import ModelFolder
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.progress import tracked

OWN_THRESHOLDS = Choice()
SIDES = {"train": False, "valid": True}  # side of a split -> its `is_valid`


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
    from lobbycard.scoring import baselines, metrics

    labels = predictor.labels
    asked = ask([predictor], csv, images, labels, tta=tta, say=say)
    truth, (probabilities,) = asked.truth, asked.probabilities
    decisions = choice(probabilities, predictor.thresholds)
    split = sides(predictor.folder)
    trained_on = len(split["train"].intersection(asked.item_ids)) if split else 0
    if trained_on:
        say(
            f"  {trained_on} of these {len(truth)} movies were trained on: this is no measure of how the model does on others"
        )
    prior = predictor.folder.prior
    if prior is None:
        prior = truth.mean(axis=0)
        say("  this learner does not say how common each genre was in training: the prior is taken from this table")
    if any(asked.left_out.values()):
        say(f"  left out: {told(asked.left_out)}")
    if asked.unknown_labels:
        say(f"  genres the model does not know, not measured: {', '.join(asked.unknown_labels)}")
    return {
        "n": len(truth),
        "labels": labels,
        "metrics": metrics.summarize(truth, probabilities, decisions),
        "baselines": baselines.baselines(truth, prior),
        "per_label": metrics.per_label(labels, truth, probabilities, decisions, predictor.thresholds),
        "ece": metrics.expected_calibration_error(probabilities, truth),
        "trained_on": trained_on,
        "left_out": asked.left_out,
        "unknown_labels": asked.unknown_labels,
    }


def write_evaluation(found: dict[str, Any], path: Path) -> None:
    """A result such as that of `evaluate_model` as JSON, whole or not at all."""
    write_text(path, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@dataclass(frozen=True)
class Asked:
    """What models answer to the N movies of a table that can be measured on.

    `truth` is (N, L) bool over the labels asked about, `probabilities` one (N, all of its labels) float32 array a model;
    `left_out` counts the other movies by reason, `unknown_labels` are the table's genres that were not asked about.
    """

    item_ids: list[str]
    truth: np.ndarray
    probabilities: list[np.ndarray]
    left_out: dict[str, int]
    unknown_labels: list[str]


def ask(
    predictors: Sequence[PosterPredictor],
    csv: Path,
    images: Path,
    labels: Sequence[str],
    trained_on: AbstractSet[str] = frozenset(),
    tta: bool = False,
    say: Callable[[str], None] = print,
) -> Asked:
    """Read a movie table, and have every model answer the same posters.

    Args:
        labels: the L genres to ask about; movies with none of them are left out.
        trained_on: ids of movies to leave out because a model has learnt from them.

    Raises:
        InputError: the table cannot be read, or nothing in it can be measured.
    """
    from lobbycard.catalog.select import label_matrix
    from lobbycard.catalog.table import read_table

    table = read_table(csv, need_url=False)
    say(table.summary())
    frame = table.frame
    unknown = sorted({label for row in frame["labels"] for label in row} - set(labels))
    known = label_matrix(frame, labels).any(axis=1)
    there = frame["file"].map(lambda name: (images / name).is_file()).to_numpy(bool)
    new = ~frame["item_id"].isin(trained_on).to_numpy(bool)
    whom = "the model knows" if len(predictors) == 1 else "all models know"
    left_out = {f"no genre that {whom}": int((~known).sum()), "no poster on disk": int((known & ~there).sum())}
    if len(predictors) > 1:
        left_out["trained on by one of the models"] = int((known & there & ~new).sum())
    if (known & there).any() and not (known & there & new).any():
        raise InputError(
            f"{csv}: a model was trained on each of the {(known & there).sum():,} movies with a poster; "
            "give a table with movies that none has seen, such as those on the validation side of every split.csv"
        )
    frame = frame[known & there & new]
    paths = [images / name for name in frame["file"]]
    answers = [_answers(predictor, paths, tta) for predictor in predictors]
    readable = ~np.any([np.isnan(rows[:, 0]) for rows in answers], axis=0)
    left_out["poster cannot be read"] = int((~readable).sum())
    if not readable.any():
        raise InputError(f"{csv}: nothing to measure ({told(left_out)}); is --images {images} the right folder?")
    frame = frame[readable]
    return Asked(
        item_ids=list(frame["item_id"]),
        truth=label_matrix(frame, labels),
        probabilities=[rows[readable] for rows in answers],
        left_out=left_out,
        unknown_labels=unknown,
    )


def sides(folder: ModelFolder) -> dict[str, set[str]] | None:
    """Ids of the movies that a model learnt from (`train`) and was tuned on (`valid`), or None if it has no split.csv.

    One that was trained anew once measured has learnt from all of them.

    Raises:
        InputError: its split.csv is gone, changed, or no split.
    """
    from lobbycard.catalog.split import read_split

    if "split.csv" not in folder.about.get("files", {}):
        return None
    split = read_split(folder.file("split.csv"))
    if folder.about["data"].get("refit"):
        return {"train": set(split["item_id"]), "valid": set()}
    return {side: set(split.loc[split["is_valid"] == valid, "item_id"]) for side, valid in SIDES.items()}


def told(counts: dict[str, int]) -> str:
    """`12 no poster on disk, 1 poster cannot be read`."""
    return ", ".join(f"{count:,} {why}" for why, count in counts.items() if count)


def _answers(predictor: PosterPredictor, paths: Sequence[Path], tta: bool) -> np.ndarray:
    """(N, L) float32 probabilities; a poster that cannot be read is a row of NaN."""
    rows = np.full((len(paths), len(predictor.labels)), np.nan, np.float32)
    for index, (_, row, error) in enumerate(tracked(predictor.stream(paths, tta), len(paths), "posters")):
        if not error:
            rows[index] = row
    return rows
