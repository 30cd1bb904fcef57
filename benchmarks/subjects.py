"""What the benchmarks measure on: a ResNet-50 model folder with random weights, posters, and the machine's own words."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lobbycard.catalog.batches import batches, normalize
from lobbycard.catalog.image import poster_array
from lobbycard.poster import artifact
from lobbycard.poster.familiar import Familiarity
from lobbycard.poster.machine import cpu_name

ROOT = Path(__file__).resolve().parents[1]
LABELS = [f"Genre {i:02d}" for i in range(20)]


def posters(n: int, folder: Path) -> list[bytes]:
    """The bytes of `n` posters: real ones where LOBBYCARD_POSTERS names them, drawn ones otherwise."""
    if given := os.environ.get("LOBBYCARD_POSTERS"):
        return [path.read_bytes() for path in sorted((Path(given) / "images").glob("*.jpg"))[:n]]
    from lobbycard.catalog.sample import write_sample

    write_sample(folder, n=n, seed=0)
    return [path.read_bytes() for path in sorted((folder / "images").glob("*.jpg"))[:n]]


@contextmanager
def resnet50_folder(size: int, pictures: list[bytes], seed: int = 0) -> Iterator[Path]:
    """A whole model folder around torchvision's ResNet-50: speed does not depend on what the weights are."""
    import torch

    from lobbycard.poster.export import write_learner, write_onnx, write_safetensors
    from lobbycard.poster.network import IMAGENET_MEAN, IMAGENET_STD, Architecture, build
    from lobbycard.poster.quantize import write_int8

    torch.manual_seed(seed)
    architecture, shape = Architecture("torchvision", "resnet50"), (size, size)
    network = build(architecture, len(LABELS)).eval()
    thresholds = np.full(len(LABELS), 0.5)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_safetensors(network, folder / artifact.WEIGHTS)
        write_onnx(network, (3, *shape), folder / artifact.ONNX)
        pixels = (normalize(b.pixels, IMAGENET_MEAN, IMAGENET_STD) for b in batches(pictures[:8], shape, 4))
        write_int8(folder / artifact.ONNX, pixels, folder / artifact.INT8)
        write_learner(network, LABELS, thresholds, shape, IMAGENET_MEAN, IMAGENET_STD, folder / artifact.PICKLE)
        nothing = {name: {"value": 0.0, "ci95": [0.0, 0.0]} for name in ("mAP", "macro_f1", "micro_f1", "samples_f1")}
        about = {
            "labels": LABELS,
            "arch": "resnet50",
            "network": architecture.to_dict(),
            "input": {"size": [size, size], "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
            "thresholds": dict.fromkeys(LABELS, 0.5),
            "calibration": {},
            "metrics": nothing,
            "config": {},
            "data": {"prior": dict.fromkeys(LABELS, 0.1)},
            "familiarity": _familiarity(pictures, shape, seed),
        }
        artifact.seal(folder, about)
        yield folder


def _familiarity(pictures: list[bytes], shape: tuple[int, int], seed: int) -> dict:
    """Of the posters' looks and answers at random: what it costs to ask does not depend on what it says."""
    looks = [poster_array(picture, shape) for picture in pictures]
    answers = np.random.default_rng(seed).uniform(0.01, 0.99, (len(looks), len(LABELS)))
    return Familiarity.fit(np.full((len(looks), 2), (182, 268)), looks, answers).to_dict()


def context(seed: int) -> dict:
    """Machine, versions, commit and seed, for the JSON of every benchmark."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "versions": artifact.versions(),
        "commit": commit.stdout.strip() or "unknown",
        "seed": seed,
    }


def finish(found: dict, out: Path | None) -> None:
    """Print the result as the last line, and write it to `out`."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))
