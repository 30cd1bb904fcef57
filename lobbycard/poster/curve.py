"""A learning curve: the same training on an eighth, a quarter and a half of the movies, to see what more would bring."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lobbycard import __version__
from lobbycard.errors import InputError
from lobbycard.files import atomic_path, write_text
from lobbycard.poster.checkpoint import STATE
from lobbycard.poster.dataset import MIN_GROUPS, Dataset
from lobbycard.poster.measure import Measured, measure
from lobbycard.scoring.paired import Bootstrapped, correct, difference

if TYPE_CHECKING:
    from lobbycard.poster.trainer import MovieGenreTrainer

PARTS = {"an eighth": 8, "a quarter": 4, "a half": 2}  # of the training movies, smallest first; the last doubles to all
RUN = "run.json"  # what the finished parts belong to


def parts_folder(out: Path) -> Path:
    """Where a curve keeps its finished parts, and the one it is at, until it is whole."""
    return out / "checkpoints" / "curve"


def measure_curve(trainer: "MovieGenreTrainer") -> dict[str, Any] | None:
    """Train anew on each of `PARTS`, by the trainer's own settings, and measure beside the full run.

    A finished part is kept on disk until the curve is whole, and not trained again by a run of the same settings, movies
    and version; a part that was interrupted goes on from its last finished epoch.

    Returns:
        `points`: by movies trained on, the full run last, each with `movies`, `metrics`, and `per_label` (label -> `ap`,
        `count` of the training movies that have it); and `last_doubling`, see there. None where half of the movies are
        too few to train on.

    Raises:
        InputError: a part cannot be trained; the model that was exported stays as it is.
    """
    data, config = trainer.data, trainer.config
    training = ~data.frame["is_valid"].to_numpy()
    folder = parts_folder(config.out)
    _keep_only_parts_of(trainer.settings, folder)
    truth, points, measured = data.truth[~training], [], None
    for (name, divisor), chosen in zip(PARTS.items(), nested_parts(data, config.seed), strict=True):
        part = Dataset(data.frame[chosen | ~training].reset_index(drop=True), data.labels, data.about)
        n_movies, n_groups = int(chosen.sum()), part.side(False)["group"].nunique()
        if n_groups < MIN_GROUPS:
            trainer.say(f"  {name}: left out, {n_groups} unlike movies are too few to train on")
            continue
        trainer.say(f"  {name} of the movies: {n_movies:,}")
        logits = _logits(trainer, part, name, folder / f"part{divisor}")
        groups = data.side(True)["group"].to_numpy()
        measured = measure(logits, truth, data.labels, part.prior, groups, config.seed)
        points.append(_point(measured, data, chosen))
        trainer.say(f"    mAP {points[-1]['metrics']['mAP']['value']:.4f}")
    if measured is None:
        trainer.say("  no learning curve: half of the movies are too few to train on")
        return None
    points.append(_point(trainer.measured, data, training))
    last = last_doubling(truth, measured, trainer.measured, data.labels, config.seed)
    return {"points": points, "last_doubling": last}


def nested_parts(data: Dataset, seed: int) -> list[np.ndarray]:
    """For each of `PARTS`, (N,) bool: which movies of the training side are in it.

    Groups of near-identical art are drawn whole, in one random order that all parts share: so each part holds the
    smaller ones. A part's movies are as near to its share as whole groups allow.
    """
    training = ~data.frame["is_valid"].to_numpy()
    _, number, size = np.unique(data.frame["group"].to_numpy()[training], return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(size))
    place = np.empty(len(size), int)
    place[order] = np.arange(len(size))
    reached = size[order].cumsum()  # movies in the first groups
    parts = []
    for divisor in PARTS.values():
        chosen = np.zeros(len(training), bool)
        chosen[training] = place[number] <= np.abs(reached - training.sum() / divisor).argmin()
        parts.append(chosen)
    return parts


def last_doubling(
    truth: np.ndarray, half: Measured, whole: Measured, labels: Sequence[str], seed: int
) -> dict[str, Any]:
    """What the second half of the movies brought, on the same validation posters, by paired bootstrap.

    Returns:
        `metrics` (name -> `value`, `ci95`, `p`), `per_label` (label -> `ap` and `f1`, each such a difference or None; the
        `ap` of tested labels also `p_holm`, over all of them, and `beyond_chance`), `tested_labels`.
    """
    first, second = (Bootstrapped(truth, side.ranking, side.decisions, seed=seed) for side in (half, whole))
    found = difference(second, first, labels)
    tested = [label for label, enough in zip(labels, second.testable, strict=True) if enough]
    correct([found], tested)
    return found | {"tested_labels": tested}


def _point(measured: Measured, data: Dataset, chosen: np.ndarray) -> dict[str, Any]:
    counts = data.truth[chosen].sum(axis=0)
    return {
        "movies": int(chosen.sum()),
        "metrics": measured.metrics,
        "per_label": {
            label: {"ap": measured.per_label[label]["ap"], "count": int(count)}
            for label, count in zip(data.labels, counts, strict=True)
        },
    }


def _keep_only_parts_of(settings: dict[str, Any], folder: Path) -> None:
    """Clear the folder unless what is in it was made by this very run, or one that cannot be told from it."""
    run = json.dumps({"lobbycard": __version__, **settings}, sort_keys=True)
    known = folder / RUN
    if known.is_file() and known.read_text(encoding="utf-8") == run:
        return
    if folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:  # what is left would pass for parts of this run
            raise InputError(f"learning curve: {folder} cannot be cleared ({error}); remove it, then go on") from error
    write_text(known, run)


def _logits(trainer: "MovieGenreTrainer", part: Dataset, name: str, scratch: Path) -> np.ndarray:
    """What a network trained on `part` answers to the validation posters, (N, L); from the disk if it was trained before."""
    kept = scratch.with_suffix(".npy")
    if kept.is_file():
        trainer.say("    trained before")
        return np.load(kept, allow_pickle=False)
    begun = (scratch / "checkpoints" / STATE).is_file()
    config = replace(trainer.config, out=scratch, resume=begun, learning_curve=False, tracker="none")
    runner = type(trainer)(config, say=lambda text: trainer.say(f"    {text.strip()}"))
    runner.data = part
    try:
        runner.fit()
        logits = runner.validation_logits()
    except InputError as error:
        raise InputError(
            f"learning curve, {name} of the movies: {error} (the model in {trainer.config.out} is whole without it)"
        ) from error
    with atomic_path(kept) as file:
        np.save(file, logits)
    shutil.rmtree(scratch, ignore_errors=True)
    return logits
