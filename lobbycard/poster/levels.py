"""A head that sees the lower levels too: the mean and the spread of every channel where the picture is still larger.

A classifier's last layer is given what ImageNet needed: which objects there are. A poster's genre is also in its style
(colours, contrast, texture, lettering), which the levels below tell better; a head on both is better than one on the last
alone (measured in docs/log.md).

Source: means and spreads of channels as style, Huang & Belongie 2017, "Arbitrary Style Transfer in Real-time with Adaptive
Instance Normalization", section 3; several levels for one classifier, Hariharan et al. 2015, "Hypercolumns for Object
Segmentation and Fine-grained Localization".
"""

import operator
from collections.abc import Sequence

import torch
from torch import fx, nn

from lobbycard.errors import InputError
from lobbycard.poster.halves import middle
from lobbycard.poster.tracing import Place, trace

HIGHEST = 0.97  # of the arithmetic: what is above it is the last layer's own input
SPREAD_FLOOR = 1e-5  # added to variances: the root has no slope at 0


def find_levels(network: nn.Module, size: tuple[int, int]) -> tuple[str, ...]:
    """Names of the layers that end a stage of the network's upper half, lowest first; empty where it has no stages.

    A stage is where residual blocks give tensors of one shape. The last one is left out where it is all that the last
    layer is given anyway.

    Args:
        size: input height and width.
    """
    try:
        traced = trace(network, size)
    except InputError:
        return ()
    lowest = middle(traced)
    stages: dict[tuple[int, ...], list[Place]] = {}
    for place in traced.places:
        if len(place.shape) == 3 and _is_picture(place.shape, size):
            stages.setdefault(place.shape, []).append(place)
    ends = [
        places[-1]
        for places in stages.values()
        if lowest and lowest.index <= places[-1].index and places[-1].share <= HIGHEST and _adds(traced.graph, places)
    ]
    names = (_name(traced.graph, place.node) for place in ends)
    return tuple(name for name in names if name)


def with_levels(network: nn.Module, levels: Sequence[str], size: tuple[int, int], head: str) -> fx.GraphModule:
    """The network with a fresh last layer that is also given the mean and the spread of each channel of `levels`.

    It answers as any classifier, (N, 3, H, W) -> (N, L), and its layers keep their names.

    Args:
        levels: from `find_levels`.
        size: an input height and width.
        head: the name of the network's last linear layer.

    Raises:
        InputError: the network has no such layers.
    """
    traced = trace(network, size)
    ends = [_last_of(traced.graph, level) for level in levels]
    (last,) = [node for node in traced.graph.nodes if node.op == "call_module" and node.target == head]
    if None in ends:
        raise InputError(
            f"{type(network).__name__} has no layer {levels[ends.index(None)]}: another version of its library made the "
            "model; install the versions in model.json"
        )
    parts = [last.args[0]]
    with traced.graph.inserting_before(last):
        for end in ends:
            variance = traced.graph.call_function(torch.var, (end, (2, 3)), {"correction": 0})
            raised = traced.graph.call_function(torch.add, (variance, SPREAD_FLOOR))
            mean = traced.graph.call_function(torch.mean, (end, (2, 3)))
            parts += [mean, traced.graph.call_function(torch.sqrt, (raised,))]
        last.update_arg(0, traced.graph.call_function(torch.cat, (parts, 1)))
    channels = {place.node: place.shape[0] for place in traced.places}
    module = traced.module(traced.graph)
    parent, _, child = head.rpartition(".")
    old = network.get_submodule(head)
    width = old.in_features + 2 * sum(channels[end] for end in ends)
    setattr(module.get_submodule(parent), child, nn.Linear(width, old.out_features))
    module.meta["head"] = head  # which copies and pickles of it keep
    return module


def _adds(graph: fx.Graph, places: list[Place]) -> bool:
    """Whether a residual block lies within `places`: two tensors are added there. (Squeeze and excitation multiplies.)"""
    steps = list(graph.nodes)[places[0].index + 1 : places[-1].index + 1]
    sums = (operator.add, operator.iadd, torch.add)
    return any(step.target in sums and all(isinstance(part, fx.Node) for part in step.args[:2]) for step in steps)


def _is_picture(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether (C, H, W) has about the input's proportions; some transformers hold (H, W, C)."""
    return 0.6 < (shape[1] / shape[2]) / (size[0] / size[1]) < 1.7


def _name(graph: fx.Graph, node: fx.Node) -> str | None:
    """The outermost module whose last step `node` is; None where it is no module's."""
    return next((path for path in node.meta.get("nn_module_stack", ()) if path and _last_of(graph, path) is node), None)


def _last_of(graph: fx.Graph, path: str) -> fx.Node | None:
    """The last step that is taken within the module `path`."""
    steps = [node for node in graph.nodes if path in node.meta.get("nn_module_stack", {})]
    return steps[-1] if steps else None
