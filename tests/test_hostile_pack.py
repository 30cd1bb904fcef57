"""Hostile and unlucky files through command line, API and page: an answer or a message each time, and a healthy service after."""

import contextlib
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from lobbycard.errors import InputError
from lobbycard.poster.predictor import PosterPredictor
from tests.hostile import ANSWER, EITHER, REFUSAL, Hostile, hostile_pack, picture, saved
from tests.serving import ROOT, ask_page, ask_page_about, healthy, multipart, served, wait_until

ADVICE = (
    "expected one of",
    "expected a picture",
    "scale it down",
    "fetch or save it again",
    "maximum allowed size",
    "not a valid file",
)
GIGABYTE = 1_000_000  # KB
TELLS = sys.platform == "linux"  # how much memory a process has had


@pytest.fixture(scope="module")
def pack() -> list[Hostile]:
    return hostile_pack()


@pytest.fixture(scope="module")
def direct(pack, trained) -> dict[str, np.ndarray]:
    """What the predictor itself says of each file that it can read, with no door before it."""
    predictor, rows = PosterPredictor.load(trained.config.out), {}
    for one in pack:
        with contextlib.suppress(InputError):
            rows[one.name] = predictor.predict_proba([one.data])[0]
    return rows


@pytest.fixture(scope="module")
def server(trained):
    with served(trained.config.out) as process:
        wait_until(lambda: healthy(process.url))
        yield process


@pytest.fixture(scope="module")
def outcomes(request, pack, tmp_path_factory):
    """Door -> one (kind, words, probabilities) a file; written as a table when all three doors are through."""
    found: dict[str, list[tuple[str, str, dict[str, float]]]] = {}
    yield found
    folder = Path(os.environ.get("LOBBYCARD_SHOTS") or tmp_path_factory.mktemp("hostile"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "hostile.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "bytes", *found])
        for i, one in enumerate(pack):
            shown = one.name.encode("unicode_escape").decode()
            writer.writerow(
                [shown[:60], len(one.data), *(f"{found[door][i][0]}: {found[door][i][1]}"[:160] for door in found)]
            )


def check(pack: list[Hostile], found: list[tuple[str, str, dict[str, float]]]) -> None:
    for one, (kind, words, _) in zip(pack, found, strict=True):
        assert one.expected in (kind, EITHER), f"{one.name!r}: {kind}: {words}"
        if kind == REFUSAL:
            assert any(advice in words for advice in ADVICE), f"{one.name!r}: what to do about {words!r}?"
            assert "Traceback" not in words and "root:" not in words
        else:
            assert words, f"{one.name!r}: an empty answer"


def same_however_it_lies(pack, found) -> None:
    """The eight EXIF orientations of one picture get one answer; the same pixels turned without EXIF get others."""
    rows = {
        one.name: np.array(list(probabilities.values())) for one, (_, _, probabilities) in zip(pack, found, strict=True)
    }
    upright = np.stack([rows[f"exif {orientation}.jpg"] for orientation in range(1, 9)])
    turned = np.stack([row for name, row in rows.items() if name.startswith("turned ")])
    spread = np.abs(upright - upright[0]).max()
    assert len(turned) == 7 and spread < 0.2 * np.abs(turned - upright[0]).max(axis=1).min(), spread


def same_as_direct(pack, found, direct, close) -> None:
    """Each answer is what the predictor itself says, and most of the pack is compared."""
    answered = [
        (one.name, list(row.values())) for one, (kind, _, row) in zip(pack, found, strict=True) if kind == ANSWER
    ]
    assert len(answered) >= 30
    for name, row in answered:
        assert row == pytest.approx(direct[name], abs=close), name


def in_parallel(pack, ask: Callable) -> list:
    with ThreadPoolExecutor(4) as pool:  # the hostile ones meet each other, as they would
        return list(pool.map(ask, pack))


def peak(pid: int) -> int | None:
    """Most memory that a process has had, in KB; None where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    return max((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")), default=None)


def within_a_gigabyte(pid: int) -> bool:
    """Whether a process never had more; true where the system does not tell."""
    most = peak(pid)
    assert most or not TELLS, "this system tells, yet said nothing"
    return most is None or most < GIGABYTE


def test_the_pack_is_what_it_says(pack):
    assert len(pack) >= 40 and len({one.name for one in pack}) == len(pack)
    assert {one.expected for one in pack} == {ANSWER, REFUSAL, EITHER}
    assert any(len(one.data) > 30_000_000 for one in pack)
    assert any(len(one.data) < 100_000 and one.name.startswith("50000x50000") for one in pack)


def test_pain_25_26_28_command_line(pack, outcomes, trained, tmp_path, direct):
    paths = []
    for i, one in enumerate(pack):  # a file system takes no NUL, and Windows less
        clean = "".join(c if c.isalnum() or c in " .-" else "_" for c in one.name)[-120:]
        paths.append(tmp_path / f"{i:02d} {clean}")
        paths[-1].write_bytes(one.data)
    out = tmp_path / "preds.csv"
    popen = subprocess.Popen(
        [sys.executable, "-m", "lobbycard", "predict", "--model", trained.config.out, *paths, "--out", out],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        ending, most = pool.submit(popen.communicate, timeout=120), 0
        while not ending.done():
            most = max(most, peak(popen.pid) or most)
            time.sleep(0.02)
    heard = ending.result()[1].decode(errors="replace")
    assert popen.returncode == 0 and "Traceback" not in heard, heard
    assert most < GIGABYTE and (most or not TELLS)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [name for name in rows[0] if name not in ("image", "genres", "error")]
    found = [
        (REFUSAL, row["error"], {})
        if row["error"]
        else (ANSWER, row["genres"], {name: float(row[name]) for name in labels})
        for row in rows
    ]
    check(pack, found)
    same_however_it_lies(pack, found)
    same_as_direct(pack, found, direct, 1e-3)
    outcomes["command line"] = found
    print("most memory, command line:", most, "KB")


def through(door, pack, ask, server, direct):
    """The whole pack through one door of a server, which is well afterwards."""
    found = in_parallel(pack, ask)
    check(pack, found)
    same_however_it_lies(pack, found)
    print(f"most memory, {door}:", peak(server.popen.pid), "KB")
    same_as_direct(pack, found, direct, 1e-3)
    assert healthy(server.url) and within_a_gigabyte(server.popen.pid)
    assert "Traceback" not in "\n".join(server.lines)
    return found


def test_pain_24_25_26_28_api(pack, outcomes, server, direct):
    def ask(one: Hostile):
        body, kind = multipart(("files", one.name, one.data))
        answer = httpx.post(f"{server.url}/api/v1/predict", content=body, headers={"Content-Type": kind}, timeout=60)
        assert answer.status_code in (200, 413, 415, 422), f"{one.name!r}: {answer.status_code} {answer.text[:200]}"
        if one.status and answer.status_code != 200:
            assert answer.status_code == one.status, f"{one.name!r}: {answer.text[:200]}"
        result = answer.json()["results"][0]
        if answer.status_code != 200:
            assert result["error"] == {"status": answer.status_code, "message": answer.json()["detail"]}
            return REFUSAL, result["error"]["message"], {}
        return ANSWER, "|".join(genre["name"] for genre in result["genres"]), result["probabilities"]

    outcomes["api"] = through("api", pack, ask, server, direct)


def test_pain_24_25_26_28_page(pack, outcomes, server, direct):
    def ask(one: Hostile):
        kind, found = ask_page(server.url, one.name, one.data)
        if kind == REFUSAL:
            return kind, found, {}
        return kind, "|".join(genre["name"] for genre in found["genres"]), found["probabilities"]

    outcomes["page"] = through("page", pack, ask, server, direct)


def test_pain_29_the_page_opens_and_fetches_nothing_that_a_client_names(server, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(saved(picture(), "JPEG"))
    for name in (
        str(secret),
        "/etc/passwd",
        "pyproject.toml",
        f"{server.url}/api/v1/health",
        f"file://{secret}",
        "../../etc/passwd",
    ):
        for key in ("path", "url"):
            kind, found = ask_page_about(
                server.url, {key: name, "orig_name": "a.jpg", "meta": {"_type": "gradio.FileData"}}
            )
            assert kind == REFUSAL, f"{key}={name}: {found}"
        assert httpx.get(f"{server.url}/gradio_api/file={name}").status_code in (403, 404)
    assert healthy(server.url)
