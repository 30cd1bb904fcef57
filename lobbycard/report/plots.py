"""Plots as SVG text for a page: colours are CSS variables, so that one drawing serves light and dark.

Matplotlib is imported inside the functions: it takes a second, and only a report needs it. Its `pyplot` is
never used, and whatever style the user has set is neither seen nor changed.
"""

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np

# Each name is a CSS variable of the page, the number its value in light. Matplotlib writes the numbers, and
# then they are replaced by the names: so no two may be equal.
COLOURS = {
    "ink": "#1d1a1b",
    "soft": "#6b6466",
    "line": "#d9d3cf",
    "model": "#9c1f35",
    "second": "#1f6477",
    "third": "#a3781c",
    "noskill": "#8b8587",
}
STYLE = {
    "svg.fonttype": "none",  # text stays text: the page's font, found by a search, read aloud
    "svg.hashsalt": "lobbycard",  # else ids are drawn at random, and no two reports are the same
    "font.size": 9,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "text.color": COLOURS["ink"],
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
WIDE = (4.5, 2.9)  # inches; on a phone of 390 CSS pixels the letters stay readable
SMALL = (2.0, 1.75)


def draw(fill, size: tuple[float, float] = WIDE) -> str:
    """An `<svg>` element of one plot: `fill(axes)` draws it. Same data, same bytes."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        axes = figure.subplots()
        axes.set_facecolor("none")
        fill(axes)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return for_page(buffer.getvalue())


def for_page(svg: str) -> str:
    """Matplotlib's file as an element: no prologue, no fixed size, ids of its own, colours by name."""
    import hashlib

    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head).group()
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href").strip()
    mark = "p" + hashlib.sha256(body.encode()).hexdigest()[:8]
    used = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', body))
    names = {name: f"{mark}-{i}" for i, name in enumerate(used)}
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{names[m[1]]}"' if m[1] in names else "", body)
    body = re.sub(r'(href="|url\()#([^")]+)', lambda m: f"{m[1]}#{names[m[2]]}", body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    return f'<svg {box} aria-hidden="true" focusable="false">{body}'


def unit_axes(axes, x: str, y: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x, ylabel=y)
    axes.tick_params(length=0, pad=5)


def legend_above(axes, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.2, columnspacing=1.2,
        handlelength=1.6,
    )  # fmt: skip


def precision_recall(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each distinct score, from the highest down, as scikit-learn's, reversed.

    Args:
        truth: (N,) bool with at least one positive.
        score: (N,)
    """
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    last_of_score = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = hits[last_of_score]
    return np.append(0.0, hits / truth.sum()), np.append(1.0, hits / (last_of_score + 1))


def precision_recall_plot(truth: np.ndarray, score: np.ndarray, operating_point: tuple[float, float] | None) -> str:
    """One label's curve above its prevalence; the dot is where it decides, as (recall, precision)."""
    recall, precision = precision_recall(truth, score)
    keep = np.append(0, np.flatnonzero(np.diff(recall)) + 1)  # the first point of each recall: the area stays the AP
    if len(keep) > 160:
        keep = keep[np.linspace(0, len(keep) - 1, 160).round().astype(int)]

    def fill(axes):
        axes.axhline(truth.mean(), color=COLOURS["noskill"], linewidth=1, linestyle=(0, (4, 3)))
        axes.fill_between(recall[keep], precision[keep], color=COLOURS["model"], alpha=0.13, linewidth=0, step="pre")
        axes.step(recall[keep], precision[keep], where="pre", color=COLOURS["model"], linewidth=1.5)
        if operating_point is not None and any(operating_point):
            axes.plot(*operating_point, "o", color=COLOURS["ink"], markersize=4.5, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xticklabels(["0", "recall", "1"])
        axes.set_yticklabels(["0", "", "1"])
        axes.tick_params(length=0)

    return draw(fill, SMALL)


def sweep_plot(sweep: Sequence[Mapping[str, float]]) -> str:
    """F1s, precision and recall by one threshold for every label."""
    lines = (
        ("macro_f1", "macro-F1", "model", "-"),
        ("micro_f1", "micro-F1", "second", "-"),
        ("precision", "precision", "third", (0, (5, 2))),
        ("recall", "recall", "noskill", (0, (1.5, 1.5))),
    )

    def fill(axes):
        for key, name, colour, dashes in lines:
            axes.plot(*columns(sweep, "threshold", key), color=COLOURS[colour], linestyle=dashes, label=name)
        unit_axes(axes, "one threshold for all", "")
        legend_above(axes, 4)

    return draw(fill)


def accuracy_plot(sweep: Sequence[Mapping[str, float]]) -> str:
    """Label accuracy by threshold, beside what predicting nothing scores."""

    def fill(axes):
        x, accuracy = columns(sweep, "threshold", "accuracy")
        _, nothing = columns(sweep, "threshold", "accuracy_predict_nothing")
        axes.plot(x, accuracy, color=COLOURS["model"], label="label accuracy")
        axes.plot(x, nothing, color=COLOURS["noskill"], linestyle=(0, (4, 3)), label="predicting nothing")
        unit_axes(axes, "one threshold for all", "")
        legend_above(axes, 2)

    return draw(fill)


def calibration_plot(before: Mapping | None, after: Mapping | None) -> str:
    """How often a label was true, by the probability it was given; the area of a dot grows with its count."""

    def fill(axes):
        axes.plot((0, 1), (0, 1), color=COLOURS["noskill"], linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        for curve, name, colour, filled in (
            (before, "before", "second", False),
            (after, "after", "model", True),
        ):
            if curve is None:
                continue
            x, y, n = (np.asarray(curve[key], float) for key in ("confidence", "frequency", "count"))
            x, y, n = (values[(n > 0) & np.isfinite(x) & np.isfinite(y)] for values in (x, y, n))
            axes.plot(x, y, color=COLOURS[colour], linewidth=1.2, alpha=0.7)
            area = 14 + 90 * np.sqrt(n / n.max()) if len(n) else n
            axes.scatter(
                x, y, s=area, label=name, facecolors=COLOURS[colour] if filled else "none",
                edgecolors=COLOURS[colour], linewidths=1.3, zorder=3, clip_on=False,
            )  # fmt: skip
        unit_axes(axes, "probability given", "share that was true")
        axes.set_aspect("equal")
        axes.legend(loc="upper left", borderaxespad=0.2, markerscale=0.7)

    return draw(fill, (4.2, 3.9))


def history_plot(history: Sequence[Mapping], lines: Mapping[str, str]) -> str:
    """Columns of the history by epoch, phases parted by a rule; a first row that is no epoch (no training loss) stands at 0.

    Args:
        lines: column -> its name on the plot; at most four, and those without values are left out.
    """
    styles = (("model", "-"), ("second", "-"), ("third", (0, (5, 2))), ("noskill", (0, (1.5, 1.5))))
    first = int(history[0].get("train_loss", 0.0) is not None)
    epochs = np.arange(first, first + len(history))

    def fill(axes):
        shown = 0
        for (key, name), (colour, dashes) in zip(lines.items(), styles, strict=False):
            values = np.array([number_or_nan(row.get(key)) for row in history])
            if not np.isfinite(values).any():
                continue
            marker = "o" if len(history) <= 20 else None
            axes.plot(
                epochs,
                values,
                color=COLOURS[colour],
                linestyle=dashes,
                marker=marker,
                markersize=3.5,
                label=name,
            )
            shown += 1
        starts = [i for i, row in enumerate(history) if i == 0 or row.get("phase") != history[i - 1].get("phase")]
        for i in starts:
            if i:
                axes.axvline(first + i - 0.5, color=COLOURS["soft"], linewidth=0.8)
            axes.annotate(
                str(history[i].get("phase") or ""), (first + i - (0.5 if i else 0.4), 0),
                xycoords=("data", "axes fraction"), xytext=(3, 4), textcoords="offset points",
                fontsize=8, color=COLOURS["soft"], parse_math=False,
            )  # fmt: skip
        axes.margins(y=0.14)  # room for the phases' names under the lines
        axes.set(xlabel="epoch", xlim=(first - 0.4, first + len(history) - 0.6))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.tick_params(length=0)
        if shown:
            legend_above(axes, shown)

    return draw(fill)


def growth_plot(points: Sequence[Mapping], x: str) -> str:
    """mAP with its interval by what was trained on, each doubling the same step.

    Args:
        points: `movies` (how many items), `metrics`.
        x: what is counted, for the axis.
    """
    counts = [point["movies"] for point in points]
    scores = [point["metrics"]["mAP"] for point in points]
    values = np.array([score["value"] for score in scores], float)
    ends = np.array([score.get("ci95") or [score["value"]] * 2 for score in scores], float).T

    def fill(axes):
        axes.errorbar(
            counts, values, yerr=np.maximum(0, [values - ends[0], ends[1] - values]), color=COLOURS["model"], marker="o",
            markersize=5, elinewidth=1.2, capsize=3,
        )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.set_xticks([], minor=True)
        axes.margins(x=0.08, y=0.12)
        axes.set(xlabel=x, ylabel="mAP")
        axes.tick_params(length=0, which="both")

    return draw(fill)


def columns(rows: Sequence[Mapping], *keys: str) -> list[np.ndarray]:
    """Columns of a list of dicts as arrays; what is missing or None is NaN, which is a gap in a line."""
    return [np.array([number_or_nan(row.get(key)) for row in rows]) for key in keys]


def number_or_nan(value) -> float:
    """A float, from what a history may hold: numbers, None, the empty text of a csv."""
    return float("nan") if value is None or value == "" else float(value)
