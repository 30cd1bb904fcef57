"""A trained network over many posters, without a Learner around it: features for the probe, logits for measuring.

On a CPU the network runs in ONNX Runtime, which is what will serve it: the numbers measured are the numbers served,
and for convolutional networks it is faster there than PyTorch (benchmark in docs/log.md).
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from lobbycard.catalog.batches import Batch, answered, normalize
from lobbycard.catalog.image import ImageError
from lobbycard.poster.export import write_onnx
from lobbycard.poster.network import head_name
from lobbycard.poster.runtimes import LANE_BATCH_SIZE, Logits, OnnxNetwork, per_core

BATCH_SIZE = 32

T = TypeVar("T")


def network_outputs(
    forward: Logits,
    paths: Sequence[Path],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    bar: Any = None,
    mirrored: bool = False,
) -> np.ndarray:
    """What `forward` gives for each poster, (N, D) or (N, L) float32, in order.

    Args:
        forward: from `frozen_forward`.
        size: input height and width; the posters pass through the same door as in serving.
        mean: per channel, of pixels in [0, 1]; `std` likewise.
        bar: something with `update(n)`, told of each batch.
        mirrored: average over each poster and its mirror image, at twice the cost.

    Raises:
        ImageError: a poster that cannot be read; the download has checked them all.
    """

    def outputs(network: Logits, pixels: np.ndarray) -> np.ndarray:
        out = network(pixels)
        return 0.5 * (out + network(mirror(pixels))) if mirrored else out

    rows = []
    for out in each_batch(outputs, [forward], paths, size, mean, std):
        rows.append(out)
        if bar is not None:
            bar.update(len(out))
    return np.concatenate(rows)


def each_batch(
    use: Callable[..., T],
    networks: Sequence[Logits],
    paths: Sequence[Path],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Iterator[T]:
    """What `use(*networks, pixels)` gives for each batch of posters, in order; pixels are (B, 3, H, W) fp32, normalised.

    On a CPU `use` is called from several threads at once, with networks that take a core each.

    Raises:
        ImageError: a poster that cannot be read.
    """

    def answer(batch: Batch) -> T:
        if batch.errors:
            raise ImageError("truncated", next(iter(batch.errors.values())))
        return use(*chosen, normalize(batch.pixels, mean, std))

    chosen, threads = per_core(networks)
    yield from answered(paths, size, BATCH_SIZE if threads == 1 else LANE_BATCH_SIZE, answer, threads)


def mirror(pixels: np.ndarray) -> np.ndarray:
    """(B, 3, H, W) with left and right exchanged."""
    return np.ascontiguousarray(pixels[..., ::-1])


def frozen_forward(network: nn.Module, shape: Sequence[int], device: torch.device, precision: str = "fp32") -> Logits:
    """The network in eval mode as a function (B, *shape) fp32 -> what it gives, fp32, in NumPy.

    Later changes of the network's weights do not show in it on a CPU.

    Args:
        shape: of one input, (3, H, W) for a poster.
        precision: `fp16` or `bf16` for autocast off the CPU; the CPU always computes in fp32.
    """
    network.eval()
    if device.type == "cpu":
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "network.onnx"
            write_onnx(network, shape, file)
            return OnnxNetwork(file.read_bytes())
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    layout = torch.channels_last if len(shape) == 3 else torch.contiguous_format
    network.to(device, memory_format=torch.channels_last)

    def forward(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(device.type, dtype=half, enabled=half is not None):
            batch = torch.from_numpy(pixels).to(device).contiguous(memory_format=layout)
            return network(batch).float().cpu().numpy()

    return forward


@contextmanager
def without_head(network: nn.Module, name: str | None = None) -> Iterator[nn.Module]:
    """While open, the network gives what its last layer is given: (N, D) pooled features instead of (N, L) logits.

    `name` is that layer's, where `network` is a part of one.
    """
    name = name or head_name(network)
    layer = network.get_submodule(name)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    try:
        yield network
    finally:
        setattr(network.get_submodule(parent), child, layer)
