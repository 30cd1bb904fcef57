"""A network's step recorded once on a GPU, and replayed: its thousand operations are then asked for with two calls.

Asking takes the processor some 25 microseconds each; with a fast GPU, or few posters a step, that is longer than they take
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
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        if adds_up or hooked or isinstance(network, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            return  # hooks are not replayed; gradients stand where the last step's stood, and are gathered on the way
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

    What it answers stands where the last answer stood: each batch has to be through its backward pass before the next one.
    PyTorch's warning of gradients that come from another stream stays off.

    Raises:
        RuntimeError: it cannot be recorded; nothing is patched then.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    whole = _Forward(network, network.forward)
    gc.collect()  # an earlier recording must not be freed while this one is made
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
        # Gradients are made by a stream of their own, and PyTorch waits for it as it should.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    before = generator.clone_state()
    try:
        with torch.random.fork_rng([device]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*no current CUDA context.*")  # the gradients' thread makes one
            torch.cuda.make_graphed_callables(whole, (torch.zeros(shape, device=device),), allow_unused_input=True)
    except BaseException:
        generator.graphsafe_set_state(before)  # the one in use believes that it is still recorded (PyTorch to 2.11)
        raise
    finally:
        with torch.no_grad():
            for name, buffer in network.named_buffers():  # statistics that trying it out has moved
                buffer.copy_(buffers[name])
    patch(network, _replayed, network, whole, torch.Size(shape))


def _replayed(forward, network: nn.Module, whole: _Forward, shape: torch.Size, x: torch.Tensor) -> torch.Tensor:
    usual = network.training and torch.is_grad_enabled() and x.shape == shape
    return whole.forward(x) if usual else forward(x)
