"""Ways to train, one function each: a list of phases, or (probe) a fitted head.

All but `probe` return phases that `run_phases` fits with fastai's one-cycle policy.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from fastai.learner import Learner
from torch import nn

from lobbycard.errors import InputError
from lobbycard.poster.checkpoint import Checkpoint
from lobbycard.poster.config import Config
from lobbycard.poster.halves import cut
from lobbycard.poster.learning import EpochBar
from lobbycard.poster.soup import Soup

# Unfrozen, pretrained layers are moved more carefully than a fresh head, as in fastai's fine_tune.
# Source: Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.2.
UNFROZEN_SHARE = 0.3
LOWEST_SHARE = 0.01


@dataclass(frozen=True)
class Phase:
    """Some epochs under one one-cycle schedule."""

    name: str
    epochs: int
    frozen: bool  # only the head learns
    lr: float | slice  # highest rate; a slice spreads it over the layer groups, lowest first
    size: tuple[int, int]  # input height, width in pixels
    anew: bool = False  # begins where the first such phase began; in the end the weights of all of them are averaged


def repeated(phases: list[Phase], times: int) -> list[Phase]:
    """The last phase so many times, for a soup; once, or without epochs, it stays as it is."""
    if times == 1 or phases[-1].epochs == 0:
        return phases
    *before, last = phases
    return [*before, *(replace(last, name=f"{last.name} {n}", anew=True) for n in range(1, times + 1))]


def standard(config: Config) -> list[Phase]:
    """Head alone first, then all layers at one lower rate."""
    (size,) = config.sizes()
    return [
        Phase("head", config.freeze_epochs, True, config.lr, size),
        Phase("all", config.epochs, False, config.lr * UNFROZEN_SHARE, size),
    ]


def discriminative(config: Config) -> list[Phase]:
    """Head alone first, then all layers, the lowest of them a hundred times slower than the head."""
    (size,) = config.sizes()
    return [
        Phase("head", config.freeze_epochs, True, config.lr, size),
        Phase("groups", config.epochs, False, slice(config.lr * LOWEST_SHARE, config.lr), size),
    ]


def progressive(config: Config) -> list[Phase]:
    """Most epochs on small inputs, which are cheap; the last on large ones, where lettering can be read."""
    small, large = config.sizes()
    late = config.epochs // 3
    return [
        Phase("head", config.freeze_epochs, True, config.lr, small),
        Phase(f"{small[0]} px", config.epochs - late, False, config.lr * UNFROZEN_SHARE, small),
        Phase(f"{large[0]} px", late, False, config.lr * UNFROZEN_SHARE / 3, large),
    ]


def cached(config: Config) -> list[Phase]:
    """The upper half of the network alone, from a head that was fitted: there is nothing left to learn first."""
    (size,) = config.sizes()
    return [Phase("upper", config.epochs, False, config.lr, size)]


PHASED: dict[str, Callable[[Config], list[Phase]]] = {
    "standard": standard,
    "discriminative": discriminative,
    "progressive": progressive,
    "cached": cached,
}


def choose_strategy(config: Config, device: torch.device, network: nn.Module) -> str:
    """The strategy for `auto`, or the one that was asked for, once it is known that `network` allows it.

    On a CPU an epoch of all layers takes about as long as one of the trainings of `cached` (docs/log.md), which needs a network
    that was pretrained. Raises InputError where `cached` was asked for and the network cannot be cut.
    """
    asked = config.strategy
    if asked == "auto" and (device.type != "cpu" or not config.pretrained or config.epochs == 0 or config.find_lr):
        return "standard"
    if asked in ("auto", "cached"):
        try:
            cut(network, config.sizes()[0])
        except InputError:
            if asked == "cached":
                raise
            return "standard"
        return "cached"
    return asked


def run_phases(
    learn: Learner, phases: list[Phase], checkpoint: Checkpoint, set_size: Callable[[tuple[int, int]], None], soup: Soup
) -> None:
    """Fit what is left of `phases`, going on where `checkpoint` stands.

    Args:
        set_size: called before a phase whose input size differs from the one before; it renews `learn.dls`.
    """
    trained_at = None
    for number, phase in enumerate(phases):
        if phase.epochs == 0:
            checkpoint.state.phase = max(checkpoint.state.phase, number + 1)
            continue
        if number < checkpoint.state.phase:
            trained_at = phase.size
            continue
        if checkpoint.state.epoch == 0 and trained_at not in (None, phase.size):
            # Another size, another network: its scores do not compare with the last one's.
            checkpoint.state.best_row = -1
        trained_at = phase.size
        set_size(phase.size)
        checkpoint.end_in = soup.end(number) if phase.anew else None
        if phase.anew and checkpoint.state.epoch == 0:
            if number == 0 or not phases[number - 1].anew:
                checkpoint.processes.by_first(lambda: soup.begin(learn.model, first=True))
            soup.begin(learn.model, first=False)
        learn.freeze() if phase.frozen else learn.unfreeze()
        learn.model.zero_grad(set_to_none=True)  # fastai steps whatever has a gradient, frozen or not
        checkpoint.phase_name = phase.name
        learn.fit_one_cycle(
            phase.epochs, phase.lr, cbs=[EpochBar(), checkpoint], reset_opt=True, start_epoch=checkpoint.state.epoch
        )
