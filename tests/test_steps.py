"""A training step's parts: fastai's arithmetic, and nothing that a GPU's queue would have to wait for."""

import copy
from types import SimpleNamespace

import pytest
import torch
from fastai.callback import schedule  # noqa: F401 - gives Learner its fit_one_cycle
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import AvgSmoothLoss, Learner
from fastai.optimizer import Adam
from torch import nn

from lobbycard.poster.precision import Autocast, precision_callbacks
from lobbycard.poster.steps import DeviceMixUp, FusedAdam, LossScale, RecordedLosses, RunningLoss, ScaledStep

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


def test_a_scaled_loss_takes_the_same_steps():
    plain, scaled = fit(learner(FusedAdam)), fit(learner(FusedAdam, LossScale(), ScaledStep()))
    assert scaled.scaler.get_scale() == 2**16
    assert torch.allclose(weights(plain), weights(scaled), atol=1e-6)


class Watch(Callback):
    """The weights after each step."""

    order = 99

    def before_fit(self):
        self.seen = [weights(self.learn)]

    def after_batch(self):
        if self.training:
            self.seen.append(weights(self.learn).clone())


def test_a_step_that_overflows_moves_nothing_and_halves_the_scale():
    spoilt = batches()
    spoilt[5] = (spoilt[5][0], spoilt[5][1] * 1e35)  # a finite loss, whose scaled gradients are not
    learn = learner(FusedAdam, LossScale(), ScaledStep(), Watch(), seen=spoilt)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
    moved = [not torch.equal(one, other) for one, other in zip(learn.watch.seen, learn.watch.seen[1:], strict=False)]
    assert moved == [step != 5 for step in range(12)]
    assert learn.scaler.get_scale() == 2**15
    assert {float(state["step"]) for state in learn.opt.state_dict()["state"]} == {11}


def test_gradients_are_clipped_at_their_own_size():
    """fastai's GradientClip comes after the loss scale, and before the step."""
    with_scale = (GradientClip(1e-9), LossScale(), ScaledStep())
    clipped, scaled, free = (fit(learner(FusedAdam, *more)) for more in ((GradientClip(1e-9),), with_scale, ()))
    assert torch.allclose(weights(clipped), weights(scaled), atol=1e-7)
    assert (weights(clipped) - weights(free)).abs().max() > 0.01


def test_loss_scaling_is_that_of_fastais_mixed_precision():
    """On a GPU against fastai's own; elsewhere fastai's does nothing, and the parts are looked at."""
    if DEVICE.type == "cuda":
        ours = fit(learner(FusedAdam, *precision_callbacks(DEVICE, "fp16")))
        theirs = fit(learner(Adam, MixedPrecision()))
        assert (weights(ours) - weights(theirs)).abs().max() < 2e-3
    cast, scale, step = precision_callbacks(torch.device("cuda"), "fp16")
    assert isinstance(cast, Autocast) and cast.half == torch.float16
    assert isinstance(scale, LossScale) and isinstance(step, ScaledStep)
    (cast,) = precision_callbacks(torch.device("cuda"), "bf16")
    assert cast.half == torch.bfloat16


def test_a_state_that_lies_otherwise_than_its_weights_is_laid_out_anew():
    """PyTorch's kernel would pair the wrong numbers, and say nothing."""
    found = []
    for optimiser in (FusedAdam, Adam):
        learn = learner(optimiser)
        learn.model.to(memory_format=torch.channels_last)
        fit(learn, 1)
        learn.model.to(memory_format=torch.contiguous_format)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-2)
        found.append(weights(learn))
    assert (found[0] - found[1]).abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (6, 50, 16), (6, 12), (1, 3, 8, 8)])
def test_mixing_is_fastais_for_pictures_and_for_a_transformers_halves(shape):
    """The same draws give the same batch: of pictures, of tokens, of features."""
    found = []
    for kind in (MixUp, DeviceMixUp) if shape[0] > 1 else (DeviceMixUp,):  # fastai's fails with one
        torch.manual_seed(4)
        x, y = torch.randn(shape), torch.randint(0, 2, (shape[0], 4)).float()
        callback = kind(0.4)
        callback.learn = SimpleNamespace(xb=(x,), yb=(y,), x=x, y=y, loss_func=nn.BCEWithLogitsLoss())
        callback.before_train()
        torch.manual_seed(5)
        callback.before_batch()
        found.append((callback.learn.xb[0], callback.learn.yb[0]))
        assert callback.learn.xb[0].shape == x.shape and (shape[0] == 1 or not torch.equal(callback.learn.xb[0], x))
    assert torch.equal(found[0][0], found[-1][0]) and torch.equal(found[0][1], found[-1][1])


def test_the_running_loss_is_fastais_and_ends_on_the_processor():
    ours, theirs = learner(FusedAdam, RecordedLosses()), learner(FusedAdam)
    ours.recorder.smooth_loss = RunningLoss()
    fit(ours), fit(theirs)
    assert isinstance(theirs.recorder.smooth_loss, AvgSmoothLoss)
    assert {loss.device.type for loss in ours.recorder.losses} == {"cpu"}
    assert [float(a) for a in ours.recorder.losses] == pytest.approx([float(b) for b in theirs.recorder.losses])
    assert ours.recorder.values[-1][0] == pytest.approx(theirs.recorder.values[-1][0])
