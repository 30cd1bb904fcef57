"""What may happen to a poster in the world: a crop, a slight turn, other light, a harsh JPEG. Never upside down."""

from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms import v2

from lobbycard.catalog.image import load_poster, resize_poster


def poster_augmentation(size: tuple[int, int]) -> v2.Compose:
    """Random changes for training: (3, h, w) uint8 of any h, w in, (3, *size) uint8 out.

    Draws from torch's global generator, so a seeded run repeats itself.
    """
    aspect = size[1] / size[0]
    # The crop's shape is asked for in the picture's own pixels, where a poster is about 2:3 whatever the input's shape.
    ratio = (0.58, 0.80) if 0.5 < aspect <= 1 else (0.75 * aspect, 1.33 * aspect)
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomRotation(3, interpolation=v2.InterpolationMode.BILINEAR)], p=0.3),
            v2.RandomResizedCrop(size, scale=(0.7, 1.0), ratio=ratio, antialias=True),
            v2.RandomApply([v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25)], p=0.5),
            v2.RandomApply([v2.JPEG((35, 90))], p=0.25),
        ]
    )


def augment(image: Image.Image, transform: v2.Compose) -> Image.Image:
    """One changed copy of an RGB `image`, by `poster_augmentation`."""
    return v2.functional.to_pil_image(transform(v2.functional.pil_to_tensor(image)))


def augmentation_sheet(files: list[Path], size: tuple[int, int], seed: int = 0, copies: int = 5) -> Image.Image:
    """A contact sheet: one row a poster, first as it is, then as the network may see it while training."""
    transform = poster_augmentation(size)
    height, width = size
    scale = min(1.0, 192 / height)
    cell = (round(height * scale), round(width * scale))
    gap = 6
    sheet = Image.new("RGB", ((cell[1] + gap) * (copies + 1) + gap, (cell[0] + gap) * len(files) + gap), "white")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for row, file in enumerate(files):
            poster = load_poster(file)
            cells = [poster, *(augment(poster, transform) for _ in range(copies))]
            for column, picture in enumerate(cells):
                place = (gap + column * (cell[1] + gap), gap + row * (cell[0] + gap))
                sheet.paste(resize_poster(picture, cell), place)
    return sheet
