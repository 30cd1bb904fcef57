"""What a network's frozen lower half answers to every poster, kept on disk: an epoch reads that instead of pictures."""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader

from lobbycard.catalog.rowfile import RowFile
from lobbycard.errors import InputError
from lobbycard.files import atomic_path
from lobbycard.poster.inference import mirror
from lobbycard.poster.runtimes import Logits

VIEWS = 2  # a poster as it is, and its mirror image
NUMBER = np.dtype(np.float16)


class HalfwayFile:
    """The answers, fp16, poster by poster: (N, `VIEWS`, H, W, C) of a convolutional network, else (N, `VIEWS`, *shape)."""

    def __init__(self, path: Path, n: int, shape: Sequence[int]):
        """Name a file for N posters; `shape` is one answer's, channels first. Nothing is opened yet."""
        self.path, self.n, self.shape = path, n, tuple(shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.n * VIEWS * math.prod(self.shape) * NUMBER.itemsize

    @property
    def whole(self) -> bool:
        return self.path.is_file() and self.path.stat().st_size == self.size

    def write(self, answers: Iterator[np.ndarray]) -> None:
        """Write N posters' answers, which come in batches (B, `VIEWS`, *shape) fp32.

        Raises:
            InputError: no room on the disk.
        """
        self.check_room()
        largest = np.finfo(NUMBER).max
        with atomic_path(self.path) as part, part.open("wb") as file:
            for batch in answers:
                rows = np.moveaxis(batch, 2, -1) if len(self.shape) == 3 else batch
                file.write(np.ascontiguousarray(np.clip(rows, -largest, largest), NUMBER).data)

    def check_room(self) -> None:
        """Raises InputError if there is no room on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(self.path.parent).free) < self.size:
            raise InputError(
                f"--strategy cached: keeps {self.size / 1e9:.1f} GB for {self.n:,} posters at {self.path}, where "
                f"{free / 1e9:.1f} GB are free; make room, take fewer movies (--per-genre, --limit), a smaller --size, or "
                "--strategy probe"
            )

    def open(self) -> RowFile:
        """The answers, row by row: view v of poster i is row `VIEWS` * i + v."""
        shape = (*self.shape[1:], self.shape[0]) if len(self.shape) == 3 else self.shape
        return RowFile(self.path, shape, NUMBER)


def half_answers(lower: Logits, upper: Logits, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both views of a batch through both halves.

    Args:
        lower: (B, 3, H, W) -> (B, *shape); `upper`: (B, *shape) -> (B, D), without its last layer.
        pixels: (B, 3, H, W) fp32 normalised.

    Returns:
        What the lower half answers, (B, `VIEWS`, *shape) fp32, and the upper half's mean over both views, (B, D): what a head
        is fitted on.
    """
    maps = [lower(pixels), lower(mirror(pixels))]
    return np.stack(maps, axis=1), sum(upper(view) for view in maps) / VIEWS


class HalfwayLoader(DataLoader):
    """Batches of (B, *shape) fp32 and (B, L) targets, gathered row by row from a `HalfwayFile`.

    The training side takes each poster as it is or mirrored, at random from torch's generator.
    """

    def __init__(
        self,
        file: HalfwayFile,
        rows: np.ndarray,
        targets: np.ndarray,
        training: bool,
        whole_steps: bool,
        **loading: Any,
    ):
        """`whole_steps` drops an incomplete last batch in training."""
        super().__init__(dataset=range(len(rows)), shuffle=training, drop_last=training and whole_steps, **loading)
        self.file, self.shape, self.channels_last = file, file.shape, len(file.shape) == 3
        self.rows, self.targets, self.training = rows, torch.from_numpy(targets.astype(np.float32)), training

    def create_batches(self, samples: Iterator[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        with closing(self.file.open()) as kept:
            while len(chosen := np.fromiter(islice(samples, self.bs), int)):
                if self.drop_last and len(chosen) < self.bs:
                    return
                views = torch.randint(VIEWS, (len(chosen),)).numpy() if self.training else 0
                maps = torch.from_numpy(kept.take(VIEWS * self.rows[chosen] + views)).float()
                yield maps.movedim(-1, 1) if self.channels_last else maps, self.targets[chosen]


def halfway_dataloaders(
    file: HalfwayFile,
    truth: np.ndarray,
    is_valid: np.ndarray,
    batch_size: int,
    device: torch.device,
    processes: int = 1,
) -> DataLoaders:
    """Training and validation batches; truth (N, L) bool and is_valid (N,) bool, in the file's order.

    Of several `processes`, each takes `batch_size` posters a step.
    """
    sides = [(np.flatnonzero(is_valid == valid), valid) for valid in (False, True)]
    loaders = [
        HalfwayLoader(
            file,
            rows,
            truth[rows],
            training=not valid,
            whole_steps=len(rows) >= batch_size * processes,
            bs=batch_size,
            device=device,
            num_workers=0,
        )
        for rows, valid in sides
    ]
    return DataLoaders(*loaders, device=device)
