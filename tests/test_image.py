"""The only door for pixels: every kind of file ends in the right pixels or in words that help."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from lobbycard.catalog.image import ImageError, load_poster, poster_array, resize_poster

SIZE = (64, 96)  # width, height


@pytest.fixture
def upright() -> Image.Image:
    """A picture whose four corners tell which way it stands."""
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 31, 47), fill=(200, 0, 0))
    draw.rectangle((32, 0, 63, 47), fill=(0, 180, 0))
    draw.rectangle((0, 48, 31, 95), fill=(0, 0, 220))
    return image


def saved(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("orientation", "as_stored"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_pain_26_exif_rotation_is_undone_in_all_eight_ways(upright, orientation, as_stored):
    stored = upright if as_stored is None else upright.transpose(as_stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_poster(saved(stored, "PNG", exif=exif))
    assert np.array_equal(np.asarray(loaded), np.asarray(upright))


def test_pain_26_broken_exif_does_not_stop_a_good_picture(upright):
    data = saved(upright, "JPEG", quality=95, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x12\x01garbage")
    assert load_poster(data).size == SIZE


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert np.asarray(load_poster(saved(image, "PNG"))).tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_palette_with_transparency_is_laid_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    loaded = load_poster(saved(image, "PNG", transparency=0))
    assert np.asarray(loaded).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_cmyk_becomes_the_same_colours(upright):
    loaded = np.asarray(load_poster(saved(upright.convert("CMYK"), "JPEG", quality=100)), float)
    assert np.abs(loaded - np.asarray(upright, float)).mean() < 6


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_bilevel_become_rgb(upright, mode):
    grey = upright.convert(mode)
    assert np.array_equal(np.asarray(load_poster(saved(grey, "PNG"))), np.asarray(grey.convert("RGB")))


def test_sixteen_bits_keep_their_range():
    values = np.array([[0, 257 * 64, 257 * 128, 65535]], dtype=np.uint16)
    loaded = np.asarray(load_poster(saved(Image.fromarray(values), "PNG")))
    assert loaded[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    loaded = load_poster(saved(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert loaded.getpixel((4, 4)) == (255, 0, 0)


def test_pain_25_bomb_is_refused_before_decoding(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(50_000, 50_000))
    with pytest.raises(ImageError, match=r"bomb\.png: .*pixels.*scale it down") as caught:
        load_poster(bomb)
    assert caught.value.status == "too_large"


def test_pain_25_large_but_below_pillows_own_limit_is_refused_on_the_header():
    with pytest.raises(ImageError, match=r"8000 x 8000 pixels, at most 50,000,000") as caught:
        load_poster(png_header(8000, 8000))  # there are no pixels behind this header: decoding would say "truncated"
    assert caught.value.status == "too_large"


def png_header(width: int, height: int) -> bytes:
    real = saved(Image.new("L", (1, 1)), "PNG")
    chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + real[24:29]
    import zlib

    return real[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + real[33:]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_pain_28_a_cut_off_file_is_refused_and_not_half_grey(upright, format):
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 64, 3), np.uint8))
    data = saved(noisy, format)
    with pytest.raises(ImageError, match="cut off or damaged|damaged header|not a picture") as caught:
        load_poster(data[: len(data) * 2 // 3])
    assert caught.value.status == "truncated"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>no</html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"PK\x03\x04 zip", "a ZIP archive"),
        (b"\x00" * 100, "not a picture; expected one of JPEG, PNG"),
        (b"", "an empty file"),
    ],
)
def test_what_is_no_picture_is_named(data, words):
    with pytest.raises(ImageError, match=words) as caught:
        load_poster(data)
    assert caught.value.status == "not_image"


def test_folder_and_missing_file(tmp_path):
    with pytest.raises(ImageError, match="a folder, expected a picture"):
        load_poster(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_poster(tmp_path / "none.jpg")


def test_path_bytes_file_and_pillow_image_give_the_same(upright, tmp_path):
    path = tmp_path / "no-extension"
    path.write_bytes(saved(upright, "PNG"))
    with path.open("rb") as file:
        sources = [path, str(path), path.read_bytes(), file, upright]
        arrays = [np.asarray(load_poster(source)) for source in sources]
    assert all(np.array_equal(array, arrays[0]) for array in arrays)


def test_nothing_of_the_files_metadata_travels_on(upright):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "taken at home")
    assert load_poster(saved(upright, "PNG", pnginfo=info)).info == {}


def test_resize_is_height_by_width_and_squashes(upright):
    assert resize_poster(upright, (30, 20)).size == (20, 30)
    assert poster_array(saved(upright, "PNG"), (30, 20)).shape == (30, 20, 3)
    assert resize_poster(upright, (96, 64)) is upright
