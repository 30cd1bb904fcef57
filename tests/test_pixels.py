"""Pixels decoded once: the same as decoded each time, whatever happens to the file, the pictures or the process."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lobbycard.catalog import pixels
from lobbycard.catalog.image import ImageError, poster_array
from lobbycard.catalog.pixels import FilePixels, PixelFile
from lobbycard.errors import InputError

ROOT = Path(__file__).parent.parent
SIZE = (48, 32)


@pytest.fixture
def pictures(drawn, tmp_path):
    for path in sorted((drawn / "images").glob("*.jpg"))[:150]:
        shutil.copy2(path, tmp_path / path.name)
    return sorted(tmp_path.glob("*.jpg"))


class Bar:
    """What is decoded: how many were missing, and how many were told of."""

    def __init__(self):
        self.missing = self.done = 0

    @contextmanager
    def __call__(self, missing):
        self.missing = missing
        yield self

    def update(self, n):
        self.done += n


def decoded(paths):
    return np.stack([poster_array(path, SIZE) for path in paths])


def test_both_kinds_give_what_decoding_gives_in_the_order_asked_for(pictures, tmp_path):
    rows = np.random.default_rng(0).integers(0, len(pictures), 40)
    expected = decoded(pictures)[rows]
    for kind in (FilePixels(pictures, SIZE), PixelFile(tmp_path, SIZE).open(pictures)):
        assert len(kind) == len(pictures) and kind.size == SIZE
        assert np.array_equal(kind.take(rows), expected)


def test_the_second_time_nothing_is_decoded_and_new_pictures_are_added(pictures, tmp_path):
    first = Bar()
    PixelFile(tmp_path, SIZE).open(pictures[:100], first)
    assert first.missing == first.done == 100
    again = Bar()
    found = PixelFile(tmp_path, SIZE).open(pictures[::-1], again)
    assert again.missing == again.done == 50
    assert np.array_equal(found.take(np.arange(150)), decoded(pictures[::-1]))
    assert (tmp_path / ".pixels-48x32.u8").stat().st_size == 150 * 48 * 32 * 3


def test_a_changed_picture_is_decoded_again_and_another_size_has_its_own_file(pictures, tmp_path):
    PixelFile(tmp_path, SIZE).open(pictures)
    shutil.copy2(pictures[7], pictures[3])
    os.utime(pictures[3], ns=(1, 1))
    bar = Bar()
    found = PixelFile(tmp_path, SIZE).open(pictures, bar)
    assert bar.missing == 1
    assert np.array_equal(found.take(np.array([3]))[0], poster_array(pictures[7], SIZE))
    other = PixelFile(tmp_path, (32, 32)).open(pictures)
    assert other.take(np.array([0])).shape == (1, 32, 32, 3)


def test_a_file_of_mostly_old_rows_is_begun_anew(pictures, tmp_path):
    few = pictures[:20]
    for time_ns in range(5):
        for path in few:
            os.utime(path, ns=(time_ns, time_ns))
        found = PixelFile(tmp_path, SIZE).open(few)
        assert np.array_equal(found.take(np.arange(20)), decoded(few))
    assert (tmp_path / ".pixels-48x32.u8").stat().st_size <= 2 * 20 * 48 * 32 * 3


@pytest.mark.parametrize(
    "damage", ["made by another Pillow", "index gone", "index damaged", "file cut off", "file gone", "rows not listed"]
)
def test_a_damaged_file_is_made_again(pictures, tmp_path, damage):
    PixelFile(tmp_path, SIZE).open(pictures)
    file, index = tmp_path / ".pixels-48x32.u8", tmp_path / ".pixels-48x32.npz"
    if damage == "made by another Pillow":
        file.write_bytes(bytes(file.stat().st_size))
        saved = dict(np.load(index))
        np.savez(index, **saved | {"made_by": "1, Pillow 9"})
    elif damage == "index gone":
        index.unlink()
    elif damage == "index damaged":
        index.write_bytes(index.read_bytes()[:-200])
    elif damage == "file cut off":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "file gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes() + b"half a row")
    found = PixelFile(tmp_path, SIZE).open(pictures)
    assert np.array_equal(found.take(np.arange(150)), decoded(pictures))


def test_an_unreadable_picture_is_named_and_the_others_are_kept(pictures, tmp_path):
    pictures[140].write_bytes(pictures[140].read_bytes()[:400])
    with pytest.raises(ImageError, match=pictures[140].name):
        PixelFile(tmp_path, SIZE).open(pictures)
    bar = Bar()
    PixelFile(tmp_path, SIZE).open(pictures[:100], bar)
    assert bar.missing == 0


def test_no_room_is_told_before_anything_is_decoded(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(pixels.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 100_000))
    with pytest.raises(InputError, match=r"needs 0\.0 GB for 150 pictures, where 0\.0 GB are free, and 2 of them"):
        PixelFile(tmp_path, SIZE).open(pictures)
    assert not (tmp_path / ".pixels-48x32.u8").exists()


FILL = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
import numpy as np
from lobbycard.catalog import pixels
pixels.SAVED, pixels._DECODED = 8, 4
class Bar:
    def update(self, n):
        print(n, flush=True)
        time.sleep(float(sys.argv[2]))
folder = Path(sys.argv[1])
paths = sorted(folder.glob("*.jpg"))
found = pixels.PixelFile(folder, (48, 32)).open(paths, lambda missing: nullcontext(Bar()))
print("sum", int(found.take(np.arange(len(paths))).sum()), flush=True)
"""


def fill(folder, slowed=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", FILL, str(folder), str(slowed)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_killed_while_it_fills_it_goes_on_from_what_was_listed(pictures, tmp_path):
    killed = fill(tmp_path, slowed=0.1)
    for _ in killed.stdout:
        if (tmp_path / ".pixels-48x32.npz").exists():
            break
    killed.kill()
    killed.wait()
    bar = Bar()
    found = PixelFile(tmp_path, SIZE).open(pictures, bar)
    assert 0 < bar.missing < 150 and bar.done == bar.missing
    assert np.array_equal(found.take(np.arange(150)), decoded(pictures))


def test_several_processes_fill_one_file_and_all_read_the_same(pictures, tmp_path):
    together = [fill(tmp_path) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0] for process in together]
    expected = f"sum {int(decoded(pictures).sum())}"
    assert all(output.strip().splitlines()[-1] == expected for output in outputs)
    assert (tmp_path / ".pixels-48x32.u8").stat().st_size == 150 * 48 * 32 * 3  # each picture once


def test_random_access_is_many_times_faster_than_decoding(posters, tmp_path):
    paths = [Path(shutil.copy2(path, tmp_path)) for path in sorted((posters / "images").glob("*.jpg"))[:128]]
    size, rows = (288, 192), np.random.default_rng(0).permutation(128)
    packed, out = PixelFile(tmp_path, size).open(paths), np.empty((1, *size, 3), np.uint8)
    packed.take(rows)

    def seconds(work):
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    decoding = min(seconds(lambda: [poster_array(paths[row], size) for row in rows]) for _ in range(3))
    reading = min(seconds(lambda: [packed.take(rows[i : i + 1], out) for i in range(128)]) for _ in range(5))
    assert decoding > 10 * reading, f"{decoding / reading:.0f} times"  # 80 on an idle machine


def test_a_file_cut_off_while_it_is_read_is_told(pictures, tmp_path):
    found = PixelFile(tmp_path, SIZE).open(pictures)
    os.truncate(tmp_path / ".pixels-48x32.u8", 100 * 48 * 32 * 3 + 5)
    assert np.array_equal(found.take(np.array([99])), decoded(pictures[99:100]))
    with pytest.raises(InputError, match=r"ends before row 100; it was cut off"):
        found.take(np.array([3, 100]))


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from lobbycard.catalog.rowfile import RowFile
rows = RowFile(Path(sys.argv[1]), (288, 192, 3), np.uint8)
out, rng = np.empty((64, 288, 192, 3), np.uint8), np.random.default_rng(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(60):
    rows.take(rng.integers(0, 3000, 64), out)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_does_not_grow_with_what_was_read(tmp_path):
    with (tmp_path / "rows").open("wb") as file:
        file.truncate(3000 * 288 * 192 * 3)  # 500 MB that take no room on the disk
    run = subprocess.run([sys.executable, "-c", MEMORY, tmp_path / "rows"], cwd=ROOT, capture_output=True, text=True)
    assert int(run.stdout) < 40, run.stdout + run.stderr  # megabytes; one batch has 11


def test_processes_that_fork_and_copies_read_each_their_own_place(pictures, tmp_path):
    found = PixelFile(tmp_path, SIZE).open(pictures)
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.take(np.array([5, 1])), found.take(np.array([5, 1])))
    expected = decoded(pictures)
    with ThreadPoolExecutor(8) as pool:
        rows = [np.random.default_rng(i).integers(0, 150, 64) for i in range(64)]
        assert all(
            np.array_equal(got, expected[row]) for got, row in zip(pool.map(found.take, rows), rows, strict=True)
        )


def test_a_disk_that_fills_up_gets_its_room_back(pictures, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PixelFile, "_save", full)
    with pytest.raises(OSError, match="No space left"):
        PixelFile(tmp_path, SIZE).open(pictures)
    assert not list(tmp_path.glob(".pixels*.u8"))
