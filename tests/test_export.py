"""What is exported does not depend on how the weights lie in memory."""

import numpy as np
import onnx
import torch

from lobbycard.poster.export import write_onnx
from lobbycard.poster.network import Architecture, build
from lobbycard.poster.quantize import write_int8


def test_a_network_trained_channels_last_is_exported_and_quantised_as_any(tmp_path):
    """As a GPU leaves it: torch's exporter then took another way, whose shapes ONNX Runtime's quantiser could not follow."""
    torch.manual_seed(0)
    network, shape = build(Architecture("timm", "mobilenetv2_100"), 5), (3, 288, 192)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        network = network.to(memory_format=layout)
        write_onnx(network, shape, tmp_path / "model.onnx")
        found.append([node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node])
    assert found[0] == found[1]
    weight = next(iter(network.parameters()))
    assert weight.is_contiguous(memory_format=torch.channels_last)  # the caller's stays as it was
    write_int8(tmp_path / "model.onnx", [np.zeros((1, *shape), np.float32)], tmp_path / "model.int8.onnx")
    assert (tmp_path / "model.int8.onnx").stat().st_size < 0.4 * (tmp_path / "model.onnx").stat().st_size
