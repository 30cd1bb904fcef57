"""Several models beside each other, for a terminal: what each scores, which is better, and at which labels."""

from collections.abc import Mapping
from typing import Any

from lobbycard.report.findings import METRIC_NAMES
from lobbycard.report.words import aligned, counted, listed, number, with_interval

SHOWN = ("mAP", "macro_f1", "micro_f1")


def comparison_text(found: Mapping[str, Any], item_noun: str = "item", label_noun: str = "label") -> str:
    """Tables and sentences of a comparison.

    Args:
        found: `n`, `first` (a model's name), `models` (name -> `metrics`, `ece`, `per_label`), `differences` (name of each
            model but the first -> `metrics`, `per_label`), `support` (label -> items), `tested_labels`,
            `untested_labels`; a difference is `value`, `ci95`, and for the `ap` of a label `beyond_chance`.
        item_noun, label_noun: singular, as in "poster" and "genre".
    """
    names = [METRIC_NAMES[metric] for metric in SHOWN]
    scores = [["", *names, "calibration error"]]
    for name, model in found["models"].items():
        metrics = (with_interval(**model["metrics"][metric]) for metric in SHOWN)
        scores.append([name, *metrics, number(model["ece"])])
    changes = [[f"against {found['first']}", *names]]
    for name, difference in found["differences"].items():
        rows = (difference["metrics"][metric] for metric in SHOWN)
        changes.append([name, *(with_interval(row["value"], row["ci95"], change=True) for row in rows)])
    blocks = [
        f"{counted(found['n'], item_noun)}, {counted(len(found['support']), label_noun)}; in brackets 95 % intervals",
        aligned(scores),
        aligned(changes),
        "\n".join(verdict(found, name, item_noun) for name in found["differences"]),
        *(_by_label(found, name, item_noun, label_noun) for name in found["differences"] if found["tested_labels"]),
        _looked_at(found, item_noun, label_noun),
    ]
    return "\n\n".join(blocks)


def verdict(found: Mapping[str, Any], name: str, item_noun: str = "item") -> str:
    """One sentence: whether the model is better than the first, worse, or not told apart, by its mAP."""
    row, first = found["differences"][name]["metrics"]["mAP"], found["first"]
    figures = f"mAP {with_interval(row['value'], row['ci95'], change=True)}"
    items = counted(found["n"], item_noun)
    if found["n"] < found["enough_positives"]:
        return f"{items} cannot tell {name} from {first}: give {found['enough_positives']} or more ({figures})."
    if row["ci95"][0] > 0:
        return f"{name} is better than {first}: {figures}, {items}."
    if row["ci95"][1] < 0:
        return f"{name} is worse than {first}: {figures}, {items}."
    return f"Between {name} and {first} there is no difference that {items} could show: {figures}."


def _by_label(found: Mapping[str, Any], name: str, item_noun: str, label_noun: str) -> str:
    """The labels whose average precision differs beyond chance, those where the model gains most first."""
    first, differences = found["first"], found["differences"][name]["per_label"]
    beyond = [label for label in found["tested_labels"] if differences[label]["ap"]["beyond_chance"]]
    if not beyond:
        return f"No {label_noun} in which {name} and {first} differ beyond chance."
    beyond.sort(key=lambda label: -differences[label]["ap"]["value"])
    better = [label for label in beyond if differences[label]["ap"]["value"] > 0]
    worse = beyond[len(better) :]
    better_at = f"better than {first} at {listed(better)}" if better else ""
    worse_at = f"worse {'' if better else f'than {first} '}at {listed(worse)}" if worse else ""
    rows = [["average precision", first, name, "difference", f"{item_noun}s"]]
    for label in beyond:
        ap = differences[label]["ap"]
        rows.append(
            [
                label,
                *(number(found["models"][model]["per_label"][label]["ap"]) for model in (first, name)),
                with_interval(ap["value"], ap["ci95"], change=True),
                number(found["support"][label]),
            ]
        )
    said = ", and ".join(filter(None, (better_at, worse_at)))
    return f"Beyond chance, {name} is {said}.\n\n{aligned(rows)}"


def _looked_at(found: Mapping[str, Any], item_noun: str, label_noun: str) -> str:
    """How many labels were looked at, so that what was found can be weighed, and which were not."""
    models, tested = len(found["differences"]), len(found["tested_labels"])
    times = f" for each of {models} models" if models > 1 else ""
    said = "" if not tested else " The chance that any is wrongly named above is at most 5 % (Holm's correction)."
    lines = [f"Looked at: {counted(tested, label_noun)}{times}.{said}"]
    if found["untested_labels"]:
        few = listed([f"{label} ({number(found['support'][label])})" for label in found["untested_labels"]])
        lines.append(f"Too few {item_noun}s (under {found['enough_positives']}) to look at: {few}.")
    if models > 1:
        lines.append(
            "Each difference in mAP has an interval of its own: of 20 models as good as the first, one would seem to differ."
        )
    return "\n".join(lines)
