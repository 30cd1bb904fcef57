"""The fastai Learner: loss, metrics, precision, memory format; a plain one that a practitioner can take over."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.metrics import AccumMetric, F1ScoreMulti, PrecisionMulti, RecallMulti
from torch import nn

from lobbycard.errors import InputError
from lobbycard.poster.config import Config
from lobbycard.poster.network import head, layer_groups
from lobbycard.poster.precision import precision_callbacks
from lobbycard.scoring.metrics import average_precision


def poster_learner(
    dls: DataLoaders, network: nn.Module, config: Config, device: torch.device, precision: str, out: Path
) -> Learner:
    """A Learner on `network` whose weights files go to `out`/checkpoints.

    F1, precision and recall are fastai's own, macro, at threshold 0.5 of uncalibrated probabilities: for watching an
    epoch, not for judging the model.
    """
    metrics = [
        AccumMetric(mean_average_precision, flatten=False, name="mAP"),
        *(kind(average="macro") for kind in (F1ScoreMulti, PrecisionMulti, RecallMulti)),
    ]
    return Learner(
        dls,
        network.to(device),
        loss_func=BCEWithLogitsLossFlat(),
        splitter=layer_groups,
        metrics=metrics,
        cbs=[ChannelsLast(), *precision_callbacks(device, precision), *tracker(config.tracker, out)],
        wd=config.weight_decay,
        train_bn=False,  # frozen means frozen: fastai's default trains batch norm there, and so back-propagates through it all
        path=out,
        model_dir="checkpoints",
    )


def mean_average_precision(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Macro mAP over the labels that occur, for fastai's AccumMetric; ranks are those of the probabilities."""
    return float(np.nanmean(average_precision(targets.numpy() > 0.5, logits.float().numpy())))


def set_prior(network: nn.Module, prior: np.ndarray) -> None:
    """Begin at the no-skill answer: the head's bias (L,) at the log-odds of each label's share.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1.
    """
    share = np.clip(prior, 1e-4, 1 - 1e-4)
    with torch.no_grad():
        head(network).bias.copy_(torch.from_numpy(np.log(share / (1 - share))))


def tracker(name: str, out: Path) -> list[Callback]:
    """fastai's callback for a tracker of the user's choice. Raises InputError when its package is not installed."""
    try:
        if name == "tensorboard":
            from fastai.callback.tensorboard import TensorBoardCallback

            return [TensorBoardCallback(out / "checkpoints" / "tensorboard", trace_model=False, log_preds=False)]
        if name == "wandb":
            from fastai.callback.wandb import WandbCallback

            return [WandbCallback(log_preds=False, log_model=False)]
    except ImportError as error:
        raise InputError(f"--tracker {name}: {error.name} is not installed here; pip install {name}") from error
    return []


@contextmanager
def fitting(learn: Learner, config: Config) -> Iterator[None]:
    """Around a fit: no bars of fastai's (our epoch lines read the same everywhere), and memory errors with the remedy."""
    try:
        with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(ill-defined|no positive|lr_scheduler.step).*")
            yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or "not enough memory" in str(error):
            raise InputError(
                f"out of memory with --batch-size {config.batch_size} at "
                f"{' x '.join(map(str, config.sizes()[-1]))} pixels; try --batch-size {max(1, config.batch_size // 2)}"
            ) from error
        raise
