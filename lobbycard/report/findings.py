"""Everything a report says, as plain arrays and dicts: the one thing that `page` and `card` read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lobbycard.report.doubts import Doubt, find_doubts
from lobbycard.report.sight import SEEN, sight

if TYPE_CHECKING:
    from PIL import Image

METRIC_NAMES = {"mAP": "mAP", "macro_f1": "macro-F1", "micro_f1": "micro-F1", "samples_f1": "samples-F1"}
DATA_KEYS = (
    *("source", "rows_read", "dropped", "kept", "labels_before", "labels_after", "downloads", "coverage"),
    *("n_train", "n_valid", "n_groups", "leak_check"),
)
BASELINE_NAMES = {"none": "nothing", "top2": "two commonest", "prior": "prior"}


@dataclass(frozen=True)
class Findings:
    """What was measured on the validation items, and how the model was made.

    A metrics object is `{"mAP": {"value": float, "ci95": [low, high]}, "macro_f1": ..., "micro_f1": ...,
    "samples_f1": ...}`; `ci95` may be missing, and a value that does not exist is None or NaN.

    Attributes:
        name: of the model, such as `poster-genres`.
        task: what the model folder calls its task.
        labels: the L labels, in the order of every array's columns.
        truth, decisions: (N, L) bool.
        probabilities: (N, L) in [0, 1], calibrated, each from a fit that had not seen its row.
        thresholds: (L,) in [0, 1].
        item_ids, titles: N each; a title may be "".
        metrics: of the model; `baselines`: of `none`, `top2` and `prior`, the predictions without skill.
        per_label: label -> `ap`, `f1`, `precision`, `recall`, `support`, `threshold`, `ap_ci95`, `f1_ci95`.
        sweep: a row a threshold: `threshold`, `accuracy`, `accuracy_predict_nothing`, `macro_f1`, `micro_f1`,
            `precision`, `recall`.
        ece_before, ece_after: expected calibration error, 0 is perfect.
        reliability_before, reliability_after: `confidence`, `frequency`, `count`, one value a bin.
        misses: (L, L) counts of items; row: a true label that was missed, column: one wrongly given.
        thumbnails: item index -> picture or None, as a function or a list; the report makes them small.
        history: a row an epoch: `phase`, `epoch` (counted from 1), `train_loss`, `valid_loss`, `mAP`, `f1_score`,
            `precision_score`, `recall_score`, `time`; and one without `train_loss` for weights that no epoch has brought about.
            Empty where nothing was trained by epochs.
        weights_of: which of the history's weights these are, such as `epoch 3`; "" if that is not known.
        augmentation_sheet: one picture, or None.
        data: any of `source` (text), `rows_read`, `dropped` (reason -> count), `kept`, `labels_before` and
            `labels_after` (label -> count, in the table and of what was taken), `downloads` (status -> count), `coverage`
            (rows with the same columns), `n_train`, `n_valid`, `n_groups`, `leak_check` (sentences).
        input_size: height and width in pixels, or () where the input is no picture.
        versions: package -> version; `seconds`: stage -> seconds.
        command: as typed, or "" if there was none; `date`: ISO 8601.
        modes: a row a way to compute, the plainest first: `name`, `mAP`, `change` against the first, `ci95` of the change,
            `milliseconds` an item, or `refused` with the reason; `modes_measured` says on what.
        learning_curve: `points`, by items trained on, this model last: `movies` (how many), `metrics`, `per_label` (label ->
            `ap`, `count` of the items trained on that have it); `last_doubling`, from the last point but one to the last:
            `metrics` and `per_label` (label -> `ap`) of differences `value`, `ci95`, with `beyond_chance` for the `ap` of
            each of `tested_labels`. None where none was measured.
        notes: sentences for the end of the page; `limits`: sentences the measured limits are added to;
            `intended_use`: sentences for the card.
        item_noun, label_noun: singular, as in "poster" and "genre".

    Raises:
        ValueError: an array does not have the shape that `labels` and `truth` ask for.
    """

    name: str
    task: str
    labels: Sequence[str]
    truth: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray
    thresholds: np.ndarray
    item_ids: Sequence[str]
    titles: Sequence[str]
    metrics: Mapping[str, Mapping]
    baselines: Mapping[str, Mapping]
    per_label: Mapping[str, Mapping]
    sweep: Sequence[Mapping[str, float]] = ()
    ece_before: float | None = None
    ece_after: float | None = None
    reliability_before: Mapping[str, Sequence[float]] | None = None
    reliability_after: Mapping[str, Sequence[float]] | None = None
    misses: np.ndarray | None = None
    thumbnails: "Callable[[int], Image.Image | None] | Sequence[Image.Image | None] | None" = None
    history: Sequence[Mapping[str, Any]] = ()
    weights_of: str = ""
    augmentation_sheet: "Image.Image | None" = None
    data: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    arch: str = ""
    input_size: Sequence[int] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    machine: str = ""
    command: str = ""
    date: str = ""
    modes: Sequence[Mapping[str, Any]] = ()
    modes_measured: str = ""
    learning_curve: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    limits: Sequence[str] = ()
    intended_use: Sequence[str] = ()
    item_noun: str = "item"
    label_noun: str = "label"

    def __post_init__(self):
        n, width = len(self.item_ids), len(self.labels)
        shapes = {
            "truth": (n, width),
            "probabilities": (n, width),
            "decisions": (n, width),
            "thresholds": (width,),
        }
        if self.misses is not None:
            shapes["misses"] = (width, width)
        for name, expected in shapes.items():
            if (got := np.shape(getattr(self, name))) != expected:
                raise ValueError(f"{name}: expected shape {expected} for {n} items and {width} labels, got {got}")
        if len(self.titles) != n:
            raise ValueError(f"titles: expected {n}, one an item ('' where unknown), got {len(self.titles)}")

    @property
    def item_nouns(self) -> str:
        return f"{self.item_noun}s"

    @property
    def label_nouns(self) -> str:
        return f"{self.label_noun}s"

    @property
    def known_data(self) -> dict[str, Any]:
        """`data` with None for each key that was not given."""
        return dict.fromkeys(DATA_KEYS) | dict(self.data)

    @property
    def support(self) -> np.ndarray:
        """(L,) items that have each label."""
        return np.asarray(self.truth, bool).sum(axis=0)

    @property
    def prevalence(self) -> np.ndarray:
        """(L,) share of items that have each label, which is what a random ranking scores. NaN if N is 0."""
        return self.support / len(self.item_ids) if len(self.item_ids) else np.full(len(self.labels), np.nan)

    @cached_property
    def sight(self) -> dict[str, str]:
        """Label -> whether the model can tell it: `seen`, `barely`, `chance` or `unknown`; see `report.sight`."""
        return {
            label: sight(self.per_label.get(label, {}).get("ap_ci95"), float(prevalence), int(support))
            for label, prevalence, support in zip(self.labels, self.prevalence, self.support, strict=True)
        }

    @cached_property
    def doubts(self) -> list[Doubt]:
        """Where the table looks wrong, most doubtful first; only labels that the model can tell."""
        seen = np.array([self.sight[label] == SEEN for label in self.labels], bool)
        return find_doubts(self.item_ids, self.titles, self.labels, self.truth, self.probabilities, seen)

    def thumbnail(self, index: int) -> "Image.Image | None":
        """The picture of one item, as the caller gave it."""
        if self.thumbnails is None:
            return None
        return self.thumbnails(index) if callable(self.thumbnails) else self.thumbnails[index]
