"""The parts of a training step around the network, none of which waits for a GPU: optimiser, loss scale, mixing, running loss.

A GPU works through a queue. fastai's own parts ask it for a number several times a step (the loss, the loss scale, whether a
gradient overflowed) or bring it one from the processor's memory, and each time the queue runs empty; its Adam takes one
parameter after the other, a dozen small operations each. What that cost is in docs/log.md. The arithmetic is fastai's.
"""

import torch
from fastai.callback.core import Callback, CancelStepException
from fastai.callback.mixup import MixUp
from fastai.learner import AvgSmoothLoss
from fastai.optimizer import Optimizer
from fastai.torch_core import to_detach
from torch.optim.adamw import adamw


class FusedAdam(Optimizer):
    """fastai's Adam with decoupled weight decay, a group of parameters in two operations of PyTorch's: with decay and without.

    Its state has fastai's names; `step` is a tensor, since PyTorch counts it on the device. fastai's own wrapper of PyTorch's
    optimisers would decay biases and batch norms, too.

    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization"; fastai.optimizer.Adam.
    """

    # What GradScaler looks for: while it steps, the optimiser then has `grad_scale` and `found_inf`, and takes them along.
    _step_supports_amp_scaling = True

    def __init__(self, params, lr: float, mom: float = 0.9, sqr_mom: float = 0.99, eps: float = 1e-5, wd: float = 0.01):
        super().__init__(params, [], lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)

    def step(self, closure=None) -> None:
        """Move every parameter that has a gradient; none where `found_inf` is above 0."""
        for params, hyper in zip(self.param_lists, self.hypers, strict=True):
            learning = [p for p in params if p.grad is not None]
            for decays in (True, False):
                self._move([p for p in learning if self.state[p].get("do_wd", True) == decays], hyper, decays)

    def _move(self, params: list[torch.Tensor], hyper: dict[str, float], decays: bool) -> None:
        if not params:
            return
        states = [self._state(p) for p in params]
        averages, squares, steps = ([state[name] for state in states] for name in ("grad_avg", "sqr_avg", "step"))
        scale, overflow = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        with torch.no_grad():
            adamw(
                params, [p.grad for p in params], averages, squares, [], steps, fused=True,
                grad_scale=scale, found_inf=overflow, amsgrad=False, maximize=False,
                beta1=hyper["mom"], beta2=hyper["sqr_mom"], eps=hyper["eps"],
                lr=hyper["lr"], weight_decay=hyper["wd"] if decays else 0.0,
            )  # fmt: skip

    def _state(self, p: torch.Tensor) -> dict[str, torch.Tensor]:
        state = self.state[p]
        if "grad_avg" not in state:
            state["grad_avg"], state["sqr_avg"] = torch.zeros_like(p), torch.zeros_like(p)
        if not isinstance(state.get("step"), torch.Tensor):  # a number in what fastai's own Adam has left
            state["step"] = torch.full((), float(state.get("step", 0)), device=p.device)
        for name in ("grad_avg", "sqr_avg"):
            if (
                state[name].stride() != p.stride()
            ):  # laid out anew since: PyTorch's kernel walks through memory side by side
                state[name] = torch.empty_like(p).copy_(state[name])
        return state

    def zero_grad(self) -> None:
        """Forget the gradients: the next ones are written into new memory, where fastai's would be added to zeros."""
        for params in self.param_lists:
            for p in params:
                p.grad = None


class LossScale(Callback):
    """fp16's small gradients survive since the loss is multiplied before them; a step that overflows is passed over.

    fastai's MixedPrecision looks twice a step at what the GPU has found. Here the optimiser's kernel does, and nobody waits.
    `learn.scaler` is the GradScaler, as with fastai's. Goes with `FusedAdam` and `ScaledStep`.
    """

    order = 10

    def before_fit(self):
        self.learn.scaler = torch.amp.GradScaler(next(self.learn.model.parameters()).device.type)

    def before_backward(self):
        self.learn.loss_grad = self.learn.scaler.scale(self.learn.loss_grad)

    def before_step(self):
        self.learn.scaler.unscale_(self.learn.opt)  # so that what comes after, such as GradientClip, sees the gradients

    def after_step(self):
        self.learn.scaler.update()


class ScaledStep(Callback):
    """Takes the step of `LossScale`, after all others that look at the gradients."""

    order = 95

    def before_step(self):
        self.learn.scaler.step(self.learn.opt)
        raise CancelStepException  # it is done


class DeviceMixUp(MixUp):
    """fastai's MixUp, whose draws are made on the GPU where the batch is on one."""

    def before_batch(self):
        x, y = self.learn.xb[0], self.learn.yb[0]
        where = x.device if x.is_cuda else torch.device("cpu")  # other devices lack the distribution
        if self.distrib.concentration1.device != where:
            alpha = self.distrib.concentration1.to(where)
            self.distrib = torch.distributions.Beta(alpha, alpha)
        drawn = self.distrib.sample((len(y),)).to(x.device)
        self.lam = torch.maximum(drawn, 1 - drawn)
        others = torch.randperm(len(y), device=where).to(x.device)
        self.yb1 = (y[others],)
        mixed = lambda one, other: torch.lerp(other, one, self.lam.view(-1, *[1] * (one.ndim - 1)))  # noqa: E731
        self.learn.xb, self.learn.yb = (mixed(x, x[others]),), (mixed(y, self.yb1[0]),)


class RunningLoss(AvgSmoothLoss):
    """fastai's running mean of the training loss, kept where the loss is."""

    def accumulate(self, learn):
        self.count += 1
        loss = to_detach(learn.loss.mean(), cpu=False)
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


class RecordedLosses(Callback):
    """Brings an epoch's losses, which `RunningLoss` has left on the device, to where plots can take them."""

    order = 51  # fastai's Recorder is 50

    def after_train(self):
        losses = vars(self.learn.recorder).get("losses", [])  # none before the first fit
        if waiting := [i for i, loss in enumerate(losses) if loss.device.type != "cpu"]:
            for i, loss in zip(waiting, torch.stack([losses[i] for i in waiting]).cpu(), strict=True):
                losses[i] = loss

    after_fit = after_train  # where it was stopped
