"""The title of a drawn poster: one typeface, Pillow's own, made into ten letterings."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from lobbycard.catalog.drawing.sheet import HEIGHT, WIDTH, lightness

_EM = 56


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
    "Animation": Lettering(
        "title", 4, tracking=0.1, jump=0.12, tall=0.17, many_coloured=True, places=(0.17, 0.17, 0.8)
    ),
    "Comedy": Lettering("title", 4, turn=7, tall=0.17, places=(0.19, 0.78)),
    "Documentary": Lettering("lower", 0, width=0.6, tall=0.07, plate=True, places=(0.78, 0.3)),
    "Drama": Lettering("upper", 0, tracking=0.42, tall=0.06, width=0.78, places=(0.8, 0.14)),
    "Horror": Lettering("upper", 3, jump=0.09, dripping=True, places=(0.18, 0.78)),
    "Romance": Lettering("title", 1, lean=0.38, width=0.72, tall=0.1, rules=True, places=(0.8, 0.18)),
    "Sci-Fi": Lettering("upper", 1, tracking=0.22, stretch=1.5, hollow=True, tall=0.11, places=(0.14, 0.84)),
    "Thriller": Lettering("upper", 3, tracking=0.04, sliced=True, places=(0.68, 0.82, 0.18)),
    "Western": Lettering("upper", 4, tracking=0.08, arch=0.4, rules=True, places=(0.2, 0.2, 0.8)),
}


def _set_line(words, rng, style):
    """One line of the title as a mask ("L"), cropped to its letters."""
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
    wide = style.width * WIDTH * rng.uniform(0.9, 1.0)
    scale = min(wide / (mask.width * style.stretch), style.tall * HEIGHT / mask.height)
    size = (max(1, int(mask.width * scale * style.stretch)), max(1, int(mask.height * scale)))
    return mask.resize(size, Image.Resampling.BILINEAR)


def _set_block(title, rng, style):
    """The whole title as a mask: one line or two, ruled and turned as the style wants."""
    words = title.split()
    rows = [title]
    if len(words) > 1 and rng.random() < 0.7:
        cut = min(range(1, len(words)), key=lambda k: abs(len(" ".join(words[:k])) - len(title) / 2))
        rows = [" ".join(words[:cut]), " ".join(words[cut:])]
    lines = [_set_line(row, rng, style) for row in rows]
    gap, margin = 8, 14
    wide, high = max(line.width for line in lines), sum(line.height for line in lines) + gap * (len(lines) - 1)
    mask, y = Image.new("L", (wide + 2 * margin, high + 2 * margin)), margin
    for line in lines:
        mask.paste(line, (margin if style.plate else (mask.width - line.width) // 2, y))
        y += line.height + gap
    if style.rules:
        pen = ImageDraw.Draw(mask)
        for y in (3, mask.height - 7):
            pen.rectangle((mask.width * 0.12, y, mask.width * 0.88, y + 4), fill=255)
    if style.turn:
        angle = rng.choice((-1, 1)) * rng.uniform(0.5, 1) * style.turn
        mask = mask.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    return mask


def set_title(image, rng, ink, style, title, place):
    """Print a title in colours that stand out from what is there, its middle at the height `place` (0 to 1)."""
    # Pillow's built-in typeface has no accented letters: the table keeps them, the picture does without.
    title = unicodedata.normalize("NFKD", title.replace("æ", "ae")).encode("ascii", "ignore").decode()
    title = {"upper": title.upper(), "lower": title.lower(), "title": title}[style.case]
    mask = _set_block(title, rng, style)
    left = (WIDTH - mask.width) // 2
    top = round(min(max(HEIGHT * place - mask.height / 2, 8), HEIGHT * 0.91 - mask.height))
    right, bottom = left + mask.width, top + mask.height
    if style.plate:
        behind = ink.dark
        image.paste(behind, (0 if rng.random() < 0.5 else left, top, right, bottom))
    else:
        behind = image.resize((1, 1), Image.Resampling.BOX, box=(left, top, right, bottom)).getpixel((0, 0))
    ranked = sorted((*ink[2:], (255, 255, 255)), key=lambda c: -abs(lightness(c) - lightness(behind)))
    colour, other = ranked[:2] if rng.random() < 0.5 else ranked[1::-1]
    if not style.plate:
        edge = (12, 10, 14) if lightness(colour) > 128 else (250, 248, 240)
        halo = mask.filter(ImageFilter.BoxBlur(3)).point(lambda v: min(200, v * 4))
        image.paste(edge, (left, top), halo)
    image.paste(colour, (left, top), mask)
    if style.many_coloured:
        stripes = Image.new("L", mask.size)
        pen = ImageDraw.Draw(stripes)
        step = rng.randint(24, 44)
        for x in range(0, mask.width, 2 * step):
            pen.rectangle((x, 0, x + step, mask.height), fill=255)
        image.paste(other, (left, top), ImageChops.multiply(mask, stripes))
