"""PosterPredictor: pictures in, (N, L) probabilities out, whichever runtime is underneath.

With ONNX Runtime this imports neither torch nor scikit-learn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from lobbycard.catalog.batches import batches, normalize
from lobbycard.catalog.image import ImageError, Source
from lobbycard.errors import InputError
from lobbycard.poster.artifact import MANIFEST, ONNX, PICKLE, WEIGHTS, ModelFolder, open_model

Runtime = Literal["auto", "onnx", "torch", "fastai"]
BATCH_SIZE = 16
TTA_CROP = 0.9  # share of height and width kept by the cropped view

Logits = Callable[[np.ndarray], np.ndarray]  # (B, 3, H, W) fp32 normalised -> (B, L) fp32


class PosterPredictor:
    """A trained model, ready to answer.

    `labels` are its L genres, `thresholds` their (L,) cut-offs for `decide()`, `size` the input's height and width.
    """

    def __init__(self, folder: ModelFolder, runtime: Runtime = "auto", logits: Logits | None = None):
        """Load the network of a model folder; `logits` is given where the network is in memory already.

        Raises:
            InputError: the runtime is not installed, or a file of the model is gone or changed.
        """
        self.folder = folder
        self.labels, self.thresholds, self.size = folder.labels, folder.thresholds, folder.size
        self.runtime = _choose(runtime)
        self._mean, self._std = folder.about["input"]["mean"], folder.about["input"]["std"]
        self._logits = logits or {"onnx": _onnx, "torch": _torch, "fastai": _fastai}[self.runtime](folder)

    @classmethod
    def load(cls, model: Path | str, runtime: Runtime = "auto", trust: bool = False) -> "PosterPredictor":
        """From the path of a model folder, or of a fastai learner (`.pkl`).

        Unpickling a learner runs code in it, so it happens only when the file is named: inside a model folder after its
        sha256 was compared with `model.json`, elsewhere only with `trust`.

        Raises:
            InputError: no model there, an untrusted learner, or a runtime that is not installed.
        """
        path = Path(model)
        if path.suffix not in (".pkl", ".pickle") or not path.is_file():
            return cls(open_model(path), runtime)
        if runtime not in ("auto", "fastai"):
            raise InputError(f"--runtime {runtime}: {path.name} is a fastai learner; give its folder to use {runtime}")
        _choose("fastai")
        if (path.parent / MANIFEST).is_file():
            folder = open_model(path.parent)
            folder.file(path.name)
            return cls(folder, "fastai")
        if not trust:
            raise InputError(
                f"{path}: a fastai learner without its model folder; loading it runs the code in it. "
                "Give --trust if you know who made it, or better the model folder"
            )
        from lobbycard.poster.learner_file import lone_learner

        return cls(*lone_learner(path))

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
        self, images: Iterable[Source], tta: bool = False, batch_size: int = BATCH_SIZE
    ) -> Iterator[tuple[Source, np.ndarray | None, str]]:
        """For each picture, in order: itself, its (L,) probabilities or None, and the error or an empty string."""
        for batch in batches(images, self.size, batch_size):
            found = dict(zip(batch.rows.tolist(), self.from_pixels(batch.pixels, tta), strict=True))
            for index, source in enumerate(batch.sources):
                yield source, found.get(index), batch.errors.get(index, "")

    def from_pixels(self, pixels: np.ndarray, tta: bool = False) -> np.ndarray:
        """Probabilities (B, L) float32 of (B, H, W, 3) uint8 pictures that already have the model's `size`."""
        if not len(pixels):
            return np.empty((0, len(self.labels)), np.float32)
        views = tta_views(pixels) if tta else [pixels]
        logits = self._logits(normalize(np.concatenate(views), self._mean, self._std))
        probabilities = sigmoid(logits).reshape(len(views), len(pixels), -1)
        return probabilities.mean(axis=0, dtype=np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow, float32."""
    return (0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float32)))).astype(np.float32)


def tta_views(pixels: np.ndarray) -> list[np.ndarray]:
    """Views of (B, H, W, 3) pictures that make sense for a poster: itself, mirrored, and its middle enlarged."""
    from PIL import Image

    _, height, width, _ = pixels.shape
    top, left = round(height * (1 - TTA_CROP) / 2), round(width * (1 - TTA_CROP) / 2)
    box = (left, top, width - left, height - top)
    resize = lambda p: np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR, box=box))  # noqa: E731
    return [pixels, pixels[:, :, ::-1], np.stack([resize(p) for p in pixels])]


def _choose(runtime: Runtime) -> str:
    wants = {"onnx": "onnxruntime", "torch": "torch", "fastai": "fastai"}
    if runtime == "auto":
        runtime = "onnx" if find_spec("onnxruntime") else "torch"
    if runtime not in wants:
        raise InputError(f"--runtime: expected auto, onnx, torch or fastai, got {runtime!r}")
    if not find_spec(wants[runtime]):
        raise InputError(f"--runtime {runtime}: {wants[runtime]} is not installed here; pip install {wants[runtime]}")
    return runtime


def onnx_logits(model: str | bytes) -> Logits:
    """A function from normalised pixels to logits, by ONNX Runtime, from a file's path or its bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns about the machine's devices, which is nobody's concern here
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def _onnx(folder: ModelFolder) -> Logits:
    file = folder.file(ONNX)
    try:
        logits = onnx_logits(str(file))
        _fits(logits, folder)
    except Exception as error:  # onnxruntime's own classes derive from nothing narrower
        raise _unfit(file, error) from error
    return logits


def _torch(folder: ModelFolder) -> Logits:
    from lobbycard.poster.learner_file import torch_logits
    from lobbycard.poster.network import Architecture, build, read_state

    file, network = folder.file(WEIGHTS), folder.about["network"]
    state = read_state(file)
    try:
        built = build(Architecture(network["library"], network["name"], network["args"]), len(folder.labels))
        built.load_state_dict(state)
    except InputError:
        raise
    except Exception as error:  # the libraries raise what they like at arguments that are not theirs
        raise _unfit(file, error) from error
    return torch_logits(built)


def _fits(logits: Logits, folder: ModelFolder) -> None:
    """Raises ValueError if the network does not take the model's input size or does not answer one number a label."""
    found = logits(np.zeros((1, 3, *folder.size), np.float32)).shape
    if found != (1, len(folder.labels)):
        raise ValueError(f"it gives {found[-1]} numbers a picture for {len(folder.labels)} labels")


def _unfit(file: Path, error: Exception) -> InputError:
    why = " ".join(str(error).split())[:200]
    return InputError(
        f"{file}: does not go with {MANIFEST} beside it, or cannot be loaded ({type(error).__name__}: {why}); "
        "copy the model folder again, or train it again"
    )


def _fastai(folder: ModelFolder) -> Logits:
    from lobbycard.poster.learner_file import load_learner_file, torch_logits

    return torch_logits(
        load_learner_file(folder.file(PICKLE)).model
    )  # its sha256 was checked before anything in it runs


def decided(labels: Sequence[str], row: np.ndarray) -> list[str]:
    """Names of the labels that one row (L,) of `decide()` gives."""
    return [label for label, given in zip(labels, row, strict=True) if given]
