"""report.html: one file with everything in it, that opens anywhere and asks nothing of a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lobbycard.files import write_text
from lobbycard.report import exhibits, growth, plots, words
from lobbycard.report.document import render
from lobbycard.report.doubts import SHEET
from lobbycard.report.findings import BASELINE_NAMES, METRIC_NAMES, Findings

EXHIBITS = 6  # items in each of best and worst
DOUBTFUL = 24  # items whose listing looks wrong; the sheet has all
CURVES = 36  # precision-recall curves at most: the best and the worst half
HEAT_LABELS = 28  # rows and columns of the table of confusions at most
LOSSES = {"train_loss": "training loss", "valid_loss": "validation loss"}
SCORES = {"mAP": "mAP", "f1_score": "F1", "precision_score": "precision", "recall_score": "recall"}


def write_report(findings: Findings, path: Path | str) -> None:
    """Write the report of one model to `path`, whole or not at all.

    The page holds its pictures and style, and no script: it opens offline, in light and dark, and on a phone.
    """
    write_text(Path(path), report(findings))


def report(findings: Findings) -> str:
    """The page as HTML text."""
    return render(
        "page.html.j2",
        f=findings,
        d=findings.known_data,
        colours=plots.COLOURS,
        metric_names=METRIC_NAMES,
        baseline_names=BASELINE_NAMES,
        verdict=[*words.verdict(findings), *growth.in_brief_of(findings)],
        limits=words.limits(findings),
        metrics=metric_rows(findings),
        labels=label_rows(findings),
        curves=curves(findings),
        sweep=list(findings.sweep),
        sweep_plot=plots.sweep_plot(findings.sweep) if findings.sweep else "",
        accuracy_plot=plots.accuracy_plot(findings.sweep) if findings.sweep else "",
        accuracy=words.accuracy_beside_nothing(findings),
        calibration_plot=calibration(findings),
        confused=confused(findings),
        confusions=words.confusions(findings, 6),
        look_alikes=words.confused_by_look(findings, 6),
        shown=exhibits.items_to_show(findings, EXHIBITS, DOUBTFUL),
        doubted=words.what_is_doubted(findings),
        sheet_name=SHEET,
        loss_plot=plots.history_plot(findings.history, LOSSES) if findings.history else "",
        score_plot=plots.history_plot(findings.history, SCORES) if findings.history else "",
        sheet=sheet(findings),
        growth=grown(findings),
        label_counts=label_counts(findings),
        dropped=dict(findings.data.get("dropped") or {}),
        downloads=dict(findings.data.get("downloads") or {}),
        coverage=[dict(row) for row in findings.data.get("coverage") or []],
        stages=stages(findings),
        no_history=not findings.history,
    )


def metric_rows(findings: Findings) -> list[dict[str, Any]]:
    """The headline table: a row a metric, the model beside what needs no skill."""
    return [
        {
            "name": title,
            "value": words.value_of(findings.metrics, name),
            "ci95": findings.metrics[name].get("ci95"),
            "no_skill": (words.best_baseline(findings, name) or ("", None))[1],
            "baselines": {key: words.value_of(metrics, name) for key, metrics in findings.baselines.items()},
        }
        for name, title in METRIC_NAMES.items()
        if name in findings.metrics
    ]


def label_rows(findings: Findings) -> list[dict[str, Any]]:
    """A row a label, best average precision first, with the counts of right and wrong."""
    truth, given = np.asarray(findings.truth, bool), np.asarray(findings.decisions, bool)
    cells = {
        "right": (truth & given).sum(axis=0),
        "wrong": (~truth & given).sum(axis=0),
        "missed": (truth & ~given).sum(axis=0),
        "neither": (~truth & ~given).sum(axis=0),
    }
    rows = []
    for j, label in enumerate(findings.labels):
        measured = findings.per_label.get(label, {})
        row = {key: measured.get(key) for key in ("ap", "f1", "precision", "recall", "ap_ci95", "f1_ci95")}
        row |= {key: int(count[j]) for key, count in cells.items()}
        row |= {"support": measured.get("support", int(findings.support[j])), "label": label}
        row |= {"sight": words.SIGHT_WORDS[findings.sight[label]]}
        row |= {"prevalence": float(findings.prevalence[j]), "threshold": float(findings.thresholds[j])}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["ap"] if words.exists(row["ap"]) else 1)


def curves(findings: Findings) -> list[dict[str, Any]]:
    """A precision-recall curve a label, best first; with very many labels, of the best and the worst."""
    rows = [row for row in label_rows(findings) if findings.support[findings.labels.index(row["label"])] > 0]
    if len(rows) > CURVES:
        rows = rows[: CURVES // 2] + rows[-CURVES // 2 :]
    for row in rows:
        j = findings.labels.index(row["label"])
        point = (row["recall"], row["precision"])
        row["svg"] = plots.precision_recall_plot(
            np.asarray(findings.truth, bool)[:, j],
            np.asarray(findings.probabilities, float)[:, j],
            point if all(words.exists(value) for value in point) else None,
        )
    return rows


def calibration(findings: Findings) -> str:
    """The calibration plot, or "" where no curve was measured."""
    if findings.reliability_before is None and findings.reliability_after is None:
        return ""
    return plots.calibration_plot(findings.reliability_before, findings.reliability_after)


def confused(findings: Findings) -> dict[str, Any]:
    """The table of confusions: labels with the most mistakes if they are many, in the model's order.

    A cell's shade is its count as a share of the items that missed the row's label: so rare ones show.
    """
    if findings.misses is None:
        return {}
    misses = np.array(findings.misses, int)
    np.fill_diagonal(misses, 0)
    if not misses.any():
        return {}
    chosen = np.sort(np.argsort(-(misses.sum(axis=0) + misses.sum(axis=1)), kind="stable")[:HEAT_LABELS])
    missed = (np.asarray(findings.truth, bool) & ~np.asarray(findings.decisions, bool)).sum(axis=0)
    shares = misses / np.maximum(missed, 1)[:, None]
    shades = shares / (shares.max() or 1.0)
    rows = [
        {
            "label": findings.labels[i],
            "missed": int(missed[i]),
            "cells": [None if i == j else (int(misses[i, j]), float(shades[i, j])) for j in chosen],
        }
        for i in chosen
    ]
    return {
        "labels": [findings.labels[j] for j in chosen],
        "rows": rows,
        "left_out": len(misses) - len(chosen),
    }


def sheet(findings: Findings) -> str:
    """The augmentation sheet as a data URI, or ""."""
    if findings.augmentation_sheet is None:
        return ""
    return exhibits.data_uri(findings.augmentation_sheet, exhibits.SHEET, quality=80)


def grown(findings: Findings) -> dict[str, Any]:
    """What a learning curve found: sentences, plot and rows; empty without one."""
    curve = findings.learning_curve
    if curve is None:
        return {}
    return {
        "counts": [point["movies"] for point in curve["points"]],
        "says": growth.what_more_would_bring(curve, findings.item_noun, findings.label_noun),
        "plot": plots.growth_plot(curve["points"], f"training {findings.item_nouns}"),
        "alt": growth.said_of_plot(curve, findings.item_noun),
        "rows": growth.growth_rows(curve),
    }


def label_counts(findings: Findings) -> list[tuple[str, int | None, int | None]]:
    """(label, items in the table, items taken), most frequent first, dropped labels included."""
    before: Mapping = findings.data.get("labels_before") or {}
    after: Mapping = findings.data.get("labels_after") or {}
    names = sorted({*before, *after}, key=lambda label: (-(before.get(label) or after.get(label) or 0), label))
    return [(label, before.get(label), after.get(label)) for label in names]


def stages(findings: Findings) -> list[tuple[str, float, float]]:
    """(stage, seconds, share of all)."""
    total = sum(findings.seconds.values()) or 1.0
    return [(stage, seconds, seconds / total) for stage, seconds in findings.seconds.items()]
