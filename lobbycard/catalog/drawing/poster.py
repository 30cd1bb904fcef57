"""One drawn poster: a palette, a backdrop, motifs and a title, each lent by one of the movie's labels.

A movie of two labels may have the colours of the one and the lettering of the other, and motifs are
sometimes left out: no colour, shape or typeface alone gives a label away.
"""

from __future__ import annotations

import colorsys
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from lobbycard.catalog.drawing.backdrops import BACKDROPS
from lobbycard.catalog.drawing.lettering import LETTERING, set_title
from lobbycard.catalog.drawing.shapes import CLUTTER, MOTIFS
from lobbycard.catalog.drawing.sheet import HEIGHT, WIDTH, Palette, blend
from lobbycard.errors import InputError

DRAWING_VERSION = 1  # raised with every change a pixel can show: samples drawn before are then drawn again
POSTER_SIZE = (182, 268)  # of the Kaggle table's pictures
MOTIF_KEPT = 0.94
MOTIF_AGAIN = 0.35
OWN_COLOURS = 0.7  # else the motif takes those of the poster

PALETTES = {  # sky, ground, dark, hot, cool
    "Action": ("#ff8c2b #1f2f46 #140f14 #ffd23f #2ec4d6", "#c1121f #26090c #0b0506 #ffb703 #f4f1de"),
    "Animation": ("#5cc8ff #b8f28a #2b3a8c #ff4f79 #ffd447", "#ff9bd2 #7ce0e6 #5a2a83 #ff6b35 #fff275"),
    "Comedy": ("#ffd91a #ffe97a #20232a #e63946 #1d8ecf", "#fdfaf0 #ffe3cf #1b2a49 #ff5a36 #16b39a"),
    "Documentary": ("#efece4 #d5d0c4 #26292c #d1342f #7d8a91", "#c9d2d3 #f3f1ea #1f3038 #e08e1b #5c7f86"),
    "Drama": ("#8fa6b5 #3d4d5c #1a2129 #e3c58b #b9c6cd", "#a9bba3 #46584c #17211b #efd9a0 #c4cdb8"),
    "Horror": ("#1c0a0d #4a0a10 #050304 #e01f26 #8f9c8a", "#0e1710 #2f4427 #030503 #b6e04c #8c2f2b"),
    "Romance": ("#ffe1e0 #f59bb0 #7a1f45 #e5305f #fff6e9", "#e7c6ea #fbd3c4 #5c2751 #d6336c #fff3d6"),
    "Sci-Fi": ("#0a0f33 #3a1c71 #05060f #25e6e0 #b264ff", "#03121f #0b4a6b #02060b #ff4fd8 #5fd3ff"),
    "Thriller": ("#3b454c #0f1417 #050708 #e9e34a #9fb2bb", "#2c3f4a #0b1318 #04080a #ff4b33 #cfdbe2"),
    "Western": ("#f3b562 #b5532a #3a1a0f #fff0c9 #d9812e", "#f2dfb6 #c98a4b #4a2412 #a8331c #e8b866"),
}


# fmt: off
_FIRST = (
    "Silver", "Midnight", "Lonely", "Golden", "Broken", "Silent", "Crimson", "Paper", "Wild", "Hidden", "Little",
    "Burning", "Distant", "Second", "Velvet", "Long", "Electric", "Frozen", "Lucky", "Hollow", "Last", "Strange",
    "Northern", "Tender", "Big", "Quiet", "Seven", "Borrowed", "Fallen", "Bright",
)
_SECOND = (
    "River", "Harbour", "Train", "Garden", "Summer", "Window", "Road", "Circus", "Letter", "Bridge", "Station",
    "Shadow", "Island", "Orchard", "Mirror", "Kitchen", "Hotel", "Valley", "Piano", "Parade", "Lantern", "Winter",
    "Tiger", "Market", "Engine", "Daughter", "Stranger", "Planet", "Saint", "Brothers",
)
# fmt: on
_ACCENTED = ("Café Noël", "Señor Otoño", "Über Nacht", "Le Fantôme", "São Tomé", "Fjærland", "Déjà Vu à Orléans")


def poster_title(seed: int) -> str:
    """Two or three words; one title in thirty has letters outside ASCII, all of them in Latin-1."""
    rng = random.Random(f"title {seed}")
    if rng.random() < 1 / 30:
        return rng.choice(_ACCENTED)
    title = f"{rng.choice(_FIRST)} {rng.choice(_SECOND)}"
    return f"The {title}" if rng.random() < 0.5 else title


def draw_poster(labels: Sequence[str], seed: int, size: tuple[int, int] = POSTER_SIZE) -> Image.Image:
    """Draw the poster of a movie.

    Parameters
    ----------
    labels
        One or more of `MOTIFS`; their order does not matter.
    seed
        Which of the endlessly many posters of these labels. Also sets the title, whatever the labels.
    size
        Width and height in pixels.

    Returns
    -------
    RGB, the same in every process for the same labels, seed, size and version of Pillow.

    Raises
    ------
    InputError
        If labels is empty, or holds one that nobody knows how to draw.
    """
    labels = sorted(set(labels))
    if not labels or not MOTIFS.keys() >= set(labels):
        raise InputError(f"A poster is drawn for one or more of {', '.join(MOTIFS)}; got {labels}. Give some of these.")
    rng = random.Random(f"poster {seed} {'|'.join(labels)}")
    order = rng.sample(labels, len(labels))
    # One label gives the colours, the next the lettering and the motif in the middle, a third the backdrop.
    painter, letterer, builder = order[0], order[1 % len(order)], order[2 % len(order)]
    ink = _mix_palette(rng, painter)
    lettering = LETTERING[letterer]
    place = rng.choice(lettering.places) + rng.uniform(-0.02, 0.02)
    image = _gradient(ink.sky, ink.ground)
    draw = ImageDraw.Draw(image)
    rng.choice(BACKDROPS[builder])(draw, rng, ink)
    for _ in range(rng.randint(1, 4)):
        shape = rng.choice(CLUTTER)
        shape(draw, rng, ink, rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(12, 30))
    _draw_motifs(draw, rng, ink, [letterer, *(label for label in order if label != letterer)], place)
    _draw_credits(draw, rng, ink)
    set_title(image, rng, ink, lettering, poster_title(seed), place)
    return _print(image.resize(size, Image.Resampling.BOX), rng)


def _mix_palette(rng, label):
    turn, wash, light = rng.gauss(0, 0.015), rng.uniform(0.8, 1.12), rng.uniform(0.88, 1.08)
    colours = []
    for code in rng.choice(PALETTES[label]).split():
        h, s, v = colorsys.rgb_to_hsv(*(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)))
        rgb = colorsys.hsv_to_rgb((h + turn) % 1, min(1, s * wash), min(1, v * light))
        colours.append(tuple(round(255 * c) for c in rgb))
    if rng.random() < 0.25:
        colours[:2] = colours[1::-1]
    return Palette(*colours)


def _gradient(top, bottom):
    ramp = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    column = np.float32(top) * (1 - ramp) + np.float32(bottom) * ramp
    return Image.fromarray(np.broadcast_to(column, (HEIGHT, WIDTH, 3)).astype(np.uint8))


def _draw_motifs(draw, rng, ink, order, place):
    """One motif stands in the middle; the other labels', and second ones, lie smaller around it."""
    if place < 0.35:
        middle, corners = 0.54, [(0.2, 0.8), (0.8, 0.8), (0.17, 0.36), (0.83, 0.36)]
    else:
        middle, corners = 0.4, [(0.2, 0.15), (0.8, 0.15), (0.17, 0.62), (0.83, 0.62)]
    rng.shuffle(corners)
    shapes = []
    for label in order:
        if rng.random() < MOTIF_KEPT:
            shapes.append((label, rng.choice(MOTIFS[label])))
    for label in order:
        if rng.random() < MOTIF_AGAIN:
            shapes.append((label, rng.choice(MOTIFS[label])))
    for i, (label, shape) in enumerate(shapes[: len(corners) + 1]):
        x, y = corners[i - 1] if i else (0.5, middle)
        reach = rng.uniform(0.17, 0.24) if i else rng.uniform(0.24, 0.36)
        x, y = WIDTH * (x + rng.uniform(-0.05, 0.05)), HEIGHT * (y + rng.uniform(-0.03, 0.03))
        own = _mix_palette(rng, label)
        colours = ink._replace(hot=own.hot, cool=own.cool) if rng.random() < OWN_COLOURS else ink
        shape(draw, rng, colours, x, y, WIDTH * reach)


def _draw_credits(draw, rng, ink):
    y = HEIGHT * rng.uniform(0.925, 0.94)
    pale = sum(ink.ground) > 380
    colour = blend(ink.ground, (0, 0, 0) if pale else (255, 255, 255), 0.55)
    for _ in range(rng.randint(2, 3)):
        x, end = WIDTH * rng.uniform(0.12, 0.24), WIDTH * rng.uniform(0.76, 0.88)
        while x < end:
            step = rng.uniform(5, 26)
            draw.line([(x, y), (min(x + step, end), y)], fill=colour, width=4)
            x += step + 5
        y += 10


def _print(image, rng):
    """Grain, light falling off to the corners, and a faded or rich print."""
    noise = np.random.default_rng(rng.getrandbits(32))
    pixels = np.asarray(image, dtype=np.float32)
    high, wide = pixels.shape[:2]
    y, x = np.linspace(-1, 1, high, dtype=np.float32)[:, None], np.linspace(-1, 1, wide, dtype=np.float32)
    falloff = 1 - rng.uniform(0, 0.3) * (x * x + y * y) / 2
    grain = noise.standard_normal((high, wide), dtype=np.float32) * rng.uniform(1.5, 7)
    pixels = (pixels - 128) * rng.uniform(0.82, 1.08) + 128 + rng.uniform(-10, 10)
    pixels = pixels * falloff[:, :, None] + grain[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
