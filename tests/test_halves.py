"""A network cut in two gives the same answers, shares its weights, and says so where it cannot be cut."""

import math

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from lobbycard.errors import InputError
from lobbycard.poster.halves import HIGHEST, LOWEST, cut

NETWORKS = {
    "torchvision's ResNet": lambda: models.resnet18(num_classes=5),
    "depthwise layers padded as TensorFlow does": lambda: timm.create_model(
        "mobilenetv2_050", num_classes=5, pad_type="same"
    ),
    "a transformer with a mask it may be given": lambda: timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, depth=4, img_size=(64, 48), patch_size=16
    ),
    "layer norms": lambda: timm.create_model("convnext_atto", num_classes=5),
    "dense connections": lambda: models.DenseNet(8, (2, 2, 2), 16, num_classes=5),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_both_halves_answer_what_the_whole_does(kind):
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    halves = cut(network, (64, 48))
    pixels = torch.randn(3, 3, 64, 48)
    with torch.no_grad():
        halfway = halves.lower(pixels)
        assert torch.equal(halves.upper(halfway), network.eval()(pixels))
    assert halfway.shape[1:] == halves.shape
    assert LOWEST <= halves.share <= HIGHEST
    assert math.prod(halves.shape) < 3 * 64 * 48  # less to keep than the pixels themselves, as floats


def test_training_the_upper_half_trains_the_network_and_leaves_the_lower_half_alone():
    torch.manual_seed(0)
    network = NETWORKS["torchvision's ResNet"]()
    halves = cut(network, (64, 48))
    before = {name: value.clone() for name, value in network.named_parameters()}
    upper = dict(halves.upper.named_parameters())
    optimizer = torch.optim.SGD(halves.upper.parameters(), lr=0.1)
    halves.upper(torch.randn(4, *halves.shape)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == upper.keys()
    lower = {name for name, _ in halves.lower.named_parameters()}
    assert "conv1.weight" in lower and "fc.weight" in upper and not lower & upper.keys()


def test_the_cut_is_at_half_of_the_arithmetic_by_another_count():
    """Multiply-adds of convolutions by hand, from the shapes that pass hooks."""
    network, counts = models.resnet18(num_classes=5).eval(), {}

    def count(name):
        def hook(layer, given, out):
            counts[name] = out.numel() * layer.weight[0].numel()

        return hook

    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count(name))
    halves = cut(network, (64, 48))
    lower = {name for name, layer in halves.lower.named_modules() if isinstance(layer, nn.Conv2d)}
    assert sum(counts[name] for name in lower) / sum(counts.values()) == pytest.approx(halves.share, abs=1e-6)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x):
        return self.layers(x) if x.mean() > 0 else -self.layers(-x)


class TwoTrunks(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)) for _ in range(2))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(torch.cat([self.left(x).mean((2, 3)), self.right(x).mean((2, 3))], dim=1))


@pytest.mark.parametrize(
    ("network", "words"),
    [(Branching(), "Branching cannot be traced"), (TwoTrunks(), "TwoTrunks has no place in its middle")],
)
def test_a_network_that_cannot_be_cut_says_what_to_do(network, words):
    with pytest.raises(InputError, match=words) as raised:
        cut(network, (32, 32))
    assert "use --strategy standard" in str(raised.value)
