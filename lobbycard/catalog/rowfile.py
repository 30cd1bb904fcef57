"""Rows of one size in a file, read by their numbers."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import DTypeLike

from lobbycard.errors import InputError


class RowFile:
    """A file of rows. A process holds those that it asked for; what else stays in memory is the system's to keep or drop.

    A memory map reads as fast, but all that was read through it counts as the process's own memory.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: DTypeLike):
        """`shape` is one row's. Raises OSError where there is no such file."""
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        self.row_bytes = math.prod(self.shape) * self.dtype.itemsize
        self._file, self._alone = path.open("rb", buffering=0), Lock()

    def __getstate__(self) -> tuple[Path, tuple[int, ...], np.dtype]:
        return self.path, self.shape, self.dtype  # a copy, or another process, opens the file itself

    def __setstate__(self, state: tuple[Path, tuple[int, ...], np.dtype]) -> None:
        self.__init__(*state)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(B, *shape) of these rows, (B,) int; into `out`, if that is given.

        Raises:
            InputError: the file has no such row; it was cut off.
        """
        out = np.empty((len(rows), *self.shape), self.dtype) if out is None else out
        for row, place in zip(rows.tolist(), out, strict=True):
            left, at = memoryview(place.reshape(-1).view(np.uint8)), row * self.row_bytes
            while left and (n := self._read(left, at)):
                left, at = left[n:], at + n
            if left:
                raise InputError(f"{self.path}: ends before row {row:,}; it was cut off or changed while it was read")
        return out

    def close(self) -> None:
        """An open file cannot be removed on Windows."""
        self._file.close()

    def _read(self, into: memoryview, at: int) -> int:
        if hasattr(os, "preadv"):  # needs no place of its own in the file, which processes that fork would share
            return os.preadv(self._file.fileno(), [into], at)
        with self._alone:
            self._file.seek(at)
            return self._file.readinto(into)
