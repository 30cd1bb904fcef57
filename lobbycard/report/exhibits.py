"""Which items are worth looking at: the best read, the worst read, and the most surprising."""

import base64
import io
from dataclasses import dataclass

import numpy as np

from lobbycard.report.findings import Findings
from lobbycard.report.words import number

THUMBNAIL = (120, 180)  # pixels, width and height at most
SHEET = (1200, 1600)


@dataclass(frozen=True)
class Exhibit:
    """One item on the page: its picture as a data URI ("" if none), and its labels in words.

    `marks` has a row a label that is true or was given: (label, "right", "missed" or "wrong", probability).
    """

    item_id: str
    title: str
    picture: str
    marks: list[tuple[str, str, str]]
    reason: str


def items_to_show(findings: Findings, count: int) -> dict[str, list[Exhibit]]:
    """`best`, `worst` and `surprising` -> up to `count` exhibits each; no item stands in two of them.

    Best and worst are ordered by the F1 of the item's own labels, then by its log loss. An item surprises by
    its one label for which the share of items that have it would have been the better probability by most.
    """
    if not len(findings.item_ids):
        return {"best": [], "worst": [], "surprising": []}
    truth, given = np.asarray(findings.truth, bool), np.asarray(findings.decisions, bool)
    f1, loss = f1_by_item(truth, given), -log_likelihood(findings.probabilities, truth).mean(axis=1)
    surprise = surprise_by_label(findings)

    worst = [i for i in np.lexsort((-loss, f1)) if f1[i] < 1][:count]
    surprising = [i for i in np.argsort(-surprise.max(axis=1), kind="stable") if surprise[i].max() > 0]
    surprising = varied(surprising, [surprise_key(truth, surprise, i) for i in range(len(truth))])
    surprising = [i for i in surprising if i not in set(worst)][:count]
    best = [i for i in np.lexsort((loss, -f1)) if f1[i] > 0 and i not in {*worst, *surprising}]
    best = varied(best, [row.tobytes() for row in truth])[:count]
    return {
        "best": [exhibit(findings, i) for i in best],
        "worst": [exhibit(findings, i) for i in worst],
        "surprising": [exhibit(findings, i, reason(findings, i, int(surprise[i].argmax()))) for i in surprising],
    }


def f1_by_item(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N,) F1 of each item's label set; 1 where both are empty."""
    sizes = truth.sum(axis=1) + given.sum(axis=1)
    return np.where(sizes == 0, 1.0, 2 * (truth & given).sum(axis=1) / np.maximum(sizes, 1))


def log_likelihood(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, L) natural logarithm of the probability given to what is the case."""
    p = np.clip(np.asarray(probabilities, float), 1e-6, 1 - 1e-6)
    return np.where(truth, np.log(p), np.log1p(-p))


def surprise_by_label(findings: Findings) -> np.ndarray:
    """(N, L) nats by which the prior was nearer to the truth than the model; negative where farther."""
    truth = np.asarray(findings.truth, bool)
    prior = np.broadcast_to(findings.prevalence, truth.shape)
    return log_likelihood(prior, truth) - log_likelihood(findings.probabilities, truth)


def surprise_key(truth: np.ndarray, surprise: np.ndarray, i: int) -> tuple[int, bool]:
    """What kind of surprise item i is: on which label, and whether it was true."""
    j = int(surprise[i].argmax())
    return j, bool(truth[i, j])


def varied(order: list[int], kinds: list) -> list[int]:
    """The order with the first item of each kind moved to the front: six of a kind teach little."""
    seen, first, later = set(), [], []
    for i in order:
        (later if kinds[i] in seen else first).append(i)
        seen.add(kinds[i])
    return first + later


def exhibit(findings: Findings, i: int, why: str = "") -> Exhibit:
    """Item i for the page; its labels by falling probability."""
    marks = []
    for j in np.argsort(-findings.probabilities[i], kind="stable"):
        true, given = bool(findings.truth[i, j]), bool(findings.decisions[i, j])
        if true or given:
            kind = "right" if true and given else "missed" if true else "wrong"
            marks.append((findings.labels[j], kind, number(float(findings.probabilities[i, j]), 2)))
    picture = findings.thumbnail(i)
    uri = "" if picture is None else data_uri(picture, THUMBNAIL, quality=70)
    return Exhibit(str(findings.item_ids[i]), findings.titles[i], uri, marks, why)


def reason(findings: Findings, i: int, j: int) -> str:
    """Why item i surprises, on label j."""
    p, prior = number(float(findings.probabilities[i, j]), 2), number(float(findings.prevalence[j]), 2)
    if findings.truth[i, j]:
        return f"Listed as {findings.labels[j]}, yet given {p} (prior {prior})."
    return f"Not listed as {findings.labels[j]}, yet given {p} (prior {prior})."


def data_uri(picture, largest: tuple[int, int], quality: int) -> str:
    """A Pillow picture as a JPEG data URI, at most `largest` (width, height); the picture stays as it is."""
    small = picture.convert("RGB")  # a copy, also where it is RGB already
    small.thumbnail(largest)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
