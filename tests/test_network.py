"""Networks: the right library, a fresh head on any of them, weights that fit or words that say why not."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from lobbycard.errors import InputError
from lobbycard.poster import network as networks
from lobbycard.poster.network import Architecture


@pytest.mark.parametrize(
    ("arch", "library"),
    [
        ("resnet50", "torchvision"),
        ("timm/resnet50", "timm"),
        ("mobilenetv2_100", "timm"),
        ("convnext_tiny", "torchvision"),
    ],
)
def test_resolve_finds_the_library(arch, library):
    assert networks.resolve(arch)[0].library == library


def test_an_unknown_name_brings_near_ones():
    with pytest.raises(
        InputError, match="neither torchvision nor timm has a network called 'resnet51'; near it: .*resnet"
    ):
        networks.resolve("resnet51")


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture("torchvision", "resnet18"),
        Architecture("torchvision", "mobilenet_v3_small"),
        Architecture("torchvision", "densenet121"),
        Architecture("timm", "test_vit", {"img_size": 64}),
        Architecture("timm", "test_efficientnet"),
        Architecture("timm", "mobilenetv2_050", {"pad_type": "same"}),
    ],
    ids=lambda a: a.name,
)
def test_any_stock_classifier_gets_a_head_of_our_labels(architecture):
    network = networks.build(architecture, 7).eval()
    networks.check_size(network, ((64, 64),))
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    groups = networks.layer_groups(network)
    assert sum(map(len, groups)) == len(list(network.parameters()))
    assert [len(p) for p in groups[-1]] == [7, 7] and all(groups)


def test_a_network_without_a_linear_head_is_refused():
    with pytest.raises(InputError, match="does not end with a linear layer"):
        networks.build(Architecture("torchvision", "squeezenet1_0"), 3)


def test_a_size_the_network_cannot_take_is_refused_before_training():
    network = networks.build(Architecture("timm", "vit_tiny_patch16_224", {"img_size": 64}), 3)
    with pytest.raises(InputError, match="--size: this network cannot take 96 x 64 pixels"):
        networks.check_size(network, ((96, 64),))


@pytest.fixture
def local_folder(tmp_path):
    network = timm.create_model("test_resnet", num_classes=10)
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}})
    )
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    return tmp_path, network


def test_a_local_folder_brings_its_weights_and_normalization(local_folder):
    folder, original = local_folder
    arch = f"local-dir:{folder}"
    architecture, weights = networks.resolve(arch)
    assert networks.normalization(arch, architecture) == ((0.5,) * 3, (0.25,) * 3)
    built = networks.build(architecture, 4, str(weights))
    assert torch.equal(built.conv1[0].weight, original.conv1[0].weight)
    assert str(folder) not in json.dumps(architecture.to_dict())  # another machine can build it too


def test_a_local_folder_that_is_none_says_what_it_lacks(tmp_path):
    with pytest.raises(InputError, match=r"expected config\.json in .* as timm writes it; it is not there"):
        networks.resolve(f"local-dir:{tmp_path}")


def test_weights_of_another_network_are_refused(local_folder):
    with pytest.raises(InputError, match="expected a state dict of the same --arch"):
        networks.build(Architecture("timm", "test_efficientnet"), 4, str(local_folder[0] / "model.safetensors"))


def test_weights_from_a_file_of_fastai_or_plain_torch(local_folder, tmp_path):
    _, original = local_folder
    for state in (original.state_dict(), {"model": original.state_dict(), "opt": {}}):
        torch.save(state, tmp_path / "w.pth")
        built = networks.build(Architecture("timm", "test_resnet"), 4, str(tmp_path / "w.pth"))
        assert torch.equal(built.layer1[0].conv1.weight, original.layer1[0].conv1.weight)


class Surprise:
    def __reduce__(self):
        return print, ("this ran",)


def test_pain_5_a_weights_file_with_code_in_it_is_refused_and_nothing_runs(tmp_path, capsys):
    torch.save({"model": Surprise()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="cannot be read without running code|can be read without running code"):
        networks.read_state(tmp_path / "w.pth")
    assert "this ran" not in capsys.readouterr().out
    with pytest.raises(InputError, match="expected imagenet, none or a file of weights; there is no file"):
        networks.read_state(tmp_path / "none.pth")


def test_weights_that_cannot_be_fetched_say_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing cached
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # a port where nobody answers: no internet
    with pytest.raises(InputError) as caught:
        networks.build(Architecture("torchvision", "resnet18"), 3, "imagenet")
    words = str(caught.value)
    assert words.startswith("the ImageNet weights of resnet18 could not be fetched")
    for remedy in ("Connect to the internet", "--weights FILE", "--arch local-dir:FOLDER", "--weights none"):
        assert remedy in words
