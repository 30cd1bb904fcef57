"""`python -m lobbycard compare`: several models on the same posters, none of which any of them was trained on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lobbycard.errors import InputError
from lobbycard.poster.evaluation import OWN_THRESHOLDS, ask, sides, told
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.poster.runtimes import Precision, Runtime
from lobbycard.scoring import metrics
from lobbycard.scoring.paired import ENOUGH_POSITIVES, Bootstrapped, correct, difference


def open_models(
    models: Sequence[Path], runtime: Runtime = "auto", trust: bool = False, precision: Precision = "fp32"
) -> dict[str, PosterPredictor]:
    """Name -> predictor, in the order given; see `PosterPredictor.load`. A name is as much of the path as tells it apart.

    Raises:
        InputError: fewer than two models, one of them twice, or one that cannot be loaded.
    """
    if len(models) < 2:
        raise InputError(f"compare needs two models or more, got {len(models)}: compare MODEL MODEL --csv TABLE ...")
    predictors = [PosterPredictor.load(model, runtime, trust, precision) for model in models]
    places = [predictor.folder.path.resolve() for predictor in predictors]
    for index, model in enumerate(models):
        if places[index] in places[:index]:
            raise InputError(f"{model}: the same model is named twice; compare it with another one")
    return dict(zip(short_names(places), predictors, strict=True))


def short_names(places: Sequence[Path]) -> list[str]:
    """The shortest end of each path that no other one has: `a/probe` and `b/probe`, but `tuned`. The paths differ."""

    def ends(place: Path) -> list[str]:
        parts = [part.strip("/\\") for part in place.parts]
        return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]

    others = [{end for other in places if other != place for end in ends(other)} for place in places]
    return [next(end for end in ends(place) if end not in taken) for place, taken in zip(places, others, strict=True)]


def compare_models(
    predictors: Mapping[str, PosterPredictor],
    csv: Path,
    images: Path,
    tta: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Every model against the first, on posters that none was trained on and genres that all know.

    Each decides by its own thresholds, over all of its genres, as it does when it is asked. The first is what the others
    are measured against, not the best: which is best would be chosen by the same posters, and flattered by them.

    Returns:
        `n`, `labels`, `support` (label -> posters), `first`, `models` (name -> `path`, `metrics`, `ece`, `per_label`,
        `tuned_on`: how many of the N set its thresholds, None if that cannot be known), `differences` (name of each model
        but the first -> `metrics`, and `per_label` with `ap` and `f1`: each `value`, `ci95`, `p`; the `ap` of tested
        labels also `p_holm`, over all labels and models, and `beyond_chance`), `tested_labels`, `untested_labels`,
        `enough_positives`, `left_out`, `labels_left_out` (name -> genres that not all know), `unknown_labels`.

    Raises:
        InputError: no genre in common, a table that cannot be read, or no movie in it that no model was trained on.
    """
    labels = _common_labels(predictors)
    splits = {name: sides(predictor.folder) for name, predictor in predictors.items()}
    trained_on = set().union(*(split["train"] for split in splits.values() if split))
    asked = ask(list(predictors.values()), csv, images, labels, trained_on, tta, say)
    models, scored = {}, {}
    for (name, predictor), rows in zip(predictors.items(), asked.probabilities, strict=True):
        columns = [predictor.labels.index(label) for label in labels]
        decisions = OWN_THRESHOLDS(rows, predictor.thresholds)[:, columns]
        answers = (asked.truth, rows[:, columns], decisions)
        scored[name] = Bootstrapped(*answers)
        models[name] = {
            "path": str(predictor.folder.path),
            "metrics": metrics.summarize(*answers),
            "ece": metrics.expected_calibration_error(rows[:, columns], asked.truth),
            "per_label": metrics.per_label(labels, *answers, predictor.thresholds[columns]),
            "tuned_on": len(splits[name]["valid"].intersection(asked.item_ids)) if splits[name] else None,
        }
    first = next(iter(scored))
    tested = [label for label, enough in zip(labels, scored[first].testable, strict=True) if enough]
    found = {
        "n": len(asked.truth),
        "labels": labels,
        "support": dict(zip(labels, asked.truth.sum(axis=0).tolist(), strict=True)),
        "first": first,
        "models": models,
        "differences": {
            name: difference(model, scored[first], labels) for name, model in scored.items() if name != first
        },
        "tested_labels": tested,
        "untested_labels": [label for label in labels if label not in tested],
        "enough_positives": ENOUGH_POSITIVES,
        "left_out": asked.left_out,
        "labels_left_out": {
            name: [label for label in predictor.labels if label not in labels] for name, predictor in predictors.items()
        },
        "unknown_labels": asked.unknown_labels,
    }
    correct(found["differences"].values(), tested)
    for caveat in _caveats(found):
        say(f"  {caveat}")
    return found


def _common_labels(predictors: Mapping[str, PosterPredictor]) -> list[str]:
    first, *others = (predictor.labels for predictor in predictors.values())
    common = [label for label in first if all(label in other for other in others)]
    if not common:
        known = "; ".join(f"{name} knows {', '.join(predictor.labels)}" for name, predictor in predictors.items())
        raise InputError(f"no genre that all of these models know: {known}; compare models of the same genres")
    return common


def _caveats(found: Mapping[str, Any]) -> list[str]:
    """What a reader has to know before believing the figures."""
    said = []
    if any(found["left_out"].values()):
        said.append(f"left out: {told(found['left_out'])}")
    said += [
        f"genres that not all models know, not compared: {', '.join(labels)} ({name})"
        for name, labels in found["labels_left_out"].items()
        if labels
    ]
    tuned = {name: model["tuned_on"] for name, model in found["models"].items()}
    said += [
        f"{name} has no split.csv: whether it was trained on these movies cannot be checked, and it may look too good"
        for name, count in tuned.items()
        if count is None
    ]
    if any(tuned.values()):
        each = ", ".join(f"{count:,} by {name}" for name, count in tuned.items() if count)
        said.append(
            f"of these {found['n']:,} movies some were used to set thresholds ({each}), which flatters a model's F1s a little"
        )
    return said
