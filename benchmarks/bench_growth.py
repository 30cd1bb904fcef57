"""How time and memory grow with the number of posters, stage by stage.

    python benchmarks/bench_growth.py            # 1,000 to 64,000 posters; some 20 minutes, 10 GB of disk
    python benchmarks/bench_growth.py --quick    # 250 to 1,000, two stages at a time; under 50 s

Each stage at each size is a process of its own, which prints its seconds (without its imports) and the most memory that it
held. Posters are drawn, 500 of them under as many names as are needed, since decoding takes its time whatever they show; hashes
and genres are random. `slope` is that of log time over log posters between the two largest sizes: 1 is linear. The last line
is one JSON object; with --plot the curves are drawn. Not on Windows, which does not tell a process's most memory.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.subjects import LABELS, context, finish

SIZE = (144, 96)  # a quarter of the usual pixels: 64,000 posters take 2.7 GB
DRAWN = 500  # 100 with --quick
STEPS = 100  # 10 with --quick


def main(
    quick: bool = False,
    largest: int = 64000,
    stage: str = "",
    n: int = 0,
    folder: Path | None = None,
    steps: int = STEPS,
    plot: Path | None = None,
    json_file: Path | None = None,
) -> None:
    """Measure growth.

    Args:
        quick: small sizes, two stages at a time, which slow each other; ends within 50 s
        largest: leave out more posters than so many
        stage: only this one, in this process, at size n, in a folder that is ready (what the benchmark itself calls)
        n: see stage
        folder: see stage
        steps: of training
        plot: where to draw the curves, a .svg or .png
        json_file: also write the last line there
    """
    if stage:
        train(folder, n, steps) if stage == "steps" else STAGES[stage](folder, n)
        return
    drawn, steps = (100, 10) if quick else (DRAWN, steps)
    sizes = (250, 1000) if quick else tuple(size for size in (1000, 4000, 16000, 64000) if size <= largest)
    found: dict[str, dict[str, Any]] = {name: {"seconds": [], "peak_mb": []} for name in STAGES}
    with TemporaryDirectory() as scratch:
        for size in sizes:
            make_posters(Path(scratch), size, drawn)
            for name, measured in every_stage(size, Path(scratch), steps, at_once=2 if quick else 1):
                for key, value in measured.items():
                    found[name][key].append(value)
                print(
                    f"  {size:>7,}  {name:<12}{measured['seconds']:>9.2f} s{measured['peak_mb']:>8.0f} MB", flush=True
                )
    for row in found.values():
        row["slope"] = round(float(np.log(row["seconds"][-1] / row["seconds"][-2]) / np.log(sizes[-1] / sizes[-2])), 2)
    if plot:
        draw(found, sizes, plot)
    finish({"sizes": sizes, "stages": found, "size": SIZE, "steps": steps, **context(seed=0)}, json_file)


def every_stage(n: int, folder: Path, steps: int, at_once: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Each stage's seconds and memory, so many stages at once; `steps` is last, as it reads what `pack` makes."""
    others = [stage for stage in STAGES if stage != "steps"]
    with ThreadPoolExecutor(at_once) as pool:
        yield from zip(others, pool.map(lambda stage: alone(stage, n, folder, steps), others), strict=True)
    yield "steps", alone("steps", n, folder, steps)


def alone(stage: str, n: int, folder: Path, steps: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--stage", stage, "--n", str(n), "--folder", str(folder)]
    command += ["--steps", str(steps)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{stage} at {n:,}: {run.stderr[-3000:]}")
    return json.loads(run.stdout.strip().splitlines()[-1])


def make_posters(folder: Path, n: int, different: int) -> None:
    """`images/` with at least N posters, so many of them `different`, and `table.csv` with N rows."""
    from lobbycard.catalog.sample import write_sample

    images = folder / "images"
    if not images.exists():
        write_sample(folder / "drawn", n=different, seed=0)
        images.mkdir()
    drawn = sorted((folder / "drawn" / "images").glob("*.jpg"))
    for i in range(len(list(images.glob("*.jpg"))), n):
        os.link(drawn[i % len(drawn)], images / f"tt{i + 1:07d}.jpg")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "imdbId": np.arange(1, n + 1), "Imdb Link": "", "Title": [f"Film {i} (1999)" for i in range(n)], "IMDB Score": 6.1,
        "Genre": ["|".join(rng.choice(LABELS, 2, replace=False)) for _ in range(n)],
        "Poster": [f"http://127.0.0.1:9/{i}.jpg" for i in range(n)],
    })  # fmt: skip
    frame.to_csv(folder / "table.csv", index=False, encoding="latin-1")


def measured(work: Callable[[], Any]) -> Any:
    """Run it, and print what it took, as the last line."""
    began = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - began
    most = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        json.dumps(
            {"seconds": round(seconds, 3), "peak_mb": round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)}
        )
    )
    return result


# -- the stages ----------------------------------------------------------------------------------------------------------


def read_table(folder: Path, n: int) -> None:
    from lobbycard.catalog.table import read_table

    assert len(measured(lambda: read_table(folder / "table.csv")).frame) == n


def group(folder: Path, n: int) -> None:
    """A poster in fifty is a near-copy of another one."""
    from lobbycard.catalog.neardup import group_items

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    copies = n // 50
    hashes[:copies] = hashes[copies : 2 * copies] ^ (np.uint64(1) << rng.integers(0, 64, copies).astype(np.uint64))
    ids = [f"tt{i:07d}" for i in range(n)]
    assert measured(lambda: group_items(ids, hashes)).max() == n - copies - 1


def split(folder: Path, n: int) -> None:
    """Sides drawn, and the leak check."""
    from lobbycard.catalog.split import leak_check, split_items

    rng = np.random.default_rng(0)
    labels = [tuple(np.array(LABELS)[rng.choice(len(LABELS), 2, replace=False)]) for _ in range(n)]
    frame = pd.DataFrame({"item_id": [f"tt{i:07d}" for i in range(n)], "labels": labels})
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)

    def work():
        is_valid = split_items(frame, np.arange(n), LABELS, 0.2, 0)
        return leak_check(np.arange(n), is_valid, hashes)

    assert measured(work).clean


def pack(folder: Path, n: int) -> None:
    from lobbycard.catalog.pixels import PixelFile

    paths = sorted((folder / "images").glob("*.jpg"))[:n]
    assert len(paths) == n
    for old in (folder / "images").glob(".pixels*"):
        old.unlink()
    measured(lambda: PixelFile(folder / "images", SIZE).open(paths))


def train(folder: Path, n: int, steps: int = STEPS) -> None:
    """So many steps of a tiny network from what `pack` has made, the first batch included."""
    import torch
    from fastai.callback.core import Callback, CancelFitException

    from lobbycard.catalog.pixels import PixelFile
    from lobbycard.poster import network as networks
    from lobbycard.poster.config import Config
    from lobbycard.poster.data import poster_dataloaders
    from lobbycard.poster.learning import fitting, poster_learner

    class Stop(Callback):
        left = steps

        def after_batch(self):
            self.left -= 1
            if self.left == 0:
                raise CancelFitException

    rng = np.random.default_rng(0)
    paths = sorted((folder / "images").glob("*.jpg"))[:n]
    assert len(paths) == n
    labels = [(LABELS[i],) for i in rng.integers(0, len(LABELS), n)]
    frame = pd.DataFrame({"path": paths, "labels": labels, "is_valid": np.arange(n) < n // 5})
    torch.manual_seed(0)
    config, cpu = Config(batch_size=16), torch.device("cpu")
    network = networks.build(networks.Architecture("timm", "test_resnet"), len(LABELS))

    def work():
        pixels = PixelFile(folder / "images", SIZE).open(paths)
        dls = poster_dataloaders(
            frame, LABELS, pixels, networks.IMAGENET_MEAN, networks.IMAGENET_STD, config.batch_size, cpu
        )
        learn = poster_learner(dls, network, config, cpu, "fp32", folder)
        with fitting(learn, config):
            learn.fit(steps, cbs=Stop())

    measured(work)


def evaluate(folder: Path, n: int) -> None:
    """Calibration, thresholds and metrics with intervals on a fifth of the posters, as training does it."""
    from lobbycard.poster.measure import measure

    truth, logits = answers(n // 5)
    measured(lambda: measure(logits, truth, LABELS, truth.mean(axis=0), np.arange(len(truth)), 0))


def report(folder: Path, n: int) -> None:
    """The report of a fifth of the posters."""
    from lobbycard.poster.measure import measure
    from lobbycard.report.findings import Findings
    from lobbycard.report.page import write_report

    truth, logits = answers(n // 5)
    m = measure(logits, truth, LABELS, truth.mean(axis=0), np.arange(len(truth)), 0)
    ids = [f"tt{i:07d}" for i in range(len(truth))]
    findings = Findings(
        name="growth", task="genres", labels=LABELS, truth=truth, probabilities=m.probabilities, decisions=m.decisions,
        thresholds=m.thresholds, item_ids=ids, titles=ids, metrics=m.metrics, baselines=m.baselines, per_label=m.per_label,
        sweep=m.sweep, ece_before=m.ece[0], ece_after=m.ece[1], reliability_before=m.reliability[0],
        reliability_after=m.reliability[1], misses=m.misses,
    )  # fmt: skip
    measured(lambda: write_report(findings, folder / "report.html"))


def answers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth (N, L) and logits that know something of it."""
    rng = np.random.default_rng(0)
    truth = rng.random((n, len(LABELS))) < 0.12
    return truth, -2.0 + 1.2 * truth + rng.normal(size=truth.shape)


STAGES: dict[str, Callable[[Path, int], None]] = {
    "read table": read_table,
    "group": group,
    "split": split,
    "pack": pack,
    "steps": train,
    "evaluate": evaluate,
    "report": report,
}


def draw(found: dict[str, dict[str, Any]], sizes: tuple[int, ...], path: Path) -> None:
    """Seconds and memory by posters, both axes in equal steps of factors; the dotted lines are linear growth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for place, (key, unit) in enumerate((("seconds", "seconds"), ("peak_mb", "peak memory, MB")), start=1):
        axes = figure.add_subplot(1, 2, place, xscale="log", yscale="log", xlabel="posters", ylabel=unit)
        for name, row in found.items():
            axes.plot(sizes, row[key], marker="o", markersize=4, label=name)
        low, high = axes.get_ylim()
        for start in np.geomspace(low, high, 7) if key == "seconds" else ():
            axes.plot(sizes, start * np.array(sizes) / sizes[0], color="0.8", linestyle=":", linewidth=0.8, zorder=0)
        axes.set_ylim(low, high)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    tyro.cli(main)
