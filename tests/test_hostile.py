"""Bad and unlucky input: everything ends in an answer or in one clean line, and nothing of the user's is lost."""

import csv
import errno
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lobbycard.__main__ import main
from lobbycard.catalog.download import download
from lobbycard.catalog.transport import DownloadOptions
from lobbycard.errors import InputError
from lobbycard.files import atomic_path, write_text
from lobbycard.front import front_door
from lobbycard.poster.artifact import open_model
from lobbycard.poster.familiar import STATISTICS
from lobbycard.poster.predictor import PosterPredictor

ROOT = Path(__file__).parent.parent
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


@pytest.fixture
def model(trained, tmp_path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(trained.config.out, tmp_path / "model"))


@pytest.fixture
def run(capsys):
    """The command line in this process: its status and the lines of its two streams."""

    def lobbycard(*arguments) -> tuple[int, list[str], list[str]]:
        status = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        return status, out.splitlines(), [line for line in err.splitlines() if not line.startswith("  ")]

    return lobbycard


def refused(result, *words: str) -> None:
    """One line on standard error that begins with `error:` and has the words, status 2, nothing on standard output."""
    status, _, err = result
    assert status == 2 and len(err) == 1 and err[0].startswith("error: "), result
    for word in words:
        assert word in err[0], err[0]


# -- pictures ----------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes], pixels: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def readable() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (90, 60, 3), dtype=np.uint8))
    palette, frames = picture.convert("P"), {"save_all": True, "append_images": [picture.rotate(90)]}
    jpeg = encoded(picture, "JPEG")
    found = {
        "plain.jpg": jpeg,
        "png under a jpeg's name.jpg": encoded(picture, "PNG"),
        "no extension.jpg.webp": jpeg,
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(picture.convert("L"), "JPEG"),
        "sixteen bits.png": encoded(Image.fromarray(rng.integers(0, 65535, (9, 6), dtype=np.uint16)), "PNG"),
        "one bit.png": encoded(picture.convert("1"), "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=3),
        "palette alpha.png": encoded(palette, "PNG", transparency=bytes(range(256))),
        "rgba.png": encoded(picture.convert("RGBA"), "PNG"),
        "la.png": encoded(picture.convert("LA"), "PNG"),
        "colour key.png": encoded(picture, "PNG", transparency=(1, 2, 3)),
        "animated.gif": encoded(picture, "GIF", **frames),
        "animated.webp": encoded(picture, "WEBP", **frames),
        "animated.png": encoded(picture, "PNG", **frames),
        "bitmap.bmp": encoded(picture, "BMP"),
        "one pixel.png": encoded(Image.new("RGB", (1, 1)), "PNG"),
        "tall.png": encoded(Image.new("RGB", (1, 20_000)), "PNG"),
        "wide.jpg": encoded(Image.new("RGB", (20_000, 1)), "JPEG"),
        "broken exif.jpg": encoded(picture, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"),
        "\N{CLAPPER BOARD} \u6620\u753b.jpg": jpeg,
        "-dash.jpg": jpeg,
        "=SUM(1).jpg": jpeg,
    }
    for turn in (0, 2, 3, 4, 5, 6, 7, 8, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = turn
        found[f"exif {turn}.jpg"] = encoded(picture, "JPEG", exif=exif)
    with suppress(KeyError, OSError):  # Pillow may be built without AVIF
        found["new.avif"] = encoded(picture, "AVIF")
    if os.name != "nt":
        found |= {"line\nbreak.jpg": jpeg, 'quotes " and , commas.jpg': jpeg}
    return found


def unreadable() -> dict[str, tuple[bytes, str]]:
    """Name -> bytes, and words of the error."""
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 255, (90, 60, 3), dtype=np.uint8))
    jpeg, whole, archive = encoded(picture, "JPEG"), encoded(picture, "PNG"), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", "b")
    found = {
        "empty.jpg": (b"", "an empty file"),
        "page.jpg": (b"<html>", "but a web page"),
        "page with mark.jpg": (b"\xef\xbb\xbf<!DOCTYPE html>", "but a web page"),
        "drawing.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "but an SVG drawing"),
        "paper.jpg": (b"%PDF-1.7\n", "but a PDF"),
        "archive.jpg": (archive.getvalue(), "but a ZIP archive"),
        "huge header.png": (png(50_000, 50_000), "more than 50,000,000 pixels"),
        "long header.png": (png(2**31 - 1, 1), "more than 50,000,000 pixels"),
        "no width.png": (png(0, 5), "not a picture"),
        "text bomb.png": (png(5, 5, (b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000)))), "damaged header"),
        "zeros.jpg": (bytes(5000), "not a picture"),
        "noise.jpg": (rng.bytes(5000), "not a picture"),
        "noise after a start.jpg": (b"\xff\xd8\xff\xe0" + rng.bytes(5000), ""),
        "other format.jpg": (encoded(picture, "TIFF"), "not a picture"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    }
    found |= {f"cut at {k}.jpg": (jpeg[:k], "") for k in (1, 2, 10, 100, 700, len(jpeg) - 2)}
    found |= {f"cut at {k}.png": (whole[:k], "") for k in (8, 33, 60, len(whole) // 2)}
    return found


def test_every_hostile_picture_is_one_row_with_an_answer_or_its_error(trained, run, tmp_path):
    good, bad, folder = readable(), unreadable(), tmp_path / "in"
    assert len(good) + len(bad) >= 55
    folder.mkdir()
    for name, data in (good | {name: data for name, (data, _) in bad.items()}).items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    if os.name != "nt":  # a link to nothing, two that lead to each other, a folder in itself: none is a picture to find
        for name, target in (("gone.jpg", "nowhere"), ("a.jpg", "b.jpg"), ("b.jpg", "a.jpg"), ("up", "..")):
            (folder / name).symlink_to(target)
    status, _, err = run("predict", "--model", trained.config.out, folder, "--out", tmp_path / "p.csv")
    assert status == 0 and err == [
        f"{len(bad)} of {len(good) + len(bad)} pictures could not be read: see the error column"
    ]
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    assert set(rows) == {*good, *bad}
    for name in good:
        assert rows[name]["genres"] and not rows[name]["error"], rows[name]
    for name, (_, words) in bad.items():
        assert not rows[name]["genres"] and rows[name]["error"] and words in rows[name]["error"], rows[name]


@posix
def test_what_is_no_file_at_all_gets_its_row_and_never_blocks(trained, run, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    given = [tmp_path / "pipe.jpg", tmp_path / "loop.jpg", tmp_path / ("n" * 300 + ".jpg"), Path("/dev/zero")]
    status, out, _ = run("predict", "--model", trained.config.out, *given)
    rows = list(csv.DictReader(out))
    assert status == 1 and len(rows) == 4 and all(row["error"] for row in rows)
    assert "a device or a pipe" in rows[0]["error"] and "too long" in rows[2]["error"]


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes only names that are UTF-8")
def test_a_name_that_is_no_text_does_not_cost_the_others_their_answers(trained, run, tmp_path):
    for name in (b"a.jpg", b"b\xff.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(readable()["plain.jpg"])
    assert run("predict", "--model", trained.config.out, tmp_path, "--out", tmp_path / "p.csv")[0] == 0
    assert "b\\udcff.jpg" in (tmp_path / "p.csv").read_text(encoding="utf-8")


# -- where results go --------------------------------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.jpg"
    path.write_bytes(readable()["plain.jpg"])
    return path


def test_a_result_never_takes_the_place_of_what_was_given(trained, model, run, picture, drawn, tmp_path):
    before = picture.read_bytes()
    refused(run("predict", "--model", model, picture, "--out", picture), "would overwrite")
    refused(run("predict", "--model", model, "other.jpg", "--out", picture), "that of a picture")
    assert picture.read_bytes() == before
    table = Path(shutil.copy(drawn / "MovieGenre.csv", tmp_path / "t.csv"))
    text = table.read_bytes()
    refused(run("predict", "--model", model, table, "--out", table), "would overwrite", "another name")
    images = drawn / "images"
    refused(run("evaluate", "--model", model, "--csv", table, "--images", images, "--json", table), "would overwrite")
    manifest = model / "model.json"
    refused(
        run("evaluate", "--model", model, "--csv", table, "--images", images, "--json", manifest), "would overwrite"
    )
    assert table.read_bytes() == text and open_model(model).labels == trained.data.labels


@pytest.mark.parametrize("place", ["", "picture.jpg/p.csv", "pipe", "f" * 300 + ".csv"])
def test_a_place_that_takes_no_file_is_told_before_the_work(trained, run, picture, tmp_path, place):
    if place == "pipe":
        if os.name == "nt":
            pytest.skip("Windows has no such files")
        os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    refused(run("predict", "--model", trained.config.out, picture, "--out", tmp_path / place), str(tmp_path))
    assert sorted(tmp_path.iterdir()) == before
    if place == "pipe":
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@posix
def test_a_file_written_through_a_link_leaves_the_link(tmp_path):
    write_text(tmp_path / "real.txt", "old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text(encoding="utf-8") == "new"


def test_the_longest_name_that_the_disk_takes_can_be_written(tmp_path):
    write_text(tmp_path / ("n" * 251 + ".txt"), "whole")
    assert [len(p.name) for p in tmp_path.iterdir()] == [255]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, Linux's disk without room")
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, capsys):
    write_text(tmp_path / "p.csv", "old")
    with (
        pytest.raises(SystemExit) as end,
        front_door(),
        atomic_path(tmp_path / "p.csv"),
        Path("/dev/full").open("wb") as disk,
    ):
        disk.write(b"x" * 1_000_000)
    assert end.value.code == 2 and "No space left on device; make room" in capsys.readouterr().err
    assert [(p.name, p.read_text(encoding="utf-8")) for p in tmp_path.iterdir()] == [("p.csv", "old")]


def test_an_oserror_that_is_the_programs_own_keeps_its_traceback():
    with pytest.raises(OSError, match="nobody"), front_door():
        raise OSError(errno.ECHILD, "nobody")


@posix
def test_a_reader_that_leaves_early_ends_the_run_without_a_word(trained, picture):
    """`predict … | head -1`: far more rows than a pipe holds."""
    command = [sys.executable, "-m", "lobbycard", "predict", "--model", trained.config.out, *[picture] * 2000]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    assert run.stdout.readline().startswith(b"image,genres,error")
    run.stdout.close()
    assert run.wait(30) == 0 and b"Traceback" not in run.stderr.read()
    run.stderr.close()


# -- flags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--threshold", "nan"], "[0, 1]"),
        (["--threshold", "2"], "[0, 1]"),
        (["--threshold=-1"], "[0, 1]"),
        (["--top-k", "0"], "at least 1, got 0"),
        (["--shift", "nan"], "finite"),
        (["--shift=-inf"], "finite"),
    ],
)
def test_impossible_flags_leave_no_file(trained, run, picture, tmp_path, flags, words):
    refused(run("predict", "--model", trained.config.out, picture, "--out", tmp_path / "p.csv", *flags), words)
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("flags", [["--top-k", "999"], ["--shift", "1e9"], ["--shift=-1e9"]])
def test_extreme_flags_get_an_answer(trained, run, picture, flags):
    status, out, _ = run("predict", "--model", trained.config.out, picture, *flags)
    assert status == 0 and next(csv.DictReader(out))["genres"]


def test_an_empty_name_is_not_the_folder_one_stands_in(trained, run):
    refused(run("predict", "--model", trained.config.out, ""), "an empty name")


@pytest.mark.parametrize(
    "setting",
    [{"timeout": float("inf")}, {"timeout": 1e300}, {"deadline": float("nan")}, {"connections": 10**6},
     {"backoff": float("nan")}],
)  # fmt: skip
def test_waits_and_connections_that_no_socket_takes_are_refused(setting):
    with pytest.raises(InputError, match=f"{next(iter(setting))}: expected"):
        DownloadOptions(**setting)


# -- tables ------------------------------------------------------------------------------------------------------------

HEADER = "imdbId,Imdb Link,Title,IMDB Score,Genre,Poster\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\n \n", "an empty file"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
        (b"<!doctype html>", "a web page"),
        (HEADER.encode("utf-16"), "UTF-16"),
        (HEADER.encode(), "only a header"),
        (b"a,b\n1,2\n", "missing: imdbId, Genre"),
        (HEADER.encode() + b"../../etc/passwd,,,,Drama,\n", "no usable movie"),
        (HEADER.encode() + b"1,,,,No such genre|Nor this,\n", "1 no genre that the model knows"),
        (HEADER.encode() + b"99999999,,,,Drama,\n", "1 no poster on disk"),
    ],
)
def test_evaluate_of_what_is_no_table_is_one_line(trained, run, drawn, tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    model = trained.config.out
    refused(run("evaluate", "--model", model, "--csv", tmp_path / "t.csv", "--images", drawn / "images"), words)


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.journal.csv"])
def test_a_folder_where_the_manifest_should_lie_is_one_line(tmp_path, name):
    from lobbycard.catalog.table import read_table

    (tmp_path / "t.csv").write_text(HEADER + "1,,,,Drama,http://127.0.0.1:1/x.jpg\n", encoding="utf-8")
    (tmp_path / "images" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="images: expected a folder that can be written to"):
        download(read_table(tmp_path / "t.csv").frame, tmp_path / "images", DownloadOptions(tries=1, timeout=1))


# -- model folders -----------------------------------------------------------------------------------------------------


def about_of(model: Path) -> dict:
    return json.loads((model / "model.json").read_text(encoding="utf-8"))


NAN = float("nan")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("labels", [None, [], "Action", 5, [1, 2], ["a", "a"], ["Another"]]),
        ("thresholds", [None, [], {}, {"Another": 0.5}, "every x", "every None", "every nan", "every 2", "every True"]),
        ("data", [None, {}, {"prior": 3}]),
        ("input", [None, [], {}]),
        ("input.size", [None, 5, [288], [0, 0], [-1, 5], ["a", "b"], [64.5, 48], [10**9, 10**9], [True, True]]),
        ("input.std", [None, [0.5], [0, 0, 0], ["a"] * 3, [NAN] * 3]),
        ("input.mean", [None, 5, [NAN] * 3]),
        ("files", [None, [], {"model.onnx": 1}]),
        ("network", [None, [], {}, {"library": "timm", "name": "test_resnet", "args": 5}]),
    ],
)
def test_an_edited_model_json_is_one_line_that_names_the_place(model, path, values):
    for value in values:
        about = about_of(model)
        if isinstance(value, str) and value.startswith("every "):
            filler = {"x": "x", "None": None, "nan": NAN, "2": 2, "True": True}[value.removeprefix("every ")]
            value = dict.fromkeys(about["labels"], filler)
        place = about
        for key in path.split(".")[:-1]:
            place = place[key]
        place[path.split(".")[-1]] = value
        text = (model / "model.json").read_text(encoding="utf-8")
        (model / "model.json").write_text(json.dumps(about), encoding="utf-8")
        with pytest.raises(InputError, match=r"model.json: (not JSON|.*expected)") as error:
            open_model(model)
        assert "\n" not in str(error.value), value
        (model / "model.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\x00\ufffd"])
def test_a_model_json_that_is_none_is_one_line(model, text):
    (model / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="not JSON|expected task"):
        open_model(model)


@pytest.mark.parametrize(
    ("file", "runtime"), [("model.onnx", "onnx"), ("model.safetensors", "torch"), ("export.pkl", "fastai")]
)
@pytest.mark.parametrize("hashed", [False, True])
def test_a_network_file_cut_off_is_one_line(model, file, runtime, hashed):
    """Also where model.json vouches for the damaged bytes."""
    from lobbycard.files import sha256

    for data in (b"", b"<html>", (model / file).read_bytes()[:3000]):
        (model / file).write_bytes(data)
        if hashed:
            about = about_of(model)
            about["files"][file] = sha256(model / file)
            (model / "model.json").write_text(json.dumps(about), encoding="utf-8")
        with pytest.raises(InputError, match=file) as error:
            PosterPredictor.load(model, runtime)
        assert "sha256" in str(error.value) or hashed


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_labels_that_do_not_go_with_the_network_are_found_when_it_is_loaded(model, runtime):
    about = about_of(model)
    gone = about["labels"].pop()
    del about["thresholds"][gone], about["data"]["prior"][gone]
    (model / "model.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(InputError, match="does not go with model.json"):
        PosterPredictor.load(model, runtime)


def test_a_lone_learner_can_be_evaluated(trained, drawn, run, tmp_path):
    """It carries no shares of its training movies, so the prior is the table's own, and that is said."""
    lone = shutil.copy(trained.config.out / "export.pkl", tmp_path / "lone.pkl")
    table = ["--csv", drawn / "MovieGenre.csv", "--images", drawn / "images"]
    status, out, err = run("evaluate", "--model", lone, "--trust", *table)
    assert status == 0, err
    assert any("taken from this table" in line for line in out)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("metrics", [None, [], {"mAP": None}, {"mAP": {"value": "x"}}, {"mAP": {"value": 0.5, "ci95": []}}]),
        ("baselines", [None, [], {"prior": []}]),
        ("per_label", [None, [], {"Action": None}, {"Action": {"ap": "x"}}, {"Action": {"ap_ci95": [1]}}]),
        ("modes", [None, [], {"tta": None}, {"tta": {"change": "x"}}, {"posters": None}, {"int8": {"ci95": 5}}]),
        ("data.labels_after", [None, [], {"Action": "x"}]),
        ("data.n_valid", ["x", []]),
        ("versions", [None, 5]),
        ("arch", [None, 5]),
    ],
)
def test_figures_that_are_only_shown_are_checked_as_well(model, path, values):
    test_an_edited_model_json_is_one_line_that_names_the_place(model, path, values)


def test_a_familiarity_for_other_labels_is_found_when_the_model_is_loaded(model):
    from lobbycard.poster.predictor import PosterPredictor

    about = about_of(model)
    about["familiarity"] |= {"shape": [0.5, 0.9], "statistics": list(STATISTICS), "limit": 9.0}
    about["familiarity"] |= {"mean": [0.0] * 10, "scale": [1.0] * 10, "whiten": [1.0] * 55}
    text = (model / "model.json").read_text(encoding="utf-8")
    (model / "model.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(InputError, match="familiarity in model.json is damaged .10 means, expected"):
        PosterPredictor.load(model)
    (model / "model.json").write_text(text, encoding="utf-8")
