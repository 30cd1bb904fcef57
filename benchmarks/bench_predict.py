"""Scoring a folder of posters, side by side with fastai's `get_preds` and with the bare network.

    python benchmarks/bench_predict.py            # minutes
    python benchmarks/bench_predict.py --quick    # under 50 s

ResNet-50 at 224 x 224 with random weights, real posters (LOBBYCARD_POSTERS) or drawn ones, interleaved in one run. Ours is what
`python -m lobbycard predict` does, files in, CSV out; the peer is the exported learner's `get_preds` on the same files; the
limit is the same ONNX network on pixels in memory, in the quickest of a few ways: one batch on all cores, or a batch a core, of
some sizes. The last line is one JSON object: `ours`, `peer` and `limit` are of the fast mode (int8), `fp32` has those of fp32.
"""

import csv
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.subjects import context, finish, posters, resnet50_folder

SIZE = 224
MODES = {"fast": "model.int8.onnx", "fp32": "model.onnx"}


def main(quick: bool = False, n: int | None = None, rounds: int | None = None, json_file: Path | None = None) -> None:
    """Measure scoring.

    Args:
        quick: few posters; ends within 50 s
        n: posters; 512, or 32 with --quick
        rounds: turns of each; 3, or 1 with --quick
        json_file: also write the last line there
    """
    n, rounds = n or (32 if quick else 512), rounds or (1 if quick else 3)
    with TemporaryDirectory() as scratch:
        pictures = posters(n, Path(scratch) / "drawn")
        files = []
        for i in range(n):
            files.append(Path(scratch) / f"{i:05d}.jpg")
            files[-1].write_bytes(pictures[i % len(pictures)])
        with resnet50_folder(SIZE, pictures[:104]) as folder:
            ways = {
                **our_ways(folder, files, Path(scratch)),
                **bare_ways(folder, n, quick),
                "peer": fastai_way(folder, files),
            }
            ways = {name: ways[name] for name in sorted(ways, key=lambda name: name.endswith("fast"), reverse=True)}
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, way in ways.items():
                    time.sleep(0.05)  # until the others' threads have stopped spinning
                    taken[name].append(way())
    rates = {name: round(n / statistics.median(seconds), 1) for name, seconds in taken.items()}
    found = {
        **compared(rates, "fast"),
        "unit": "posters/s",
        "fp32": compared(rates, "fp32"),
        "by_turn": {name: [round(n / s, 1) for s in seconds] for name, seconds in taken.items()},
        "posters": n,
        **context(seed=0),
    }
    print_table(found)
    finish(found, json_file)


def compared(rates: dict[str, float], mode: str) -> dict[str, float]:
    ours, peer, limit = rates[f"ours, {mode}"], rates["peer"], rates[f"limit, {mode}"]
    return {
        "ours": ours, "peer": peer, "limit": limit,
        "ratio_peer": round(ours / peer, 3), "ratio_limit": round(ours / limit, 3),
    }  # fmt: skip


def our_ways(folder: Path, files: list[Path], scratch: Path) -> dict[str, Callable[[], float]]:
    """`predict` without the start of its process, which bench_serve.py measures."""
    from lobbycard.poster.answers import Choice, write_answers
    from lobbycard.poster.predictor import FEW, PosterPredictor

    def way(predictor: PosterPredictor) -> float:
        out = scratch / "preds.csv"
        out.unlink(missing_ok=True)
        began = time.perf_counter()
        write_answers(predictor, files, out, Choice())
        seconds = time.perf_counter() - began
        with out.open(newline="") as file:
            assert sum(not row["error"] for row in csv.DictReader(file)) == len(files)
        return seconds

    predictors = {mode: PosterPredictor.load(folder, "onnx", precision=mode) for mode in MODES}
    for predictor in predictors.values():
        predictor.predict_proba(files[: FEW + 1])  # opens what few posters do not need
    return {f"ours, {mode}": lambda predictor=predictor: way(predictor) for mode, predictor in predictors.items()}


def fastai_way(folder: Path, files: list[Path]) -> Callable[[], float]:
    """As fastai's users score a folder: a test loader of the learner, and its answers in one array.

    Batch size and workers are fastai's own defaults: those of an exported learner's loaders are not kept for it.
    """
    from fastai.vision.all import defaults, load_learner  # as its users import it; `no_bar` comes with it

    learn = load_learner(folder / "export.pkl")

    def way() -> float:
        began = time.perf_counter()
        with learn.no_bar():
            answers, _ = learn.get_preds(dl=learn.dls.test_dl(files, bs=64, num_workers=defaults.cpus))
        seconds = time.perf_counter() - began
        assert len(answers) == len(files)
        return seconds

    return way


def bare_ways(folder: Path, n: int, quick: bool) -> dict[str, Callable[[], float]]:
    """The networks alone, in the way of a few in which each is quickest (4 posters a core if it is to be `quick`)."""
    from lobbycard.poster.runtimes import OnnxNetwork, per_core

    def best(network: OnnxNetwork) -> Callable[[], float]:
        pixels = np.random.default_rng(0).normal(size=(32, 3, SIZE, SIZE)).astype(np.float32)
        (lane,), cores = per_core([network])

        def seconds(way: tuple[int, int], count: int) -> float:
            batch, threads = way
            logits = network if threads == 1 else lane
            began = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                turns = -(-count // batch)
                assert sum(map(len, pool.map(logits, [pixels[:batch]] * turns))) == turns * batch
            return (time.perf_counter() - began) / (turns * batch)

        network(pixels[:1]), lane(pixels[:1])
        ways = [(batch, 1) for batch in (1, 4, 8, 16, 32)] + [(batch, cores) for batch in (1, 4, 8)]
        way = (4, cores) if quick else min(ways, key=lambda way: seconds(way, 64))
        return lambda: n * seconds(way, n)

    return {f"limit, {mode}": best(OnnxNetwork(str(folder / file))) for mode, file in MODES.items()}


def print_table(found: dict[str, Any]) -> None:
    """For people."""
    print(f"\n{found['posters']} posters, ResNet-50 at {SIZE} x {SIZE}\n")
    print(f"  {'posters/s':<12}{'ours':>8}{'peer':>8}{'limit':>8}   of the peer   of the limit")
    for mode, row in (("fast", found), ("fp32", found["fp32"])):
        print(
            f"  {mode:<12}{row['ours']:>8}{row['peer']:>8}{row['limit']:>8}{row['ratio_peer']:>14}{row['ratio_limit']:>15}"
        )
    print()


if __name__ == "__main__":
    tyro.cli(main)
