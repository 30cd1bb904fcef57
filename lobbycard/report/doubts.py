"""Where a table of labels looks wrong to a model: pairs of item and label, the most doubtful first, as a sheet to fill in.

A pair is doubted by confident learning, one label at a time: a label that is listed where the model gives it less than it
gives items without it on average; one that is not listed where the model gives it more than it gives items with it.
What is doubted is then ranked by how much speaks against the listing, in nats:

* listed: the logarithm of mean probability of the items listed with it / probability. Where the model can hardly tell a
  label, the two are never far apart, so "listed, and given 0.01" counts for nothing where that is what such items are given.
* not listed: the log-odds of the probability. On an item that is listed with as many labels as the table ever names, the
  label may be right and the listing no mistake, so `FULL` is taken off.
* both: half of what the item's other labels say, by how often the table lists them together: that they and the picture say
  partly the same is why half.

Chosen on a trained poster model and its 1,580 validation items, with 5 % of the listed labels taken away and as many added
where they do not belong (to items with room), 20 times: among the first 50 doubts of each kind, 53 % of "listed" and 45 %
of "not listed" were those (chance: 5 % and 1 %; by the probability alone 36 % and 24 %; without the other labels 37 % and
35 %; without `FULL` 27 % of "not listed"). What was wrong in the table before counts against these figures.

Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021
(thresholds by label: the mean self-confidence); label by label as in Thyagarajan et al., "Identifying Incorrect Annotations
in Multi-Label Classification Data", 2022.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lobbycard.files import atomic_path, harmless

SHEET = "doubts.csv"  # in the model folder

FULL = 2.0  # nats; see above
OTHER_LABELS = 0.5  # share of what the other labels say; see above
TOGETHER = 2.0  # items of "as if the two had nothing to do with each other" that a count of both is mixed with
# Least evidence of a row on the sheet: there, in the trial above, both kinds held the changed labels at the same rate.
LISTED_AT_LEAST, NOT_LISTED_AT_LEAST = np.log(4), 0.0
COLUMNS = (
    *("item_id", "title", "label", "listed", "probability", "typical_probability"),
    *("listed_labels", "listed_count", "suggestion", "verdict"),
)


@dataclass(frozen=True)
class Doubt:
    """One item and one label whose listing looks wrong.

    Attributes:
        item: its row in the arrays.
        listed: whether the table gives the item this label.
        probability: of the label, by the model.
        typical: median probability of this label over the items that are listed with it.
        listed_labels: of the item, in the order of the labels.
    """

    item: int
    item_id: str
    title: str
    label: str
    listed: bool
    probability: float
    typical: float
    listed_labels: tuple[str, ...]

    @property
    def suggestion(self) -> str:
        return "remove?" if self.listed else "add?"


def find_doubts(
    item_ids: Sequence[str],
    titles: Sequence[str],
    labels: Sequence[str],
    truth: np.ndarray,
    probabilities: np.ndarray,
    seen: np.ndarray | None = None,
) -> list[Doubt]:
    """The doubtful pairs, most doubtful first, "listed" and "not listed" by turns while there are both.

    Args:
        truth: (N, L) bool, as listed.
        probabilities: (N, L) in [0, 1], calibrated, of items the model was not trained on.
        seen: (L,) bool, which labels the model can tell; the others are not doubted. None: all.
    """
    truth, p = np.asarray(truth, bool), np.clip(np.asarray(probabilities, float), 1e-6, 1 - 1e-6)
    support = truth.sum(axis=0)
    usable = (support > 0) & (support < len(truth)) & (True if seen is None else np.asarray(seen, bool))
    if not usable.any():
        return []
    with_label = np.where(truth, p, 0).sum(axis=0) / np.maximum(support, 1)  # mean probability where it is listed
    without = np.where(truth, 0, p).sum(axis=0) / np.maximum(len(truth) - support, 1)
    others = OTHER_LABELS * together(truth)
    against_listed = np.log(np.maximum(with_label, 1e-6) / p) - others
    against_not_listed = np.log(p / (1 - p)) + others - FULL * full(truth)[:, None]
    listed = truth & usable & (p < without) & (against_listed >= LISTED_AT_LEAST)
    missing = ~truth & usable & (p > with_label) & (against_not_listed >= NOT_LISTED_AT_LEAST)
    typical = [float(np.median(p[truth[:, j], j])) if usable[j] else np.nan for j in range(len(labels))]
    return [
        Doubt(
            item=i,
            item_id=str(item_ids[i]),
            title=str(titles[i]),
            label=labels[j],
            listed=bool(truth[i, j]),
            probability=float(probabilities[i][j]),
            typical=typical[j],
            listed_labels=tuple(labels[k] for k in np.flatnonzero(truth[i])),
        )
        for i, j in _by_turns(_ranked(listed, against_listed), _ranked(missing, against_not_listed))
    ]


def together(truth: np.ndarray) -> np.ndarray:
    """(N, L) nats by which an item's other listed labels speak for each label, each for itself (naive Bayes).

    Args:
        truth: (N, L) bool.
    """
    given = np.asarray(truth, float)
    both, support = given.T @ given, given.sum(axis=0)
    expected = TOGETHER * given.mean(axis=0)
    among = (both + expected) / (support[:, None] + TOGETHER)  # row: the label in question, column: the other one
    elsewhere = (support - both + expected) / (len(given) - support[:, None] + TOGETHER)
    weights = np.log(np.maximum(among, 1e-9) / np.maximum(elsewhere, 1e-9))
    np.fill_diagonal(weights, 0)
    return given @ weights.T


def full(truth: np.ndarray) -> np.ndarray:
    """(N,) bool, items listed with as many labels as the table ever names, where that is a cap.

    A cap shows in that more items have the most labels than have one fewer; free counts thin out instead.
    """
    counts = np.asarray(truth, bool).sum(axis=1)
    most = counts.max(initial=0)
    return (counts == most) & bool((counts == most).sum() > (counts == most - 1).sum())


def write_doubts(doubts: Iterable[Doubt], path: Path) -> None:
    """Write the sheet, whole or not at all; `verdict` is empty, for the person who looks.

    What comes from the table is kept from being computed by a spreadsheet.
    """
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for it in doubts:
            named = (harmless(text) for text in (it.item_id, it.title, it.label))
            figures = (f"{it.probability:.3f}", f"{it.typical:.3f}")
            listed = (harmless("|".join(it.listed_labels)), len(it.listed_labels))
            writer.writerow([*named, "yes" if it.listed else "no", *figures, *listed, it.suggestion, ""])


def _ranked(chosen: np.ndarray, evidence: np.ndarray) -> list[tuple[int, int]]:
    pairs = np.argwhere(chosen)
    order = np.argsort(-evidence[chosen], kind="stable")
    return [(int(i), int(j)) for i, j in pairs[order]]


def _by_turns(first: list, second: list) -> list:
    paired = min(len(first), len(second))
    return [it for pair in zip(first, second, strict=False) for it in pair] + first[paired:] + second[paired:]
