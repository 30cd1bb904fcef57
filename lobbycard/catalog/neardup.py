"""Near-identical pictures: perceptual hashes, and groups of items whose pictures are all but the same."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lobbycard.catalog.image import load_poster
from lobbycard.catalog.nearpairs import MANY, find_near

# Of 64 bits. On 7,900 real posters every pair up to 4 is the same art, and the first unlike pair stands at 6.
NEAR = 4
_BLOCK = 512  # hashes compared at a time, so that memory grows with N and not with N x N


def perceptual_hashes(
    paths: Sequence[Path], load: Callable[[Path], Any] = load_poster, threads: int = 4, bar: Any = None
) -> np.ndarray:
    """64-bit perceptual hashes of pictures: (N,) uint64, in the order of `paths`.

    Args:
        paths: N picture files.
        load: gives the picture of a path as a Pillow image.
        threads: pictures decoded at a time.
        bar: its `update(1)` is called after each picture.

    Raises:
        ImageError: a picture cannot be read; the message names the file.

    Source: imagehash.phash: the signs, about their median, of the 8 x 8 lowest frequencies of the 32 x 32 grey picture.
    """
    from imagehash import phash  # brings SciPy, which serving does not need

    def one(path: Path) -> np.uint64:
        return np.packbits(phash(load(path), hash_size=8).hash).view(">u8")[0]

    hashes = np.empty(len(paths), np.uint64)
    with ThreadPoolExecutor(threads) as pool:
        for i, value in enumerate(pool.map(one, paths)):
            hashes[i] = value
            if bar is not None:
                bar.update(1)
    return hashes


def group_items(
    item_ids: Sequence[str], hashes: np.ndarray, distance: int = NEAR, also: Iterable[Sequence[str]] = ()
) -> np.ndarray:
    """(N,) int64 group numbers: items that a chain of near-identical pictures joins share one.

    Groups are numbered by their smallest item id, so they do not depend on the order of the items.

    Args:
        item_ids: N ids; equal ids are joined.
        hashes: (N,) uint64.
        distance: bits in which two hashes may differ and still be joined.
        also: further keys of N strings each (addresses, checksums); items with an equal key that is not "" are joined.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(item_ids)
    unique, of_item = np.unique(np.asarray(hashes, np.uint64), return_inverse=True)
    m = len(unique)
    # Nodes 0 to m-1 are pictures, m to m+n-1 are items: an item hangs on its picture and on the first item of each key.
    start, end = [np.arange(m, m + n)], [of_item]
    for keys in (item_ids, *also):
        first: dict[str, int] = {}
        start.append(np.arange(m, m + n))
        end.append(np.array([m + (first.setdefault(key, i) if key else i) for i, key in enumerate(keys)], np.int64))
    component = np.arange(m + n)

    def join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        edges = coo_array((np.ones(len(a), bool), (component[a], component[b])), shape=(m + n, m + n))
        return connected_components(edges, directed=False)[1][component]

    component = join(np.concatenate(start), np.concatenate(end))
    if m >= MANY:
        _, first, number = np.unique(find_near(unique, distance).component, return_index=True, return_inverse=True)
        return number_groups(item_ids, join(np.arange(m), first[number])[m:])
    # As vectors of +1 and -1, two hashes that differ in d bits have the scalar product 64 - 2d: exact in float32.
    signs = np.unpackbits(unique.astype(">u8").view(np.uint8).reshape(m, 8), axis=1).astype(np.float32) * 2 - 1
    for begin in range(0, m, _BLOCK):
        a, b = np.nonzero(signs[begin : begin + _BLOCK] @ signs[begin:].T >= 64 - 2 * distance)
        apart = a != b
        if apart.any():
            component = join(a[apart] + begin, b[apart] + begin)
    return number_groups(item_ids, component[m:])


def number_groups(item_ids: Sequence[str], groups: Sequence[int]) -> np.ndarray:
    """The same groups, (N,) int64, numbered from 0 by their smallest item id."""
    order = np.argsort(np.asarray(item_ids, dtype=str), kind="stable")
    numbers = np.empty(len(order), np.int64)
    numbers[order] = pd.factorize(np.asarray(groups)[order])[0]
    return numbers
