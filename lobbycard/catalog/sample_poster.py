"""One drawn poster: a palette, a backdrop, motifs and a title, each lent by one of the movie's labels.

A movie of two labels may have the colours of the one and the lettering of the other, and one mark in
ten is left out: no colour, shape or typeface alone gives a label away.
"""

from __future__ import annotations

import colorsys
import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from lobbycard.catalog.sample_shapes import CLUTTER, MOTIFS, Palette, disc, polar, star

DRAWING_VERSION = 1  # raised with every change a pixel can show: samples drawn before are then drawn again
POSTER_SIZE = (182, 268)  # of the Kaggle table's pictures
MOTIF_KEPT = 0.9

_W, _H = 364, 536  # everything is drawn at twice the Kaggle size and scaled down: smooth edges for little time
_EM = 56

PALETTES = {  # sky, ground, dark, hot, cool
    "Action": ("#ff8c2b #1f2f46 #140f14 #ffd23f #2ec4d6", "#c1121f #26090c #0b0506 #ffb703 #f4f1de"),
    "Animation": ("#5cc8ff #b8f28a #2b3a8c #ff4f79 #ffd447", "#ff9bd2 #7ce0e6 #5a2a83 #ff6b35 #fff275"),
    "Comedy": ("#ffd91a #ffe97a #20232a #e63946 #1d8ecf", "#fdfaf0 #ffe3cf #1b2a49 #ff5a36 #16b39a"),
    "Documentary": ("#efece4 #d5d0c4 #26292c #d1342f #7d8a91", "#c9d2d3 #f3f1ea #1f3038 #e08e1b #5c7f86"),
    "Drama": ("#8fa6b5 #3d4d5c #1a2129 #e3c58b #b9c6cd", "#c9ae8c #5f4a3b #261a14 #f0dcae #8b9a94"),
    "Horror": ("#1c0a0d #4a0a10 #050304 #e01f26 #8f9c8a", "#0e1710 #2f4427 #030503 #b6e04c #8c2f2b"),
    "Romance": ("#ffe1e0 #f59bb0 #7a1f45 #e5305f #fff6e9", "#e7c6ea #fbd3c4 #5c2751 #d6336c #fff3d6"),
    "Sci-Fi": ("#0a0f33 #3a1c71 #05060f #25e6e0 #b264ff", "#03121f #0b4a6b #02060b #ff4fd8 #5fd3ff"),
    "Thriller": ("#3b454c #0f1417 #050708 #e9e34a #9fb2bb", "#c3cbcf #56626a #0b0e10 #d7261e #e9eef0"),
    "Western": ("#f3b562 #b5532a #3a1a0f #fff0c9 #d9812e", "#f2dfb6 #c98a4b #4a2412 #a8331c #e8b866"),
}


@dataclass(frozen=True)
class Lettering:
    """How a label sets a title. Lengths are in em, angles in degrees, `lean` in widths per height."""

    case: str = "upper"
    weight: int = 2  # stroke in pixels at an em of 56
    tracking: float = 0.0
    stretch: float = 1.0
    lean: float = 0.0
    turn: float = 0.0
    jump: float = 0.0
    arch: float = 0.0
    width: float = 0.86  # of the poster
    tall: float = 0.15  # at most, of the poster's height, a line
    hollow: bool = False
    sliced: bool = False
    dripping: bool = False
    rules: bool = False
    plate: bool = False
    many_coloured: bool = False
    places: tuple[float, ...] = (0.83,)  # height of the title's middle


LETTERING = {
    "Action": Lettering(weight=4, lean=0.28, tall=0.17, places=(0.8, 0.2)),
    "Animation": Lettering("title", 4, tracking=0.1, jump=0.12, tall=0.17, many_coloured=True, places=(0.17, 0.17, 0.8)),
    "Comedy": Lettering("title", 4, turn=7, tall=0.17, places=(0.19, 0.78)),
    "Documentary": Lettering("lower", 0, width=0.6, tall=0.07, plate=True, places=(0.78, 0.3)),
    "Drama": Lettering("upper", 0, tracking=0.42, tall=0.06, width=0.78, places=(0.8, 0.14)),
    "Horror": Lettering("upper", 3, jump=0.09, dripping=True, places=(0.18, 0.78)),
    "Romance": Lettering("title", 1, lean=0.38, width=0.72, tall=0.1, rules=True, places=(0.8, 0.18)),
    "Sci-Fi": Lettering("upper", 1, tracking=0.22, stretch=1.5, hollow=True, tall=0.11, places=(0.14, 0.84)),
    "Thriller": Lettering("upper", 3, tracking=0.04, sliced=True, places=(0.68, 0.82, 0.18)),
    "Western": Lettering("upper", 4, tracking=0.08, arch=0.4, rules=True, places=(0.2, 0.2, 0.8)),
}

_FIRST = (
    "Silver Midnight Lonely Golden Broken Silent Crimson Paper Wild Hidden Little Burning Distant Second Velvet Long "
    "Electric Frozen Lucky Hollow Last Strange Northern Tender Big Quiet Seven Borrowed Fallen Bright"
).split()
_SECOND = (
    "River Harbour Train Garden Summer Window Road Circus Letter Bridge Station Shadow Island Orchard Mirror Kitchen "
    "Hotel Valley Piano Parade Lantern Winter Tiger Market Engine Daughter Stranger Planet Saint Brothers"
).split()
_ACCENTED = ("Café Noël", "Señor Otoño", "Über Nacht", "Le Fantôme", "São Tomé", "Fjærland", "Déjà Vu à Orléans")


def poster_title(seed: int) -> str:
    """Two or three words; one title in thirty has letters outside ASCII, all of them in Latin-1."""
    rng = random.Random(f"title {seed}")
    if rng.random() < 1 / 30:
        return rng.choice(_ACCENTED)
    first, second = rng.choice(_FIRST), rng.choice(_SECOND)
    return rng.choice(("The {} {}", "{} {}", "{1} of {0}s" if first == "Stranger" else "{} {}", "A {} {}")).format(first, second)


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
    """
    labels = sorted(set(labels))
    rng = random.Random(f"poster {seed} {'|'.join(labels)}")
    order = rng.sample(labels, len(labels))
    # The palette is one label's, the backdrop and the lettering another's where there is another.
    ink = _mix_palette(rng, order[0])
    lettering = LETTERING[order[1 % len(order)]]
    place = rng.choice(lettering.places) + rng.uniform(-0.02, 0.02)
    image = _gradient(ink.sky, ink.ground)
    draw = ImageDraw.Draw(image)
    rng.choice(BACKDROPS[order[-1]])(draw, rng, ink)
    for _ in range(rng.randint(1, 4)):
        shape = rng.choice(CLUTTER)
        shape(draw, rng, ink, rng.uniform(0, _W), rng.uniform(0, _H), rng.uniform(12, 30))
    _draw_motifs(draw, rng, ink, order, place)
    _draw_credits(draw, rng, ink)
    _set_title(image, rng, ink, lettering, poster_title(seed), place)
    return _print(image.resize(size, Image.Resampling.BOX), rng)


def _mix_palette(rng, label):
    turn, wash, light = rng.gauss(0, 0.018), rng.uniform(0.75, 1.12), rng.uniform(0.88, 1.08)
    colours = []
    for code in rng.choice(PALETTES[label]).split():
        h, s, v = colorsys.rgb_to_hsv(*(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)))
        rgb = colorsys.hsv_to_rgb((h + turn) % 1, min(1, s * wash), min(1, v * light))
        colours.append(tuple(round(255 * c) for c in rgb))
    if rng.random() < 0.25:
        colours[:2] = colours[1::-1]
    return Palette(*colours)


def _blend(a, b, share):
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def _gradient(top, bottom):
    ramp = np.linspace(0, 1, _H, dtype=np.float32)[:, None, None]
    column = np.float32(top) * (1 - ramp) + np.float32(bottom) * ramp
    return Image.fromarray(np.broadcast_to(column, (_H, _W, 3)).astype(np.uint8))


def _draw_motifs(draw, rng, ink, order, place):
    hero_y = 0.54 if place < 0.35 else 0.4
    below = place < 0.35
    corners = [(0.2, 0.78), (0.8, 0.78)] if below else [(0.2, 0.15), (0.8, 0.15), (0.18, 0.64), (0.82, 0.64)]
    rng.shuffle(corners)
    hero = True
    for label in rng.sample(order, len(order)):
        if rng.random() > MOTIF_KEPT:
            continue
        shape = rng.choice(MOTIFS[label])
        if hero:
            x, y = _W * rng.uniform(0.38, 0.62), _H * (hero_y + rng.uniform(-0.05, 0.05))
            shape(draw, rng, ink, x, y, _W * rng.uniform(0.22, 0.36))
            hero = False
        else:
            x, y = corners.pop()
            shape(draw, rng, ink, _W * (x + rng.uniform(-0.05, 0.05)), _H * y, _W * rng.uniform(0.13, 0.2))


def _draw_credits(draw, rng, ink):
    y = _H * rng.uniform(0.925, 0.94)
    pale = sum(ink.ground) > 380
    colour = _blend(ink.ground, (0, 0, 0) if pale else (255, 255, 255), 0.55)
    for _ in range(rng.randint(2, 3)):
        x, end = _W * rng.uniform(0.12, 0.24), _W * rng.uniform(0.76, 0.88)
        while x < end:
            step = rng.uniform(5, 26)
            draw.line([(x, y), (min(x + step, end), y)], fill=colour, width=4)
            x += step + 5
        y += 10


# Backdrops: backdrop(draw, rng, ink) fills the whole sheet.


def _sun_rays(draw, rng, ink):
    x, y, count = _W * rng.uniform(0.3, 0.7), _H * rng.uniform(0.35, 0.7), rng.randint(8, 14)
    colour = _blend(ink.sky, ink.hot, rng.uniform(0.2, 0.4))
    for i in range(count):
        a = 360 * i / count
        draw.polygon([(x, y), polar(x, y, 700, a), polar(x, y, 700, a + 180 / count)], fill=colour)


def _slant(draw, rng, ink):
    y, fall = _H * rng.uniform(0.25, 0.6), rng.choice((-1, 1)) * _H * rng.uniform(0.15, 0.4)
    draw.polygon([(0, y), (_W, y + fall), (_W, _H), (0, _H)], fill=_blend(ink.ground, ink.dark, 0.5))
    for i in range(rng.randint(2, 4)):
        top = y - 14 - 26 * i
        strip = [(0, top), (_W, top + fall), (_W, top + fall + 12 - 3 * i), (0, top + 12 - 3 * i)]
        draw.polygon(strip, fill=_blend(ink.sky, ink.hot, 0.6))


def _hills(draw, rng, ink):
    for i in range(3):
        colour = _blend(ink.ground, (ink.cool, ink.hot, ink.dark)[i], 0.35)
        x, reach = _W * rng.uniform(-0.1, 1.1), _W * rng.uniform(0.6, 0.9)
        disc(draw, x, _H * (0.72 + 0.1 * i) + reach * 0.5, reach, colour, squash=0.5)
    for _ in range(rng.randint(1, 3)):
        x, y = _W * rng.random(), _H * rng.uniform(0.05, 0.45)
        for k in (-1, 0, 1):
            disc(draw, x + 24 * k, y + 6 * abs(k), 24 - 5 * abs(k), (255, 255, 255), squash=0.8)


def _polka(draw, rng, ink):
    step, colour = rng.randint(34, 56), _blend(ink.sky, rng.choice((ink.hot, ink.cool)), 0.28)
    for row in range(_H // step + 2):
        for column in range(_W // step + 2):
            disc(draw, (column + row % 2 / 2) * step, row * step, step * 0.2, colour)


def _panel(draw, rng, ink):
    edge, colour = rng.uniform(0.55, 0.7), rng.choice((ink.cool, ink.dark, ink.hot))
    box = rng.choice(((0, _H * edge, _W, _H), (0, 0, _W * (1 - edge), _H), (0, 0, _W, _H * (1 - edge))))
    draw.rectangle(box, fill=_blend(ink.ground, colour, 0.75))
    for i in range(rng.randint(4, 9)):
        y = _H * (0.06 + 0.05 * i)
        draw.line([(_W * 0.06, y), (_W * rng.uniform(0.12, 0.4), y)], fill=_blend(ink.sky, ink.dark, 0.3), width=3)


def _horizon(draw, rng, ink):
    y = _H * rng.uniform(0.58, 0.72)
    disc(draw, _W * rng.uniform(0.2, 0.8), y - rng.uniform(-10, 90), rng.uniform(28, 60), _blend(ink.sky, ink.hot, 0.7))
    draw.rectangle((0, y, _W, _H), fill=_blend(ink.ground, ink.dark, 0.45))
    for i in range(rng.randint(3, 6)):
        low, x = y + 12 + 18 * i, _W * rng.uniform(0.1, 0.7)
        draw.line([(x, low), (x + rng.uniform(30, 110), low)], fill=_blend(ink.ground, ink.hot, 0.4), width=3)


def _halo(draw, rng, ink):
    x, y = _W * rng.uniform(0.4, 0.6), _H * rng.uniform(0.36, 0.52)
    for i in range(3):
        disc(draw, x, y, _W * (0.5 - 0.06 * i), _blend(ink.sky, ink.cool, 0.2 + 0.22 * i))


def _passe_partout(draw, rng, ink):
    edge = rng.randint(14, 24)
    draw.rectangle((0, 0, _W, _H), outline=_blend(ink.cool, (255, 255, 255), 0.3), width=edge)
    draw.rectangle((edge, edge, _W - edge, _H - edge), outline=ink.dark, width=3)
    for x in (edge, _W - edge):
        for y in (edge, _H - edge):
            disc(draw, x, y, edge * 0.9, ink.hot)


def _woods(draw, rng, ink):
    disc(draw, _W * rng.uniform(0.25, 0.75), _H * rng.uniform(0.2, 0.4), rng.uniform(50, 90), _blend(ink.sky, ink.cool, 0.65))
    for _ in range(rng.randint(6, 10)):
        x, width, lean = _W * rng.random(), rng.uniform(4, 13), rng.uniform(-30, 30)
        draw.polygon([(x - width, _H), (x + width, _H), (x + lean, rng.uniform(-40, 120))], fill=ink.dark)
        for _ in range(3):
            y = _H * rng.uniform(0.15, 0.6)
            tip = (x + rng.choice((-1, 1)) * rng.uniform(25, 60), y - rng.uniform(15, 50))
            draw.line([(x + lean * (1 - y / _H), y), tip], fill=ink.dark, width=4)


def _night(draw, rng, ink):
    for i in range(5):
        edge = 16 * (4 - i)
        draw.rectangle((0, 0, _W, _H), outline=_blend(ink.sky, ink.dark, 0.3 + 0.15 * i), width=edge + 10)


def _star_field(draw, rng, ink):
    for _ in range(rng.randint(50, 90)):
        size = rng.choice((1, 1, 2, 3))
        disc(draw, _W * rng.random(), _H * rng.random(), size, _blend(ink.sky, (255, 255, 255), 0.85))
    for _ in range(rng.randint(0, 3)):
        star(draw, rng, ink, _W * rng.random(), _H * rng.uniform(0, 0.5), 9)


def _grid(draw, rng, ink):
    y, x, colour = _H * rng.uniform(0.58, 0.68), _W * rng.uniform(0.4, 0.6), _blend(ink.ground, ink.hot, 0.6)
    _star_field(draw, rng, ink)
    draw.rectangle((0, y, _W, _H), fill=_blend(ink.ground, ink.dark, 0.5))
    for i in range(-9, 10):
        draw.line([(x + i * 14, y), (x + i * 120, _H)], fill=colour, width=2)
    for i in range(8):
        draw.line([(0, y + (_H - y) * (i / 7) ** 2), (_W, y + (_H - y) * (i / 7) ** 2)], fill=colour, width=2)


def _blinds(draw, rng, ink):
    step, fall, colour = rng.randint(22, 36), rng.uniform(-50, 50), _blend(ink.ground, ink.dark, 0.7)
    for i in range(-3, _H // step + 4):
        y = i * step
        draw.polygon([(0, y), (_W, y + fall), (_W, y + fall + step * 0.5), (0, y + step * 0.5)], fill=colour)


def _corridor(draw, rng, ink):
    x, y, steps = _W * rng.uniform(0.35, 0.65), _H * rng.uniform(0.3, 0.55), rng.randint(6, 9)
    for i in range(steps):
        share = 1 - i / steps
        box = (x - x * share, y - y * share, x + (_W - x) * share, y + (_H - y) * share)
        draw.rectangle(box, fill=_blend(ink.sky, ink.dark, 0.15 + 0.5 * (i % 2)))


def _mesa(draw, rng, ink):
    y = _H * rng.uniform(0.58, 0.68)
    disc(draw, _W * rng.uniform(0.3, 0.7), y - 10, rng.uniform(70, 120), _blend(ink.sky, ink.hot, 0.55))
    for _ in range(rng.randint(2, 3)):
        x, wide, high = _W * rng.uniform(0, 1), rng.uniform(40, 90), rng.uniform(50, 130)
        block = [(x - wide, y), (x - wide * 0.7, y - high), (x + wide * 0.6, y - high), (x + wide, y)]
        draw.polygon(block, fill=_blend(ink.ground, ink.dark, rng.uniform(0.25, 0.55)))
    draw.rectangle((0, y, _W, _H), fill=_blend(ink.ground, ink.cool, 0.4))


BACKDROPS = {
    "Action": (_slant, _slant, _sun_rays),
    "Animation": (_hills, _hills, _polka),
    "Comedy": (_sun_rays, _polka, _polka),
    "Documentary": (_panel, _panel, _passe_partout),
    "Drama": (_horizon, _horizon, _halo),
    "Horror": (_woods, _woods, _night),
    "Romance": (_halo, _passe_partout, _passe_partout),
    "Sci-Fi": (_grid, _grid, _star_field),
    "Thriller": (_blinds, _corridor, _night),
    "Western": (_mesa, _mesa, _horizon),
}


# The title


def _set_line(words, rng, style):
    """One line of the title as a mask, (width, height) whatever it takes."""
    font = ImageFont.load_default(size=_EM)
    advance = [font.getlength(letter) + (style.tracking * _EM) + style.weight for letter in words]
    mask = Image.new("L", (int(sum(advance)) + 2 * _EM, 3 * _EM))
    draw = ImageDraw.Draw(mask)
    x = start = _EM
    for letter, step in zip(words, advance, strict=True):
        across = 2 * (x - start) / max(1, sum(advance)) - 1
        y = _EM + style.arch * _EM * across**2 + rng.uniform(-style.jump, style.jump) * _EM
        if style.hollow:
            draw.text((x, y), letter, 255, font, stroke_width=style.weight + 2)
            draw.text((x, y), letter, 0, font)
        else:
            draw.text((x, y), letter, 255, font, stroke_width=style.weight)
        if style.dripping and letter != " " and rng.random() < 0.6:
            left = x + rng.uniform(0.15, 0.4) * _EM
            draw.polygon([(left - 5, y + 45), (left + 5, y + 45), (left, y + 45 + rng.uniform(18, 46))], fill=255)
        x += step
    if style.lean:
        shape = (1, style.lean, -style.lean * 1.5 * _EM, 0, 1, 0)
        mask = mask.transform(mask.size, Image.Transform.AFFINE, shape, Image.Resampling.BILINEAR)
    box = mask.getbbox()
    mask = mask.crop(box) if box else mask
    if style.sliced:
        cut = int(mask.height * rng.uniform(0.4, 0.6))
        whole, mask = mask, Image.new("L", (mask.width + 8, mask.height))
        mask.paste(whole.crop((0, 0, whole.width, cut)), (0, 0))
        mask.paste(whole.crop((0, cut + 3, whole.width, whole.height)), (8, cut + 3))
    wide = style.width * _W * rng.uniform(0.9, 1.0)
    scale = min(wide / (mask.width * style.stretch), style.tall * _H / mask.height)
    size = (max(1, int(mask.width * scale * style.stretch)), max(1, int(mask.height * scale)))
    return mask.resize(size, Image.Resampling.BILINEAR)


def _set_title(image, rng, ink, style, title, place):
    # Pillow's built-in typeface has no accented letters: the table keeps them, the picture does without.
    title = unicodedata.normalize("NFKD", title.replace("æ", "ae")).encode("ascii", "ignore").decode()
    title = {"upper": title.upper(), "lower": title.lower(), "title": title}[style.case]
    words = title.split()
    if len(words) > 1 and rng.random() < 0.7:
        cut = min(range(1, len(words)), key=lambda k: abs(len(" ".join(words[:k])) - len(title) / 2))
        rows = [" ".join(words[:cut]), " ".join(words[cut:])]
    else:
        rows = [title]
    lines = [_set_line(row, rng, style) for row in rows]
    gap, margin = 8, 14
    size = (max(line.width for line in lines), sum(line.height for line in lines) + gap * (len(lines) - 1))
    mask, y = Image.new("L", (size[0] + 2 * margin, size[1] + 2 * margin)), margin
    for line in lines:
        mask.paste(line, (margin if style.plate else (mask.width - line.width) // 2, y))
        y += line.height + gap
    if style.rules:
        pen = ImageDraw.Draw(mask)
        for y in (3, mask.height - 7):
            pen.rectangle((mask.width * 0.12, y, mask.width * 0.88, y + 4), fill=255)
    if style.turn:
        mask = mask.rotate(rng.choice((-1, 1)) * rng.uniform(0.5, 1) * style.turn, Image.Resampling.BILINEAR, expand=True)
    corner = ((_W - mask.width) // 2, round(min(max(_H * place - mask.height / 2, 8), _H * 0.91 - mask.height)))
    behind = image.crop((*corner, corner[0] + mask.width, corner[1] + mask.height)).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    if style.plate:
        behind = ink.dark
        image.paste(behind, (0 if rng.random() < 0.5 else corner[0], corner[1], corner[0] + mask.width, corner[1] + mask.height))
    ranked = sorted((*ink[2:], (255, 255, 255)), key=lambda c: -abs(_light(c) - _light(behind)))
    colour = ranked[0] if rng.random() < 0.5 else ranked[1]
    edge = (12, 10, 14) if _light(colour) > 128 else (250, 248, 240)
    if not style.plate:
        halo = mask.filter(ImageFilter.MaxFilter(7))
        image.paste(edge, corner, halo.point(lambda v: v * 3 // 4))
    image.paste(colour, corner, mask)
    if style.many_coloured:
        spots = Image.new("L", mask.size)
        pen = ImageDraw.Draw(spots)
        step = rng.randint(24, 44)
        for x in range(0, mask.width, 2 * step):
            pen.rectangle((x, 0, x + step, mask.height), fill=255)
        image.paste(ranked[1] if colour == ranked[0] else ranked[0], corner, ImageChops.multiply(mask, spots))


def _light(colour):
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _print(image, rng):
    """Grain, light falling off to the corners, and a faded or rich print."""
    noise = np.random.default_rng(rng.getrandbits(32))
    pixels = np.asarray(image, dtype=np.float32)
    high, wide = pixels.shape[:2]
    y, x = np.linspace(-1, 1, high, dtype=np.float32)[:, None], np.linspace(-1, 1, wide, dtype=np.float32)
    falloff = 1 - rng.uniform(0, 0.3) * (x * x + y * y) / 2
    grain = noise.standard_normal((high, wide), dtype=np.float32) * rng.uniform(1.5, 8)
    pixels = (pixels - 128) * rng.uniform(0.82, 1.08) + 128 + rng.uniform(-10, 10)
    pixels = pixels * falloff[:, :, None] + grain[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
