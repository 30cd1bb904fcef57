"""A training step's parts: fastai's arithmetic, and nothing that a GPU's queue would have to wait for."""

import copy
from types import SimpleNamespace

import pytest
import torch
from fastai.callback import schedule  # noqa: F401 - gives Learner its fit_one_cycle
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import AvgSmoothLoss, Learner
from fastai.optimizer import Adam
from torch import nn

from lobbycard.poster.precision import Autocast, precision_callbacks
from lobbycard.poster.steps import DeviceMixUp, FusedAdam, LossScale, RecordedLosses, RunningLoss

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers, nn.Linear(8, 4)).to(DEVICE)


def batches(n: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    made = [(torch.randn(6, 3, 8, 8), torch.randint(0, 2, (6, 4)).float()) for _ in range(n)]
    return [tuple(part.to(DEVICE) for part in batch) for batch in made]


def learner(optimiser, *callbacks, seen=None, **settings) -> Learner:
    loader = DataLoader(seen or batches(), bs=None)
    split = lambda model: [list(model[:4].parameters()), list(model[4:].parameters())]  # noqa: E731
    return Learner(
        DataLoaders(loader, loader, device=DEVICE), network(), loss_func=nn.BCEWithLogitsLoss(), opt_func=optimiser,
        splitter=split, cbs=list(callbacks), wd=0.1, train_bn=False, **settings,
    )  # fmt: skip


def fit(learn: Learner, epochs: int = 2, lr=slice(1e-4, 3e-2)) -> Learner:
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, lr)
    return learn


def weights(learn: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def test_fused_adam_takes_fastais_steps():
    """One cycle, two rates, weight decay on weights alone, batch norm learning."""
    ours, theirs, start = fit(learner(FusedAdam)), fit(learner(Adam)), learner(Adam)
    moved = (weights(theirs) - weights(start)).abs().max()
    assert moved > 0.05 and (weights(ours) - weights(theirs)).abs().max() < 1e-5 * moved
    for found, expected in zip(ours.opt.state_dict()["state"], theirs.opt.state_dict()["state"], strict=True):
        assert found.keys() == expected.keys() and float(found["step"]) == expected["step"] == 24
        for name in ("grad_avg", "sqr_avg"):
            assert torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-7)


def test_fused_adam_goes_on_from_what_fastais_adam_has_left():
    halfway, ours = fit(learner(Adam), epochs=1), learner(FusedAdam)
    theirs = learner(Adam)
    for learn in (ours, theirs):
        learn.model.load_state_dict(halfway.model.state_dict())
        learn.create_opt()
        learn.opt.load_state_dict(copy.deepcopy(halfway.opt.state_dict()))
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-2)
    assert (weights(ours) - weights(theirs)).abs().max() < 1e-6


def test_frozen_layers_stay_and_have_no_state():
    learn = learner(FusedAdam)
    learn.freeze()
    before = copy.deepcopy(learn.model[0].weight)
    fit(learn)
    assert torch.equal(before, learn.model[0].weight)
    assert not torch.equal(network()[-1].weight, learn.model[-1].weight)
    assert "step" not in learn.opt.state[learn.model[0].weight]


def test_a_scaled_loss_takes_the_same_steps_and_passes_over_those_that_overflow():
    """Powers of two cancel to the bit; an infinite gradient halves the scale and moves nothing."""
    plain, scaled = fit(learner(FusedAdam)), fit(learner(FusedAdam, LossScale()))
    assert scaled.scaler.get_scale() == 2**16
    assert torch.allclose(weights(plain), weights(scaled), atol=1e-6)

    spoilt = batches()
    spoilt[5] = (spoilt[5][0] * float("inf"), spoilt[5][1])
    without = fit(learner(FusedAdam, seen=[batch for i, batch in enumerate(batches()) if i != 5]), 1, 1e-2)
    learn = learner(FusedAdam, LossScale(), seen=spoilt)
    learn.model[1].eval()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
    assert learn.scaler.get_scale() == 2**15
    assert {float(state["step"]) for state in learn.opt.state_dict()["state"]} == {11}
    assert torch.isfinite(weights(learn)).all() and len(without.recorder.losses) == 11


def test_loss_scaling_is_that_of_fastais_mixed_precision():
    """On a GPU against fastai's own; elsewhere fastai's does nothing, and the parts are looked at."""
    if DEVICE.type == "cuda":
        ours = fit(learner(FusedAdam, *precision_callbacks(DEVICE, "fp16")))
        theirs = fit(learner(Adam, MixedPrecision()))
        assert (weights(ours) - weights(theirs)).abs().max() < 2e-3
    cast, scale = precision_callbacks(torch.device("cuda"), "fp16")
    assert isinstance(cast, Autocast) and cast.half == torch.float16 and isinstance(scale, LossScale)
    (cast,) = precision_callbacks(torch.device("cuda"), "bf16")
    assert cast.half == torch.bfloat16


def test_mixing_is_fastais():
    """The same draws give the same batch."""
    found = []
    for kind in (MixUp, DeviceMixUp):
        x, y = batches(1)[0]
        callback = kind(0.4)
        if DEVICE.type == "cuda":
            callback.distrib = DeviceMixUp(0.4).distrib
        callback.learn = SimpleNamespace(xb=(x,), yb=(y,), x=x, y=y, loss_func=nn.BCEWithLogitsLoss())
        callback.before_train()
        torch.manual_seed(5)
        callback.before_batch()
        found.append((callback.learn.xb[0], callback.learn.yb[0]))
    (x, y), (ours_x, ours_y) = found
    if DEVICE.type == "cpu":
        assert torch.equal(ours_x, x) and torch.equal(ours_y, y)
    assert not torch.equal(ours_x, batches(1)[0][0]) and ours_y.min() >= 0 and ours_y.max() <= 1


def test_a_batch_of_two_is_mixed_too():
    callback = DeviceMixUp(0.4)
    x, y = (part[:2] for part in batches(1)[0])
    callback.learn = SimpleNamespace(xb=(x,), yb=(y,))
    callback.before_batch()
    assert callback.learn.xb[0].shape == x.shape


def test_the_running_loss_is_fastais_and_ends_on_the_processor():
    ours, theirs = learner(FusedAdam, RecordedLosses()), learner(FusedAdam)
    ours.recorder.smooth_loss = RunningLoss()
    fit(ours), fit(theirs)
    assert isinstance(theirs.recorder.smooth_loss, AvgSmoothLoss)
    assert {loss.device.type for loss in ours.recorder.losses} == {"cpu"}
    assert [float(a) for a in ours.recorder.losses] == pytest.approx([float(b) for b in theirs.recorder.losses])
    assert ours.recorder.values[-1][0] == pytest.approx(theirs.recorder.values[-1][0])
