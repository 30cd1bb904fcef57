"""A head that also sees lower levels: the right layers, the right numbers, the same network wherever it is built again."""

import copy
import pickle

import pytest
import timm
import torch
from torchvision import models

from lobbycard.errors import InputError
from lobbycard.poster.halves import cut
from lobbycard.poster.levels import SPREAD_FLOOR, find_levels, with_levels
from lobbycard.poster.network import Architecture, build, head, head_name

SIZE = (64, 48)
STAGES = {
    "resnet18": (lambda: models.resnet18(num_classes=5), ("layer2", "layer3")),
    "resnet50": (lambda: models.resnet50(num_classes=5), ("layer3",)),
    "mobilenetv2": (lambda: timm.create_model("mobilenetv2_050", pad_type="same"), ("blocks.3", "blocks.4", "blocks.5")),
    # Squeeze and excitation gives the same shape again and is no stage.
    "efficientnet": (lambda: models.efficientnet_b0(), ("features.4", "features.5", "features.6")),
    "no residual blocks": (lambda: models.vgg11(num_classes=5), ()),
    "channels last inside": (lambda: models.swin_t(), ()),
    "a stage that ends between modules": (lambda: timm.create_model("cspresnet50"), ()),
    "a transformer": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=SIZE, depth=2), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_levels_are_the_ends_of_the_upper_stages(name):
    make, expected = STAGES[name]
    assert find_levels(make(), SIZE if "transformer" in name else (288, 192)) == expected


def test_the_head_is_given_mean_and_spread_of_each_channel_after_the_networks_own_features():
    torch.manual_seed(0)
    network = models.resnet18(num_classes=5).eval()
    seen = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda layer, given, out, name=name: seen.update({name: out}))
        for name in ("layer2", "layer3", "avgpool")
    ]
    pixels = torch.randn(3, 3, *SIZE)
    with torch.no_grad():
        network(pixels)
    for hook in hooks:
        hook.remove()
    tapped = with_levels(network, ("layer2", "layer3"), SIZE, "fc").eval()
    given = []
    head(tapped).register_forward_pre_hook(lambda layer, args: given.append(args[0]))
    with torch.no_grad():
        tapped(pixels)
    parts = [seen["avgpool"].flatten(1)]
    for name in ("layer2", "layer3"):
        parts += [seen[name].mean((2, 3)), (seen[name].flatten(2).var(2, correction=0) + SPREAD_FLOOR).sqrt()]
    torch.testing.assert_close(given[0], torch.cat(parts, 1), atol=1e-4, rtol=1e-4)
    assert head(tapped).in_features == 512 + 2 * 128 + 2 * 256 and head(tapped).out_features == 5


def test_a_colourless_poster_has_no_spread_and_still_a_gradient():
    tapped = with_levels(models.resnet18(num_classes=5), ("layer3",), SIZE, "fc").eval()
    tapped(torch.zeros(2, 3, *SIZE)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in tapped.parameters() if p.grad is not None)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_answers_the_same_and_knows_its_head(copied):
    torch.manual_seed(0)
    network = build(Architecture("torchvision", "resnet18", {}, ("layer2", "layer3")), 4, size=SIZE).eval()
    again, pixels = copied(network).eval(), torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(again(pixels), network(pixels))
    assert head_name(again) == "fc" and head(again).weight.shape == (4, 512 + 2 * 128 + 2 * 256)


def test_it_is_cut_at_its_lowest_level_or_below_and_built_again_from_its_description():
    torch.manual_seed(0)
    architecture = Architecture("torchvision", "resnet18", {}, ("layer2", "layer3"))
    network = build(architecture, 4, size=SIZE).eval()
    halves, pixels = cut(network, SIZE), torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(halves.upper(halves.lower(pixels)), network(pixels))
    again = build(Architecture.from_dict(architecture.to_dict()), 4, size=(96, 64))
    assert again.load_state_dict(network.state_dict()).missing_keys == []
    larger = torch.randn(2, 3, 96, 64)  # traced at one size, it takes others
    with torch.no_grad():
        assert torch.equal(again.eval()(larger), network(larger))
    assert Architecture.from_dict({"library": "timm", "name": "x", "args": {}}).levels == ()  # of an earlier version


def test_levels_that_are_not_there_are_told():
    with pytest.raises(
        InputError, match=r"ResNet has no layer layer9: another version.*install the versions in model.json"
    ):
        with_levels(models.resnet18(), ("layer9",), SIZE, "fc")
