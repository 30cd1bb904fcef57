"""A network as a graph of steps: what each costs and gives, and where a single tensor passes."""

import inspect
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from lobbycard.errors import InputError


@dataclass(frozen=True)
class Place:
    """A step after which everything can be had from its tensor and the weights."""

    node: fx.Node
    shape: tuple[int, ...]  # of one poster's tensor, channels first
    share: float  # of the network's arithmetic that is done by then, 0 to 1
    index: int  # of the step in the graph


@dataclass(frozen=True)
class Traced:
    """A network's graph in eval mode, and the places where a single tensor passes, lowest first."""

    network: nn.Module
    graph: fx.Graph
    places: list[Place]

    def module(self, graph: fx.Graph) -> fx.GraphModule:
        """A module that computes `graph`, a part or a change of this one, with the network's own layers."""
        graph._tracer_cls = (
            None  # a copy or pickle is read again with torch's own, also where lobbycard is not installed
        )
        module = fx.GraphModule(self.network, graph)
        graph.eliminate_dead_code()  # such as weights that only another part needs
        module.delete_all_unused_submodules()
        module.recompile()
        return module


def follow(network: nn.Module) -> fx.Graph:
    """The steps of a network's code in eval mode, in which it is left; convolutions, batch norms, linear layers are whole steps.

    Raises:
        InputError: the code branches on its data, or cannot be followed for another reason.
    """
    try:
        _, *others = inspect.signature(network.forward).parameters.values()  # such as a mask: left at their defaults
        return _Tracer().trace(network.eval(), concrete_args={other.name: other.default for other in others})
    except Exception as error:
        raise InputError(f"{type(network).__name__} cannot be traced ({type(error).__name__})") from error


def trace(network: nn.Module, size: tuple[int, int]) -> Traced:
    """Follow a black picture of `size` (height, width) through the network.

    Raises:
        InputError: the network's code branches on its data, or cannot be followed for another reason.
    """
    graph = follow(network)
    try:
        watched = _Watched(fx.GraphModule(network, graph))
        with torch.no_grad():
            watched.run(torch.zeros(1, 3, *size))
    except Exception as error:
        raise InputError(f"{type(network).__name__} cannot be traced ({type(error).__name__})") from error
    nodes = list(graph.nodes)
    number = {node: index for index, node in enumerate(nodes)}
    total, done, needed_until, places = max(1, sum(watched.flops.values())), 0, -1, []
    for index, node in enumerate(nodes):
        done += watched.flops[node]
        if needed_until <= index and node in watched.shapes:
            places.append(Place(node, tuple(watched.shapes[node][1:]), done / total, index))
        if node.op != "get_attr":  # weights can be had anywhere
            needed_until = max([needed_until, *(number[user] for user in node.users)])
    return Traced(network, graph, places)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        # timm's own kinds: batch norms that hold an activation and branch on their mode, convolutions that pad as
        # TensorFlow does and compute by how much, linear layers that cast. Kept whole, they need not be traced.
        return isinstance(module, (_NormBase, _ConvNd, nn.Linear)) or super().is_leaf_module(module, name)


class _Watched(fx.Interpreter):
    """Runs the graph and notes what each step costs and gives."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.flops: dict[fx.Node, int] = {}
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, node: fx.Node):
        with FlopCounterMode(display=False) as counter:
            out = super().run_node(node)
        self.flops[node] = counter.get_total_flops()
        if isinstance(out, torch.Tensor) and out.ndim > 1 and node.op != "get_attr":
            self.shapes[node] = out.shape
        return out
