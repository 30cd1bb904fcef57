"""Where the network looked: parts of a picture are hidden, one after the other, and what that does to each label is drawn.

Works with every runtime, since it only asks for probabilities. NumPy and Pillow, no gradients.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageFilter

# Sizes, edges and fill were chosen by deletion and insertion curves on real posters that were not trained on.
FORWARDS = 40  # most places that are hidden in turn, each with one forward; 54 told no more
REACH = 1.0  # of what is hidden at once, to each side of its middle, in places: neighbours overlap by half
HARD, SOFT = 0.05, 1.0  # places over which the edge fades: of what is hidden, and of where its effect is drawn
BATCH_SIZE = 8
EPSILON = 1e-6  # next to 1, probabilities in float32 know nothing finer

FAINT = 0.25  # log-odds; where no place changes more, the odds change by less than 3 in 10 whatever is hidden
FULL = 0.6  # log-odds drawn in a ramp's last colour; a map that goes beyond is scaled down to it
CLEAR = 0.2  # share of that up to which the picture stays as it is
OPACITY = 0.85
OUTLINE = 0.5  # share of the strongest place that a line is drawn around, which shows on a picture of any colours
SHEET = 600  # pixels of the longer side at which that line is found

# Dark to light, so that how much can be told without the colours; orange against blue is told apart by nearly everybody.
FOR = ((150, 50, 0), (204, 85, 0), (240, 140, 20), (255, 200, 60), (255, 240, 150))
AGAINST = ((0, 50, 110), (10, 90, 170), (60, 140, 215), (120, 190, 245), (190, 230, 255))

Probabilities = Callable[[np.ndarray], np.ndarray]  # (B, H, W, 3) uint8 -> (B, L)


def heat_maps(from_pixels: Probabilities, pixels: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """How much hiding each place lowers each label's log-odds, (L, H, W) float32: above 0 it speaks for the label.

    Places are overlapping patches on a grid, filled with the picture's mean colour; a pixel's value is the weighted mean
    of the patches over and near it. One picture for each place and one as it is go through the network, whatever the number of
    labels.

    Args:
        from_pixels: `PosterPredictor.from_pixels`, or anything that gives probabilities.
        pixels: (H, W, 3) uint8, at the network's input size.
        batch_size: most pictures sent at once, so that others get their turn in between.

    Source:
        Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2 (occlusion).
    """
    height, width, _ = pixels.shape
    down, across = grid(height, width)
    rows, columns = _bands(down, height, HARD), _bands(across, width, HARD)
    picture = pixels.astype(np.float32)
    change = picture.mean(axis=(0, 1)) - picture
    places = [row[:, None, None] * column[:, None] for row in rows for column in columns]
    whole = log_odds(from_pixels(pixels[None]))
    hidden = [
        log_odds(from_pixels(np.stack([np.rint(picture + p * change).astype(np.uint8) for p in batch])))
        for batch in (places[i : i + batch_size] for i in range(0, len(places), batch_size))
    ]
    drops = (whole - np.concatenate(hidden)).reshape(down, across, -1)
    rows, columns = _bands(down, height, SOFT), _bands(across, width, SOFT)
    covered = np.outer(rows.sum(axis=0), columns.sum(axis=0))
    return (np.einsum("rcl,rh,cw->lhw", drops, rows, columns, optimize=True) / covered).astype(np.float32)


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the places that are hidden: about square, and at most `FORWARDS` of them."""
    down = min(max(int((FORWARDS * height / width) ** 0.5), 1), FORWARDS, height)
    return down, min(max(round(down * width / height), 1), FORWARDS // down, width)


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), finite also where float32 has rounded a probability to 0 or 1."""
    p = np.clip(np.asarray(probabilities, np.float64), EPSILON, 1 - EPSILON)
    return np.log(p) - np.log1p(-p)


def strength(heat: np.ndarray) -> float:
    """Log-odds of the strongest place in one label's map (H, W), for or against; at `FAINT` or less it shows nothing."""
    return float(np.abs(heat).max(initial=0.0))


def verdict(heat: np.ndarray) -> str:
    """What has to be said of one label's map (H, W), or an empty string where it speaks for itself."""
    if strength(heat) <= FAINT:
        return "No place in particular: hiding any one part of the picture changes this answer little."
    if heat.max() <= FAINT:
        return "No place speaks for it: the marked ones speak against it."
    return ""


def overlay(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """One label's map (H, W) over the picture, at the picture's own size.

    Orange to yellow speaks for the label, blue against it, a line is drawn around the strongest places, and elsewhere the
    picture is as it was.
    """
    picture, size = picture.convert("RGB"), picture.size
    share = np.asarray(heat, np.float32) / max(FULL, strength(heat))
    amount = np.clip((np.abs(share) - CLEAR) / (1 - CLEAR), 0, 1)
    colours = np.where((share > 0)[..., None], _ramp(amount, FOR), _ramp(amount, AGAINST)) / 255
    # All is worked out at the map's size and enlarged as bytes: pictures may have fifty million pixels.
    enlarged = lambda values: _image(values).resize(size, Image.Resampling.BICUBIC)  # noqa: E731
    # In the colour's own tones, so that what the picture shows there can still be made out.
    grey = picture.convert("L").point([round(0.55 * 255 + 0.45 * v) for v in range(256)]).convert("RGB")
    tinted = ImageChops.multiply(enlarged(colours), grey)
    drawn = Image.composite(tinted, picture, enlarged(OPACITY * np.clip(3 * amount, 0, 1)))
    if strength(heat) > FAINT:
        drawn.paste(*_outline(np.abs(share), size, "black", 2))
        drawn.paste(*_outline(np.abs(share), size, "white", 1))
    return drawn


def _outline(share: np.ndarray, size: tuple[int, int], colour: str, thickness: int) -> tuple[str, None, Image.Image]:
    """A line around the strongest places: what `Image.paste` takes. Found on a sheet of bounded size, then enlarged."""
    shrink = min(1.0, SHEET / max(size))
    sheet = _image(share).resize([max(1, round(side * shrink)) for side in size], Image.Resampling.BICUBIC)
    least = 255 * max(OUTLINE * share.max(), CLEAR)
    inside = sheet.point([255 * (value >= least) for value in range(256)])
    line = ImageChops.subtract(inside, inside.filter(ImageFilter.MinFilter(2 * thickness + 1)))
    return colour, None, line.resize(size, Image.Resampling.BILINEAR)


def _ramp(amount: np.ndarray, stops: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Colours (H, W, 3) of amounts (H, W) from 0 to 1, between evenly spaced stops."""
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(amount, places, channel) for channel in zip(*stops, strict=True)], axis=-1)


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(255 * values).astype(np.uint8))


def _bands(count: int, length: int, fade: float) -> np.ndarray:
    """How far each pixel along one side lies in each of `count` overlapping bands, (count, length), from 0 to 1."""
    middle = (np.arange(length, dtype=np.float32) + 0.5) / length * count - 0.5
    away = np.abs(middle - np.arange(count, dtype=np.float32)[:, None])
    return np.clip((REACH - away) / fade + 0.5, 0, 1)
