"""What each way of computing costs and changes: fp32, int8, bf16, and averaging over views, measured side by side."""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lobbycard.catalog.batches import batches, normalize
from lobbycard.files import sha256
from lobbycard.poster.artifact import INT8, ONNX, ModelFolder
from lobbycard.poster.machine import cpu_name
from lobbycard.poster.predictor import BATCH_SIZE, PosterPredictor, check_pictures
from lobbycard.poster.quantize import KEPT, write_int8
from lobbycard.scoring.decide import decide
from lobbycard.scoring.paired import Bootstrapped

ALLOWED = 0.005  # of mAP that a fast mode may cost
ENOUGH = 300  # posters below which a mode's change of mAP would be mostly noise
MOST = 1000  # posters: the interval of a change is then some 0.003 to either side; more would cost minutes with large networks
CALIBRATION = 128  # training posters that show int8 the range of each activation
REPLICATES = 400
TIMED = 15

Pixels = list[np.ndarray]  # of (B, H, W, 3) uint8


class Trial:
    """Posters with known genres, and what the exported fp32 network makes of them."""

    def __init__(self, folder: ModelFolder, paths: Sequence[Path], truth: np.ndarray, seed: int):
        """`truth` (N, L) bool; `paths` N posters."""
        self.folder, self.truth, self.seed = folder, truth, seed
        self.pixels: Pixels = [batch.pixels for batch in batches(paths, folder.size, BATCH_SIZE)]
        self.fp32 = self.answers(PosterPredictor(folder, "onnx"))
        self._scored = self._score(self.fp32)

    def answers(self, predictor: PosterPredictor, tta: bool = False) -> np.ndarray:
        """(N, L) probabilities."""
        return np.concatenate([predictor.from_pixels(pixels, tta) for pixels in self.pixels])

    def of(self, predictor: PosterPredictor, tta: bool = False) -> dict[str, Any]:
        """mAP of a way to answer, its change against fp32 with a paired bootstrap interval, and milliseconds a poster."""
        found = self._score(self.answers(predictor, tta))
        change = found.minus(self._scored)["mAP"]
        return {
            "mAP": round(float(found.value["mAP"]), 5),
            "change": round(change.value, 5),
            "ci95": [round(end, 5) for end in change.ci95],
            "milliseconds": milliseconds(predictor, tta),
        }

    def _score(self, probabilities: np.ndarray) -> Bootstrapped:
        return Bootstrapped(
            self.truth, probabilities, decide(probabilities, self.folder.thresholds), REPLICATES, self.seed
        )


def milliseconds(predictor: PosterPredictor, tta: bool = False) -> float:
    """The median time of one poster, decoded pixels in, probabilities out, on this machine."""
    height, width = predictor.size
    poster = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    taken = []
    for _ in range(TIMED + 3):
        start = time.perf_counter()
        predictor.from_pixels(poster, tta)
        taken.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(taken[3:]), 2)


def measure_modes(
    folder: ModelFolder,
    train: tuple[Sequence[Path], np.ndarray],
    valid: tuple[Sequence[Path], np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """Add `model.int8.onnx` to a staged folder if it is good enough, and measure every mode that is in it.

    All is judged on validation posters. Where there are fewer than `ENOUGH`, int8 and bf16 are judged on training posters as
    well, which are answered more surely than others: better than noise, and said wherever the figures are shown.

    Args:
        folder: with the files of fp32 in it.
        train: posters and their (N, L) bool truth; `valid` likewise.

    Returns:
        `posters` and `formats_posters` (what int8 and bf16 were judged on), `machine`, `cores`, and for each of `fp32`,
        `torch fp32`, `tta`, `int8`, `bf16` what was measured: `mAP`, `change`, `ci95`, `milliseconds`, or `refused` with the
        reason; `int8` also has `check`, what it answers to `check_pictures`.
    """
    rng = np.random.default_rng(seed)
    paths, truth = _pick(*valid, MOST, rng)
    judged = Trial(folder, paths, truth, seed)
    formats = judged
    if len(paths) < ENOUGH:
        more, theirs = _pick(*train, ENOUGH - len(paths), rng)
        formats = Trial(folder, [*paths, *more], np.concatenate([truth, theirs]), seed)
    onnx = PosterPredictor(folder, "onnx")
    return {
        "posters": len(judged.truth),
        "formats_posters": len(formats.truth),
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "fp32": judged.of(onnx),
        "torch fp32": {"milliseconds": milliseconds(PosterPredictor(folder, "torch"))},
        "tta": judged.of(onnx, tta=True),
        "int8": _int8(folder, formats, _pick(*train, CALIBRATION, rng)[0]),
        "bf16": _bf16(folder, formats),
    }


def _int8(folder: ModelFolder, trial: Trial, posters: Sequence[Path]) -> dict[str, Any]:
    """Keep the first way to quantise that costs less than half of what is allowed, else the best, else none."""
    file, about = folder.path / INT8, folder.about["input"]
    tried: list[tuple[dict[str, Any], bytes]] = []
    for kept in KEPT:
        inputs = (normalize(b.pixels, about["mean"], about["std"]) for b in batches(posters, folder.size, 8))
        write_int8(folder.path / ONNX, inputs, file, kept)
        predictor = _unsealed(folder, "onnx")
        check = _check(predictor)
        tried.append((trial.of(predictor) | {"check": check, "kept_convolutions": kept}, file.read_bytes()))
        if tried[-1][0]["change"] >= -ALLOWED / 2:
            break
    found, network = max(tried, key=lambda one: one[0]["change"])
    if found["change"] >= -ALLOWED:
        file.write_bytes(network)
        return found
    file.unlink()
    return found | {"refused": f"in int8 it loses {-found['change']:.3f} of mAP, allowed is {ALLOWED}"}


def quantize_again(
    folder: ModelFolder, modes: dict[str, Any], train: tuple[Sequence[Path], np.ndarray], seed: int
) -> None:
    """Make `model.int8.onnx` of a network that has taken the measured one's place, in the same way; `modes` gets its `check`."""
    about, int8 = folder.about["input"], modes["int8"]
    del int8["check"]  # of the measured network: this one answers otherwise
    posters, _ = _pick(*train, CALIBRATION, np.random.default_rng(seed))
    inputs = (normalize(b.pixels, about["mean"], about["std"]) for b in batches(posters, folder.size, 8))
    write_int8(folder.path / ONNX, inputs, folder.path / INT8, int8["kept_convolutions"])
    int8["check"] = _check(_unsealed(folder, "onnx"))


def _check(predictor: PosterPredictor) -> list[list[float]]:
    return [[round(float(p), 5) for p in row] for row in predictor.from_pixels(check_pictures(predictor.size))]


def _bf16(folder: ModelFolder, trial: Trial) -> dict[str, Any]:
    from lobbycard.poster.precision import cpu_has_bf16

    if not cpu_has_bf16():
        return {"refused": "the machine that exported it has no bf16 on its processor, so it was not measured"}
    found = trial.of(_unsealed(folder, "torch"))
    if found["change"] < -ALLOWED:
        found["refused"] = f"in bf16 it loses {-found['change']:.3f} of mAP, allowed is {ALLOWED}"
    return found


def _unsealed(folder: ModelFolder, runtime: str) -> PosterPredictor:
    """The fast mode of a folder that is still being made, with the file that has just been written."""
    files = dict(folder.about["files"])
    if (folder.path / INT8).is_file():
        files[INT8] = sha256(folder.path / INT8)
    return PosterPredictor(ModelFolder(folder.path, folder.about | {"files": files}), runtime, "fast")


def _pick(
    paths: Sequence[Path], truth: np.ndarray, most: int, rng: np.random.Generator
) -> tuple[list[Path], np.ndarray]:
    chosen = np.sort(rng.permutation(len(paths))[:most])
    return [paths[i] for i in chosen], truth[chosen]
