"""What a model.json may say: checked when it is opened, so that nothing stumbles over it later."""

from collections.abc import Iterator
from typing import Any

MAX_SIDE = 4096  # pixels; a larger input would be read from a damaged file, and ask for gigabytes
MODES = ("fp32", "torch fp32", "tta", "int8", "bf16")


def wrong(about: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What of `about`, a model.json with all its keys, cannot be worked with: the key, and what was expected there."""
    labels, thresholds, shape = about["labels"], about["thresholds"], about["input"]
    if not (isinstance(labels, list) and labels and all(isinstance(label, str) and label for label in labels)):
        yield "labels", "a list of names, at least one"
        return
    if len(set(labels)) < len(labels):
        yield "labels", "names that differ"
    prior = about["data"].get("prior") if isinstance(about["data"], dict) else None
    for name, table in (("thresholds", thresholds), ("data.prior", prior)):
        if not (isinstance(table, dict) and set(table) == set(labels) and all(map(_is_share, table.values()))):
            yield name, "a number from 0 to 1 for each of the labels"
    if not isinstance(shape, dict):
        yield "input", "an object with size, mean and std"
        return
    if not (_numbers(shape.get("size"), 2, 1, MAX_SIDE) and all(isinstance(side, int) for side in shape["size"])):
        yield "input.size", f"height and width, whole numbers from 1 to {MAX_SIDE}"
    if not _numbers(shape.get("mean"), 3, -1e3, 1e3) or not _numbers(shape.get("std"), 3, 1e-6, 1e3):
        yield "input.mean and input.std", "three numbers each, std above 0"
    files, network = about["files"], about.get("network")
    if not (isinstance(files, dict) and all(isinstance(digest, str) for digest in files.values())):
        yield "files", "a sha256 for each file name"
    kinds = {"library": str, "name": str, "args": dict}
    if not (isinstance(network, dict) and all(isinstance(network.get(key), kind) for key, kind in kinds.items())):
        yield "network", "an object with library, name and args"
    elif not (isinstance(levels := network.get("levels", []), list) and all(isinstance(name, str) for name in levels)):
        yield "network.levels", "a list of layers' names"
    yield from _wrong_figures(about)


def _wrong_figures(about: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same of what is only shown to people; any of it may be missing, as in a model of an earlier version."""
    measured = {"metrics": about["metrics"], **{f"baselines.{k}": v for k, v in _items(about.get("baselines"))}}
    if not isinstance(about.get("baselines", {}), dict):
        yield "baselines", "an object"
    for name, metrics in measured.items():
        if not (isinstance(metrics, dict) and all(_is_metric(metric) for metric in metrics.values())):
            yield name, "for each metric an object with value (a number) and ci95 (two numbers)"
    per_label = about.get("per_label", {})
    if not (isinstance(per_label, dict) and all(map(_is_row, per_label.values()))):
        yield "per_label", "for each label an object of numbers"
    modes = about.get("modes", {})
    rows = [row for _, row in _items(modes) if isinstance(row, dict)]
    plain = [value for _, value in _items(modes) if not isinstance(value, dict)]
    if not (isinstance(modes, dict) and all(map(_is_row, rows)) and all(isinstance(v, (str, int)) for v in plain)):
        yield "modes", "numbers and names, and for each way to answer an object of numbers"
    elif not isinstance(modes.get("posters", 0), int) or not all(isinstance(modes.get(k, {}), dict) for k in MODES):
        yield "modes", f"posters a whole number, and objects for {', '.join(MODES)}"
    if not (about.get("learning_curve") is None or _is_curve(about["learning_curve"])):
        yield "learning_curve", "points (movies, metrics, per_label) and last_doubling (metrics, per_label)"
    data = about["data"]
    counts = data.get("labels_after", {})
    if not (isinstance(counts, dict) and all(map(_is_number, counts.values()))):
        yield "data.labels_after", "a number for each label"
    for name in ("kept", "n_train", "n_valid"):
        if not (data.get(name) is None or _is_number(data[name])):
            yield f"data.{name}", "a number"
    if not isinstance(about["versions"], dict):
        yield "versions", "an object of names and versions"
    if not isinstance(about["arch"], str):
        yield "arch", "a name"


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    return iter(value.items() if isinstance(value, dict) else ())


def _is_metric(metric: Any) -> bool:
    if not isinstance(metric, dict) or not (metric.get("value") is None or _is_number(metric["value"])):
        return False
    return _is_pair(metric.get("ci95"))


def _is_row(row: Any) -> bool:
    """Numbers or nothing, pairs of them under names with `ci95`; `refused` is a sentence, `check` the predictor's own."""
    return isinstance(row, dict) and all(
        _is_pair(value)
        if "ci95" in key
        else value is None or (isinstance(value, str) == (key == "refused") and _plain(value))
        for key, value in row.items()
        if key != "check"
    )


def _is_curve(curve: Any) -> bool:
    if not (isinstance(curve, dict) and isinstance(curve.get("points"), list) and len(curve["points"]) > 1):
        return False
    last = curve.get("last_doubling")
    return all(map(_is_point, curve["points"])) and isinstance(last, dict) and _is_doubling(last)


def _is_point(point: Any) -> bool:
    tables = [point.get(key) for key in ("metrics", "per_label")] if isinstance(point, dict) else [None]
    if not all(isinstance(table, dict) for table in tables):
        return False
    metrics, rows = tables
    counted = _is_number(point.get("movies"))
    return counted and all(map(_is_metric, metrics.values())) and all(map(_is_row, rows.values()))


def _is_doubling(last: dict[str, Any]) -> bool:
    kinds = {"metrics": dict, "per_label": dict, "tested_labels": list}
    if not all(isinstance(last.get(key), kind) for key, kind in kinds.items()):
        return False
    tables = [last["metrics"], *last["per_label"].values()]
    if not all(isinstance(table, dict) for table in tables):
        return False
    changes = [change for table in tables for change in table.values()]
    return all(change is None or _is_metric(change) for change in changes)


def _plain(value: Any) -> bool:
    return _is_number(value) or isinstance(value, str)


def _is_pair(value: Any) -> bool:
    return value is None or _numbers(value, 2, -1e3, 1e3)


def _numbers(values: Any, count: int, low: float, high: float) -> bool:
    return isinstance(values, list) and len(values) == count and all(_is_number(v) and low <= v <= high for v in values)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1  # NaN is not


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
