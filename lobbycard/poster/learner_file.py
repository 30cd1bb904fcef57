"""fastai learners as files: the only place where this package unpickles, and only what the user named."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from lobbycard.errors import InputError
from lobbycard.poster.artifact import TASK, ModelFolder

if TYPE_CHECKING:
    from fastai.learner import Learner

    from lobbycard.poster.runtimes import Logits


def load_learner_file(path: Path) -> "Learner":
    """The learner in `path`, on the CPU. Runs the code in it: the caller has checked its sha256 or asked the user.

    Raises:
        InputError: it is no learner, or it refers to code that is not installed here.
    """
    from fastai.learner import Learner, load_learner

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*insecure pickle.*")  # the caller has seen to it
            learn = load_learner(path)
    except Exception as error:
        # fastai hides a missing module behind an UnboundLocalError; the cause is what helps.
        cause = error.__context__ if isinstance(error, UnboundLocalError) and error.__context__ else error
        raise InputError(
            f"{path}: this learner cannot be loaded here ({type(cause).__name__}: {cause}). It was exported with code or "
            "library versions that are not installed; install those, or export it again with ours"
        ) from error
    if not isinstance(learn, Learner):
        raise InputError(
            f"{path}: expected a fastai learner, found a {type(learn).__name__}; a .pth holds weights alone"
        )
    return learn


def lone_learner(path: Path) -> tuple[ModelFolder, "Logits"]:
    """What `PosterPredictor` needs, read from a learner that has no model folder around it.

    Raises:
        InputError: as `load_learner_file`, or the learner is no multi-label image classifier that squashes and normalises.
    """
    from fastai.data.transforms import Normalize
    from fastai.losses import BCEWithLogitsLossFlat
    from fastai.vision.augment import Resize, ResizeMethod

    learn = load_learner_file(path)
    resizes = [t for t in learn.dls.after_item.fs if isinstance(t, Resize)]
    norms = [t for t in learn.dls.after_batch.fs if isinstance(t, Normalize)]
    labels = getattr(learn.dls, "vocab", None)
    squashes = bool(resizes) and resizes[0].method == ResizeMethod.Squish
    if not squashes or not norms or not labels or not isinstance(learn.loss_func, BCEWithLogitsLossFlat):
        raise InputError(
            f"{path}: expected a multi-label image learner (BCEWithLogitsLossFlat) that resizes by squish and normalizes, "
            "as lobbycard exports them; this one does otherwise, use it with fastai itself"
        )
    size = resizes[0].size
    thresholds = np.broadcast_to(np.asarray(getattr(learn.loss_func, "thresh", 0.5), np.float64), (len(labels),))
    width, height = size if isinstance(size, tuple) else (size, size)  # fastai keeps (width, height)
    about = {
        "task": TASK,
        "labels": [str(label) for label in labels],
        "input": {
            "size": [int(height), int(width)],
            "mean": norms[0].mean.flatten().tolist(),
            "std": norms[0].std.flatten().tolist(),
        },
        "thresholds": dict(zip(map(str, labels), thresholds.tolist(), strict=True)),
    }
    return ModelFolder(path, about), torch_logits(learn.model)


def torch_logits(network: nn.Module, precision: str = "fp32") -> "Logits":
    """A function from normalised pixels (B, 3, H, W) fp32 to logits (B, L) fp32, by PyTorch on the CPU.

    Args:
        precision: `fp32`, or `bf16` for weights and activations of half the size.
    """
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    network = network.to(kind).eval().to(memory_format=torch.channels_last)

    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(kind).contiguous(memory_format=torch.channels_last)
            return network(batch).float().numpy()

    return run
