"""The only door through which pixels enter, in training and in serving.

Whatever a poster file is (rotated by EXIF, transparent, CMYK, 16-bit, animated), what comes out is one upright 8-bit
RGB image, or an `ImageError` that says why not. Needs Pillow and NumPy, nothing else.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lobbycard.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP")  # an allow-list: Pillow's rarer decoders are attack surface
MAX_PIXELS = 50_000_000  # checked on the header; decoded as RGB this is 150 MB
MAX_BYTES = 50_000_000
# Above 32 MB the C library takes memory from the system and gives it back. Of Pillow's usual blocks of 16 MB it keeps some:
# a server that was sent four pictures of 49 megapixels at once peaked at 1.4 GB and stayed at 1.0; so it is 0.8 and 0.3.
BLOCK = 64 * 2**20
LARGE = 12_000_000  # pixels; larger pictures are decoded one at a time, so that memory stays under a gigabyte

T = TypeVar("T")
Source = str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image


class ImageError(InputError):
    """A picture that cannot be used; `status` is one of `not_image`, `truncated`, `too_large`."""

    def __init__(self, status: str, message: str):
        super().__init__(message)
        self.status = status


def load_poster(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture completely and return it upright as 8-bit RGB.

    EXIF orientation is applied, transparency is laid on white, CMYK, grey, palette and 16-bit pictures are
    converted, and of an animation the first frame is taken. Colour profiles are ignored.

    Args:
        source: a path, the bytes of a file, a file opened for reading in binary mode, or a Pillow image.
        max_pixels: largest width x height accepted, half of it for WebP; it is checked on the header, before anything is
            decoded. Decoding takes 8 bytes a pixel, as WebP 16.

    Raises:
        ImageError: the file is no picture of a known format, is cut off or damaged, or is too large.
        FileNotFoundError: `source` is a path and nothing is there.
    """
    image = _load(source, max_pixels)
    image = image.copy() if type(image) is not Image.Image else image  # free of the opened file
    image.info = {}  # nothing of the file's metadata (places, thumbnails, comments) travels on
    return image


def _load(source: Source, max_pixels: int) -> Image.Image:
    """As `load_poster`; it may be of a kind of Pillow's that remembers its file, which a caller of ours must not be given."""
    Image.core.set_block_size(BLOCK)
    if isinstance(source, Image.Image):
        return _decode(source, "picture", max_pixels, keep=True)
    name, file = _open(source)
    try:
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ImageError("too_large", f"{name}: more than {max_pixels:,} pixels; scale it down") from error
        except UnidentifiedImageError as error:
            raise ImageError("not_image", f"{name}: not a picture{_guess(file)}; expected one of {_known()}") from error
        except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
            # Plugins that recognise a file and then stumble over its header raise any of these.
            raise ImageError("truncated", f"{name}: damaged header ({error}); fetch or save it again") from error
        with image:
            return _decode(image, name, max_pixels)
    finally:
        if isinstance(source, (str, Path)):
            file.close()


def use_poster(source: Source, use: Callable[[Image.Image], T], alone: Lock, max_pixels: int = MAX_PIXELS) -> T:
    """`use` of a loaded picture; a large one is in memory, from decoding to the end of `use`, only while `alone` is held.

    `use` must make something new of it: to spare a copy, the picture may still know its file. Raises as `load_poster`.
    """
    try:
        return use(_load(source, min(LARGE, max_pixels)))
    except ImageError as error:
        if error.status != "too_large" or max_pixels <= LARGE:
            raise
    with alone:
        return use(_load(source, max_pixels))


def resize_poster(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at the network's input `size` (height, width), squashed, by Pillow's antialiased bilinear filter.

    Squashed, not cropped: a poster's edges carry lettering. The filter is the one fastai's own
    `Resize` with `ResizeMethod.Squish` uses, so a learner exported with it sees the same pixels.
    """
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def poster_pixels(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """An RGB picture at the network's input `size` (height, width), as `resize_poster` makes it: (height, width, 3) uint8.

    Read-only. By hand, since NumPy asks Pillow three times for the pixels of a picture that it is given.
    """
    return np.frombuffer(resize_poster(image, size).tobytes(), np.uint8).reshape(*size, 3)


def poster_array(source: Source, size: tuple[int, int]) -> np.ndarray:
    """What the network is shown: (height, width, 3) uint8, from any `load_poster` source. Raises as `load_poster`."""
    return poster_pixels(load_poster(source), size)


def _open(source: Source) -> tuple[str, BinaryIO]:
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            raise ImageError("not_image", f"{path.name}: a folder, expected a picture file")
        if path.exists() and not path.is_file():
            raise ImageError("not_image", f"{path.name}: a device or a pipe, expected a picture file")
        file, name = path.open("rb"), path.name
    elif isinstance(source, (bytes, bytearray, memoryview)):
        file, name = io.BytesIO(source), "picture"
    elif hasattr(source, "read") and hasattr(source, "seek"):
        file, name = source, Path(str(getattr(source, "name", "picture"))).name
    else:
        raise InputError(f"expected a path, bytes, a binary file or a Pillow image, got {type(source).__name__}")
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    problem = None
    if size == 0:
        problem = ImageError("not_image", f"{name}: an empty file, expected a picture")
    elif size > MAX_BYTES:
        problem = ImageError("too_large", f"{name}: {size:,} bytes, at most {MAX_BYTES:,} are read; scale it down")
    if problem:
        if isinstance(source, (str, Path)):
            file.close()
        raise problem
    return name, file


def _decode(image: Image.Image, name: str, max_pixels: int, keep: bool = False) -> Image.Image:
    """`keep` where the picture is the caller's, and stays as it is."""
    width, height = image.size
    webp = image.format == "WEBP"  # its decoder holds the picture four times over
    most = max_pixels // 2 if webp else max_pixels
    if width * height > most:
        raise ImageError(
            "too_large",
            f"{name}: {width} x {height} pixels, at most {most:,} in all{' as WebP' * webp}; scale it down",
        )
    if width == 0 or height == 0:
        raise ImageError("not_image", f"{name}: {width} x {height} pixels, expected at least one")
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error ... : all mean damage
        raise ImageError("truncated", f"{name}: cut off or damaged ({error}); fetch or save it again") from error
    image = image.copy() if keep else image
    with suppress(Exception):  # a broken EXIF block says nothing about the pixels: keep them as they lie
        ImageOps.exif_transpose(image, in_place=True)
    image = _to_rgb(image)
    jpeg = image.format == "JPEG"  # others may look into their file again, which is closed by then
    return image if jpeg or type(image) is Image.Image else image.copy()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        top = 65535.0 if image.mode != "F" or image.getextrema()[1] > 255 else 255.0
        grey = Image.new("L", image.size)
        for box in _strips(image):
            values = np.asarray(image.crop(box), dtype=np.float32)
            grey.paste(Image.fromarray(np.clip(values * (255.0 / top) + 0.5, 0, 255).astype(np.uint8)), box)
        return grey.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        white = Image.new("RGB", image.size, "white")
        for box in _strips(image):
            part = image.crop(box).convert("RGBA")
            white.paste(part, box, mask=part)
        return white
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of a megapixel or so that cover the picture: a large one is never in memory twice."""
    width, height = image.size
    rows = max(1, 1_000_000 // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def _guess(file: BinaryIO) -> str:
    """A hint at what else the file is: a web page saved under a picture's name is the commonest case."""
    file.seek(0)
    start = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, what in (
        (b"<!doctype", " but a web page"),
        (b"<html", " but a web page"),
        (b"<svg", " but an SVG drawing"),
        (b"<?xml", " but an XML or SVG file"),
        (b"%pdf", " but a PDF"),
        (b"pk\x03\x04", " but a ZIP archive"),
    ):
        if start.startswith(mark):
            return what
    return ""


def _known() -> str:
    return ", ".join(FORMATS)
