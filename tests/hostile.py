"""Files that people and attackers send: each with what has to come of it. Made anew for every test, never kept."""

import gzip
import io
import random
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageFilter

ANSWER, REFUSAL, EITHER = "answer", "refusal", "either"


@dataclass(frozen=True)
class Hostile:
    """A file's name and bytes, `expected` to be answered or refused, and (for the API) the status of its refusal."""

    name: str
    data: bytes
    expected: str
    status: int | None = None


def picture(width=120, height=180, mode="RGB", seed=0) -> Image.Image:
    """Something like a poster, drawn: coloured cells, blurred; no file of anybody's."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 256, (9, 6, 3), dtype=np.uint8))
    return cells.resize((width, height)).filter(ImageFilter.GaussianBlur(2)).convert(mode)


def lopsided() -> Image.Image:
    """A picture that is another one when it is turned or mirrored: bright above, a dark stripe on the left."""
    image = Image.linear_gradient("L").resize((160, 240)).transpose(Image.Transpose.FLIP_TOP_BOTTOM).convert("RGB")
    image.paste("navy", (0, 0, 60, 240))
    image.paste("orange", (70, 10, 150, 60))
    return image


def saved(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated(orientation: int) -> bytes:
    """A JPEG that looks the same as all its siblings once its EXIF orientation (1 to 8) is applied."""
    t = Image.Transpose
    back = [
        None,
        t.FLIP_LEFT_RIGHT,
        t.ROTATE_180,
        t.FLIP_TOP_BOTTOM,
        t.TRANSPOSE,
        t.ROTATE_90,
        t.TRANSVERSE,
        t.ROTATE_270,
    ]
    image, exif = lopsided(), Image.Exif()
    exif[0x0112] = orientation
    if back[orientation - 1] is not None:
        image = image.transpose(back[orientation - 1])
    return saved(image, "JPEG", quality=100, subsampling=0, exif=exif)


def png(width, height, rows=b"", kind=2, depth=8) -> bytes:
    """A PNG with any header, its pixel data as given: how a small file claims to be a huge picture."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def bomb(width, height, bytes_a_pixel=3, kind=2, depth=8) -> bytes:
    """A PNG of one colour, whole and valid: a few hundred kilobytes that decode to width x height pixels."""
    pack = zlib.compressobj(9)
    row, parts = b"\x00" + bytes(width * bytes_a_pixel), []
    parts = [pack.compress(row) for _ in range(height)]
    data = b"".join(parts) + pack.flush()
    return png(width, height, kind=kind, depth=depth).replace(_idat(zlib.compress(b"", 9)), _idat(data), 1)


def _idat(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))


def _archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("poster.jpg", saved(picture(), "JPEG"))
    return file.getvalue()


def _frames(kind, **options) -> bytes:
    frames = [picture(seed=i) for i in range(4)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def _grey16() -> Image.Image:
    return Image.fromarray(np.asarray(picture(mode="L")).astype(np.uint16) * 257)


def _rgb16() -> bytes:
    pixels = np.asarray(picture()).astype(">u2") * 257
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels)
    return png(120, 180, rows, depth=16)


def hostile_pack() -> list[Hostile]:
    """At least forty of them, about 40 MB together."""
    rng = random.Random(5)
    good, jpeg = picture(), saved(picture(), "JPEG")
    noise = bytes(rng.randrange(256) for _ in range(5000))
    cmyk = good.convert("CMYK")
    palette = good.quantize(32)
    ghost = good.convert("RGBA")
    ghost.putalpha(Image.linear_gradient("L").resize(good.size))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    broken_exif = jpeg[:2] + b"\xff\xe1\x00\x20Exif\x00\x00II*\x00\xff\xff\xff\xff" + b"\x00" * 16 + jpeg[2:]
    large = saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (3200, 3200, 3), dtype=np.uint8)), "PNG")
    head = {ANSWER: None, REFUSAL: 415}

    def one(name, data, expected=ANSWER, status=None):
        return Hostile(name, data, expected, status or head.get(expected))

    return [
        one("cut.jpg", jpeg[: len(jpeg) // 2], REFUSAL, 422),
        one("cut.png", saved(good, "PNG")[:2000], REFUSAL, 422),
        one("cut.webp", saved(good, "WEBP")[:900], REFUSAL, 422),
        one("cut at the header.jpg", jpeg[:20], EITHER),
        one("empty.jpg", b"", REFUSAL),
        one("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", REFUSAL),
        one(
            "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', REFUSAL
        ),
        one(
            "entities.xml.jpg",
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg>&a;</svg>',
            REFUSAL,
        ),
        one("paper.pdf", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF", REFUSAL),
        one("archive.jpg", _archive(), REFUSAL),
        one("text.jpg", b"A poster, described in words." * 30, REFUSAL),
        one("random.jpg", noise, REFUSAL),
        one("packed.jpg.gz", gzip.compress(jpeg), REFUSAL),
        one(
            "layers.psd",
            b"8BPS\x00\x01" + b"\x00" * 6 + struct.pack(">HIIHH", 3, 180, 120, 8, 3) + b"\x00" * 400,
            REFUSAL,
        ),
        one("scan.tiff", saved(good, "TIFF"), REFUSAL),
        one("icon.ico", saved(good, "ICO"), REFUSAL),
        one("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n", REFUSAL),
        one("program.exe", b"MZ" + noise[:800], REFUSAL),
        one("50000x50000.png", png(50_000, 50_000, b"\x00" * 1000), REFUSAL, 413),
        one("50000x50000 whole start.png", png(50_000, 50_000, bytes(20_000_000)), REFUSAL, 413),
        one("49 megapixels.png", bomb(7000, 7000), ANSWER),
        one("49 megapixels 16 bit grey.png", bomb(7000, 7000, 2, kind=0, depth=16), ANSWER),
        one("49 megapixels transparent.png", bomb(7000, 7000, 4, kind=6), ANSWER),
        one("49 megapixels 16 bit transparent.png", bomb(7000, 7000, 8, kind=6, depth=16), ANSWER),
        one("short of its rows.png", png(3000, 3000, bytes(3001)), EITHER),
        one(
            "negative.bmp",
            b"BM" + struct.pack("<IHHIIiiHH", 54, 0, 0, 54, 40, -5, -2147483648, 1, 24) + b"\x00" * 24,
            REFUSAL,
            413,
        ),
        one("30 MB.png", large, EITHER),
        one("1x1.png", saved(good.resize((1, 1)), "PNG")),
        one("1x20000.png", saved(good.resize((1, 20_000)), "PNG")),
        one("20000x1.png", saved(good.resize((20_000, 1)), "PNG")),
        one("cmyk.jpg", saved(cmyk, "JPEG")),
        one(
            "cmyk adobe inverted.jpg",
            saved(cmyk, "JPEG").replace(b"Adobe\x00\x64\x00\x00\x00\x00\x00", b"Adobe\x00\x64\x00\x00\x00\x00\x02", 1),
        ),
        one("progressive.jpg", saved(good, "JPEG", progressive=True)),
        one("grey with a profile.jpg", saved(good.convert("L"), "JPEG", icc_profile=profile)),
        one("many pictures.mpo", _frames("MPO")),
        one("16 bit grey.png", saved(_grey16(), "PNG")),
        one("16 bit colour.png", _rgb16()),
        one("1 bit.png", saved(good.convert("1"), "PNG")),
        one("grey and alpha.png", saved(ghost.convert("LA"), "PNG")),
        one("transparent.png", saved(ghost, "PNG")),
        one("palette transparent.png", saved(palette, "PNG", transparency=3)),
        one("palette half transparent.png", saved(palette, "PNG", transparency=bytes(range(0, 256, 8)))),
        one("moving.gif", _frames("GIF", duration=50)),
        one("moving.webp", _frames("WEBP", duration=50)),
        one("picture.avif", saved(good, "AVIF")),
        one("picture.bmp", saved(good, "BMP")),
        one("broken exif.jpg", broken_exif),
        one("a png.jpg", saved(good, "PNG")),
        one("no extension", jpeg),
        one("wrong.txt", jpeg),
        one("\N{CLAPPER BOARD} кино 映画.jpg", jpeg),
        one("../../up.jpg", jpeg),
        one("..\\..\\up.jpg", jpeg),
        one("/etc/passwd.jpg", jpeg),
        one("NUL.jpg", jpeg),
        one("nul\x00inside.jpg", jpeg),
        one("line\nbreak.jpg", jpeg),
        one("<img src=x onerror=alert(1)>.jpg", jpeg),
        one("long " + "x" * 240 + ".jpg", jpeg),
        *(one(f"turned {turn}.jpg", saved(lopsided().transpose(turn), "JPEG")) for turn in Image.Transpose),
        *(one(f"exif {orientation}.jpg", rotated(orientation)) for orientation in range(1, 9)),
    ]
