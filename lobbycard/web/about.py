"""About this model, in HTML: how good it is beside no skill, label by label, what it cannot do, what it was made from.

All of it is read from `model.json`; a lone learner knows little of itself, and then little is said.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lobbycard.report.findings import BASELINE_NAMES, METRIC_NAMES
from lobbycard.report.words import exists, interval, number, signed, signed_interval, value_of
from lobbycard.web.words import Words, percent, text

MEANING = {
    "mAP": "how well it ranks: 1 is perfect",
    "macro_f1": "F1 of its answers, every {label} counted alike",
    "micro_f1": "F1 of its answers, every answer counted alike",
    "samples_f1": "F1 of its answers, by {item}",
}


def about_html(about: Mapping[str, Any], words: Words, limits: Sequence[str] = (), engine: str = "") -> str:
    """The page's section about a model; `about` is its `model.json`, of which any part may be missing."""
    parts = [
        _headline(about, words),
        _by_label(about, words),
        _limits(limits),
        _data(about, words),
        _machine(about, words, engine),
    ]
    return f'<div class="about">{"".join(filter(None, parts))}</div>'


def _headline(about: Mapping[str, Any], words: Words) -> str:
    metrics, baselines = about.get("metrics") or {}, about.get("baselines") or {}
    shown = [name for name in METRIC_NAMES if exists(value_of(metrics, name))]
    if not shown:
        return "<section><h2>How good it is</h2><p>This model carries no measurements: nobody can say.</p></section>"
    n = (about.get("data") or {}).get("n_valid")
    on = f" on {n:,} {text(words.items)} that it was not trained on" if exists(n) else ""
    cards = "".join(_gauge(name, metrics, baselines, words) for name in shown)
    return (
        f"<section><h2>How good it is</h2><p>Measured{on}. The band is the 95 % interval; the hollow mark is the best "
        f'that no skill scores.</p><ul class="gauges">{cards}</ul></section>'
    )


def _gauge(name: str, metrics: Mapping, baselines: Mapping, words: Words) -> str:
    value, ci95 = value_of(metrics, name), metrics[name].get("ci95")
    found = {
        key: value_of(row, name) for key, row in reversed(baselines.items())
    }  # of equals the prior, which says most
    key, floor = max(((k, v) for k, v in found.items() if exists(v)), key=lambda pair: pair[1], default=("", None))
    band = f"{interval(ci95)}" if interval(ci95) else "no interval"
    beside = f"no skill ({BASELINE_NAMES.get(key, key)}): {number(floor)}" if floor is not None else "nothing beside it"
    marks = f'<span class="fill" style="width:{100 * value:.1f}%"></span>'
    if interval(ci95):
        marks += f'<span class="band" style="left:{100 * ci95[0]:.1f}%;width:{100 * (ci95[1] - ci95[0]):.1f}%"></span>'
    if floor is not None:
        marks += f'<span class="floor" style="left:{100 * floor:.1f}%"></span>'
    meaning = MEANING[name].format(item=words.item, label=words.label)
    return (
        f'<li><span class="metric">{METRIC_NAMES[name]}</span><b>{number(value)}</b>'
        f'<span class="track" aria-hidden="true">{marks}</span>'
        f'<span class="small">{band}</span><span class="small">{text(beside)}</span>'
        f'<span class="small">{text(meaning)}</span></li>'
    )


def _by_label(about: Mapping[str, Any], words: Words) -> str:
    rows = {k: v for k, v in (about.get("per_label") or {}).items() if isinstance(v, Mapping)}
    if not rows:
        return ""
    n = (about.get("data") or {}).get("n_valid")
    order = sorted(rows, key=lambda label: -(rows[label].get("ap") if exists(rows[label].get("ap")) else -1))
    body = "".join(_label_row(label, rows[label], n) for label in order)
    heads = (
        words.label.capitalize(),
        "Average precision",
        "95 % interval",
        "Chance",
        "Precision",
        "Recall",
        "Threshold",
    )
    cells = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
    return (
        f"<section><h2>{text(words.label.capitalize())} by {text(words.label)}</h2><p>Average precision starts from chance: "
        f"the share of {text(words.items)} that have the {text(words.label)}. Precision: of ten it gives, how many are right. "
        f'Recall: of ten there are, how many it finds.</p><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{text(words.label)} by {text(words.label)}"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _label_row(label: str, row: Mapping[str, Any], n: int | None) -> str:
    ap, support = row.get("ap"), row.get("support")
    chance = support / n if exists(support) and n else None
    bar = (
        f'<span class="track" aria-hidden="true"><span class="fill" style="width:{100 * ap:.1f}%"></span>'
        if exists(ap)
        else ""
    )
    if bar:
        bar += (
            f'<span class="floor" style="left:{100 * chance:.1f}%"></span>' if chance is not None else ""
        ) + "</span>"
    cells = (
        f'<span class="withbar">{number(ap)}{bar}</span>',
        interval(row.get("ap_ci95")),
        number(chance),
        *(number(row.get(key)) for key in ("precision", "recall", "threshold")),
    )
    return f'<tr><th scope="row">{text(label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _limits(limits: Sequence[str]) -> str:
    items = "".join(f"<li>{text(limit)}</li>" for limit in limits)
    return f"<section><h2>What it cannot do</h2><ul>{items}</ul></section>" if items else ""


def _data(about: Mapping[str, Any], words: Words) -> str:
    data = about.get("data") or {}
    facts = [
        ("Table", data.get("source")),
        ("Trained on", _counted(data.get("n_train"), words)),
        ("Measured on", _counted(data.get("n_valid"), words)),
    ]
    counts, kept = data.get("labels_after") or {}, data.get("kept")
    if counts and exists(kept) and kept:
        ranked = sorted(counts.items(), key=lambda pair: -pair[1])
        share = ", ".join(f"{label} {percent(count / kept)}" for label, count in ranked)
        facts.append((f"How common each {words.label} is", share))
    checks = data.get("leak_check")
    if checks:
        facts.append(("Same picture on both sides?", " ".join(checks) if isinstance(checks, list) else checks))
    return _facts("What it learned from", facts)


def _machine(about: Mapping[str, Any], words: Words, engine: str) -> str:
    size = (about.get("input") or {}).get("size")
    facts = [
        ("Network", about.get("arch")),
        ("Sees", f"{size[1]} x {size[0]} pixels" if size else None),
        ("Runs here on", engine),
        *_modes(about.get("modes") or {}, words),
    ]
    return _facts("What runs", facts)


def _modes(modes: Mapping[str, Any], words: Words) -> list[tuple[str, str]]:
    """What faster or more careful answers change, as it was measured at the export."""
    facts = []
    for key, name in (("tta", "Looking three times"), ("int8", "Computing in int8"), ("bf16", "Computing in bf16")):
        row = modes.get(key) or {}
        if exists(row.get("change")) and not row.get("refused"):
            ends = signed_interval(row.get("ci95"))
            facts.append((name, f"changes mAP by {signed(row['change'])}{f' ({ends})' * bool(ends)}"))
    if facts and exists(modes.get("posters")):
        name, said = facts[0]
        facts[0] = (name, f"{said}, measured on {modes['posters']:,} {words.items}")
    return facts


def views_words(modes: Mapping[str, Any], words: Words) -> str:
    """What averaging over views costs and what it changed where that was measured; it need not make answers better."""
    row = modes.get("tta") or {}
    if not exists(row.get("change")):
        return "slower"
    ends = signed_interval(row.get("ci95"))
    on = f" on {modes['posters']:,} {words.items}" if exists(modes.get("posters")) else ""
    return f"slower; it changed mAP by {signed(row['change'])}{f' ({ends})' * bool(ends)}{on}"


def _facts(heading: str, facts: Sequence[tuple[str, Any]]) -> str:
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts if value)
    return f"<section><h2>{text(heading)}</h2><dl>{rows}</dl></section>" if rows else ""


def _counted(n: int | None, words: Words) -> str | None:
    return f"{n:,} {words.items}" if exists(n) else None
