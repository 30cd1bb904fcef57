"""Keep the labels with enough items, and balance them. What is drawn depends on the seed, not on the order of rows."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lobbycard.errors import InputError


def label_counts(frame: pd.DataFrame) -> dict[str, int]:
    """Label -> items that have it, commonest first, equal ones by name."""
    counts = Counter(label for labels in frame["labels"] for label in labels)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def label_matrix(frame: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """(N, L) bool: which item has which of the L `labels`. Other labels that the items have are passed over."""
    column = {label: j for j, label in enumerate(labels)}
    matrix = np.zeros((len(frame), len(labels)), dtype=bool)
    for i, names in enumerate(frame["labels"]):
        for name in names:
            if name in column:
                matrix[i, column[name]] = True
    return matrix


def keep_common(frame: pd.DataFrame, min_count: int) -> pd.DataFrame:
    """Only the labels that at least `min_count` items have; items left without any are dropped.

    Raises:
        InputError: no label is common enough.
    """
    counts = label_counts(frame)
    common = {label for label, count in counts.items() if count >= min_count}
    if not common:
        most = ", ".join(f"{label} ({count})" for label, count in list(counts.items())[:5]) or "no labels at all"
        raise InputError(
            f"no label has {min_count} items or more; the commonest are {most}. "
            "Lower --min-count, or give a larger table"
        )
    filtered = [tuple(label for label in labels if label in common) for labels in frame["labels"]]
    kept = frame.assign(labels=pd.Series(filtered, index=frame.index, dtype=object))
    return kept[[bool(labels) for labels in filtered]].reset_index(drop=True)


def balance(frame: pd.DataFrame, per_label: int, seed: int) -> pd.DataFrame:
    """Up to `per_label` items a label, sorted by `item_id`; 0 keeps all.

    The rarest label is served first, and items that it drew count for the other labels they have. So no label is short
    of `per_label` while items with it are left, and a common label that often goes along with rarer ones may exceed it.

    Raises:
        InputError: `per_label` is negative.
    """
    if per_label < 0:
        raise InputError(f"--per-genre: expected 0 (keep all) or more, got {per_label}")
    frame = _sorted(frame)
    if per_label == 0:
        return frame
    counts = label_counts(frame)
    labels = sorted(counts, key=lambda label: (counts[label], label))
    has = label_matrix(frame, labels)
    shuffled = np.random.default_rng(seed).permutation(len(frame))
    drawn = np.zeros(len(frame), dtype=bool)
    for j in range(len(labels)):
        need = max(0, per_label - int(has[drawn, j].sum()))
        drawn[shuffled[has[shuffled, j] & ~drawn[shuffled]][:need]] = True
    return frame[drawn].reset_index(drop=True)


def limit(frame: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """At most `n` items drawn at random, sorted by `item_id`. Raises InputError if `n` is below 1."""
    if n < 1:
        raise InputError(f"--limit: expected at least 1 item, got {n}")
    frame = _sorted(frame)
    drawn = np.random.default_rng(seed).permutation(len(frame))[:n]
    return frame.iloc[np.sort(drawn)].reset_index(drop=True)


def counts_table(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """For people: items a label in the table and as chosen, commonest first; labels left out get a dash."""
    width = max(map(len, [*before, "label"]))
    lines = [f"  {'label':<{width}}  {'in table':>8}  {'chosen':>8}"]
    for label in sorted(before, key=lambda label: (-before[label], label)):
        chosen = f"{after[label]:,}" if after.get(label) else "-"
        lines.append(f"  {label:<{width}}  {before[label]:>8,}  {chosen:>8}")
    return "\n".join(lines)


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("item_id", kind="stable", ignore_index=True)
