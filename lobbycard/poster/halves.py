"""A network cut in two where a single tensor passes: the lower half stays as it was pretrained, the upper half learns.

What a frozen half answers to a poster never changes, so it is computed once and kept, and an epoch costs only the upper
half.
"""

import math
from dataclasses import dataclass

from torch import fx, nn

from lobbycard.errors import InputError
from lobbycard.poster.tracing import Place, Traced, trace

# Where to cut, as shares of the arithmetic below it. Lower layers see edges and textures, which posters have in common
# with photographs; letting more of MobileNetV2 learn took half as long again and was no better (docs/log.md).
LOWEST, HIGHEST = 0.35, 0.55


@dataclass(frozen=True)
class Halves:
    """Both halves share their layers with the network they were cut from: training `upper` trains it."""

    lower: nn.Module  # (N, 3, H, W) -> (N, *shape)
    upper: nn.Module  # (N, *shape) -> (N, L)
    shape: tuple[int, ...]  # of what passes, one poster's
    share: float  # of the network's arithmetic that `lower` does


def cut(network: nn.Module, size: tuple[int, int]) -> Halves:
    """Cut between `LOWEST` and `HIGHEST` of the arithmetic, where least has to be kept a poster.

    Args:
        size: input height and width.

    Raises:
        InputError: the network's code cannot be traced, or nowhere in that range a single tensor passes.
    """
    advice = "--strategy cached needs to cut it in two; use --strategy standard, which trains all of it"
    try:
        traced = trace(network, size)
    except InputError as error:
        raise InputError(f"{error}: {advice}") from error
    place = middle(traced)
    if place is None:
        raise InputError(f"{type(network).__name__} has no place in its middle where one tensor passes: {advice}")
    lower, upper = (traced.module(half(traced.graph, place.node)) for half in (_below, _above))
    return Halves(lower, upper, place.shape, place.share)


def middle(traced: Traced) -> Place | None:
    """Where a network is cut: the highest of the places that have least to be kept, or None if there is none."""
    places = [place for place in traced.places if LOWEST <= place.share <= HIGHEST]
    return min(places, key=lambda place: (math.prod(place.shape), -place.index), default=None)


def _below(graph: fx.Graph, node: fx.Node) -> fx.Graph:
    """Everything up to `node`, whose value is the answer."""
    lower, new = fx.Graph(), {}
    for old in graph.nodes:
        new[old] = lower.node_copy(old, new.__getitem__)
        if old is node:
            break
    lower.output(new[node])
    return lower


def _above(graph: fx.Graph, node: fx.Node) -> fx.Graph:
    """Everything after `node`, whose value is the input."""
    upper, new, reached = fx.Graph(), {}, False
    new[node] = upper.placeholder("halfway")
    for old in graph.nodes:
        reached = reached or old is node
        if old is not node and (reached or old.op == "get_attr"):
            new[old] = upper.node_copy(old, new.__getitem__)
    return upper
