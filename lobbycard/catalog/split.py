"""Grouped, stratified multi-label split: near-identical pictures stay on one side, and a check that they did."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lobbycard.catalog.neardup import NEAR, group_items, number_groups, perceptual_hashes
from lobbycard.catalog.nearpairs import find_near
from lobbycard.catalog.select import label_matrix
from lobbycard.errors import InputError
from lobbycard.files import atomic_path

# Who splits needs the hashes and the groups as well: one import gives all.
__all__ = [
    "LeakReport",
    "group_items",
    "leak_check",
    "perceptual_hashes",
    "read_split",
    "split_items",
    "write_split",
]

DRAWS = 16  # stratified draws, of which the best is kept
_ENOUGH = 5  # items; a label with as many stands on both sides
_BLOCK = 512  # rows compared at a time, so that memory grows with N and not with N x N
_MANY_PAIRS = 200_000_000  # above, FAISS looks for the near ones alone: comparing all would take minutes
_HEADER = ["item_id", "side", "group", "hash"]
_GROUP, _HASH = re.compile("[0-9]{1,18}"), re.compile("[0-9a-fA-F]{16}")  # what int64 and uint64 can hold


def split_items(
    frame: pd.DataFrame, groups: Sequence[int], labels: Sequence[str], valid: float = 0.2, seed: int = 0
) -> np.ndarray:
    """(N,) bool: which items of `frame` are to measure on.

    Whole groups are drawn, so that about the share `valid` of all items and of each label's items is set apart. Of
    16 such draws, the one is kept that comes nearest in items. Same seed, same split, whatever the order of the rows.
    A label with 5 items or more has some on both sides, unless they are all of one group.

    Raises:
        InputError: `valid` is no share, or there are fewer than 2 groups.

    Source: Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, ECML PKDD 2011.
    """
    if not 0 < valid < 1:
        raise InputError(f"--valid: expected a share between 0 and 1, such as 0.2, got {valid}")
    units = number_groups(frame["item_id"], groups)
    n_units = int(units.max(initial=-1)) + 1
    if n_units < 2:
        raise InputError(
            f"{len(frame)} items in {n_units} groups of near-identical pictures: nothing to split; give more pictures"
        )
    truth = label_matrix(frame, labels)
    # (units, L+1) items: one column a label, and the last for the item itself.
    items = np.zeros((n_units, len(labels) + 1), np.int64)
    np.add.at(items, units, np.column_stack([truth, np.ones(len(frame), np.int64)]))
    draws = [_with_every_label(items, drawn) for drawn in _draws(items[:, :-1] > 0, valid, seed)]
    return min(draws, key=lambda drawn: _distance_from(valid, items, drawn))[units]


def _draws(has: np.ndarray, valid: float, seed: int) -> Iterator[np.ndarray]:
    """Stratified draws, each (n,) bool, of n units that have the labels `has`, (n, L) bool."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit  # brings scikit-learn

    n = len(has)
    n_valid = min(max(1, round(valid * n)), n - 1)
    # Two empty columns: with fewer than two labels the splitter would not take this for a multi-label problem.
    has = np.column_stack([has, np.zeros((n, 2), bool)])
    splitter = MultilabelStratifiedShuffleSplit(DRAWS, test_size=n_valid, train_size=n - n_valid, random_state=seed)
    for _, chosen in splitter.split(has, has):
        drawn = np.zeros(n, bool)
        drawn[chosen] = True
        yield drawn


def _with_every_label(items: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The draw, where a small share left a label no item on one side, with a unit moved there.

    The unit moved is the smallest one that is not the last of another label where it comes from.
    """
    total = items.sum(axis=0)
    wanted = total >= _ENOUGH
    wanted[-1] = True  # the items themselves: no side is empty
    for label in np.flatnonzero(wanted):
        for side in (False, True):
            having = np.flatnonzero(items[:, label])
            if len(having) < 2 or (drawn[having] == side).any():
                continue
            left = items[drawn != side].sum(axis=0) - items[having]
            strips = (wanted & (items[having] > 0) & (left == 0)).any(axis=1)
            drawn[having[np.lexsort((items[having].sum(axis=1), strips))[0]]] = side
    return drawn


def _distance_from(valid: float, items: np.ndarray, drawn: np.ndarray) -> tuple[int, float]:
    """How far a draw is from what was asked: labels missing on a side, then the deviation of the shares."""
    total, apart = items.sum(axis=0), items[drawn].sum(axis=0)
    lacking = int(((total >= _ENOUGH) & ((apart == 0) | (apart == total))).sum())
    off = np.abs(apart / np.maximum(total, 1) - valid)[total > 0]
    return lacking, float(off[-1] + off.mean())


@dataclass(frozen=True)
class LeakReport:
    """What stands on both sides of a split.

    `pairs_checked` is every pair of an item to train on and one to measure on; `closest_distance` the fewest bits (0 to
    64) in which two such hashes differ, None without pairs, or where so many were compared that it was looked for up to
    `distance` alone and is more; `near_pairs` how many differ in `distance` bits or fewer; `shared_groups` how many groups
    have items on both sides.
    """

    pairs_checked: int
    shared_groups: int
    closest_distance: int | None
    near_pairs: int
    distance: int = NEAR

    @property
    def clean(self) -> bool:
        return not self.shared_groups and not self.near_pairs

    def sentence(self) -> str:
        if not self.pairs_checked:
            return "Leak check: one side is empty, there was nothing to compare."
        closest = f"more than {self.distance}" if self.closest_distance is None else self.closest_distance
        found = (
            f"{self.pairs_checked:,} pairs across the sides compared; the closest two differ in {closest} of 64 bits"
        )
        if self.clean:
            return f"Leak check passed: {found}, and no group stands on both sides."
        return (
            f"LEAK: {found}. Pairs that differ in {self.distance} bits or fewer: {self.near_pairs:,}; "
            f"groups on both sides: {self.shared_groups:,}. The metrics are too good to be believed: split again."
        )


def leak_check(groups: Sequence[int], is_valid: Sequence[bool], hashes: np.ndarray, distance: int = NEAR) -> LeakReport:
    """Look for the same picture on both sides, by comparing every pair across them anew and not by trusting the groups.

    Args:
        groups: N group numbers.
        is_valid: N sides.
        hashes: (N,) uint64.
        distance: the most bits in which two hashes of the same picture differ.
    """
    from scipy.spatial.distance import cdist

    groups, is_valid = np.asarray(groups), np.asarray(is_valid, bool)
    shared = np.intersect1d(groups[is_valid], groups[~is_valid])
    pairs = int(is_valid.sum()) * int((~is_valid).sum())
    if pairs > _MANY_PAIRS:
        near = find_near(np.asarray(hashes), distance, is_valid)
        return LeakReport(pairs, len(shared), near.closest, near.across, distance)
    bits = np.unpackbits(np.asarray(hashes, ">u8").view(np.uint8).reshape(-1, 8), axis=1).astype(bool)
    train, valid = bits[~is_valid], bits[is_valid]
    closest, near = 64, 0
    if len(train) and len(valid):
        for begin in range(0, len(train), _BLOCK):
            apart = np.rint(cdist(train[begin : begin + _BLOCK], valid, "hamming") * 64)
            closest = min(closest, int(apart.min()))
            near += int((apart <= distance).sum())
    return LeakReport(pairs, len(shared), closest if pairs else None, near, distance)


def write_split(path: Path, frame: pd.DataFrame, hashes: np.ndarray) -> None:
    """Write which item stands on which side, one row an item in the order of their ids; whole or not at all.

    Args:
        path: `split.csv`; columns `item_id`, `side` ("train" or "valid"), `group`, `hash` (16 hexadecimal digits).
        frame: columns `item_id`, `is_valid`, `group`.
        hashes: (N,) uint64.
    """
    rows = sorted(zip(frame["item_id"], frame["is_valid"], frame["group"], hashes, strict=True), key=lambda row: row[0])
    with atomic_path(Path(path)) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows((i, "valid" if valid else "train", int(g), f"{int(h):016x}") for i, valid, g, h in rows)


def read_split(path: Path, item_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """A split as written: columns `item_id`, `is_valid` (bool), `group` (int64), `hash` (uint64).

    Args:
        path: `split.csv`.
        item_ids: the items to place; the rows come in this order. Without it they come as in the file.

    Raises:
        InputError: no such file, not a split, or it and `item_ids` do not name the same items.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the split.csv that training writes")
    rows = []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        if next(reader, None) != _HEADER:
            raise InputError(f"{path}: not a split; expected the columns {', '.join(_HEADER)} in its first line")
        for row in reader:
            try:
                item_id, side, group, digits = row
                if not (_GROUP.fullmatch(group) and _HASH.fullmatch(digits)):
                    raise ValueError("no group number, or a hash that is none")
                rows.append((item_id, {"train": False, "valid": True}[side], int(group), int(digits, 16)))
            except (ValueError, KeyError) as error:
                raise InputError(
                    f"{path}, line {reader.line_num}: expected an item id, train or valid, a group number and a "
                    f"hash of 16 hexadecimal digits, found {','.join(row)!r}; split anew"
                ) from error
    split = pd.DataFrame(rows, columns=["item_id", "is_valid", "group", "hash"])
    split = split.astype({"is_valid": bool, "group": "int64", "hash": "uint64"})
    twice = split["item_id"][split["item_id"].duplicated()].unique()
    if len(twice):
        raise InputError(f"{path}: {_named(twice)} more than once; an item stands on one side, write the split anew")
    if item_ids is None:
        return split
    unplaced, unknown = sorted(set(item_ids) - set(split["item_id"])), sorted(set(split["item_id"]) - set(item_ids))
    if unplaced:
        raise InputError(
            f"{path}: not in this split: {_named(unplaced)}; give the table it was made from, or split anew"
        )
    if unknown:
        raise InputError(f"{path}: not in the table: {_named(unknown)}; give the table this split was made from")
    return split.set_index("item_id").loc[list(item_ids)].reset_index()


def _named(item_ids: Sequence[str]) -> str:
    return ", ".join(list(item_ids)[:3]) + (f" and {len(item_ids) - 3:,} more" if len(item_ids) > 3 else "")
