"""fastai DataLoaders over posters on disk, read through the same door as in serving."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.data.block import DataBlock, MultiCategoryBlock, TransformBlock
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import ColReader, ColSplitter, IntToFloatTensor, Normalize
from fastai.torch_core import TensorImage, TensorMultiCategory
from fastai.vision.core import PILImage
from fasttransform import Transform

from lobbycard.catalog.image import ImageError, load_poster, resize_poster
from lobbycard.catalog.pixels import FilePixels, PixelFile, Pixels
from lobbycard.catalog.select import label_matrix
from lobbycard.errors import InputError
from lobbycard.poster.augment import poster_augmentation
from lobbycard.progress import progress

AHEAD = 2  # batches read while one is trained on


def poster_dataloaders(
    frame: pd.DataFrame,
    labels: list[str],
    pixels: Pixels,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int,
    device: torch.device,
    processes: int = 1,
    augmented: bool = True,
) -> DataLoaders:
    """DataLoaders whose batches are (B, 3, H, W) normalised pixels and (B, L) zeros and ones.

    Args:
        frame: N rows; columns `path` (of the poster), `labels` (tuple of names) and `is_valid`.
        labels: the L names, in the order of the columns of the targets.
        pixels: of the N posters, at the size of the input.
        mean: per channel, of pixels in [0, 1]; `std` likewise.
        batch_size: posters a step; of several `processes` that train together, in each.
        augmented: change training posters at random; the validation side is never changed.
    """
    rows = pd.DataFrame(
        {
            "path": frame["path"].map(str),
            "labels": frame["labels"].map("|".join),
            "is_valid": frame["is_valid"].astype(bool),
        }
    )
    block = DataBlock(
        blocks=(TransformBlock(type_tfms=open_poster, batch_tfms=IntToFloatTensor), MultiCategoryBlock(vocab=labels)),
        get_x=ColReader("path"),
        get_y=ColReader("labels", label_delim="|"),
        splitter=ColSplitter("is_valid"),
        item_tfms=FitPoster(pixels.size),
        batch_tfms=[*(poster_augmentation() if augmented else []), Normalize.from_stats(mean, std, cuda=False)],
    )
    valid = rows["is_valid"].to_numpy()
    truth = torch.from_numpy(label_matrix(frame, labels).astype(np.float32))
    sides = [
        {"pixels": pixels, "rows": np.flatnonzero(valid == side), "truth": truth[valid == side]}
        for side in (False, True)
    ]
    # A last batch of one breaks batch norm, so the training side drops an incomplete one (fastai's default too).
    drop_last = int((~valid).sum()) >= batch_size * processes
    dls = block.dataloaders(
        rows, bs=batch_size, num_workers=0, device=device, drop_last=drop_last, dl_type=PosterDL, dl_kwargs=sides
    )
    return dls.to(device)


class PosterDL(TfmdDL):
    """A loader of fastai's whose batches come from `Pixels`, a few ahead of what is asked for, in a thread and no processes.

    Showing, decoding and transforms on whole batches are fastai's; transforms on single items are passed over.
    """

    def __init__(self, dataset: Any, pixels: Pixels, rows: np.ndarray, truth: torch.Tensor, **loading: Any):
        """`rows` (N,) are the dataset's in `pixels`, `truth` (N, L) its zeros and ones."""
        self.pixels, self.rows, self.truth = pixels, rows, truth
        super().__init__(dataset, **loading)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one poster, channels first."""
        return (3, *self.pixels.size)

    @property
    def _on_gpu(self) -> bool:
        return self.device is not None and torch.device(self.device).type == "cuda"

    def create_batches(self, samples: Iterator[int]) -> Iterator[tuple[TensorImage, TensorMultiCategory]]:
        ahead: deque = deque()
        with ThreadPoolExecutor(1) as pool:
            for chosen in self.chunkify(samples):
                ahead.append(pool.submit(self._read, np.array(chosen)))
                if len(ahead) > AHEAD:
                    yield self._sent(ahead.popleft().result())
            while ahead:
                yield self._sent(ahead.popleft().result())

    def _read(self, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        # A GPU fetches it from pinned memory at twice the speed, and while the processor goes on.
        pinned = self._on_gpu
        batch = torch.empty((len(chosen), *self.pixels.size, 3), dtype=torch.uint8, pin_memory=pinned)
        self.pixels.take(self.rows[chosen], batch.numpy())
        truth = torch.empty((len(chosen), self.truth.shape[1]), dtype=self.truth.dtype, pin_memory=pinned)
        return batch, torch.index_select(self.truth, 0, torch.from_numpy(chosen), out=truth)

    def _sent(self, read: tuple[torch.Tensor, torch.Tensor]) -> tuple[TensorImage, TensorMultiCategory]:
        """On the device, or on the way there; fastai's own sending would wait for it to arrive."""
        pictures, truth = (part.to(self.device, non_blocking=self._on_gpu) for part in read)
        return TensorImage(pictures.movedim(-1, 1)), TensorMultiCategory(truth)

    def new(self, dataset: Any = None, cls: type | None = None, **changed: Any) -> TfmdDL:
        """Another loader; of other posters, as `test_dl` makes one, a plain one that opens them itself."""
        if cls is None and (dataset is None or dataset is self.dataset):
            changed = {"pixels": self.pixels, "rows": self.rows, "truth": self.truth} | changed | {"num_workers": 0}
        return super().new(dataset, cls or (PosterDL if "pixels" in changed else TfmdDL), **changed)


def poster_pixels(
    paths: Sequence[Path], folder: Path, size: tuple[int, int], workers: int = -1, say: Callable[[str], None] = print
) -> Pixels:
    """The pixels of posters in `folder`, packed into a file there; where that cannot be written, decoded in each epoch.

    Args:
        workers: threads that decode where nothing is packed, -1 for as many as there are cores.

    Raises:
        ImageError: a poster that cannot be read.
    """
    try:
        return PixelFile(folder, size).open(paths, lambda missing: progress(missing, "packing the posters' pixels"))
    except ImageError:
        raise
    except (InputError, OSError) as error:
        say(f"  the posters' pixels cannot be kept ({error}): they are decoded in every epoch")
        return FilePixels(paths, size, workers if workers > 0 else os.cpu_count() or 1)


def open_poster(path: str | Path) -> PILImage:
    """`load_poster`, as the type fastai dispatches on."""
    return PILImage(load_poster(Path(path)))


class FitPoster(Transform):
    """Squash to the input size with the function that serving uses."""

    def __init__(self, size: tuple[int, int]):
        self.size = size

    def encodes(self, x: PILImage):
        return PILImage(resize_poster(x, self.size))
