"""Work on a Ray cluster that is started here, with workers that are killed while they work."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from lobbycard.catalog import spread
from lobbycard.catalog.download import DownloadOptions, download, read_manifest
from lobbycard.catalog.manifest import Entry
from lobbycard.errors import InputError
from tests.bad_server import BadServer

ray = pytest.importorskip("ray")
from lobbycard import cluster  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def here():
    """A cluster of two processors, whatever the machine has."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})  # fmt: skip
    yield
    ray.shutdown()


def die_once(note: str) -> None:
    """The first process that comes here is gone."""
    try:
        with Path(note).open("x"):
            os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        pass


class Doubles:
    """A worker that is killed while it works on the item "450"."""

    def __init__(self, note: str, threads: int):
        self.note = note

    def __call__(self, batch):
        if "450" in batch["item"]:
            die_once(self.note)
        return {"number": batch["number"], "doubled": np.array([2 * int(item) for item in batch["item"]])}


class Mixes(Doubles):
    def __call__(self, batch):
        return {"number": batch["number"][::-1], "doubled": batch["item"]}


@pytest.mark.parametrize("first", [0, 7])
def test_a_worker_that_dies_costs_no_item_and_doubles_none(here, tmp_path, monkeypatch, first):
    monkeypatch.setattr(cluster, "BLOCK", 200)
    items = [str(i) for i in range(1000)]
    batches = list(cluster.spread(items, Doubles, {"note": str(tmp_path / "died")}, threads=1, first=first))
    assert (tmp_path / "died").exists()
    assert np.concatenate([batch["doubled"] for batch in batches]).tolist() == [2 * i for i in range(first, 1000)]


def test_answers_in_another_order_are_not_written_down_as_if_they_were_right(here, tmp_path):
    with pytest.raises(RuntimeError, match="expected item 0 and those after it"):
        list(cluster.spread([str(i) for i in range(100)], Mixes, {"note": str(tmp_path / "died")}, threads=1))


def test_a_worker_has_the_processors_of_the_smallest_machine_and_each_machine_as_many_as_fit():
    def nodes(*cores, alive=True):
        return [{"Alive": alive, "Resources": {"CPU": float(count)} if count else {}} for count in cores]

    assert cluster.worker_threads(nodes(2, 2, 2, 2)) == (2, 4)
    assert cluster.worker_threads([*nodes(64, 6, 0), *nodes(1, alive=False)]) == (4, 17)
    assert cluster.worker_threads(nodes(8), 3) == (3, 2)
    assert cluster.worker_threads(nodes(0)) == (1, 1)


class Refuses:
    def __init__(self, threads: int):
        raise InputError("this machine has no model")


def parsed(text: str) -> int:
    return int(text)


def test_what_a_worker_cannot_do_is_told_in_its_words(here, monkeypatch):
    with pytest.raises(InputError, match=r"^this machine has no model$"):
        list(cluster.spread(["1"], Refuses, {}, threads=1))
    with pytest.raises(InputError, match="a worker failed: .*int"):
        list(cluster.each(parsed, [("no number",)], 1))
    assert list(cluster.spread(["1"], Refuses, {}, threads=1, first=1)) == []  # nothing is left to do


def square(n: int, note: str) -> int:
    if n == 5:
        die_once(note)
    return n * n


def test_a_piece_whose_worker_dies_is_begun_again(here, tmp_path):
    note = str(tmp_path / "died")
    assert sorted(cluster.each(square, ((n, note) for n in range(9)), 2)) == [n * n for n in range(9)]
    assert (tmp_path / "died").exists()


def start(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen([sys.executable, "-m", "lobbycard", *map(str, arguments)], cwd=ROOT, text=True, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def kill_worker(pid: int, doing: str) -> bool:
    """Kill the first worker of a cluster, started by a process, that is seen at its work; tells whether one was."""
    until = time.monotonic() + 120
    while time.monotonic() < until and psutil.pid_exists(pid):
        for child in psutil.Process(pid).children(recursive=True):
            try:
                if f"::{doing}" in "".join(child.cmdline()[:1]):
                    child.kill()
                    return True
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.005)
    return False


def test_predict_on_ray_writes_the_bytes_that_it_writes_alone_though_a_worker_is_killed(trained, drawn, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"no picture")  # a name that is no text
    given = [
        "predict",
        drawn / "images",
        tmp_path / "in",
        *[drawn / "images"] * 9,
        "--model",
        trained.config.out,
        "--out",
    ]
    alone = start(*given, tmp_path / "alone.csv")
    on_ray = start(*given, tmp_path / "spread.csv", "--engine", "ray")
    assert kill_worker(on_ray.pid, "MapWorker(MapBatches(Answerer)).submit"), on_ray.communicate()
    told = [process.communicate(timeout=300)[1] for process in (alone, on_ray)]
    assert alone.returncode == on_ray.returncode == 0, told
    assert (tmp_path / "spread.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert re.search(r"^1 of 2\d{3} pictures could not be read", told[1], re.MULTILINE), told[1]
    assert "Traceback" not in told[1] and "Warning" not in told[1]


def test_download_on_ray_brings_what_it_brings_alone_though_a_worker_is_killed(here, tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "PIECE", 50)
    options = DownloadOptions(connections=4, deadline=1.5, tries=1)  # a drip keeps a worker at its work for so long
    with BadServer() as server, ThreadPoolExecutor(1) as pool:
        urls = [
            f"{server.url}/{'code/404' if i % 9 == 0 else 'drip' if i % 50 == 1 else 'good'}/{i}" for i in range(300)
        ]
        frame = pd.DataFrame({"file": [f"tt{i:07d}.jpg" for i in range(300)], "url": urls})
        killed = pool.submit(kill_worker, os.getpid(), "_settle_some")
        found = download(frame, tmp_path / "spread", options, say=lambda text: None, settle=spread.settle_on_ray)
        assert killed.result()
        alone = download(frame, tmp_path / "alone", options, say=lambda text: None)
    kept = [read_manifest(tmp_path / name) for name in ("spread", "alone")]
    for one, other in ((found, alone), kept):  # how far a drip came is told in its message
        pd.testing.assert_frame_equal(one.drop(columns="message"), other.drop(columns="message"))
    assert found["status"].value_counts().to_dict() == {"ok": 260, "missing": 34, "timed_out": 6}
    assert {path.name for path in (tmp_path / "spread").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }


def test_a_download_that_is_stopped_has_entered_what_came(here, tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "PIECE", 20)
    options = DownloadOptions(connections=2, deadline=60, tries=1)
    stopped = {"seen": 0}

    class Stops:
        """Ctrl-C, once the first piece has come back."""

        def update(self, n):
            stopped["seen"] += n
            if stopped["seen"] == 5:
                raise KeyboardInterrupt

        set_postfix_str = print

    with BadServer() as server:
        urls = [f"{server.url}/{'drip' if i == 39 else 'good'}/{i}" for i in range(40)]  # the second piece has no end
        frame = pd.DataFrame({"file": [f"tt{i:07d}.jpg" for i in range(40)], "url": urls})
        with pytest.raises(KeyboardInterrupt):
            download(frame, tmp_path, options, lambda n, what: nullcontext(Stops()), print, spread.settle_on_ray)
    there = {path.name for path in tmp_path.glob("tt*.jpg")}
    entered = read_manifest(tmp_path)
    assert len(there) >= 20 and set(entered.loc[entered["status"] == "ok", "file"]) == there
    assert (entered["tries"] == 1).all() and not list(tmp_path.glob("manifest.journal*"))


def test_a_host_that_is_down_is_not_found_out_anew_by_every_piece(here, tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "PIECE", 50)
    with BadServer() as server:
        frame = pd.DataFrame({"file": [f"tt{i:07d}.jpg" for i in range(400)],
                              "url": [f"{server.url}/wait/3600/{i}" for i in range(400)]})  # fmt: skip
        options = DownloadOptions(connections=2, tries=1)
        found = download(frame, tmp_path, options, say=print, settle=spread.settle_on_ray)
        assert (found["status"] == "rate_limited").all()
        assert len(server.requests) < 100  # two workers ask for themselves


def test_pictures_that_workers_have_put_elsewhere_are_told(tmp_path):
    stored = Entry("tt0000001.jpg", "http://h/1", "ok", bytes=7)
    with pytest.raises(InputError, match="the machines of the cluster have to see the same folder"):
        spread._see(stored, tmp_path)
    (tmp_path / stored.file).write_bytes(b"7 bytes")
    spread._see(stored, tmp_path)


def test_the_command_downloads_on_ray(tmp_path):
    with BadServer() as server:
        table = tmp_path / "table.csv"
        table.write_text(
            f"imdbId,Imdb Link,Title,IMDB Score,Genre,Poster\n7,,Film (1999),6.1,Drama,{server.url}/good/7\n"
        )
        process = start("download", "--csv", table, "--images", tmp_path / "images", "--engine", "ray")
        told = process.communicate(timeout=120)
    assert process.returncode == 0 and (tmp_path / "images" / "tt0000007.jpg").is_file(), told


def test_a_cluster_that_is_not_there_is_said_in_words(trained, drawn, tmp_path, monkeypatch):
    run = subprocess.run(
        [sys.executable, "-m", "lobbycard", "predict", drawn / "images", "--model", trained.config.out, "--engine", "ray",
         "--out", tmp_path / "p.csv"], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
    )  # fmt: skip
    assert run.returncode == 2 and "--engine ray: no cluster at 127.0.0.1:1" in run.stderr, run.stderr
