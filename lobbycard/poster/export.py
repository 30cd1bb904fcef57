"""A trained network as files that others can read: safetensors, ONNX, and a fastai learner of stock parts."""

import copy
import importlib
import logging
import pathlib
import pickle
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.data.block import DataBlock, MultiCategoryBlock
from fastai.data.transforms import ColReader, IndexSplitter, Normalize
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.vision.augment import Resize, ResizeMethod
from fastai.vision.data import ImageBlock
from PIL import Image
from torch import nn

from lobbycard.files import atomic_path
from lobbycard.poster.network import head
from lobbycard.scoring.calibrate import Calibration

OPSET = 18
AGREEMENT = 1e-3  # largest difference between two runtimes, in any probability


def fold_calibration(network: nn.Module, calibration: Calibration) -> None:
    """Write a scale and a bias per label into the last layer, so that the bare network answers calibrated."""
    layer = head(network)
    scale = torch.as_tensor(calibration.scale, dtype=torch.float64)
    bias = torch.as_tensor(calibration.bias, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_((layer.weight.double() * scale[:, None]).float())
        layer.bias.copy_((layer.bias.double() * scale + bias).float())


def write_safetensors(network: nn.Module, path: Path) -> None:
    """The weights as fp32, under the library's own names, whatever precision they were trained in."""
    from safetensors.torch import save_file

    state = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous().clone()
        for name, tensor in network.state_dict().items()
    }
    with atomic_path(path) as part:
        save_file(state, part, metadata={"format": "pt"})


def write_onnx(network: nn.Module, shape: Sequence[int], path: Path) -> None:
    """The network as ONNX: input `pixels` (N, *shape) fp32 normalised, output `logits` (N, L), any N.

    Args:
        shape: of one input, (3, H, W) for a poster.
    """
    example = torch.zeros(2, *shape)
    # From weights that lie channels last, as training leaves them, it would make steps that ONNX Runtime's tools stumble over.
    network = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format).eval()
    with atomic_path(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own libraries' deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        model = program.model_proto
        # The exporter notes the source lines it came through, with the folders of this machine.
        graph = model.graph
        for noted in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
            del noted.metadata_props[:]
        part.write_bytes(model.SerializeToString())


def write_learner(
    network: nn.Module,
    labels: list[str],
    thresholds: np.ndarray,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    path: Path,
) -> None:
    """A fastai learner that loads where lobbycard is not installed: stock transforms, stock loss, no paths, no code.

    `learn.predict` decides with the model's own thresholds: they sit in the stock loss.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "blank.png"
        Image.new("RGB", (size[1], size[0])).save(file)
        rows = pd.DataFrame({"image": [str(file)] * 2, "labels": [labels[0], "|".join(labels)]})
        block = DataBlock(
            blocks=(ImageBlock, MultiCategoryBlock(vocab=labels)),
            get_x=ColReader("image"),
            get_y=ColReader("labels", label_delim="|"),
            splitter=IndexSplitter([1]),
            item_tfms=Resize(size, method=ResizeMethod.Squish),
            batch_tfms=Normalize.from_stats(mean, std, cuda=False),
        )
        dls = block.dataloaders(rows, bs=1, num_workers=0, device=torch.device("cpu"), drop_last=False).new_empty()
    loss = BCEWithLogitsLossFlat(thresh=torch.tensor(thresholds, dtype=torch.float32))
    learn = Learner(dls, network, loss_func=loss)
    learn.opt = None
    with atomic_path(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(learn, part, pickle_module=PortablePickle, pickle_protocol=2)


class PortablePickle:
    """A pickle module for `torch.save` whose output loads on other systems and Pythons than the one it was written on.

    Everything is stored by reference (never as bytecode, which only the same Python can run), and a path is stored as
    "pathlib's Path of this text" instead of as PosixPath or WindowsPath, which only the same system can make, or as
    pathlib._local's, which only Python 3.13 has.
    """

    __name__ = "pickle"

    class Pickler(pickle.Pickler):
        def reducer_override(self, obj):
            if isinstance(obj, pathlib.PurePath):
                return _PathClass(), (obj.as_posix(),)
            if isinstance(obj, type) and issubclass(obj, pathlib.PurePath):
                return getattr, (_PathModule(), "Path")
            if isinstance(obj, _PathClass):
                return getattr, (_PathModule(), "Path")
            if isinstance(obj, _PathModule):
                return importlib.import_module, ("pathlib",)
            return NotImplemented


class _PathClass:
    """Stands for pathlib.Path while pickling: callable, as pickle asks of a constructor."""

    def __call__(self, text: str) -> pathlib.Path:
        return pathlib.Path(text)


class _PathModule:
    """Stands for the module pathlib while pickling."""
