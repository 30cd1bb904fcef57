"""A network cut in two where a single tensor passes: the lower half stays as it was pretrained, the upper half learns.

What a frozen half answers to a poster never changes, so it is computed once and kept, and an epoch costs only the upper
half.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from lobbycard.errors import InputError

# Where to cut, as shares of the arithmetic below it. Lower layers see edges and textures, which posters have in common
# with photographs; letting more of the network learn is a little better and much slower (measured in docs/log.md).
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
    advice = "use --strategy standard, which trains all of it"
    name = type(network).__name__
    try:
        _, *others = inspect.signature(network.forward).parameters.values()  # such as a mask: left at their defaults
        graph = _Tracer().trace(network.eval(), concrete_args={other.name: other.default for other in others})
        watched = _Watched(fx.GraphModule(network, graph))
        with torch.no_grad():
            watched.run(torch.zeros(1, 3, *size))
    except Exception as error:
        raise InputError(
            f"--strategy cached: {name} cannot be cut in two ({type(error).__name__}); {advice}"
        ) from error
    total, done = sum(watched.flops.values()), 0
    places = []
    for node in graph.nodes:
        done += watched.flops[node]
        if LOWEST <= done / total <= HIGHEST and node in watched.shapes and _passes_alone(graph, node):
            places.append((watched.shapes[node].numel(), -done, node))
    if not places:
        raise InputError(f"--strategy cached: {name} has no place in its middle where one tensor passes; {advice}")
    _, minus_done, node = min(places, key=lambda place: place[:2])  # the highest of the smallest
    lower, upper = (_module(network, half) for half in (_below(graph, node), _above(graph, node)))
    return Halves(lower, upper, tuple(watched.shapes[node][1:]), -minus_done / total)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        # timm's own kinds: batch norms that hold an activation and branch on their mode, convolutions that pad as
        # TensorFlow does and compute by how much. Kept whole, they need not be traced.
        return isinstance(module, (_NormBase, _ConvNd)) or super().is_leaf_module(module, name)


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


def _passes_alone(graph: fx.Graph, node: fx.Node) -> bool:
    """Whether everything after `node` can be had from it and the weights."""
    before = set()
    for earlier in graph.nodes:
        if earlier is node:
            break
        if earlier.op != "get_attr":
            before.add(earlier)
    return not any(user not in before and user is not node for earlier in before for user in earlier.users)


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


def _module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(network, graph)
    graph.eliminate_dead_code()  # weights of the other half
    module.delete_all_unused_submodules()
    module.recompile()
    return module
