"""What may happen to a poster in the world: a crop, a slight turn, other light. Never mirrored, never upside down.

Whole batches are changed at once, each poster by draws of its own, on the device that trains: a picture at a time, on the
processor, would take longer than a GPU's step.
"""

import math
from functools import partial
from pathlib import Path

import torch
from fastai.torch_core import TensorImage
from fastai.vision.augment import (
    AffineCoordTfm,
    Brightness,
    Contrast,
    PadMode,
    Saturation,
    affine_mat,
    rotate_mat,
    setup_aug_tfms,
)
from fasttransform import Pipeline, Transform
from PIL import Image

from lobbycard.catalog.image import load_poster, poster_pixels, resize_poster

AREA = (0.7, 1.0)  # of the poster that a crop keeps
STRETCH = 1.18  # how much wider, or narrower, than the poster a crop's shape may be
LIGHT = 0.2


def poster_augmentation() -> list[Transform]:
    """Random changes for training, as fastai's batch transforms: of (B, 3, H, W) in [0, 1], the training side's alone.

    They draw from torch's global generator, so a seeded run repeats itself.
    """
    return setup_aug_tfms(
        [
            TrainingAffine(
                aff_fs=[partial(rotate_mat, max_deg=3, p=0.3), crop_mat], pad_mode=PadMode.Border, align_corners=False
            ),
            *(change(max_lighting=LIGHT, p=0.5) for change in (Brightness, Contrast, Saturation)),
        ]
    )


class TrainingAffine(AffineCoordTfm):
    """fastai's, which would also sample the validation side anew, each pixel from its own place."""

    def __call__(self, b, split_idx: int | None = None, **more):
        return b if split_idx else super().__call__(b, split_idx=split_idx, **more)


def crop_mat(x: torch.Tensor) -> torch.Tensor:
    """Of each of B pictures another part, enlarged to the whole: (B, 3, 3), from places in the result to those in `x`.

    As torchvision's RandomResizedCrop, in shares of the picture's sides: area uniform, shape log-uniform, place uniform.
    """
    drawn = lambda low, high: x.new_empty(len(x)).uniform_(low, high)  # noqa: E731
    area, shape = drawn(*AREA), drawn(-math.log(STRETCH), math.log(STRETCH)).exp()
    width, height = ((area * stretched).sqrt().clamp(max=1) for stretched in (shape, 1 / shape))
    across, down = ((1 - side) * drawn(-1, 1) for side in (width, height))
    nothing = torch.zeros_like(width)
    return affine_mat(width, nothing, across, nothing, height, down)


def augmentation_sheet(files: list[Path], size: tuple[int, int], seed: int = 0, copies: int = 5) -> Image.Image:
    """A contact sheet: one row a poster, first as it is, then as the network may see it while training."""
    height, width = size
    scale = min(1.0, 192 / height)
    cell = (round(height * scale), round(width * scale))
    gap = 6
    sheet = Image.new("RGB", ((cell[1] + gap) * (copies + 1) + gap, (cell[0] + gap) * len(files) + gap), "white")
    posters = [load_poster(file) for file in files]
    changes = Pipeline(poster_augmentation(), split_idx=0)
    shown = [[resize_poster(poster, cell) for poster in posters]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(copies):
            batch = torch.stack([torch.tensor(poster_pixels(poster, size)) for poster in posters])
            changed = changes(TensorImage(batch.movedim(-1, 1).float().div(255))).clamp(0, 1).mul(255).round()
            pixels = changed.to(torch.uint8).movedim(1, -1).numpy()
            shown.append([resize_poster(Image.fromarray(picture), cell) for picture in pixels])
    for column, pictures in enumerate(shown):
        for row, picture in enumerate(pictures):
            sheet.paste(picture, (gap + column * (cell[1] + gap), gap + row * (cell[0] + gap)))
    return sheet
