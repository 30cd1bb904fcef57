"""The probe: a frozen network's features, and a logistic regression a label on top of them.

Fitting a head on cached features is a convex problem: it ends at the optimum in seconds, needs no learning rate, and
its result is an ordinary network whose last layer was computed instead of trained.
"""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from lobbycard.poster.network import head
from lobbycard.scoring.metrics import average_precision

# Strengths of the L2 penalty that are tried on standardised features, strongest first.
PENALTIES = tuple(float(p) for p in np.geomspace(10.0, 0.01, 10))
PATIENCE = 2  # weaker penalties tried in vain before the search ends: the weak ones are the slow ones


def fit_head(
    features: np.ndarray, truth: np.ndarray, groups: np.ndarray, seed: int = 0, say=print
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regressions for all labels at once, their common penalty chosen by cross-validation on the mAP.

    Args:
        features: (N, D) fp32.
        truth: (N, L) bool.
        groups: (N,) items that must stay on one side (the same movie, near-identical art).

    Returns:
        weight (L, D) and bias (L,) of a linear layer on the raw features.
    """
    mean, std = features.mean(axis=0), features.std(axis=0)
    std = np.where(std > 1e-6, std, 1.0)  # a channel that is always the same says nothing, and must not divide by zero
    x = ((features - mean) / std).astype(np.float32)
    penalty = choose_penalty(x, truth, groups, seed, say)
    weight, bias = LogisticPath(x, truth).fit(penalty)
    return weight / std, bias - (weight / std) @ mean


def choose_penalty(x: np.ndarray, truth: np.ndarray, groups: np.ndarray, seed: int, say=print) -> float:
    """The penalty whose held-out mAP over 3 folds of groups is best; x (N, D) standardised, truth (N, L)."""
    _, numbers = np.unique(groups, return_inverse=True)
    fold_of = np.random.default_rng(seed).permutation(numbers.max() + 1)[numbers] % 3
    paths = [LogisticPath(x[fold_of != fold], truth[fold_of != fold]) for fold in range(3)]
    found: dict[float, float] = {}
    for penalty in PENALTIES:
        scores = np.empty(truth.shape, dtype=np.float32)
        for fold, path in enumerate(paths):
            weight, bias = path.fit(penalty)
            scores[fold_of == fold] = x[fold_of == fold] @ weight.T + bias
        found[penalty] = float(np.nanmean(average_precision(truth, scores)))
        best = max(found, key=found.get)
        if len(found) - 1 - list(found).index(best) >= PATIENCE:
            break
    say("  penalty " + "  ".join(f"{p:.3g}: {m:.4f}" for p, m in found.items()) + "  (cross-validated mAP)")
    return best


class LogisticPath:
    """Penalised logistic regressions on one set of features, for one penalty after another, each started from the last.

    Minimises mean cross-entropy + penalty / 2 * |weights|^2 by L-BFGS, all labels in one problem because they share the
    product with the features, where the time goes. For one label it is scikit-learn's LogisticRegression with
    C = 1 / (N * penalty).

    The descent runs in the features' principal axes, each scaled by the curvature that the loss has there at the start.
    Without that, neighbouring features (channels of a network are all alike) make it take ten times the steps.
    """

    def __init__(self, x: np.ndarray, truth: np.ndarray):
        """x: (N, D) fp32 standardised features; truth: (N, L) bool."""
        self.features = torch.from_numpy(np.ascontiguousarray(x))
        self.target = torch.from_numpy(truth.astype(np.float32))
        self.n = len(x)
        self.variance, self.axes = torch.linalg.eigh(self.features.T @ self.features / self.n)  # (D,), (D, D)
        self.rotated = self.features @ self.axes
        prior = self.target.mean(dim=0).clamp(0.5 / self.n, 1 - 0.5 / self.n)
        self.curvature = (prior * (1 - prior))[:, None] * self.variance.clamp(min=0)  # (L, D)
        self.weight = torch.zeros(truth.shape[1], x.shape[1])  # along the axes
        self.bias = torch.logit(prior)

    def fit(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights (L, D) and biases (L,) at the optimum for this penalty."""
        scale = (self.curvature + penalty).rsqrt()
        labels, width = self.weight.shape

        def unpack(flat: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            table = torch.from_numpy(flat.astype(np.float32)).view(labels, width + 1)
            return table[:, :width] * scale, table[:, width]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weight, bias = unpack(flat)
            logits = torch.addmm(bias, self.rotated, weight.T)
            value = (
                nn.functional.binary_cross_entropy_with_logits(logits, self.target, reduction="sum").double() / self.n
            )
            value = value + 0.5 * penalty * weight.double().square().sum()
            slope = (torch.sigmoid(logits) - self.target) / self.n
            gradient = torch.cat([(slope.T @ self.rotated + penalty * weight) * scale, slope.sum(0)[:, None]], dim=1)
            return float(value), gradient.double().numpy().ravel()

        start = torch.cat([self.weight / scale, self.bias[:, None]], dim=1).double().numpy().ravel()
        # fp32 products bound what can be resolved: a tighter tolerance than this only spends time.
        options = {"maxiter": 200, "gtol": 1e-5, "ftol": 1e-7}
        self.weight, self.bias = unpack(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)
        return (self.weight @ self.axes.T).numpy(), self.bias.numpy().copy()


def set_head(network: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    """Write a fitted head, (L, D) and (L,), into the network's last layer."""
    layer = head(network)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.asarray(weight, dtype=np.float32)))
        layer.bias.copy_(torch.from_numpy(np.asarray(bias, dtype=np.float32)))
