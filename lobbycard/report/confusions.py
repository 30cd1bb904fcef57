"""Which labels are mistaken for which: most often, and more often than by being common."""

import numpy as np

from lobbycard.report.findings import Findings

SURELY = 3.0  # standard deviations of a Poisson count; hundreds of pairs are looked at


def confusions(findings: Findings, count: int) -> list[tuple[str, str, int]]:
    """(missed label, label given instead, items), most frequent first; nothing where nothing was confused."""
    misses = _misses(findings)
    order = np.argsort(-misses, axis=None, kind="stable")[:count]
    pairs = [divmod(int(flat), len(findings.labels)) for flat in order]
    return [(findings.labels[i], findings.labels[j], int(misses[i, j])) for i, j in pairs if misses[i, j] > 0]


def confused_by_look(findings: Findings, count: int) -> list[tuple[str, str, int, float]]:
    """(missed label, label given instead, items, items expected), where the items are surely more than expected.

    Expected is what how often each label is missed and given would lead to, if which is given did not depend on which was
    missed; "surely" is `SURELY` Poisson standard deviations above. Strongest first.

    Source: Goodman, "The Analysis of Cross-Classified Data: Independence, Quasi-Independence, and Interactions in Contingency
    Tables with or without Missing Entries", JASA 63, 1968 (the diagonal is empty by definition), fitted by scaling rows and
    columns in turn.
    """
    misses = _misses(findings)
    expected = 1.0 - np.eye(len(misses))
    for _ in range(100):
        for axis in (1, 0):
            total = expected.sum(axis=axis, keepdims=True)
            expected *= np.divide(
                misses.sum(axis=axis, keepdims=True), total, out=np.zeros(total.shape), where=total > 0
            )
    excess = (misses - expected) / np.sqrt(np.maximum(expected, 1))
    order = np.argsort(-excess, axis=None, kind="stable")[:count]
    pairs = [divmod(int(flat), len(findings.labels)) for flat in order]
    return [
        (findings.labels[i], findings.labels[j], int(misses[i, j]), float(expected[i, j]))
        for i, j in pairs
        if excess[i, j] >= SURELY
    ]


def _misses(findings: Findings) -> np.ndarray:
    width = len(findings.labels)
    misses = np.zeros((width, width), int) if findings.misses is None else np.array(findings.misses, int)
    np.fill_diagonal(misses, 0)
    return misses
