"""Batch norms folded into convolutions: the same function and the same gradients, for as long as a fit lasts."""

import copy

import pytest
import timm
import torch
import torchvision
from fastai.callback.core import Callback
from torch import nn

from lobbycard.poster.folding import fold, foldable
from lobbycard.poster.patching import Patch, patch, unpatch
from lobbycard.poster.trainer import MovieGenreTrainer

from .conftest import TINY

NETWORKS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "mobilenetv2_100": lambda: timm.create_model("mobilenetv2_100", num_classes=5),  # norms that hold an activation
    "regnetx_002": lambda: timm.create_model("regnetx_002", num_classes=5),  # grouped convolutions
}


def lived_in(name: str) -> nn.Module:
    """A network whose batch norms are not those it was born with, in double precision, in eval mode."""
    torch.manual_seed(0)
    network = NETWORKS[name]().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.5, 2),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):  # fmt: skip
                nn.init.uniform_(values, low, high)
    return network


def answers_and_gradients(network: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    network.zero_grad()
    out = network(torch.randn(2, 3, 64, 48, dtype=torch.float64))
    out.square().mean().backward()
    return out.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_same_function_with_the_same_gradients(name):
    network = lived_in(name)
    out, gradients = answers_and_gradients(network)
    names, norms = list(network.state_dict()), [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert fold(network) == len(norms) > 15
    folded, found = answers_and_gradients(network)
    assert torch.allclose(folded, out, rtol=1e-9, atol=1e-12) and found.keys() == gradients.keys()
    for key, gradient in gradients.items():
        assert torch.allclose(found[key], gradient, rtol=1e-7, atol=1e-9 * gradient.abs().max()), key
    assert list(network.state_dict()) == names
    unpatch(network)
    assert not any("forward" in vars(module) for module in network.modules())
    assert torch.equal(answers_and_gradients(network)[0], out)


def test_batch_norms_that_learn_statistics_do_so_as_ever():
    plain = lived_in("resnet18").train()
    folded = copy.deepcopy(plain)
    fold(folded)
    assert folded.training and all(module.training for module in folded.modules())
    out = [answers_and_gradients(network)[0] for network in (plain, folded)]
    assert torch.equal(*out)
    for (name, expected), (_, found) in zip(plain.named_buffers(), folded.named_buffers(), strict=True):
        assert torch.equal(expected, found), name


class Odd(nn.Module):
    """Convolutions whose batch norms cannot be folded: seen by others too, used twice, padded with reflections."""

    def __init__(self):
        super().__init__()
        self.seen, self.shared, self.reflected = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)
        self.reflected.padding_mode, self.reflected._reversed_padding_repeated_twice = "reflect", [1, 1, 1, 1]
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))
        self.plain = nn.Conv2d(3, 3, 1, bias=False)

    def forward(self, x):
        seen = self.seen(x)
        x = self.norms[0](seen) + seen
        x = self.norms[1](self.shared(x)) + self.norms[2](self.shared(x))
        return self.norms[3](self.reflected(x)) + self.norms[4](self.plain(x))


def test_what_somebody_else_sees_is_left_alone():
    network = Odd().eval()
    assert foldable(network) == [(network.plain, network.norms[4])]


def test_hooks_see_what_they_would_see():
    network, seen = lived_in("resnet18"), []
    network.conv1.register_forward_hook(lambda module, given, out: seen.append(out))
    assert fold(network) == 0 and not seen


def patched(network: nn.Module) -> int:
    return sum("forward" in vars(module) for module in network.modules())


class Count(Callback):
    """How many layers are patched in each training batch; asks for answers, once, after the first epoch."""

    def __init__(self):
        self.counts, self.asked = [], False

    def before_batch(self):
        if self.training:
            self.counts.append(patched(self.learn.model))

    def after_epoch(self):
        if not self.asked:
            self.asked = True
            self.learn.get_preds(ds_idx=1)


def test_a_learner_of_ours_folds_in_every_epoch_and_mixes_and_leaves_nothing_behind(drawn, tmp_path):
    """Also where a callback asks for answers within a fit, or an earlier fit was stopped by Ctrl-C."""
    settings = {**TINY, "mixup": 0.4, "precision": "bf16", "device": "cpu", "batch_size": 64, "limit": 150}
    trainer = MovieGenreTrainer(
        csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m", say=lambda t: None, **settings
    )
    trainer.load(), trainer.download(), trainer.split()
    learn = trainer.learn
    foldable_now = len(foldable(learn.model))
    assert foldable_now > 3

    class Stop(Callback):
        def after_loss(self):
            raise KeyboardInterrupt

    with learn.no_bar(), learn.no_logging():
        with pytest.raises(KeyboardInterrupt):
            learn.fit(1, cbs=Stop())
        count = Count()
        learn.fit(3, cbs=count)
    assert set(count.counts) == {2 * foldable_now + 1} and count.asked and len(count.counts) >= 3  # and autocast
    assert patched(learn.model) == 0


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_code_that_cannot_be_followed_is_left_alone():
    assert fold(Branching()) == 0


def test_patches_lie_over_each_other_and_what_stood_there_comes_back():
    layer = nn.Linear(1, 1)
    layer.forward = theirs = lambda x: x + 1
    for factor in (10, 7):
        patch(layer, lambda forward, by, x: by * forward(x), factor)
    assert layer(torch.ones(())).item() == 140 and isinstance(layer.forward, Patch)
    unpatch(layer)
    assert layer.forward is theirs
