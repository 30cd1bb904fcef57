"""The recipe that everybody copies, as a fastai user writes it by hand: no line of lobbycard's is used here.

    python benchmarks/fastai_recipe.py rows.csv IMAGES out.npz --arch local-dir:FOLDER --precision bf16

rows.csv has the columns `file` (in IMAGES), `labels` (joined by |) and `is_valid`. out.npz gets `logits` (N, L) of the
validation rows in their order, `tta` (fastai's own, as probabilities), `labels`, and `seconds` of `fine_tune` alone. The line
`trained` is printed when the weights are done.
"""

import argparse
import json
import statistics
import time

import numpy as np
import pandas as pd
import torch
import torchvision
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import Learner  # with `fine_tune`
from fastai.losses import BCEWithLogitsLossFlat
from fastai.torch_core import set_seed
from fastai.vision.augment import Resize, ResizeMethod, aug_transforms
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import vision_learner


class ChannelsLast(Callback):
    """Channels-last memory, and bf16 arithmetic where it is asked for, which fastai itself offers for CUDA alone."""

    def __init__(self, precision: str):
        self.bf16 = precision == "bf16"

    def before_batch(self):
        self.learn.xb = tuple(x.contiguous(memory_format=torch.channels_last) for x in self.xb)
        self.autocast = torch.autocast(self.xb[0].device.type, torch.bfloat16, enabled=self.bf16)
        self.autocast.__enter__()

    def after_pred(self):
        self.autocast.__exit__(None, None, None)
        self.learn.pred = self.pred.float()  # the loss is taken in fp32


class StepTimes(Callback):
    """Seconds of each step, forward to update, until `steps` have been taken."""

    def __init__(self, steps: int):
        self.steps, self.seconds = steps, []

    def before_batch(self):
        self.began = time.perf_counter()

    def after_batch(self):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)
        if len(self.seconds) == self.steps:
            raise CancelFitException


def make_learner(rows: pd.DataFrame, given: argparse.Namespace, precision: str) -> Learner:
    set_seed(given.seed)
    dls = ImageDataLoaders.from_df(
        rows,
        path=given.images,
        fn_col="file",
        label_col="labels",
        label_delim="|",
        valid_col="is_valid",
        bs=given.batch_size,
        item_tfms=Resize(given.size, ResizeMethod.Squish),
        batch_tfms=aug_transforms(),
        num_workers=0,  # processes that load would take the cores from the one that trains
    )
    name = given.arch.removeprefix("timm/")
    arch = getattr(torchvision.models, name, name) if name == given.arch else name  # fastai gives a plain name to timm
    learn = vision_learner(dls, arch, pretrained=given.pretrained, loss_func=BCEWithLogitsLossFlat())
    learn.model.to(memory_format=torch.channels_last)
    learn.remove_cb(ProgressCallback)
    learn.add_cb(ChannelsLast(precision))
    return learn


def time_precisions(rows: pd.DataFrame, given: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step with all layers learning, the first two left out."""
    times = {}
    for precision in ("fp32", "bf16"):
        learn, steps = make_learner(rows, given, precision), StepTimes(given.time_steps)
        learn.unfreeze()
        with learn.no_logging():
            learn.fit(1000, cbs=steps)
        times[precision] = round(statistics.median(steps.seconds[2:]), 3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows")
    parser.add_argument("images")
    parser.add_argument("out")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--no-pretrained", dest="pretrained", action="store_false")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument(
        "--time-steps", type=int, default=0, help="only time this many steps in each precision, 3 or more"
    )
    given = parser.parse_args()

    rows = pd.read_csv(given.rows)
    if given.time_steps:
        print(json.dumps(time_precisions(rows, given)))
        return
    learn = make_learner(rows, given, given.precision)
    began = time.perf_counter()
    learn.fine_tune(given.epochs, freeze_epochs=1)
    seconds = time.perf_counter() - began
    print("trained", flush=True)
    probabilities, _ = learn.get_preds()
    averaged, _ = learn.tta()
    logits = torch.logit(probabilities.double(), eps=1e-12)
    np.savez(given.out, logits=logits.numpy(), tta=averaged.numpy(), labels=list(learn.dls.vocab), seconds=seconds)


if __name__ == "__main__":
    main()
