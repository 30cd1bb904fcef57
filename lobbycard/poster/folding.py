"""Batch norms that keep their statistics, computed together with the convolutions before them.

Such a batch norm is a scale and a shift a channel. It can be multiplied into the convolution's weights, of which there are far
fewer than numbers that it would be applied to; weights, scales and shifts learn as before, since gradients pass through the
product. PyTorch's own kernels for it take half of a step on a GPU and a third on a CPU (docs/log.md).

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 3.2, where training folds batch norms, too.
"""

from collections import Counter

import torch
from fastai.callback.core import Callback
from torch import nn

from lobbycard.errors import InputError
from lobbycard.poster.patching import is_patched, patch, unpatch
from lobbycard.poster.tracing import follow


class FoldedBatchNorms(Callback):
    """While fitting, batch norms in eval mode are part of the convolutions before them; those that learn statistics are not."""

    order = 9  # before precision, which goes around it

    def before_fit(self):
        unpatch(self.learn.model)  # of a fit that somebody stopped
        fold(self.learn.model)

    def before_train(self):
        if not is_patched(self.learn.model):  # `get_preds` within a fit ends it, as far as callbacks are told
            fold(self.learn.model)

    def after_fit(self):
        unpatch(self.learn.model)


def fold(network: nn.Module) -> int:
    """Patch each batch norm into its convolution, where nothing else sees what is between them; `unpatch` takes it back.

    Returns how many were folded: none, where the network's code cannot be followed.
    """
    pairs = foldable(network)
    for conv, norm in pairs:
        patch(conv, _folded, conv, norm)
        patch(norm, _passed, norm)
    return len(pairs)


def foldable(network: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the batch norms that alone are given what they answer; none, where somebody's hooks look on.

    The network's code is followed in eval mode: code that passes by a batch norm in training alone is not for this.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in network.modules()):
        return []
    training = {module: module.training for module in network.modules()}
    try:
        graph = follow(network)
    except InputError:
        return []
    finally:
        network.train()  # timm's attention forgets what it kept of the following
        for module, was in training.items():
            module.training = was
    layers = {node: network.get_submodule(node.target) for node in graph.nodes if node.op == "call_module"}
    calls = Counter(layers.values())
    pairs = []
    for node, norm in layers.items():
        before = node.args[0] if node.args else None
        conv = layers.get(before)
        if type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and _is_plain(norm) and norm.track_running_stats:
            once = calls[conv] == calls[norm] == 1  # a layer that is called twice may stand before two others
            if once and len(before.users) == 1:
                pairs.append((conv, norm))
    return pairs


def _is_plain(norm: nn.Module) -> bool:
    """A scale and a shift, in timm's kind an activation too, and nothing else; other subclasses may do more."""
    kind = type(norm)  # by name, since timm takes a second to import
    return kind is nn.BatchNorm2d or (kind.__module__, kind.__name__) == ("timm.layers.norm_act", "BatchNormAct2d")


def _folded(forward, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    if norm.training:
        return forward(x)
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = (0.0 if conv.bias is None else conv.bias) - norm.running_mean
    shift = shift * scale if norm.bias is None else torch.addcmul(norm.bias, shift, scale)
    weight = conv.weight * scale[:, None, None, None]
    return nn.functional.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def _passed(forward, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    if norm.training:
        return forward(x)
    return x if type(norm) is nn.BatchNorm2d else norm.act(norm.drop(x))
