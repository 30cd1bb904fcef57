"""PosterPredictor: pictures in, (N, L) probabilities out, whichever runtime is underneath.

With ONNX Runtime this imports neither torch nor scikit-learn.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path

import numpy as np

from lobbycard.catalog.batches import Batch, answered, normalize
from lobbycard.catalog.image import ImageError, Source
from lobbycard.errors import InputError
from lobbycard.poster.artifact import INT8, MANIFEST, ModelFolder, open_model
from lobbycard.poster.familiar import Familiarity
from lobbycard.poster.runtimes import (
    LANE_BATCH_SIZE,
    Logits,
    Precision,
    Runtime,
    check_installed,
    choose,
    open_logits,
    per_core,
)

BATCH_SIZE = 16
FEW = 128  # pictures; for these the network is not opened once more (docs/log.md)
TTA_CROP = 0.9  # share of height and width kept by the cropped view

SAME_INT8 = 0.02  # of any probability; what two processors with the same arithmetic differ by is a tenth of it


class PosterPredictor:
    """A trained model, ready to answer.

    `labels` are its L genres, `thresholds` their (L,) cut-offs for `decide()`, `size` the input's height and width;
    `runtime` (`onnx`, `torch`, `fastai`) and `precision` (`fp32`, `bf16`, `int8`) are what it computes with; `familiarity`
    tells pictures that look unlike the posters it was trained on.
    """

    def __init__(
        self,
        folder: ModelFolder,
        runtime: Runtime = "auto",
        precision: Precision = "fp32",
        logits: Logits | None = None,
    ):
        """Load the network of a model folder; `logits` is given where the network is in memory already.

        Raises:
            InputError: the runtime is not installed, the model has no such precision, or a file of it is gone or changed.
        """
        self.folder = folder
        self.labels, self.thresholds, self.size = folder.labels, folder.thresholds, folder.size
        self.runtime, self.precision = choose(folder, runtime, precision)
        self.familiarity = Familiarity.from_dict(folder.about.get("familiarity"), len(self.labels))
        self._mean, self._std = folder.about["input"]["mean"], folder.about["input"]["std"]
        self._logits = logits or open_logits(folder, self.runtime, self.precision)
        if self.precision == "int8":
            self._check_int8()

    @classmethod
    def load(
        cls, model: Path | str, runtime: Runtime = "auto", trust: bool = False, precision: Precision = "fp32"
    ) -> "PosterPredictor":
        """From the path of a model folder, or of a fastai learner (`.pkl`).

        Unpickling a learner runs code in it, so it happens only when the file is named: inside a model folder after its
        sha256 was compared with `model.json`, elsewhere only with `trust`.

        Raises:
            InputError: no model there, an untrusted learner, or a runtime or precision that cannot be had.
        """
        path = Path(model)
        if path.suffix not in (".pkl", ".pickle") or not path.is_file():
            return cls(open_model(path), runtime, precision)
        if runtime not in ("auto", "fastai"):
            raise InputError(f"--runtime {runtime}: {path.name} is a fastai learner; give its folder to use {runtime}")
        if (path.parent / MANIFEST).is_file():
            folder = open_model(path.parent)
            folder.file(path.name)
            return cls(folder, "fastai", precision)
        if not trust:
            raise InputError(
                f"{path}: a fastai learner without its model folder; loading it runs the code in it. "
                "Give --trust if you know who made it, or better the model folder"
            )
        check_installed("fastai")
        from lobbycard.poster.learner_file import lone_learner

        folder, logits = lone_learner(path)
        return cls(folder, "fastai", precision, logits)

    def predict_proba(self, images: Iterable[Source], tta: bool = False) -> np.ndarray:
        """Calibrated probabilities, (N, L) float32, one row a picture; a batch gives what one by one gives.

        Args:
            images: paths, bytes, binary files or Pillow images.
            tta: average over three views (as it is, mirrored, slightly cropped) at three times the cost.

        Raises:
            ImageError: one of the pictures cannot be read; `stream` goes on instead.
        """
        rows = []
        for _, probabilities, error in self.stream(images, tta):
            if error:
                raise ImageError("not_image", error)
            rows.append(probabilities)
        return np.stack(rows) if rows else np.empty((0, len(self.labels)), np.float32)

    def stream(
        self, images: Iterable[Source], tta: bool = False, many: bool | None = None
    ) -> Iterator[tuple[Source, np.ndarray | None, str]]:
        """For each picture, in order: itself, its (L,) probabilities or None, and the error or an empty string.

        Args:
            images: as of `predict_proba`.
            tta: as of `predict_proba`.
            many: whether to prepare for many, which takes a moment and pays from some hundred on: `per_core`. None if
                `images` has a length that tells.
        """
        if many is None:
            many = isinstance(images, Sized) and len(images) > FEW
        (network,), threads = per_core([self._logits]) if many else ([self._logits], 1)

        def answer(batch: Batch) -> tuple[Batch, np.ndarray]:
            return batch, self._probabilities(network, batch.pixels, tta)

        size = BATCH_SIZE if threads == 1 else LANE_BATCH_SIZE
        for batch, probabilities in answered(images, self.size, size, answer, threads):
            found = dict(zip(batch.rows.tolist(), probabilities, strict=True))
            for index, source in enumerate(batch.sources):
                yield source, found.get(index), batch.errors.get(index, "")

    def from_pixels(self, pixels: np.ndarray, tta: bool = False) -> np.ndarray:
        """Probabilities (B, L) float32 of (B, H, W, 3) uint8 pictures that already have the model's `size`."""
        return self._probabilities(self._logits, pixels, tta)

    def _probabilities(self, network: Logits, pixels: np.ndarray, tta: bool) -> np.ndarray:
        if not len(pixels):
            return np.empty((0, len(self.labels)), np.float32)
        views = tta_views(pixels) if tta else [pixels]
        logits = network(normalize(np.concatenate(views), self._mean, self._std))
        probabilities = sigmoid(logits).reshape(len(views), len(pixels), -1)
        return probabilities.mean(axis=0, dtype=np.float32)

    def _check_int8(self) -> None:
        """Raises InputError where this processor answers otherwise in int8 than the one that the figures were measured on.

        x86 without VNNI adds pairs of products in 16 bits, which may overflow: the answers would be wrong and nobody told.
        Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When to use reduce-range".
        """
        expected = self.folder.about.get("modes", {}).get("int8", {}).get("check")
        if expected is None:
            return
        found = self.from_pixels(check_pictures(self.size))
        try:
            off = float(np.abs(found - np.asarray(expected, float).reshape(found.shape)).max())
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self.folder.path / MANIFEST}: modes.int8.check: expected {found.shape[0]} rows of {found.shape[1]} numbers; "
                "it was edited or damaged, copy the model folder again"
            ) from error
        if not off <= SAME_INT8:  # nor NaN
            raise InputError(
                f"--precision fast: on this processor {INT8} answers otherwise than where it was measured (by {off:.2f} in a "
                "probability), as those without VNNI may; use --precision fp32"
            )


def check_pictures(size: tuple[int, int]) -> np.ndarray:
    """Two pictures (2, H, W, 3) uint8 that are the same on every machine, of hard and of soft contrasts."""
    rows, columns, channels = np.ogrid[: size[0], : size[1], :3]
    hard = (rows // 8 * 37 + columns // 8 * 101 + channels * 53) % 256
    soft = (rows * 255 // size[0] + columns * (channels + 1) * 85 // size[1]) % 256
    return np.stack([hard, soft]).astype(np.uint8)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow, float32; small ones keep their digits."""
    return np.exp(-np.logaddexp(np.float32(0), -np.asarray(logits, np.float32)))


def tta_views(pixels: np.ndarray) -> list[np.ndarray]:
    """Views of (B, H, W, 3) pictures that make sense for a poster: itself, mirrored, and its middle enlarged."""
    from PIL import Image

    _, height, width, _ = pixels.shape
    top, left = round(height * (1 - TTA_CROP) / 2), round(width * (1 - TTA_CROP) / 2)
    box = (left, top, width - left, height - top)
    resize = lambda p: np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR, box=box))  # noqa: E731
    return [pixels, pixels[:, :, ::-1], np.stack([resize(p) for p in pixels])]


def decided(labels: Sequence[str], row: np.ndarray) -> list[str]:
    """Names of the labels that one row (L,) of `decide()` gives."""
    return [label for label, given in zip(labels, row, strict=True) if given]
