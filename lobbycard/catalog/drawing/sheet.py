"""The sheet a poster is drawn on: its size, its five colours, and the pens every other part draws with."""

from __future__ import annotations

import math
from typing import NamedTuple

# Twice the size of the Kaggle table's pictures, and scaled down at the end: smooth edges for little time.
WIDTH, HEIGHT = 364, 536


class Palette(NamedTuple):
    """Five RGB colours in 0..255. `sky` and `ground` fill the poster; the others must be seen on both."""

    sky: tuple[int, int, int]
    ground: tuple[int, int, int]
    dark: tuple[int, int, int]
    hot: tuple[int, int, int]
    cool: tuple[int, int, int]


def polar(x, y, r, degrees):
    return x + r * math.cos(math.radians(degrees)), y + r * math.sin(math.radians(degrees))


def disc(draw, x, y, r, fill=None, outline=None, width=1, squash=1.0):
    draw.ellipse((x - r, y - r * squash, x + r, y + r * squash), fill=fill, outline=outline, width=int(width))


def shift(points, x, y, r):
    return [(x + a * r, y + b * r) for a, b in points]


def blend(a, b, share):
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def lightness(colour):
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
