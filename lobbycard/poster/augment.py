"""What may happen to a poster in the world: a crop, a slight turn, other light, a harsh JPEG. Never upside down."""

import io
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms import v2

from lobbycard.catalog.image import load_poster, resize_poster


class JpegArtifacts(torch.nn.Module):
    """Save and read again as a JPEG of random quality, as posters are on their way through the world.

    On Pillow images, like all that is done here: torch's operations on one small picture spend their time waking threads
    (measured in docs/log.md), and `torchvision.transforms.v2.JPEG` takes tensors alone.
    """

    def __init__(self, quality: tuple[int, int]):
        super().__init__()
        self.quality = quality

    def forward(self, image: Image.Image) -> Image.Image:
        low, high = self.quality
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(torch.randint(low, high + 1, ())))
        return Image.open(file).convert("RGB")


def poster_augmentation(size: tuple[int, int]) -> v2.Compose:
    """Random changes for training: an RGB Pillow image of any size in, one of `size` (height, width) out.

    Draws from torch's global generator, so a seeded run repeats itself.
    """
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomRotation(3, interpolation=v2.InterpolationMode.BILINEAR)], p=0.3),
            # The crop's shape is one of the picture's own pixels, where a poster is about 2:3 whatever the input's shape.
            v2.RandomResizedCrop(size, scale=(0.7, 1.0), ratio=(0.58, 0.80)),
            v2.RandomApply([v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25)], p=0.5),
            v2.RandomApply([JpegArtifacts((35, 90))], p=0.25),
        ]
    )


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
            cells = [poster, *(transform(poster) for _ in range(copies))]
            for column, picture in enumerate(cells):
                place = (gap + column * (cell[1] + gap), gap + row * (cell[0] + gap))
                sheet.paste(resize_poster(picture, cell), place)
    return sheet
