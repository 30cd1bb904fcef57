"""How good the genres are: no skill, the recipe that a fastai user writes by hand, and our strategies, on the same rows.

    python benchmarks/bench_quality.py --posters DIR --arch local-dir:FOLDER   # hours; killed, it goes on where it was
    python benchmarks/bench_quality.py --only cached --seeds 1                 # one thing tried out
    python benchmarks/bench_quality.py --quick                                 # smoke test, under 2 minutes

One split (seed 0, a fifth to measure on, made by train_model.py's own code), one backbone, one scorer (lobbycard.scoring).
Every training is a process of its own. The last line is one JSON object: recipe name -> `mAP`, `mAP_sd`, `macro_f1`,
`macro_f1_sd`, `ece`, `seconds`, and more; `_sd` (n - 1) is null where only one seed was run.
"""

import ast
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.subjects import ROOT, context
from benchmarks.yardstick import (
    Yardstick,
    digest,
    make_yardstick,
    no_skill,
    score_ours,
    score_recipe,
    untrained_backbone,
)
from lobbycard.files import sha256, write_text
from lobbycard.poster.config import parse

SCRIPT = Path(__file__).with_name("fastai_recipe.py")
RECIPE = "recipe"
RECIPE_FLAGS = "--size 224 --epochs 4"
OURS = {
    "probe": "--per-genre 0 --strategy probe",
    "cached": "--per-genre 0 --strategy cached",
    "standard": "--per-genre 0 --strategy standard",
}
ONLY_WHEN_NAMED = ("standard",)
SEVERAL_SEEDS = (RECIPE, "cached")  # the rest are tried out with one, unless named
# What takes seconds instead of hours: drawn posters, a tiny network, next to no epochs.
QUICK = {
    RECIPE: "--size 96 --epochs 1 --batch-size 32",
    "ours": "--size 96x64 --epochs 2 --freeze-epochs 0 --batch-size 32",
}
RESULTS = Path(__file__).parent / "results" / "quality.json"
CAVEAT = (
    "F1s at cross-fitted thresholds, but for the recipe's at 0.5 and at the best single one, which was chosen on the very "
    "rows it is scored on; epochs were chosen there too. On posters held back from all of this, expect a little less."
)


def main(
    posters: Path | None = None,
    arch: str = "resnet50",
    seeds: int = 3,
    only: tuple[str, ...] = (),
    redo: tuple[str, ...] = (),
    work: Path | None = None,
    recipe_precision: Literal["auto", "fp32", "bf16"] = "auto",
    quick: bool = False,
    keep: bool = False,
) -> None:
    """Measure quality.

    Args:
        posters: folder with images/ and MovieGenre.csv; LOBBYCARD_POSTERS if not given, drawn posters if that is unset
        arch: the backbone of everyone, as train_model.py takes it
        seeds: how many, for the recipe and for `cached`, or for what --only names
        only: of recipe, probe, cached, standard
        redo: of these names: train again, whatever is there
        work: where everything is kept that a killed benchmark needs to go on; models/bench-quality if not given
        recipe_precision: auto times a few steps in each, channels-last, and takes the faster
        quick: tiny network, drawn posters, next to no training, a folder of its own
        keep: write the JSON behind the README's figures
    """
    known = (RECIPE, *OURS)
    if wrong := sorted({*only, *redo} - {*known}):
        raise SystemExit(f"--only, --redo: expected some of {', '.join(known)}; got {', '.join(wrong)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the training under way is ended, too
    with TemporaryDirectory() as scratch:
        work = (work or (Path(scratch) if quick else ROOT / "models" / "bench-quality")).resolve()
        given = None if quick else posters or (Path(p) if (p := os.environ.get("LOBBYCARD_POSTERS")) else None)
        yard = make_yardstick(given, work, n_drawn=300 if quick else 1200)
        if quick:
            arch = untrained_backbone(work / "test_resnet", yard.images)
        elif arch.startswith("local-dir:"):  # the trainings run elsewhere
            arch = f"local-dir:{Path(arch.removeprefix('local-dir:')).expanduser().resolve()}"
        bench = Bench(yard, work, arch, quick, recipe_precision, redo)
        names = only or [name for name in known if name not in ONLY_WHEN_NAMED]
        runs = [
            bench.run(name, seed)
            for seed in range(1 if quick else seeds)  # all names once before any a second time
            for name in names
            if seed == 0 or only or name in SEVERAL_SEEDS
        ]
    found = summarize([no_skill(yard), *runs])
    about = {
        "posters": {"train": len(yard.rows) - len(yard.valid), "valid": len(yard.valid), "genres": len(yard.labels)},
        "split": yard.digest,
        "arch": Path(bench.arch).name,
        "recipe_precision": bench.used_precision if RECIPE in names else None,
    }
    print_table(found, about)
    if keep:
        write_text(RESULTS, json.dumps({"recipes": found, **about, **context(seed=0)}, indent=1) + "\n")
    print(json.dumps(found))


# -- the runs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Runs what has no result in `work` yet."""

    yard: Yardstick
    work: Path
    arch: str
    quick: bool = False
    recipe_precision: str = "auto"
    redo: tuple[str, ...] = ()

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train and score, or read the result of having done so."""
        flags = self._flags(name)
        key = self._key(name, flags, seed)
        stem = f"{name}-{seed}-{digest(key)}"
        kept = self.work / "results" / f"{stem}.json"
        if kept.is_file() and name not in self.redo:
            found = json.loads(kept.read_text(encoding="utf-8"))
            print(f"{name}, seed {seed}: kept from commit {found['commit']}", flush=True)
            return found
        print(f"{time.strftime('%H:%M:%S')}  {name}, seed {seed}: {' '.join(flags)}", flush=True)
        out = self.work / "runs" / stem
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        command = (self._recipe if name == RECIPE else self._ours)(flags, seed, out)
        spent = timed(command, out / "log.txt", marker="trained" if name == RECIPE else "measuring")
        if name == RECIPE:
            with np.load(out / "recipe.npz") as got:
                order = [list(got["labels"]).index(label) for label in self.yard.labels]
                scores = score_recipe(self.yard, got["logits"][:, order], got["tta"][:, order], seed)
                spent["fit_seconds"] = round(float(got["seconds"]), 1)
        else:
            scores = {name: score_ours(self.yard, out / "model")}
        found = {"name": name, "scores": scores, **spent, "key": key, "commit": context(seed)["commit"]}
        write_text(kept, json.dumps(found, indent=1) + "\n")
        return found

    @cached_property
    def used_precision(self) -> str:
        """The recipe's, measured once a machine where it is left to the benchmark."""
        if self.recipe_precision != "auto":
            return self.recipe_precision
        flags = [*self._recipe_flags, "--time-steps", "4" if self.quick else "8"]
        kept = self.work / "results" / f"precision-{digest(self._key('precision', flags, 0))}.json"
        if not kept.is_file():
            log = self.work / "runs" / f"{kept.stem}.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            timed(self._recipe(flags, 0, log.parent), log, marker="")
            write_text(kept, log.read_text(encoding="utf-8").strip().splitlines()[-1])
        seconds = json.loads(kept.read_text(encoding="utf-8"))
        fastest = min(seconds, key=seconds.get)
        print(f"the recipe's steps: {seconds} s, so it runs in {fastest}", flush=True)
        return fastest

    @property
    def _recipe_flags(self) -> list[str]:
        return [*(QUICK[RECIPE] if self.quick else RECIPE_FLAGS).split(), "--arch", self.arch]

    def _flags(self, name: str) -> list[str]:
        """All that defines a row but its seed."""
        if name == RECIPE:
            return [*self._recipe_flags, "--precision", self.used_precision]
        more = QUICK["ours"].split() if self.quick else []
        return [*OURS[name].split(), *more, "--arch", self.arch, "--min-count", str(self.yard.min_count)]

    def _code(self, name: str) -> str:
        """What a row does beyond its flags: the recipe's own lines, or the defaults of all our settings.

        Our code is not in it: after a change of that, say --redo.
        """
        if name in OURS:
            settings = parse([*self._flags(name), "--csv", str(self.yard.csv)]).settled(name).to_dict()
            return digest(
                {key: value for key, value in settings.items() if key not in ("csv", "images", "out", "arch")}
            )
        return digest(ast.dump(ast.parse(SCRIPT.read_text(encoding="utf-8"))))

    def _key(self, name: str, flags: list[str], seed: int) -> dict[str, Any]:
        weights = Path(self.arch.removeprefix("local-dir:")) / "model.safetensors"
        where = context(seed)
        return {
            "name": name,
            "flags": [without_folder(flag) for flag in flags],
            "code": self._code(name),
            "seed": seed,
            "split": self.yard.digest,
            "weights": sha256(weights) if self.arch.startswith("local-dir:") else None,
            "versions": where["versions"],
            "machine": where["machine"],
        }

    def _recipe(self, flags: list[str], seed: int, out: Path) -> list[str]:
        rows, images = str(self.yard.folder / "rows.csv"), str(self.yard.images)
        where = [str(SCRIPT), rows, images, str(out / "recipe.npz")]
        return [sys.executable, "-W", "ignore", *where, *flags, "--seed", str(seed)]

    def _ours(self, flags: list[str], seed: int, out: Path) -> list[str]:
        where = ["--csv", self.yard.csv, "--images", self.yard.images, "--split-from", self.yard.folder / "split.csv"]
        where += ["--no-download", "--out", out / "model", "--seed", seed]
        return [sys.executable, "-W", "ignore", str(ROOT / "train_model.py"), *map(str, where), *flags]


def without_folder(flag: str) -> str:
    """A flag that says the same wherever the weights lie; what they are is in the key by their digest."""
    return f"local-dir:{Path(flag).name}" if flag.startswith("local-dir:") else flag


def timed(command: list[str], log: Path, marker: str) -> dict[str, Any]:
    """Run a command to its end; its output goes to `log`.

    Returns:
        `seconds` from the start of the process to the line `marker`, `wall_seconds` to its end, `peak_gb` of memory.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    began, marked = time.perf_counter(), None
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, encoding="utf-8", errors="replace")  # fmt: skip
    try:
        with log.open("w", encoding="utf-8") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                if marked is None and line.strip() == marker:
                    marked = time.perf_counter() - began
        peak = None
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)
        process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode or (marker and marked is None):
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
        raise SystemExit(
            f"{' '.join(command)}\nended with {process.returncode}; its last lines:\n{last}\n(all of it: {log})"
        )
    wall = time.perf_counter() - began
    return {"seconds": round(marked or wall, 1), "wall_seconds": round(wall, 1), "peak_gb": peak}


# -- what is told --------------------------------------------------------------------------------------------------------


def summarize(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Row -> means over its runs, and standard deviations (n - 1) of what varies; None where there is one run.

    Of time the least is told: what else the machine did meanwhile can only have added to it. Of memory the most.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for name, scores in run["scores"].items():
            rows.setdefault(name, []).append({**run, **scores})

    def mean(of: list[dict], key: str, digits: int) -> float | None:
        values = [one[key] for one in of if one[key] is not None]
        return round(statistics.fmean(values), digits) if values else None

    def extreme(which: Callable, of: list[dict], key: str) -> float | None:
        return which((one[key] for one in of if one[key] is not None), default=None)

    def spread(of: list[dict], key: str) -> float | None:
        return round(statistics.stdev(one[key] for one in of), 4) if len(of) > 1 else None

    return {
        name: {
            "n": len(of),
            "mAP": mean(of, "mAP", 4),
            "mAP_sd": spread(of, "mAP"),
            "macro_f1": mean(of, "macro_f1", 4),
            "macro_f1_sd": spread(of, "macro_f1"),
            "ece": mean(of, "ece", 4),
            "seconds": extreme(min, of, "seconds"),
            "wall_seconds": extreme(min, of, "wall_seconds"),
            "peak_gb": extreme(max, of, "peak_gb"),
        }
        for name, of in rows.items()
    }


def print_table(found: dict[str, dict[str, Any]], about: dict[str, Any]) -> None:
    """For people."""
    posters, precision = about["posters"], about["recipe_precision"]
    print(f"\n{about['arch']}, {posters['train']:,} posters to train on, {posters['valid']:,} to measure on, "
          f"{posters['genres']} genres" + (f"; the recipe in {precision}" if precision else "") + "\n")  # fmt: skip
    print(
        f"  {'':<28}{'n':>2}  {'mAP':^15}  {'macro-F1':^15}  {'ECE':>6}  {'trained':>8}  {'in all':>8}  {'memory':>8}"
    )
    for name, row in found.items():
        figures = (plus_minus(row[key], row[f"{key}_sd"]) for key in ("mAP", "macro_f1"))
        took = (f"{row[key] / 60:.1f} min" if row[key] else "-" for key in ("seconds", "wall_seconds"))
        memory = f"{row['peak_gb']:.1f} GB" if row["peak_gb"] else "-"
        print(f"  {name.replace('_', ' '):<28}{row['n']:>2}  {'  '.join(f'{f:<15}' for f in figures)}  {row['ece']:>6.3f}  "
              f"{'  '.join(f'{t:>8}' for t in took)}  {memory:>8}")  # fmt: skip
    print(
        f"\n  trained: from the start of the process to its weights; in all: with measuring, and ours with export\n  {CAVEAT}\n"
    )


def plus_minus(value: float, spread: float | None) -> str:
    return f"{value:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")


if __name__ == "__main__":
    tyro.cli(main)
