"""The exported network in int8: the same answers to within what is measured, at a half to a third of the time on a CPU."""

import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lobbycard.files import atomic_path

# What stays in fp32, quickest first: the head alone; then also the first convolutions, whose input varies most. Quantised
# heads cost MobileNetV2 0.003 of mAP and no time; six convolutions in fp32 cost a third of the speed (docs/log.md).
KEPT = (0, 6)


def write_int8(onnx_file: Path, batches: Iterable[np.ndarray], path: Path, kept_convolutions: int = KEPT[0]) -> None:
    """Write `onnx_file` as statically quantised ONNX: weights int8 a channel, activations uint8, the head fp32.

    Args:
        batches: (B, 3, H, W) fp32 normalised pixels of training items; their ranges become those of the activations.
        kept_convolutions: how many of the first convolutions stay in fp32.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", 2018, as implemented by onnxruntime.quantization.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str):
            self._feeds: Iterator = ({name: batch} for batch in batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), atomic_path(path) as part:
        warnings.simplefilter("ignore")  # of the libraries' own making
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(onnx_file), str(prepared))
        graph = onnx.load(prepared).graph
        convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
        head = [node.name for node in graph.node if node.op_type in ("Gemm", "MatMul")][-1:]
        quantize_static(
            str(prepared),
            str(part),
            Reader(graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*head, *convolutions[:kept_convolutions]],
        )
