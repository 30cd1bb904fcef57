"""Downloading posters, side by side with img2dataset, from one server on this machine that waits before it answers.

    python benchmarks/bench_download.py --peer-python PEER/bin/python    # PEER: an environment with img2dataset
    python benchmarks/bench_download.py --quick                          # under 50 s

Real posters (LOBBYCARD_POSTERS) or drawn ones; the server answers after 50 ms; both have as many threads. The limit is a loop
of as many threads that fetches and throws away. Then the same with faults: one answer in twenty is an error 503, a connection
cut off, or half a picture, the first time it is asked for. img2dataset is asked to store what it was sent (no resizing), and to
retry as often as we do. Lost is what is not there, or does not decode, in the end. img2dataset has an environment of its own,
since it pins old versions of what we use; without one its column stays empty. The last line is one JSON object.
"""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.subjects import context, finish, posters

LATENCY = 0.05  # seconds
FAULTY = 0.05  # share of the posters whose first answer is no good
TRIES = 4
PEER = """
import json, sys
from img2dataset import download
given = json.load(open(sys.argv[1]))
download(**given)
"""


def main(
    quick: bool = False,
    n: int | None = None,
    threads: int = 16,
    rounds: int | None = None,
    peer_python: Path | None = None,
    json_file: Path | None = None,
) -> None:
    """Measure downloading.

    Args:
        quick: few posters; ends within 50 s
        n: posters; 3,000, or 400 with --quick
        threads: of everyone
        rounds: turns of each; 3, or 1 with --quick
        peer_python: the interpreter of an environment that has img2dataset
        json_file: also write the last line there
    """
    n, rounds = n or (400 if quick else 3000), rounds or (1 if quick else 3)
    with TemporaryDirectory() as scratch:
        pictures = Path(scratch) / "pictures"
        pictures.mkdir()
        for i, picture in enumerate(posters(min(n, 1000), Path(scratch) / "drawn")):
            (pictures / f"{i:04d}.jpg").write_bytes(picture)
        found: dict[str, Any] = {}
        for faulty in (0.0, FAULTY):
            rates: dict[str, list[float]] = {"ours": [], "peer": [], "limit": []}
            lost: dict[str, list[int]] = {"ours": [], "peer": []}
            for turn in range(rounds):
                for name in rates:
                    if name == "peer" and peer_python is None:
                        continue
                    folder = Path(scratch) / f"{name}-{turn}-{faulty}"
                    folder.mkdir()
                    with serving(pictures, faulty if name != "limit" else 0.0) as url:
                        urls = [f"{url}/{i}.jpg" for i in range(n)]
                        began = time.perf_counter()
                        if name == "ours":
                            ours(urls, folder, threads)
                        elif name == "peer":
                            peer(urls, folder, threads, peer_python)
                        else:
                            bare(urls, threads)
                        rates[name].append(n / (time.perf_counter() - began))
                    if name in lost:
                        lost[name].append(n - whole(folder))
            middle = {name: round(statistics.median(values), 1) if values else None for name, values in rates.items()}
            found["with faults" if faulty else "without"] = {
                **middle,
                "ratio_peer": round(middle["ours"] / middle["peer"], 3) if middle["peer"] else None,
                "ratio_limit": round(middle["ours"] / middle["limit"], 3),
                "lost": {name: max(values) if values else None for name, values in lost.items()},
            }
    found = {
        **found["without"], "unit": "posters/s", "with_faults": found["with faults"], "posters": n, "threads": threads,
        "latency_ms": 1000 * LATENCY, "peer_version": version_of(peer_python), **context(seed=0),
    }  # fmt: skip
    print_table(found)
    finish(found, json_file)


def ours(urls: list[str], folder: Path, threads: int) -> None:
    from lobbycard.catalog.download import DownloadOptions, download

    frame = pd.DataFrame({"url": urls, "file": [f"tt{i:07d}.jpg" for i in range(len(urls))]})
    download(frame, folder, DownloadOptions(connections=threads, tries=TRIES), say=lambda text: None)


def peer(urls: list[str], folder: Path, threads: int, python: Path) -> None:
    """img2dataset in a process of its own; the start of that counts, as it does for its users (some seconds)."""
    table, given = folder / "urls.csv", folder / "given.json"
    pd.DataFrame({"url": urls}).to_csv(table, index=False)
    given.write_text(json.dumps({
        "url_list": str(table), "input_format": "csv", "url_col": "url", "output_folder": str(folder / "out"),
        "output_format": "files", "thread_count": threads, "processes_count": 1, "resize_mode": "no",
        "skip_reencode": True, "retries": TRIES - 1, "timeout": 20, "number_sample_per_shard": len(urls),
    }))  # fmt: skip
    subprocess.run([str(python), "-c", PEER, str(given)], check=True, capture_output=True)


def whole(folder: Path) -> int:
    """Files in `folder` that decode to their last line, whatever anybody's books say."""

    def decodes(path: Path) -> bool:
        try:
            with Image.open(path) as picture:
                picture.load()
        except OSError:
            return False
        return True

    return sum(decodes(path) for path in folder.rglob("*.jpg"))


def bare(urls: list[str], threads: int) -> None:
    """What requests can do at all: fetched with sessions that keep their connections, and thrown away."""
    import requests

    local = threading.local()

    def fetch(url: str) -> bool:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        return bool(local.session.get(url, timeout=20).content)

    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(fetch, urls))


@contextmanager
def serving(pictures: Path, faulty: float) -> Iterator[str]:
    """poster_server.py in a process of its own, whose time is nobody's."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("poster_server.py")),
        str(pictures),
        str(LATENCY),
        str(faulty),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def version_of(python: Path | None) -> str | None:
    if python is None:
        return None
    asked = "from importlib.metadata import version; print(version('img2dataset'))"
    return subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def print_table(found: dict[str, Any]) -> None:
    """For people."""
    print(f"\n{found['posters']:,} posters, {found['threads']} threads, {found['latency_ms']:.0f} ms a request\n")
    print(f"  {'posters/s':<14}{'ours':>8}{'img2dataset':>13}{'limit':>8}   lost: ours, img2dataset")
    for name, row in (("no faults", found), ("5 % faults", found["with_faults"])):
        theirs, gone = row["peer"] or "-", row["lost"]
        print(f"  {name:<14}{row['ours']:>8}{theirs:>13}{row['limit']:>8}   {gone['ours']}, {gone['peer']}")
    print()


if __name__ == "__main__":
    tyro.cli(main)
