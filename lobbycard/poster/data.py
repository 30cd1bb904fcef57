"""fastai DataLoaders over posters on disk, read through the same door as in serving."""

import os
import sys
from pathlib import Path

import pandas as pd
import torch
from fastai.data.block import DataBlock, MultiCategoryBlock, TransformBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import ColReader, ColSplitter, IntToFloatTensor, Normalize
from fastai.vision.core import PILImage
from fasttransform import Transform

from lobbycard.catalog.image import load_poster, resize_poster
from lobbycard.poster.augment import poster_augmentation


def poster_dataloaders(
    frame: pd.DataFrame,
    labels: list[str],
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int,
    device: torch.device,
    workers: int = -1,
    augmented: bool = True,
) -> DataLoaders:
    """DataLoaders whose batches are (B, 3, H, W) normalised pixels and (B, L) zeros and ones.

    Args:
        frame: columns `path` (of the poster), `labels` (tuple of names) and `is_valid`.
        labels: the L names, in the order of the columns of the targets.
        size: (height, width) of the input.
        mean: per channel, of pixels in [0, 1]; `std` likewise.
        workers: processes that load posters, -1 chooses (`default_workers`).
        augmented: change training posters at random; the validation side is never changed.
    """
    rows = pd.DataFrame(
        {
            "path": frame["path"].map(str),
            "labels": frame["labels"].map("|".join),
            "is_valid": frame["is_valid"].astype(bool),
        }
    )
    items = [AugmentPoster(size)] if augmented else []
    block = DataBlock(
        blocks=(TransformBlock(type_tfms=open_poster, batch_tfms=IntToFloatTensor), MultiCategoryBlock(vocab=labels)),
        get_x=ColReader("path"),
        get_y=ColReader("labels", label_delim="|"),
        splitter=ColSplitter("is_valid"),
        item_tfms=[*items, FitPoster(size)],
        batch_tfms=[Normalize.from_stats(mean, std, cuda=False)],
    )
    workers = default_workers(device) if workers < 0 else workers
    # A last batch of one breaks batch norm, so the training side drops an incomplete one (fastai's default too).
    drop_last = int((~rows["is_valid"]).sum()) >= batch_size
    dls = block.dataloaders(rows, bs=batch_size, num_workers=workers, device=device, drop_last=drop_last)
    return dls.to(device)


def default_workers(device: torch.device) -> int:
    """Loading processes: as many as pay for themselves.

    None on Windows and macOS, where each is a fresh interpreter that imports everything again and scripts without a
    main guard fork without end; none in notebooks, for the same reason; none beside a CPU that trains, which they slow.
    """
    if sys.platform in ("win32", "darwin") or "ipykernel" in sys.modules or device.type == "cpu":
        return 0
    return min(16, os.cpu_count() or 1)


def open_poster(path: str | Path) -> PILImage:
    """`load_poster`, as the type fastai dispatches on."""
    return PILImage(load_poster(Path(path)))


class FitPoster(Transform):
    """Squash to the input size with the function that serving uses."""

    order = 2

    def __init__(self, size: tuple[int, int]):
        self.size = size

    def encodes(self, x: PILImage):
        return PILImage(resize_poster(x, self.size))


class AugmentPoster(Transform):
    """Random changes, on the training side alone."""

    order, split_idx = 1, 0

    def __init__(self, size: tuple[int, int]):
        self.transform = poster_augmentation(size)

    def encodes(self, x: PILImage):
        return PILImage(self.transform(x))
