"""What may happen to a poster in the world: a crop, a slight turn, other light. Never mirrored, never upside down.

Whole batches are changed at once, each poster by draws of its own, on the device that trains: a picture at a time, on the
processor, would take longer than a GPU's step.
"""

import math
from pathlib import Path

import torch
from fastai.torch_core import TensorImage
from fasttransform import DisplayedTransform, Pipeline, Transform
from PIL import Image
from torch.nn import functional

from lobbycard.catalog.image import load_poster, poster_pixels, resize_poster

AREA = (0.7, 1.0)  # of the poster that a crop keeps
STRETCH = 1.18  # how much wider, or narrower, than the poster a crop's shape may be
TURN, TURNED = 3, 0.3  # degrees, and the share of posters that are turned
LIGHT, LIT = 0.2, 0.5  # how much brighter, or how many times more contrast or colour; the share of posters for each
GREY = (0.2989, 0.5870, 0.1140)  # ITU-R 601-2


def poster_augmentation() -> list[Transform]:
    """Random changes for training, as fastai's batch transforms: of (B, 3, H, W) in [0, 1], the training side's alone.

    They draw from torch's global generator, so a seeded run repeats itself.
    """
    return [PosterChanges()]


class PosterChanges(DisplayedTransform):
    """What fastai's affine and lighting transforms do, in a tenth of their operations, and without asking a GPU for a number.

    fastai's look at how far the places go and copy their grey weights to the device in each batch, which empties a GPU's queue.
    """

    order, split_idx = 30, 0

    def encodes(self, x: TensorImage) -> TensorImage:
        pictures = x.as_subclass(torch.Tensor)  # each operation on a class of fastai's takes twice as long to ask for
        mats = turn_mat(pictures) @ crop_mat(pictures)
        return TensorImage(relit(moved(pictures, mats), *lights(pictures)))


def turn_mat(x: torch.Tensor) -> torch.Tensor:
    """A slight turn of some of B pictures: (B, 3, 3), from places in the result to those in `x` (B, 3, H, W)."""
    angle = _drawn(x, -TURN, TURN) * math.pi / 180 * _some(x, TURNED)
    height, width = x.shape[-2:]
    sin, cos = angle.sin(), angle.cos()
    # Places run from -1 to 1 along both sides, however long those are.
    return _affine(cos, sin * (height / width), None, -sin * (width / height), cos, None)


def crop_mat(x: torch.Tensor) -> torch.Tensor:
    """Of each of B pictures another part, enlarged to the whole: (B, 3, 3), from places in the result to those in `x`.

    As torchvision's RandomResizedCrop, in shares of the picture's sides: area uniform, shape log-uniform, place uniform.
    """
    area, shape = _drawn(x, *AREA), _drawn(x, -math.log(STRETCH), math.log(STRETCH)).exp()
    width, height = ((area * stretched).sqrt().clamp(max=1) for stretched in (shape, 1 / shape))
    across, down = ((1 - side) * _drawn(x, -1, 1) for side in (width, height))
    return _affine(width, None, across, None, height, down)


def moved(x: torch.Tensor, mats: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) resampled at the places that `mats` (B, 3, 3) give; beyond the edge is what stands at the edge."""
    places = functional.affine_grid(mats[:, :2], list(x.shape), align_corners=False)
    return functional.grid_sample(x, places, mode="bilinear", padding_mode="border", align_corners=False)


def lights(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Brightness (added to the log-odds), contrast and saturation (factors), each (B, 1, 1, 1) and of some pictures only.

    Source: fastai.vision.augment.Brightness, Contrast and Saturation.
    """
    factor = -math.log(1 - LIGHT)
    half = _drawn(x, 0.5 * (1 - LIGHT), 0.5 * (1 + LIGHT))
    brightness = torch.logit(half) * _some(x, LIT)
    contrast, saturation = ((_drawn(x, -factor, factor) * _some(x, LIT)).exp() for _ in range(2))
    return tuple(change[:, None, None, None] for change in (brightness, contrast, saturation))


def relit(x: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor, saturation: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in [0, 1] under other light, computed in log-odds; `x` is overwritten."""
    odds = torch.logit(x, eps=1e-7, out=x).add_(brightness).mul_(contrast)
    red, green, blue = odds.unbind(1)
    grey = (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2]).unsqueeze(1)
    return torch.lerp(grey, odds, saturation, out=odds).sigmoid_()


def _drawn(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """A number for each of B pictures, where they are: (B,)."""
    return x.new_empty(len(x)).uniform_(low, high)


def _some(x: torch.Tensor, share: float) -> torch.Tensor:
    """1 for about this share of B pictures, 0 for the others: (B,)."""
    return x.new_empty(len(x)).bernoulli_(share)


def _affine(*entries: torch.Tensor | None) -> torch.Tensor:
    """(B, 3, 3) whose first two rows are these (B,) entries, None for zeros."""
    given = next(entry for entry in entries if entry is not None)
    nothing, one = torch.zeros_like(given), torch.ones_like(given)
    rows = [nothing if entry is None else entry for entry in entries] + [nothing, nothing, one]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


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
