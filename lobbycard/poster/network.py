"""Networks: any torchvision or timm classifier with its last layer replaced, which may also see lower levels.

Only stock modules are used, and `model.safetensors` carries the library's own key names: anyone can load all but the last
layer into `torchvision.models.get_model(name)` or `timm.create_model(name)`, and without levels that one too.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lobbycard.errors import InputError
from lobbycard.poster.levels import with_levels

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """What is needed to build the same network again on another machine, weights apart."""

    library: str  # torchvision | timm
    name: str  # the library's own name
    args: dict[str, Any] = field(default_factory=dict)  # further arguments of the library's constructor
    levels: tuple[str, ...] = ()  # layers that the last one also sees (`levels.py`)

    def to_dict(self) -> dict:
        return asdict(self) | {"levels": list(self.levels)}

    @classmethod
    def from_dict(cls, values: dict) -> "Architecture":
        return cls(values["library"], values["name"], values["args"], tuple(values.get("levels", ())))

    @property
    def stock(self) -> "Architecture":
        """As the library makes it."""
        return replace(self, levels=())


def resolve(arch: str) -> tuple[Architecture, Path | None]:
    """Find the library that knows `arch`; a `local-dir:` folder also brings its weights.

    Args:
        arch: a torchvision name (`resnet50`), a timm name (`timm/` in front forces timm), or `local-dir:FOLDER` with
            timm's `config.json` and `model.safetensors`.

    Raises:
        InputError: neither library has it, or the folder is not one that timm would read.
    """
    from torchvision import models

    if arch.startswith("local-dir:"):
        return _local(Path(arch.removeprefix("local-dir:")).expanduser())
    if arch in models.list_models(module=models):
        return Architecture("torchvision", arch), None
    import timm

    name = arch.removeprefix("timm/")
    if name.startswith("hf-hub:"):
        raise InputError(
            "--arch hf-hub: download that folder once and give it as local-dir:FOLDER, so that the model can be rebuilt offline"
        )
    if timm.is_model(name.split(".")[0]):
        return Architecture("timm", name), None
    import difflib

    near = difflib.get_close_matches(name, {*models.list_models(module=models), *timm.list_models()}, n=3)
    hint = f"; near it: {', '.join(near)}" if near else ""
    raise InputError(f"--arch: neither torchvision nor timm has a network called {arch!r}{hint}")


def _local(folder: Path) -> tuple[Architecture, Path]:
    config, weights = folder / "config.json", folder / "model.safetensors"
    for file in (config, weights):
        if not file.is_file():
            raise InputError(f"--arch local-dir: expected {file.name} in {folder}, as timm writes it; it is not there")
    about = json.loads(config.read_text(encoding="utf-8"))
    if "architecture" not in about:
        raise InputError(f"--arch local-dir: {config} names no 'architecture'; expected a config.json of timm's")
    return Architecture("timm", about["architecture"], dict(about.get("model_args") or {})), weights


def normalization(arch: str, architecture: Architecture) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel (RGB, of pixels in [0, 1]) that the network's weights were trained with."""
    if arch.startswith("local-dir:"):
        about = json.loads((Path(arch.removeprefix("local-dir:")).expanduser() / "config.json").read_text("utf-8"))
        config = about.get("pretrained_cfg") or {}
        return tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))
    if architecture.library == "timm":
        import timm

        config = timm.get_pretrained_cfg(architecture.name)
        if config is not None:
            return tuple(config.mean), tuple(config.std)
    return IMAGENET_MEAN, IMAGENET_STD


def build(
    architecture: Architecture, n_labels: int, weights: str = "none", size: tuple[int, int] = (224, 224)
) -> nn.Module:
    """The network with a fresh last layer: (N, 3, H, W) normalised pixels in, (N, L) logits out.

    Args:
        n_labels: L.
        weights: `none`, `imagenet` (fetched by the library), or a `.safetensors` or `.pth` state dict.
        size: an input height and width to find the `levels` with.

    Raises:
        InputError: the weights cannot be had or do not fit, or the network has no linear last layer.
    """
    network = _create(architecture, pretrained=weights == "imagenet")
    if weights not in ("none", "imagenet"):
        load_backbone(network, Path(weights))
    if architecture.levels:
        network = with_levels(network, architecture.levels, size, head_name(network))
    return replace_head(network, n_labels)


def replace_head(network: nn.Module, n_labels: int) -> nn.Module:
    """Put a fresh `Linear(D, L)` where the last linear layer was."""
    name = head_name(network)
    parent = network.get_submodule(name.rpartition(".")[0])
    old = getattr(parent, name.rpartition(".")[2])
    new = nn.Linear(old.in_features, n_labels)
    # Small weights: with the bias at the labels' log-odds, training starts from the no-skill answer and not from noise.
    nn.init.normal_(new.weight, std=0.01)
    nn.init.zeros_(new.bias)
    setattr(parent, name.rpartition(".")[2], new)
    return network


def head_name(network: nn.Module) -> str:
    """The dotted name of the last linear layer, which every stock classifier ends with.

    Raises:
        InputError: there is none (SqueezeNet ends with a convolution).
    """
    if "head" in getattr(network, "meta", {}):  # one with levels
        return network.meta["head"]
    named = (getattr(network, "default_cfg", None) or {}).get("classifier")  # timm says it
    if isinstance(named, str) and isinstance(network.get_submodule(named), nn.Linear):
        return named
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise InputError(f"--arch: {type(network).__name__} does not end with a linear layer; choose another network")
    return names[-1]


def head(network: nn.Module) -> nn.Linear:
    """The last linear layer itself."""
    return network.get_submodule(head_name(network))


def layer_groups(network: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters in three groups for fastai: the lower half of the body, its upper half, the head.

    A plain function of the network, so it serves as the `splitter` of any fastai Learner.
    """
    last = {id(p) for p in head(network).parameters()}
    body = [p for p in network.parameters() if id(p) not in last]
    # Halved by parameter tensors, not by numbers: the lower blocks have few numbers but most of the layers.
    middle = len(body) // 2
    return [body[:middle], body[middle:], list(head(network).parameters())]


def load_backbone(network: nn.Module, file: Path) -> None:
    """Load a state dict for everything but the last layer, whose number of classes may differ.

    Raises:
        InputError: no such file, not a state dict, or made for another network.
    """
    state = read_state(file)
    prefix = head_name(network) + "."
    own = network.state_dict()
    wanted = {k for k in own if not k.startswith(prefix)}
    fits = {k: v for k, v in state.items() if k in wanted and v.shape == own[k].shape}
    lacking = wanted - fits.keys() - {k for k in wanted if k.endswith("num_batches_tracked")}
    if lacking:
        raise InputError(
            f"{file}: {len(fits)} of {len(wanted)} tensors fit this network (lacking {sorted(lacking)[0]}, …); "
            "expected a state dict of the same --arch"
        )
    network.load_state_dict(fits, strict=False)


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name from a `.safetensors` or `.pth` file; nothing in it is executed.

    Raises:
        InputError: no such file, or it holds anything but tensors.
    """
    if not file.is_file():
        raise InputError(f"--weights: expected imagenet, none or a file of weights; there is no file {file}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{file}: not a file of weights that can be read without running code in it ({type(error).__name__}); "
            "expected a .safetensors file or a .pth written by torch.save(model.state_dict(), …)"
        ) from error
    for key in ("model", "state_dict"):  # fastai's and Lightning's wrapping
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"{file}: expected a state dict (tensors by name), found {type(state).__name__}")
    return state


def _create(architecture: Architecture, pretrained: bool) -> nn.Module:
    try:
        if architecture.library == "torchvision":
            from torchvision import models

            network = models.get_model(
                architecture.name, weights="DEFAULT" if pretrained else None, **architecture.args
            )
            if getattr(network, "aux_logits", False):  # Inception's second head answers in training only
                network.aux_logits, network.AuxLogits, network.aux1, network.aux2 = False, None, None, None
            if hasattr(
                network, "transform_input"
            ):  # set with weights only; a network built again without them must not differ
                network.transform_input = True
            return network
        import timm

        return timm.create_model(architecture.name, pretrained=pretrained, **architecture.args)
    except InputError:
        raise
    except Exception as error:
        if not pretrained:
            raise
        raise InputError(
            f"the ImageNet weights of {architecture.name} could not be fetched ({type(error).__name__}: {error}). "
            "Connect to the internet and run the same command again. "
            "Or give a file that you have with --weights FILE. "
            "Or give a timm folder that you have with --arch local-dir:FOLDER. "
            "Or start from nothing with --weights none, which needs far more posters and epochs."
        ) from error


def check_size(network: nn.Module, sizes: tuple[tuple[int, int], ...]) -> None:
    """Show the network one black picture of each size it will be trained at. Raises InputError if it cannot take it."""
    network.eval()
    for height, width in sizes:
        try:
            with torch.inference_mode():
                network(torch.zeros(1, 3, height, width))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError(
                f"--size: this network cannot take {height} x {width} pixels ({str(error).splitlines()[0]}); "
                "networks with fixed inputs want their own size, often --size 224"
            ) from error
