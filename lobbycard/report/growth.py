"""Would more data help: what a learning curve says, in sentences and rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from lobbycard.report.findings import Findings
from lobbycard.report.words import counted, listed, number, signed, signed_interval, with_interval
from lobbycard.scoring.paired import ENOUGH_POSITIVES

CLEARLY, WORSE, NOT_SHOWN, TOO_FEW = "clearly", "got worse", "not shown", "too few"


def in_brief(curve: Mapping[str, Any], item_noun: str = "item") -> str:
    """One sentence: what the last doubling of the items brought the mAP, and what another may be expected to bring.

    Expected is as much or less: where data is what is lacking, each doubling takes about the same share off what is left
    to gain, so the steps shrink. Nothing further is read from four points.

    Source: Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017 (power laws, and where they end).
    """
    before, after = (point["movies"] for point in curve["points"][-2:])
    change = curve["last_doubling"]["metrics"]["mAP"]
    doubling = f"The last doubling of the training {item_noun}s ({before:,} to {after:,})"
    figures = f"mAP {with_interval(change['value'], change['ci95'], change=True)}"
    low, high = change["ci95"]
    if low > 0:
        return f"{doubling} brought {figures}; another would bring about as much or less."
    if high < 0:
        return f"{doubling} cost {figures}: more {item_noun}s alone do not help this training."
    return (
        f"{doubling} brought {figures}, not told from nothing by these validation {item_noun}s; "
        f"another would hardly bring more than {signed(high)}."
    )


def in_brief_of(findings: Findings) -> list[str]:
    """`in_brief` of findings with a learning curve; nothing of others."""
    return [] if findings.learning_curve is None else [in_brief(findings.learning_curve, findings.item_noun)]


def what_more_would_bring(curve: Mapping[str, Any], item_noun: str = "item", label_noun: str = "label") -> list[str]:
    """`in_brief`, then the labels that gained beyond chance, those that lost, those of which it is not shown, and those
    too rare to know: a sentence each."""
    kinds = {kind: [] for kind in (CLEARLY, WORSE, NOT_SHOWN, TOO_FEW)}
    rows = by_gain(curve)
    for label, _ in rows:
        kinds[kind_of(curve, label)].append(label)
    changes, sentences = dict(rows), [in_brief(curve, item_noun)]

    def figures(labels: Sequence[str]) -> str:
        return listed([f"{label} {signed(changes[label][0])}" for label in labels])

    tested = len(curve["last_doubling"]["tested_labels"])
    if kinds[CLEARLY]:
        sentences.append(f"More would clearly help, by what it brought average precision: {figures(kinds[CLEARLY])}.")
    elif tested:
        sentences.append(f"No {label_noun} gained beyond chance from it.")
    if kinds[WORSE]:
        sentences.append(f"It cost, beyond chance: {figures(kinds[WORSE])}.")
    if kinds[CLEARLY] or kinds[WORSE]:
        sentences.append(
            f"Of the {counted(tested, label_noun)} looked at, the luck of the validation {item_noun}s names any wrongly in "
            "at most 5 % of cases (Holm's correction); the luck of training is not in that."
        )
    if kinds[NOT_SHOWN]:
        sentences.append(f"Not shown that more would help, nor that it would not: {listed(kinds[NOT_SHOWN])}.")
    if kinds[TOO_FEW]:
        sentences.append(
            f"Too few validation {item_noun}s to know (fewer than {ENOUGH_POSITIVES}): {listed(kinds[TOO_FEW])}."
        )
    return sentences


def kind_of(curve: Mapping[str, Any], label: str) -> str:
    """Whether more items would help one label, as the last doubling shows it: `CLEARLY`, `WORSE`, `NOT_SHOWN`, `TOO_FEW`."""
    last = curve["last_doubling"]
    if label not in last["tested_labels"]:
        return TOO_FEW
    change = last["per_label"][label]["ap"]
    return NOT_SHOWN if not change["beyond_chance"] else CLEARLY if change["value"] > 0 else WORSE


def by_gain(curve: Mapping[str, Any]) -> list[tuple[str, tuple[float | None, Sequence[float] | None]]]:
    """(label, (change of average precision, its interval)) by the last doubling, the largest gain first, the unmeasured
    last."""
    changes = {label: row["ap"] for label, row in curve["last_doubling"]["per_label"].items()}
    rows = [(label, (change["value"], change["ci95"]) if change else (None, None)) for label, change in changes.items()]
    return sorted(rows, key=lambda row: (row[1][0] is None, -(row[1][0] or 0.0), row[0]))


def growth_rows(curve: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a label, the largest gain first: `label`, `points` (`ap` and `count` at each), `change`, `ci95`, `kind`, and
    `helps` where that is `CLEARLY`."""
    return [
        {
            "label": label,
            "points": [point["per_label"][label] for point in curve["points"]],
            "change": signed(change),
            "ci95": signed_interval(ci95),
            "kind": kind_of(curve, label),
            "helps": kind_of(curve, label) == CLEARLY,
        }
        for label, (change, ci95) in by_gain(curve)
    ]


def said_of_plot(curve: Mapping[str, Any], item_noun: str) -> str:
    """The plot in words: mAP at each point."""
    points = [f"{number(p['metrics']['mAP']['value'])} with {p['movies']:,}" for p in curve["points"]]
    return f"mAP by training {item_noun}s: {listed(points)}"
