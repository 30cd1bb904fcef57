"""Near-identical hashes among very many, found by FAISS in a process of its own.

FAISS and PyTorch each bring an OpenMP runtime, and on macOS and Windows a process that holds both may end without a word
(https://github.com/faiss-wheels/faiss-wheels/issues/73). So this module runs itself as a program that loads neither PyTorch
nor what of ours needs it.
"""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lobbycard.errors import InputError

MANY = 30_000  # hashes from which FAISS is quicker than comparing all pairs, the start of its process included
_QUERIES = 2048  # hashes asked about at a time: thousands that are all near each other must not fill the memory
_EDGES = (
    4_000_000  # pairs held before they are merged, so that memory does not grow with a thousand copies of one picture
)
_TABLES, _KEY_BITS = 3, 21


class Near(NamedTuple):
    """What stands near what, of N hashes of which some may stand on another side than the others."""

    component: np.ndarray  # (N,) int64: those that a chain of near pairs joins have the same number
    across: int  # near pairs whose ends stand on unlike sides
    closest: int | None  # fewest bits in which two of unlike sides differ, None where that is more than `distance`


def find_near(hashes: np.ndarray, distance: int, sides: np.ndarray | None = None) -> Near:
    """Compare all of the hashes with each other.

    Args:
        hashes: (N,) uint64.
        distance: bits in which two hashes may differ and still be near.
        sides: (N,) bool; without it `across` is 0 and `closest` None.

    Raises:
        InputError: FAISS is not installed.
        RuntimeError: the process that searches has failed; the message is its own.
    """
    if not find_spec("faiss"):
        raise InputError(
            f"{len(hashes):,} pictures to compare need FAISS, which is not installed here: pip install faiss-cpu"
        )
    unique, of_item = np.unique(np.asarray(hashes, np.uint64), return_inverse=True)
    sides = np.zeros(len(hashes), bool) if sides is None else np.asarray(sides, bool)
    counts = np.stack([np.bincount(of_item[sides == side], minlength=len(unique)) for side in (False, True)])
    given = io.BytesIO()
    np.savez(given, hashes=unique, distance=distance, counts=counts)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "lobbycard.catalog.nearpairs"], input=given.getvalue(), capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"searching {len(hashes):,} hashes failed: {done.stderr.decode(errors='replace').strip()}")
    with np.load(io.BytesIO(done.stdout)) as found:
        closest = int(found["closest"])
        return Near(found["component"][of_item], int(found["across"]), closest if closest >= 0 else None)


def search(hashes: np.ndarray, distance: int, counts: np.ndarray) -> Near:
    """`find_near` of M unlike hashes, in the process that has FAISS; `counts` (2, M) are how often each stands on either side."""
    component, edges, held = np.arange(len(hashes)), [], 0
    here, there = counts.astype(np.int64)
    across, closest = int((here * there).sum()), 0 if (here * there).any() else distance + 1
    for a, b, apart in _pairs(hashes, distance):
        crossing = here[a] * there[b] + there[a] * here[b]
        across += int(crossing.sum())
        closest = min(closest, int(apart[crossing > 0].min(initial=closest)))
        edges.append((a, b))
        held += len(a)
        if held > _EDGES:
            component, edges, held = _merged(component, edges), [], 0
    return Near(_merged(component, edges), across, closest if closest <= distance else None)


def _pairs(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All pairs a < b that differ in `distance` bits or fewer, and in how many, some at a time.

    Of three disjoint keys of 21 bits, at least one differs in no more than a third of the bits in which two hashes differ:
    looked up with so many bits turned over, nothing is missed.
    """
    import faiss

    codes = hashes.view(np.uint8).reshape(-1, 8)
    index = faiss.IndexBinaryMultiHash(64, _TABLES, _KEY_BITS)
    index.nflip = distance // _TABLES
    index.add(codes)
    for begin in range(0, len(codes), _QUERIES):
        ends, apart, b = index.range_search(codes[begin : begin + _QUERIES], distance + 1)  # less than, not up to
        a = begin + np.repeat(np.arange(len(ends) - 1), np.diff(ends.astype(np.int64)))
        once = a < b
        yield a[once], b[once], apart[once]


def _merged(component: np.ndarray, edges: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not edges:
        return component
    a, b = (component[np.concatenate(ends)] for ends in zip(*edges, strict=True))
    joined = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(component), len(component)))
    return connected_components(joined, directed=False)[1].astype(np.int64)[component]


def main() -> None:
    """Read what `find_near` sends, answer with what it reads."""
    with np.load(io.BytesIO(sys.stdin.buffer.read())) as given:
        found = search(given["hashes"], int(given["distance"]), given["counts"])
    answer = io.BytesIO()
    np.savez(
        answer, component=found.component, across=found.across, closest=-1 if found.closest is None else found.closest
    )
    sys.stdout.buffer.write(answer.getvalue())


if __name__ == "__main__":
    main()
