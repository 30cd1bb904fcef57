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

# Tried strengths of the L2 penalty, per item, on standardised features: from hardly any to only a trace of the features left.
PENALTIES = tuple(float(p) for p in np.geomspace(1e-3, 3.0, 8))


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
    weight, bias = logistic(x, truth, penalty)
    return weight / std, bias - (weight / std) @ mean


def choose_penalty(x: np.ndarray, truth: np.ndarray, groups: np.ndarray, seed: int, say=print) -> float:
    """The penalty whose held-out mAP is best, over 3 folds of groups; from strong to weak, each started from the last."""
    folds = np.random.default_rng(seed).permutation(groups.max() + 1)[groups] % 3
    scores = np.empty((len(PENALTIES), *truth.shape), dtype=np.float32)
    for fold in range(3):
        fitted, start = folds != fold, None
        for index in reversed(range(len(PENALTIES))):
            weight, bias = logistic(x[fitted], truth[fitted], PENALTIES[index], start)
            start = (weight, bias)
            scores[index, folds == fold] = x[folds == fold] @ weight.T + bias
    means = [float(np.nanmean(average_precision(truth, s))) for s in scores]
    best = int(np.argmax(means))
    say("  penalty " + "  ".join(f"{p:.3g}: {m:.4f}" for p, m in zip(PENALTIES, means, strict=True)) + " (mAP)")
    return PENALTIES[best]


def logistic(
    x: np.ndarray, truth: np.ndarray, penalty: float, start: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (L, D) and biases (L,) that minimise mean cross-entropy + penalty / 2 * |weights|^2, by L-BFGS.

    One problem for all labels: they share the product with `x`, which is where the time goes. For one label it is
    scikit-learn's LogisticRegression with C = 1 / (N * penalty).
    """
    n, d = x.shape
    labels = truth.shape[1]
    target = truth.astype(np.float32)
    features = torch.from_numpy(np.ascontiguousarray(x))
    wanted = torch.from_numpy(target)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(flat.astype(np.float32)).view(labels, d + 1)
        weight, bias = theta[:, :d], theta[:, d]
        logits = torch.addmm(bias, features, weight.T)
        value = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum").double() / n
        value = value + 0.5 * penalty * weight.double().square().sum()
        slope = (torch.sigmoid(logits) - wanted) / n
        gradient = torch.cat([slope.T @ features + penalty * weight, slope.sum(0)[:, None]], dim=1)
        return float(value), gradient.double().numpy().ravel()

    if start is None:
        prior = np.clip(target.mean(axis=0), 0.5 / n, 1 - 0.5 / n)
        start = (np.zeros((labels, d)), np.log(prior / (1 - prior)))
    theta = np.concatenate([start[0], start[1][:, None]], axis=1)
    # fp32 products bound what can be resolved: a tighter tolerance than this only spends time.
    found = minimize(loss, theta.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300, "gtol": 1e-5, "ftol": 1e-8})
    theta = found.x.reshape(labels, d + 1)
    return theta[:, :d].astype(np.float32), theta[:, d].astype(np.float32)


def set_head(network: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    """Write a fitted head, (L, D) and (L,), into the network's last layer."""
    layer = head(network)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.asarray(weight, dtype=np.float32)))
        layer.bias.copy_(torch.from_numpy(np.asarray(bias, dtype=np.float32)))
