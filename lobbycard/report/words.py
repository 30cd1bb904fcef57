"""What the numbers say, in sentences; and the numbers as text."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lobbycard.report.confusions import confused_by_look, confusions
from lobbycard.report.findings import BASELINE_NAMES, METRIC_NAMES, Findings
from lobbycard.report.sight import BARELY, CHANCE, FEW, SEEN, SIGHTS, UNKNOWN, skill

MISSING = "\N{EN DASH}"
SIGHT_WORDS = {SEEN: "yes", BARELY: "barely", CHANCE: "no", UNKNOWN: "too few"}
SAID = 20  # labels named with their figures in one sentence; the tables have all


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


def with_interval(value: float | None, ci95: tuple[float, float] | None, change: bool = False) -> str:
    """`0.321 (0.304 to 0.330)`, or of a `change` `+0.031 (+0.018 to +0.044)`; the value alone if there is no interval."""
    one, both = (signed, signed_interval) if change else (number, interval)
    return f"{one(value)} ({both(ci95)})" if both(ci95) else one(value)


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


def unmeasured_labels(findings: Findings) -> list[str]:
    """Labels without a positive among the validation items: nothing can be said of them."""
    return [label for label, support in zip(findings.labels, findings.support, strict=True) if support == 0]


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


def labels_by_sight(findings: Findings) -> dict[str, list[str]]:
    """`seen`, `barely`, `chance` and `unknown` -> labels, farthest above chance first; without those never measured."""
    rows, prevalence = findings.per_label, dict(zip(findings.labels, findings.prevalence, strict=True))

    def lowest(label: str) -> float:
        ci95 = rows.get(label, {}).get("ap_ci95")
        return skill(ci95[0], prevalence[label]) if interval(ci95) else -math.inf

    measured = sorted(set(findings.labels) - set(unmeasured_labels(findings)), key=lambda it: (-lowest(it), it))
    return {kind: [label for label in measured if findings.sight[label] == kind] for kind in SIGHTS}


def what_it_sees(findings: Findings) -> list[str]:
    """Which labels the model can tell, barely can, cannot, and which are too rare to know: a sentence each."""
    groups, noun = labels_by_sight(findings), findings.label_noun
    n = sum(map(len, groups.values()))
    if not any(interval(row.get("ap_ci95")) for row in findings.per_label.values()):
        return []
    support, prevalence = (
        dict(zip(findings.labels, values, strict=True)) for values in (findings.support, findings.prevalence)
    )

    def figures(labels: list[str], counts: bool = False) -> str:
        said = []
        for label in labels[:SAID]:
            ci95 = interval(findings.per_label.get(label, {}).get("ap_ci95"))
            chance = number(float(prevalence[label]))
            many = f"; {counted(int(support[label]), findings.item_noun)}" if counts else ""
            said.append(f"{label} {ci95 or MISSING} ({chance}{many})")
        more = len(labels) - len(said)
        return listed([*said, *[f"{more} more"] * bool(more)])

    seen, barely, chance, unknown = (groups[kind] for kind in SIGHTS)
    whole = f"all {n} {findings.label_nouns}" if n > 1 else f"its one {noun}"
    rule = "the 95 % interval of average precision lies clearly above what a random order scores, in brackets"
    if seen:
        sentences = [
            f"It can see {whole if len(seen) == n else f'{len(seen)} of {counted(n, noun)}'} ({rule}): {figures(seen)}."
        ]
    else:
        sentences = [
            f"It is not shown to see {f'any of its {n} {findings.label_nouns}' if n > 1 else whole} (that {rule})."
        ]
    if overlap := _overlap(findings, seen + barely + chance):
        sentences[0] += (
            f" The intervals of {overlap[0]} and {overlap[1]} overlap: the order is not settled by this measurement."
        )
    if barely:
        sentences.append(f"Barely above chance: {figures(barely)}.")
    if chance:
        sentences.append(f"Not told from chance, which the interval reaches: {figures(chance)}.")
    if unknown:
        sentences.append(f"Too few {findings.item_nouns} to know (fewer than {FEW}): {figures(unknown, counts=True)}.")
    return sentences


def _overlap(findings: Findings, labels: list[str]) -> tuple[str, str] | None:
    """First and last of ranked labels, if their intervals, each beside its own chance, reach each other."""
    if len(labels) < 2:
        return None
    prevalence = dict(zip(findings.labels, findings.prevalence, strict=True))
    ends = {label: [skill(end, prevalence[label]) for end in findings.per_label[label]["ap_ci95"]] for label in labels}
    last = min(labels, key=lambda label: ends[label][1])
    return (labels[0], last) if last != labels[0] and ends[last][1] >= ends[labels[0]][0] else None


def what_it_confuses(findings: Findings) -> list[str]:
    """The commonest mistakes, and the pairs mistaken for each other more often than they would be by being common."""
    sentences = []
    if pairs := confusions(findings, 3):
        said = [f"{given} given where {missed} was missed ({n:,})" for missed, given, n in pairs]
        which = "mistake" if len(pairs) == 1 else "mistakes"
        sentences.append(f"The commonest {which}, in {findings.item_nouns}: {listed(said)}.")
    if pairs := confused_by_look(findings, 3):
        said = [f"{given} given for {missed} ({n:,}, {number(e, 0)} expected)" for missed, given, n, e in pairs]
        sentences.append(f"Confused more often than their frequency explains: {listed(said)}.")
    return sentences


def what_is_doubted(findings: Findings) -> list[str]:
    """What the sheet of doubts rests on and holds, in sentences; nothing where nothing is doubted."""
    if not findings.doubts:
        return []
    n, unseen = len(findings.item_ids), [label for label, kind in findings.sight.items() if kind != SEEN]
    removals = sum(doubt.listed for doubt in findings.doubts)
    sentences = [
        f"Only the {counted(n, f'validation {findings.item_noun}')} {'has' if n == 1 else 'have'} honest probabilities, "
        "because the network was not trained on them: nothing is said of the others.",
        f"{counted(len(findings.doubts), 'listing')} doubted: {removals:,} listed and given far less than is typical, "
        f"{len(findings.doubts) - removals:,} not listed and given much.",
    ]
    if unseen:
        sentences.append(f"Not doubted, for the model cannot clearly see them: {listed(unseen)}.")
    return sentences


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
    sentences += what_it_sees(findings)
    if missing := unmeasured_labels(findings):
        them = "it" if len(missing) == 1 else "them"
        sentences.append(
            f"No {findings.item_noun} on the validation side has {listed(missing)}: nothing is known about "
            f"{them}, and the means leave {them} out."
        )
    sentences += what_it_confuses(findings)
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
    groups = labels_by_sight(findings)
    if unseen := [label for kind in SIGHTS[1:] for label in groups[kind]]:
        found.append(f"Not to be relied on for {listed(unseen)}: not shown to be clearly better than chance.")
    if missing := unmeasured_labels(findings):
        found.append(f"Never measured, for want of validation {findings.item_nouns}: {listed(missing)}.")
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
    return aligned([heads, *rows])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: heads, a rule, rows; the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zipped)).rstrip()
        for zipped in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
