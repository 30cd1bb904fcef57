"""Number formats for training: fp16 with loss scaling on CUDA, bf16 on a CPU that has it, fp32 elsewhere."""

from collections.abc import Callable

import torch
from fastai.callback.core import Callback
from torch import nn

from lobbycard.errors import InputError
from lobbycard.poster.patching import is_patched, patch, unpatch
from lobbycard.poster.steps import LossScale, ScaledStep


def choose_device(asked: str = "auto") -> torch.device:
    """The device to train on. Raises InputError when the one asked for is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        # MPS only when asked for: several of fastai's and torch's operations still fall back or fail there.
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[asked]:
        raise InputError(
            f"--device {asked}: this PyTorch ({torch.__version__}) sees no such device here; "
            f"use --device {next(name for name, ok in there.items() if ok)}, or leave it at auto"
        )
    return torch.device(asked)


def choose_precision(device: torch.device, asked: str = "auto") -> str:
    """`fp16`, `bf16` or `fp32`. Raises InputError when `device` cannot train in the one asked for."""
    if asked == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"
    if asked == "fp16" and device.type != "cuda":
        raise InputError(f"--precision fp16: needs a CUDA GPU, and this run is on {device.type}; use auto")
    if asked == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("--precision bf16: this GPU has no bfloat16; use fp16 or auto")
    return asked


def cpu_has_bf16() -> bool:
    """Whether bf16 is quicker than fp32 here: matrix units (AMX) or AVX512-BF16. Emulated bf16 is slower than fp32."""
    # torch has no public name for this yet; where the private one is missing, fp32 is the safe answer.
    return any(
        getattr(torch.cpu, probe, lambda: False)() for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )


def precision_callbacks(device: torch.device, precision: str) -> list[Callback]:
    """The fastai callbacks that make a Learner train in `precision` on `device`."""
    if precision == "fp32":
        return []
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    return [Autocast(half), *([LossScale(), ScaledStep()] if precision == "fp16" else [])]


class Autocast(Callback):
    """The network computes in a half precision; weights, loss and update stay in fp32.

    fastai's MixedPrecision opens autocast before a batch and closes it after the loss: stopped in between, it stays open. On
    a CPU it does nothing.
    """

    order = 10

    def __init__(self, half: torch.dtype):
        self.half = half

    def before_fit(self):
        if is_patched(self.learn.model, autocast):
            return
        patch(self.learn.model, autocast, self.half)
        for module in self.learn.model.modules():
            if is_strided_depthwise(module) and module.weight.device.type == "cpu":
                patch(module, _in_fp32)

    before_train = before_fit  # `get_preds` within a fit ends it, as far as callbacks are told

    def after_pred(self):
        # The loss is taken in fp32: half precision has too few digits to add up a batch.
        if self.pred.dtype == self.half:
            self.learn.pred = self.pred.float()

    def after_fit(self):
        """Give the model its own precision back; fastai does not call this when a user stops it, `fitting` does."""
        unpatch(self.learn.model)


def is_strided_depthwise(module: nn.Module) -> bool:
    """A convolution of single channels that makes the picture smaller, as MobileNets and EfficientNets have them.

    On a CPU its bf16 gradient has no fast kernel in PyTorch: two of them took half the time of a step of MobileNetV2's upper part
    (docs/log.md).
    """
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels and max(module.stride) > 1


def autocast(forward: Callable, half: torch.dtype, *batch: torch.Tensor) -> torch.Tensor:
    """A patch: `forward` in `half` precision."""
    with torch.autocast(batch[0].device.type, dtype=half):
        return forward(*batch)


def _in_fp32(forward, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float()).to(x.dtype)
