"""Pictures at one size: decoded once into one file, or, where there is no room for that, each time anew.

Several processes may fill and read the same file at once.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import PIL

from lobbycard.catalog.batches import THREADS, batches
from lobbycard.catalog.image import ImageError, poster_pixels, use_poster
from lobbycard.catalog.rowfile import RowFile
from lobbycard.errors import InputError
from lobbycard.files import atomic_path

# What made the pixels: rows made by anything else are not those that serving would see.
MADE_BY = f"1, Pillow {PIL.__version__}"
SAVED = 2048  # pictures, and an eighth of what is there, after which the index is written: what a killed process loses
SPARE = 2e9  # bytes of the disk that are left free, for the model and its checkpoints
_DECODED = 64  # pictures decoded at a time


class Pixels(Protocol):
    """N pictures that can be had by their rows."""

    size: tuple[int, int]  # height, width

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(B, H, W, 3) uint8 of these rows, (B,) int; into `out` if that is given, which spares the system new memory.

        Raises ImageError at a picture that cannot be read.
        """
        ...


class FilePixels:
    """Decoded each time they are asked for, several at once."""

    def __init__(self, paths: Sequence[Path], size: tuple[int, int], threads: int = THREADS):
        self.paths, self.size, self.threads = [Path(path) for path in paths], size, threads

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        alone = Lock()

        def read(row: int) -> np.ndarray:
            return use_poster(self.paths[row], lambda picture: poster_pixels(picture, self.size), alone)

        with ThreadPoolExecutor(self.threads) as pool:
            return np.stack(list(pool.map(read, rows)), out=out)


class PackedPixels:
    """Rows of a `PixelFile`."""

    def __init__(self, file: Path, rows: np.ndarray, size: tuple[int, int]):
        """`rows` (N,) are where the pictures lie in the file."""
        self.rows, self.size = rows, size
        self._file = RowFile(file, (*size, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return self._file.take(self.rows[rows], out)


class PixelFile:
    """The pixels of the pictures in a folder at one size: a file of rows that only grows, and an index of what is in it.

    A picture that has changed (its size in bytes or its time of change) gets a new row; a file that is more than half old rows is
    begun anew. A row is in the index only once it is whole on the disk, so the file may be cut off at any moment.
    """

    def __init__(self, folder: Path, size: tuple[int, int]):
        """Name the file for pictures of `folder`; nothing is opened yet."""
        stem = f".pixels-{size[0]}x{size[1]}"
        self.folder, self.size = folder, size
        self.file, self.index, self.lock = (folder / f"{stem}{end}" for end in (".u8", ".npz", ".lock"))

    @property
    def row_bytes(self) -> int:
        return self.size[0] * self.size[1] * 3

    def open(
        self, paths: Sequence[Path], progress: Callable[[int], AbstractContextManager] = nullcontext
    ) -> PackedPixels:
        """The pictures `paths`, of the folder; those that are not in the file yet are decoded into it.

        Only one process fills the file at a time, others wait for it.

        Args:
            progress: called with the number of pictures to decode, where there are any; what its context gives has
                `update(n)`.

        Raises:
            ImageError: a picture that cannot be read.
            InputError: no room on the disk.
            OSError: nothing can be written in the folder.
        """
        from filelock import FileLock

        names = [path.relative_to(self.folder).as_posix() for path in paths]
        seen = [(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in paths)]
        with FileLock(self.lock):
            held, count = self._read_index()
            missing = [i for i, name in enumerate(names) if held.get(name, (None,))[:2] != seen[i]]
            if count and count + len(missing) > 2 * len({*held, *names}):
                self._forget()
                held, count, missing = {}, 0, list(range(len(names)))
            if missing:
                self._check_room(len(missing))
                with progress(len(missing)) as bar:
                    self._append(held, count, [(names[i], paths[i], seen[i]) for i in missing], bar)
            # Opened within the lock: an index that another process writes must not be met by half.
            return PackedPixels(self.file, np.array([held[name][2] for name in names], np.int64), self.size)

    def _append(self, held: dict, count: int, pictures: list[tuple[str, Path, tuple[int, int]]], bar: Any) -> None:
        mode = "rb+" if self.file.is_file() else "wb"
        with self._whole_or_gone(), self.file.open(mode) as file:
            file.truncate(count * self.row_bytes)  # rows that a killed process wrote and did not list
            file.seek(0, os.SEEK_END)
            since = 0
            decoded = batches((path for _, path, _ in pictures), self.size, _DECODED)
            for begin, batch in zip(range(0, len(pictures), _DECODED), decoded, strict=True):
                if batch.errors:
                    self._save(file, held, count)
                    raise ImageError("truncated", next(iter(batch.errors.values())))
                file.write(np.ascontiguousarray(batch.pixels).data)
                for name, _, was in pictures[begin : begin + _DECODED]:
                    held[name] = (*was, count)
                    count += 1
                if hasattr(bar, "update"):
                    bar.update(len(batch.pixels))
                since += len(batch.pixels)
                if since >= max(SAVED, count // 8):
                    self._save(file, held, count)
                    since = 0
            self._save(file, held, count)

    @contextmanager
    def _whole_or_gone(self) -> Iterator[None]:
        """What cannot be written to its end gives its room back."""
        try:
            yield
        except OSError:
            with suppress(OSError):
                self._forget()
            raise

    def _save(self, file: Any, held: dict[str, tuple[int, int, int]], count: int) -> None:
        file.flush()
        os.fsync(file.fileno())
        columns = np.array(list(held.values()), np.int64).reshape(-1, 3)
        with atomic_path(self.index) as part, part.open("wb") as index:
            np.savez(index, names=np.array(list(held), str), columns=columns, count=count, made_by=MADE_BY)

    def _read_index(self) -> tuple[dict[str, tuple[int, int, int]], int]:
        """Name -> size and time of the picture's file and its row; and how many rows the file has. Damaged, it is none."""
        with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(self.index) as saved:
            count, columns = int(saved["count"]), saved["columns"].tolist()
            if str(saved["made_by"]) == MADE_BY and self.file.stat().st_size >= count * self.row_bytes:
                return {name: tuple(row) for name, row in zip(saved["names"].tolist(), columns, strict=True)}, count
        self._forget()
        return {}, 0

    def _forget(self) -> None:
        """Remove both: a process that reads the file has it open, and keeps it; Windows refuses to remove it for as long."""
        self.index.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)

    def _check_room(self, missing: int) -> None:
        needed, free = missing * self.row_bytes, shutil.disk_usage(self.folder).free
        if needed + SPARE > free:
            raise InputError(
                f"{self.file}: needs {needed / 1e9:.1f} GB for {missing:,} pictures, where {free / 1e9:.1f} GB are free, and "
                f"{SPARE / 1e9:.0f} of them are for other things"
            )
