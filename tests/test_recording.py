"""Recorded steps: on a GPU the same numbers as computed anew each time; elsewhere nothing happens."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torchvision
from fastcore.foundation import L
from torch import nn

from lobbycard.poster.folding import fold
from lobbycard.poster.patching import patch, unpatch
from lobbycard.poster.precision import autocast
from lobbycard.poster.recording import RecordedSteps, record

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
GPU = torch.device("cuda")


def network(norms_learn: bool = False) -> nn.Module:
    torch.manual_seed(0)
    made = torchvision.models.resnet18(num_classes=5)
    made.fc = nn.Sequential(nn.Dropout(0.5), made.fc)
    made = made.to(GPU, memory_format=torch.channels_last).train()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(norms_learn)
    return made


def steps(made: nn.Module, n: int = 4, batch: int = 8) -> list[torch.Tensor]:
    """Weights and buffers after some steps of plain descent, from seeded batches."""
    torch.manual_seed(1)
    optimiser = torch.optim.SGD(made.parameters(), lr=0.01)
    for _ in range(n):
        x = torch.randn(batch, 3, 64, 48, device=GPU)
        made(x).float().square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return [value.clone() for value in made.state_dict().values()]


@gpu
@pytest.mark.parametrize("norms_learn", [False, True])
def test_a_recording_trains_as_the_network_does_dropout_included(norms_learn):
    ours, theirs = network(norms_learn), network(norms_learn)
    before = copy.deepcopy(ours.state_dict())
    for made in (ours, theirs):
        fold(made)
        patch(made, autocast, torch.float16)
    random = torch.cuda.get_rng_state()
    record(ours, (8, 3, 64, 48), GPU)
    assert torch.equal(torch.cuda.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        pairs = list(zip(steps(ours), steps(theirs), strict=True))
    for found, expected in pairs:
        assert torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=2e-3)
    unpatch(ours)
    assert not any("forward" in vars(module) for module in ours.modules())


@gpu
def test_other_batches_and_other_modes_are_computed_as_ever():
    made = network()
    record(made, (8, 3, 64, 48), GPU)
    x = torch.randn(5, 3, 64, 48, device=GPU)
    made.fc[0].p = 0.0
    assert made(x).shape == (5, 5) and made(x[:, :, :32]).shape == (5, 5)
    made.eval()
    with torch.no_grad():
        full = made(torch.cat([x, x])[:8])
    assert torch.allclose(full[:5], made(x), atol=1e-4)


class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.weight if x.sum().item() > -1e9 else -x


@gpu
def test_what_cannot_be_recorded_is_told_and_trained_without():
    made, told = Looks().to(GPU).train(), []
    callback = RecordedSteps(told.append)
    loader = SimpleNamespace(bs=4, shape=(3,))
    callback.learn = SimpleNamespace(model=made, cbs=L(), dls=SimpleNamespace(train=loader, device=GPU))
    callback.before_train()
    assert len(told) == 1 and "the training step cannot be recorded, and is slower for it" in told[0]
    made(torch.ones(4, 3, device=GPU)).sum().backward()
    assert made.weight.grad.item() == 12
    callback.before_train()
    assert len(told) == 1


def test_nothing_is_recorded_on_a_cpu():
    made = nn.Linear(3, 1)
    callback = RecordedSteps(pytest.fail)
    loader = SimpleNamespace(bs=4, shape=(3,))
    callback.learn = SimpleNamespace(model=made, cbs=L(), dls=SimpleNamespace(train=loader, device=torch.device("cpu")))
    callback.before_fit()
    callback.before_train()
    assert "forward" not in vars(made)
