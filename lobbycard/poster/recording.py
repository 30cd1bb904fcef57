"""A network's step recorded once on a GPU, and replayed: its thousand operations are then asked for with two calls.

Asking takes the processor some 20 microseconds each; with a fast GPU, or few posters a step, that is longer than they take
(docs/log.md). CUDA graphs need the same shape in each step, so what has another one is computed as ever.
"""

import gc
import warnings
from collections.abc import Callable

import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from torch import nn

from lobbycard.poster.patching import patch, unpatch


class RecordedSteps(Callback):
    """While fitting on a CUDA GPU, training batches of the usual size go through a recording of the network.

    It is made before the first epoch of a fit, from the loader's `shape` (C, H, W) and batch size, and changes neither the
    network nor any random draw. Where it cannot be made (no memory for it, code that looks at its data), `say` is told why.
    """

    order = 12  # after precision and what shares the network among processes

    def __init__(self, say: Callable[[str], None] = print):
        self.say, self.tried = say, False

    def before_fit(self):
        self.tried = False

    def before_train(self):
        # Not before: by now others have put the network into the mode it is trained in; and no batch is being read yet.
        dls, network = self.learn.dls, self.learn.model
        shape = getattr(dls.train, "shape", None)
        if self.tried or shape is None or dls.device.type != "cuda":
            return
        self.tried = True
        adds_up = self.learn.cbs.filter(lambda callback: isinstance(callback, GradientAccumulation))
        if adds_up or isinstance(network, nn.parallel.DistributedDataParallel):
            return  # each recorded step's gradients stand where the last one's stood; several processes gather them on the way
        why = None
        try:
            record(network, (dls.train.bs, *shape), dls.device)
        except (RuntimeError, AssertionError) as error:
            why = " ".join(str(error).split())[:120]
        if why is not None:  # by now the error is gone, and with it what it held of the attempt's memory
            torch.cuda.empty_cache()
            self.say(f"  the training step cannot be recorded, and is slower for it ({why})")

    def after_fit(self):
        unpatch(self.learn.model)


class _Forward(nn.Module):
    """What is recorded: all that the network computes by now, patches included."""

    def __init__(self, network: nn.Module, forward: Callable):
        super().__init__()
        self.network, self.compute = network, forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(x)


def record(network: nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
    """Patch a network in training mode so that batches of this `shape` (B, C, H, W) replay a recording of it.

    Raises:
        RuntimeError: it cannot be recorded; nothing is patched then.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    whole = _Forward(network, network.forward)
    gc.collect()  # an earlier recording must not be freed while this one is made
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
        # Gradients are made by a stream of their own, and PyTorch waits for it as it should.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    try:
        with torch.random.fork_rng([device]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no current CUDA context.*")  # the gradients' thread makes one
            torch.cuda.make_graphed_callables(whole, (torch.zeros(shape, device=device),), allow_unused_input=True)
    finally:
        with torch.no_grad():
            for name, buffer in network.named_buffers():  # statistics that trying it out has moved
                buffer.copy_(buffers[name])
    patch(network, _replayed, network, whole, torch.Size(shape))


def _replayed(forward, network: nn.Module, whole: _Forward, shape: torch.Size, x: torch.Tensor) -> torch.Tensor:
    usual = network.training and torch.is_grad_enabled() and x.shape == shape
    return whole.forward(x) if usual else forward(x)
