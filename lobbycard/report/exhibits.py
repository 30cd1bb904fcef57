"""Which items are worth looking at: the best read, the worst read, and those whose listing looks wrong."""

import base64
import io
from dataclasses import dataclass, field

import numpy as np

from lobbycard.report.doubts import Doubt
from lobbycard.report.findings import Findings
from lobbycard.report.words import number

THUMBNAIL = (120, 180)  # pixels, width and height at most
SHEET = (1200, 1600)


@dataclass(frozen=True)
class Exhibit:
    """One item on the page: its picture as a data URI ("" if none), and its labels in words.

    `marks` has a row a label that is true or was given: (label, "right", "missed" or "wrong", probability). Where the
    listing is doubted, a row a label that is listed or should be: (label, "listed", "remove" or "add", probability), and
    `typical` has label -> probability of the typical item listed with it, for those doubted.
    """

    item_id: str
    title: str
    picture: str
    marks: list[tuple[str, str, str]]
    typical: dict[str, str] = field(default_factory=dict)


def items_to_show(findings: Findings, count: int, doubtful: int = 0) -> dict[str, list[Exhibit]]:
    """`best`, `worst` and `doubtful` -> up to `count` exhibits each, `doubtful` of the last; no item stands in two of them.

    Best and worst are ordered by the F1 of the item's own labels, then by its log loss; the doubtful as
    `Findings.doubts`, an item once with all that is doubted of it.
    """
    doubts: dict[int, list[Doubt]] = {}
    for doubt in findings.doubts:
        doubts.setdefault(doubt.item, []).append(doubt)
    doubts = dict(list(doubts.items())[:doubtful])
    truth, given = np.asarray(findings.truth, bool), np.asarray(findings.decisions, bool)
    f1, loss = f1_by_item(truth, given), -log_likelihood(findings.probabilities, truth).sum(axis=1)

    worst = [i for i in np.lexsort((-loss, f1)) if f1[i] < 1 and i not in doubts][:count]
    best = [i for i in np.lexsort((loss, -f1)) if f1[i] > 0 and i not in doubts and i not in set(worst)]
    best = varied(best, [row.tobytes() for row in truth])[:count]
    return {
        "best": [exhibit(findings, i) for i in best],
        "worst": [exhibit(findings, i) for i in worst],
        "doubtful": [doubtful_exhibit(findings, i, rows) for i, rows in doubts.items()],
    }


def f1_by_item(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N,) F1 of each item's label set; 1 where both are empty."""
    sizes = truth.sum(axis=1) + given.sum(axis=1)
    return np.where(sizes == 0, 1.0, 2 * (truth & given).sum(axis=1) / np.maximum(sizes, 1))


def log_likelihood(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, L) natural logarithm of the probability given to what is the case."""
    p = np.clip(np.asarray(probabilities, float), 1e-6, 1 - 1e-6)
    return np.where(truth, np.log(p), np.log1p(-p))


def varied(order: list[int], kinds: list) -> list[int]:
    """The order with the first item of each kind moved to the front: six of a kind teach little."""
    seen, first, later = set(), [], []
    for i in order:
        (later if kinds[i] in seen else first).append(i)
        seen.add(kinds[i])
    return first + later


def exhibit(findings: Findings, i: int) -> Exhibit:
    """Item i for the page; its labels by falling probability."""
    marks = []
    for j in np.argsort(-findings.probabilities[i], kind="stable"):
        true, given = bool(findings.truth[i, j]), bool(findings.decisions[i, j])
        if true or given:
            kind = "right" if true and given else "missed" if true else "wrong"
            marks.append((findings.labels[j], kind, number(float(findings.probabilities[i, j]), 2)))
    return Exhibit(str(findings.item_ids[i]), findings.titles[i], thumbnail(findings, i), marks)


def doubtful_exhibit(findings: Findings, i: int, doubts: list[Doubt]) -> Exhibit:
    """Item i with what it is listed as and what is doubted of that: first the doubts, each beside its typical probability."""
    marks = [(it.label, "remove" if it.listed else "add", number(it.probability, 2)) for it in doubts]
    typical = {it.label: number(it.typical, 2) for it in doubts}
    for j in np.flatnonzero(np.asarray(findings.truth, bool)[i]):
        if findings.labels[j] not in typical:
            marks.append((findings.labels[j], "listed", number(float(findings.probabilities[i][j]), 2)))
    return Exhibit(str(findings.item_ids[i]), findings.titles[i], thumbnail(findings, i), marks, typical)


def thumbnail(findings: Findings, i: int) -> str:
    """The picture of item i as a data URI, "" where there is none."""
    picture = findings.thumbnail(i)
    return "" if picture is None else data_uri(picture, THUMBNAIL, quality=70)


def data_uri(picture, largest: tuple[int, int], quality: int) -> str:
    """A Pillow picture as a JPEG data URI, at most `largest` (width, height); the picture stays as it is."""
    small = picture.convert("RGB")  # a copy, also where it is RGB already
    small.thumbnail(largest)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
