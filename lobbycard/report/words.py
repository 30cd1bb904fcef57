"""What the numbers say, in sentences; and the numbers as text."""

import math
from collections.abc import Mapping

import numpy as np

from lobbycard.report.findings import BASELINE_NAMES, METRIC_NAMES, Findings

MISSING = "\N{EN DASH}"


def exists(value: float | None) -> bool:
    """Whether a measured value is there: not None, not NaN, not infinite."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """`0.334`, `7,900` for whole numbers, and a dash for what does not exist (None, NaN)."""
    if not exists(value):
        return MISSING
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    return f"{value:.{digits}f}"


def interval(ci95: tuple[float, float] | None, digits: int = 3) -> str:
    """`0.320 to 0.349`, or nothing if there is no interval."""
    if ci95 is None or not all(exists(end) for end in ci95):
        return ""
    return f"{ci95[0]:.{digits}f} to {ci95[1]:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """`+0.003`, `-0.001` with a true minus sign, `0.000`, and a dash for what does not exist."""
    if not exists(value):
        return MISSING
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else "\N{MINUS SIGN}") + text


def signed_interval(ci95: tuple[float, float] | None, digits: int = 3) -> str:
    """`-0.001 to +0.004`, or nothing if there is no interval."""
    if ci95 is None or not all(exists(end) for end in ci95):
        return ""
    return f"{signed(ci95[0], digits)} to {signed(ci95[1], digits)}"


def counted(n: int, noun: str) -> str:
    """`1 poster`, `1,500 posters`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def value_of(metrics: Mapping[str, Mapping], name: str) -> float | None:
    """A metric's value, or None where the metrics object lacks it."""
    return metrics.get(name, {}).get("value")


def best_baseline(findings: Findings, metric: str) -> tuple[str, float] | None:
    """(name, value) of the prediction without skill that scores highest, or None if none was measured.

    Of equals the last: a constant ranking scores the same whatever it is, and the prior says most.
    """
    values = {name: value_of(metrics, metric) for name, metrics in findings.baselines.items()}
    values = {name: value for name, value in values.items() if exists(value)}
    return max(reversed(values.items()), key=lambda pair: pair[1]) if values else None


def ranked_labels(findings: Findings) -> list[str]:
    """Labels that have an average precision, best first."""
    rows = [(row.get("ap"), label) for label, row in findings.per_label.items() if exists(row.get("ap"))]
    return [label for _, label in sorted(rows, key=lambda pair: (-pair[0], pair[1]))]


def unmeasured_labels(findings: Findings) -> list[str]:
    """Labels without a positive among the validation items: nothing can be said of them."""
    return [label for label, support in zip(findings.labels, findings.support, strict=True) if support == 0]


def unskilled_labels(findings: Findings) -> list[str]:
    """Labels whose interval of average precision reaches down to their prevalence: to a random ranking."""
    unskilled = []
    for label, prevalence in zip(findings.labels, findings.prevalence, strict=True):
        ci95 = findings.per_label.get(label, {}).get("ap_ci95")
        if prevalence > 0 and interval(ci95) and ci95[0] <= prevalence:
            unskilled.append(label)
    return unskilled


def above_no_skill(findings: Findings, metric: str) -> str:
    """One sentence: the model's value beside the best without skill, and whether chance explains it."""
    name, value = METRIC_NAMES[metric], value_of(findings.metrics, metric)
    name = name if metric == "mAP" else name.capitalize().replace("-f1", "-F1")
    if not exists(value):
        return f"{name} could not be measured."
    ci95 = findings.metrics[metric].get("ci95")
    sentence = f"{name} is {number(value)}" + (f" (95 % interval {interval(ci95)})" if interval(ci95) else "")
    best = best_baseline(findings, metric)
    if best is None:
        return f"{sentence}; nothing without skill was measured beside it."
    sentence += f"; the best without skill ({BASELINE_NAMES.get(best[0], best[0])}) scores {number(best[1])}"
    if interval(ci95) and ci95[0] <= best[1] <= ci95[1]:
        return f"{sentence}, which lies inside the interval: this measurement shows no skill."
    if value <= best[1]:
        return f"{sentence}: the model falls short of that."
    return f"{sentence}, so the model reaches {value / best[1]:.1f} times that." if best[1] > 0 else f"{sentence}."


def best_and_worst(findings: Findings) -> str:
    """Which labels are read best and worst, and whether the intervals allow saying so; "" without two."""
    order = ranked_labels(findings)
    if len(order) < 2:
        return ""
    count = 3 if len(order) >= 6 else 1
    rows = findings.per_label
    best, worst = order[:count], order[: -count - 1 : -1]
    figures = {label: f"{label} ({number(rows[label]['ap'])})" for label in order}
    sentence = (
        f"Read best: {listed([figures[label] for label in best])}. "
        f"Read worst: {listed([figures[label] for label in worst])}. "
        "The figures are average precision, which starts from the share of "
        f"{findings.item_nouns} that have the {findings.label_noun}."
    )
    top, bottom = (rows[label].get("ap_ci95") for label in (best[0], worst[0]))
    if interval(top) and interval(bottom) and bottom[1] >= top[0]:
        return (
            f"{sentence} The intervals of {best[0]} and {worst[0]} overlap: the order of "
            f"{findings.label_nouns} is not settled by this measurement."
        )
    tied = [
        label
        for label in order[1:]
        if interval(top) and interval(ci95 := rows[label].get("ap_ci95")) and ci95[1] >= top[0]
    ]
    if tied:
        are = "the interval of 1 other" if len(tied) == 1 else f"the intervals of {len(tied)} others"
        sentence += f" {best[0]} is first by its figure only: {are} overlap with it."
    return sentence


def farthest_above_chance(findings: Findings) -> str:
    """The label whose average precision is most times its prevalence, at the interval's lower end; or ""."""
    lifts = []
    for label, prevalence in zip(findings.labels, findings.prevalence, strict=True):
        row = findings.per_label.get(label, {})
        if prevalence > 0 and exists(row.get("ap")):
            low = row["ap_ci95"][0] if interval(row.get("ap_ci95")) else row["ap"]
            lifts.append((low / prevalence, label, row["ap"], prevalence))
    if len(lifts) < 2 or max(lifts)[0] <= 1:
        return ""
    _, label, ap, prevalence = max(lifts)
    chance = number(float(prevalence))
    return f"Farthest above chance: {label}, {number(ap)} where a random order scores {chance}."


def skill_by_label(findings: Findings) -> str:
    """Which labels cannot be told from chance, in one sentence, or that all can."""
    unskilled, measured = unskilled_labels(findings), ranked_labels(findings)
    if not any(interval(findings.per_label.get(label, {}).get("ap_ci95")) for label in measured):
        return ""
    if not unskilled:
        return f"For all {len(measured)} measured {findings.label_nouns} the interval lies above chance."
    return (
        f"For {len(unskilled)} of {counted(len(measured), findings.label_noun)} the interval reaches down to "
        f"chance, so no skill is shown: {listed(unskilled)}."
    )


def confusions(findings: Findings, count: int) -> list[tuple[str, str, int]]:
    """(missed label, label given instead, items), most frequent first; nothing where nothing was confused."""
    if findings.misses is None:
        return []
    misses = np.array(findings.misses)
    np.fill_diagonal(misses, 0)
    order = np.argsort(-misses, axis=None, kind="stable")[:count]
    pairs = [divmod(int(flat), len(findings.labels)) for flat in order]
    return [(findings.labels[i], findings.labels[j], int(misses[i, j])) for i, j in pairs if misses[i, j] > 0]


def accuracy_beside_nothing(findings: Findings) -> str:
    """Label accuracy at the threshold nearest to 0.5 beside predicting nothing; "" without a sweep."""
    rows = [row for row in findings.sweep if exists(row.get("accuracy"))]
    if not rows:
        return ""
    row = min(rows, key=lambda row: abs(row["threshold"] - 0.5))
    return (
        f"Label accuracy at threshold {row['threshold']:.1f} is {number(row['accuracy'])}, but predicting "
        f"nothing scores {number(row['accuracy_predict_nothing'])}: it is shown only beside that, and is no "
        "headline."
    )


def verdict(findings: Findings) -> list[str]:
    """The page's opening: what the numbers say, a sentence or two a point, computed."""
    sentences = [above_no_skill(findings, "mAP"), above_no_skill(findings, "macro_f1")]
    for metric in ("micro_f1", "samples_f1"):  # said where it is bad news; the tables have the rest
        value, best = value_of(findings.metrics, metric), best_baseline(findings, metric)
        if exists(value) and best and (findings.metrics[metric].get("ci95") or [value])[0] <= best[1]:
            sentences.append(above_no_skill(findings, metric))
    sentences += [best_and_worst(findings), farthest_above_chance(findings), skill_by_label(findings)]
    if missing := unmeasured_labels(findings):
        them = "it" if len(missing) == 1 else "them"
        sentences.append(
            f"No {findings.item_noun} on the validation side has {listed(missing)}: nothing is known about "
            f"{them}, and the means leave {them} out."
        )
    if pairs := confusions(findings, 1):
        missed, given, n = pairs[0]
        times = counted(n, findings.item_noun)
        sentences.append(f"The commonest mistake: {given} given where {missed} was missed ({times}).")
    if exists(findings.ece_before) and exists(findings.ece_after):
        moved = "took" if findings.ece_after < findings.ece_before else "did not help: it took"
        sentences.append(
            f"Calibration {moved} the expected error of a probability from {number(findings.ece_before)} to "
            f"{number(findings.ece_after)}."
        )
    sentences.append(accuracy_beside_nothing(findings))
    return [sentence for sentence in sentences if sentence]


def limits(findings: Findings) -> list[str]:
    """The caller's limits, then those that were measured."""
    found = list(findings.limits)
    if unskilled := unskilled_labels(findings):
        found.append(
            f"Not shown to be better than chance (the 95 % interval of average precision reaches the share "
            f"of {findings.item_nouns} that have the {findings.label_noun}): {listed(unskilled)}."
        )
    if missing := unmeasured_labels(findings):
        found.append(f"Never measured, for want of validation {findings.item_nouns}: {listed(missing)}.")
    few = [label for label, n in zip(findings.labels, findings.support, strict=True) if 0 < n < 20]
    if few:
        found.append(f"Measured on fewer than 20 {findings.item_nouns} each, so roughly: {listed(few)}.")
    return found


def metrics_table(measured: "Findings | Mapping[str, Mapping]", baselines: Mapping[str, Mapping] | None = None) -> str:
    """The headline for a terminal: the model with its 95 % intervals, beside what no skill scores.

    Args:
        measured: findings, or a metrics object; then `baselines` are given as well.
        baselines: `none`, `top2` and `prior`, each a metrics object.
    """
    if isinstance(measured, Findings):
        measured, baselines = measured.metrics, measured.baselines
    baselines = baselines or {}
    heads = ["", "model", "95 % interval", *(BASELINE_NAMES.get(name, name) for name in baselines)]
    rows = [
        [title, number(value_of(measured, name)), interval(measured[name].get("ci95")),
         *(number(value_of(metrics, name)) for metrics in baselines.values())]
        for name, title in METRIC_NAMES.items()
        if name in measured
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zipped)).rstrip()
        for zipped in (list(zip(row, widths, strict=True)) for row in [heads, *rows])
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
