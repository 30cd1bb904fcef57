"""The fastai Learner: loss, metrics, precision, memory format; a plain one that a practitioner can take over."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from fastai.callback import schedule  # noqa: F401 - gives Learner its fit_one_cycle and lr_find
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.metrics import AccumMetric, F1ScoreMulti, PrecisionMulti, RecallMulti
from torch import nn

from lobbycard.errors import InputError
from lobbycard.files import atomic_path
from lobbycard.poster.config import Config
from lobbycard.poster.folding import FoldedBatchNorms
from lobbycard.poster.network import head, layer_groups
from lobbycard.poster.patching import unpatch
from lobbycard.poster.precision import precision_callbacks
from lobbycard.poster.recording import RecordedSteps
from lobbycard.poster.steps import DeviceMixUp, FusedAdam, RecordedLosses, RunningLoss
from lobbycard.progress import progress
from lobbycard.scoring.metrics import average_precision

DIVERGED = "training diverged: the network answers NaN; try a lower --lr, or --precision fp32"
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What CUDA, Windows, Linux and MPS say.
OUT_OF_MEMORY = ("CUDA out of memory", "not enough memory", "can't allocate memory", "MPS backend out of memory")


def poster_learner(
    dls: DataLoaders,
    network: nn.Module,
    config: Config,
    device: torch.device,
    precision: str,
    out: Path,
    splitter: Callable[[nn.Module], list[list[nn.Parameter]]] = layer_groups,
    say: Callable[[str], None] = print,
) -> Learner:
    """A Learner on `network` whose weights files go to `out`/checkpoints.

    A pretrained network keeps its batch norms' statistics; one that starts from nothing learns them.

    F1, precision and recall are fastai's own, macro, at threshold 0.5 of uncalibrated probabilities: for watching an
    epoch, not for judging the model.
    """
    metrics = [
        AccumMetric(mean_average_precision, flatten=False, name="mAP"),
        *(kind(average="macro") for kind in (F1ScoreMulti, PrecisionMulti, RecallMulti)),
    ]
    learn = Learner(
        dls,
        network.to(device),
        loss_func=BCEWithLogitsLossFlat(),
        opt_func=FusedAdam,
        splitter=splitter,
        metrics=metrics,
        cbs=[
            ChannelsLast(),
            KeptStatistics(everywhere=config.pretrained),
            *([DeviceMixUp(config.mixup)] if config.mixup else []),
            FoldedBatchNorms(),
            *precision_callbacks(device, precision),
            RecordedSteps(say),
            RecordedLosses(),
            *tracker(config.tracker, out),
        ],
        wd=config.weight_decay,
        train_bn=False,  # fastai's default trains frozen layers' batch norm, and so back-propagates through all of them
        path=out,
        model_dir="checkpoints",
    )
    learn.recorder.smooth_loss = RunningLoss()
    return learn


class KeptStatistics(Callback):
    """Batch norm answers with the statistics it was pretrained with, and keeps them; its scale and shift still learn.

    Always so in frozen layers. `everywhere`, in the others too: a few thousand posters are a small sample beside ImageNet.
    Against statistics that learn it has not been measured.

    fastai's BnFreeze does it for frozen layers by its default of `train_bn`; ours goes by the weights.
    """

    def __init__(self, everywhere: bool):
        self.everywhere = everywhere

    def before_train(self):
        for module in self.learn.model.modules():
            if isinstance(module, BATCH_NORMS) and (
                self.everywhere or (module.weight is not None and not module.weight.requires_grad)
            ):
                module.eval()


class EpochBar(Callback):
    """A bar over one epoch's batches, training and validation, in the way that `progress` shows things."""

    def __init__(self):
        self._bar = ExitStack()

    def before_epoch(self):
        self.after_fit()
        batches = len(self.dls.train) + len(self.dls.valid)
        self.bar = self._bar.enter_context(progress(batches, f"epoch {self.epoch + 1}", quiet=True))

    def after_batch(self):
        self.bar.update(1)

    def after_epoch(self):
        self._bar.close()

    def after_fit(self):
        self._bar.close()


def mean_average_precision(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Macro mAP over the labels that occur, for fastai's AccumMetric; ranks are those of the probabilities.

    Raises:
        InputError: the network answers with NaN: training has diverged.
    """
    if not torch.isfinite(logits).all():
        raise InputError(DIVERGED)
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
            import wandb
            from fastai.callback.wandb import WandbCallback

            if wandb.run is None:
                wandb.init(project="lobbycard", name=out.name)
            return [WandbCallback(log_preds=False, log_model=False)]
    except ImportError as error:
        raise InputError(f"--tracker {name}: {error.name} is not installed here; pip install {name}") from error
    return []


@contextmanager
def fitting(learn: Learner, config: Config) -> Iterator[None]:
    """Around a fit: no bars of fastai's (our epoch lines read the same everywhere), and memory errors with the remedy."""
    try:
        # cuDNN's fastest kernels may differ from run to run; these do not. (`enabled` would otherwise be switched off.)
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=torch.backends.cudnn.allow_tf32
        )
        with exact, learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(ill-defined|no positive|lr_scheduler.step).*")
            yield
    except InputError as error:
        # fastai puts the name of the callback before the words.
        raise InputError(str(error).splitlines()[-1].strip()) from error
    except RuntimeError as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            raise InputError(
                f"out of memory with --batch-size {config.batch_size} at "
                f"{' x '.join(map(str, config.sizes()[-1]))} pixels; try --batch-size {max(1, config.batch_size // 2)}"
            ) from error
        raise
    finally:
        # fastai calls no `after_fit` when a fit fails or is stopped; a notebook's user goes on with the model.
        unpatch(learn.model)
        for callback in learn.cbs.filter(lambda cb: isinstance(cb, RecordedLosses)):
            callback.after_fit()


def suggest_lr(learn: Learner, config: Config, plot: Path) -> float:
    """The learning rate at the valley that fastai's finder sees, and its curve as a PNG.

    Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks".
    """
    from matplotlib.figure import Figure

    if config.freeze_epochs:
        learn.freeze()  # --lr is the head's
    with fitting(learn, config):
        suggestion = float(learn.lr_find(show_plot=False).valley)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="loss")
    # The last points are where the loss explodes: shown, they would flatten all that matters.
    axes.plot(learn.recorder.lrs[:-5], [float(loss) for loss in learn.recorder.losses[:-5]])
    axes.axvline(suggestion, linestyle="--", color="grey")
    with atomic_path(plot) as part:
        figure.savefig(part, dpi=120)
    return suggestion
