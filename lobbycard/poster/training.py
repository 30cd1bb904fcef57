"""How each strategy trains a trainer's network: by phases of epochs, whole or its upper half, or by fitting a head."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn

from lobbycard.errors import InputError
from lobbycard.files import atomic_path
from lobbycard.poster.checkpoint import BEST, HISTORY, Checkpoint, RunState, read_weights, save_weights
from lobbycard.poster.halfway import HalfwayFile, half_answers, halfway_dataloaders
from lobbycard.poster.halves import Halves, cut
from lobbycard.poster.inference import each_batch, frozen_forward, network_outputs, without_head
from lobbycard.poster.learning import DIVERGED, fitting
from lobbycard.poster.network import head_name
from lobbycard.poster.probe import fit_head, set_head
from lobbycard.poster.refit import refit_folder
from lobbycard.poster.soup import SOUP, Soup
from lobbycard.poster.strategies import PHASED, repeated, run_phases
from lobbycard.progress import progress

if TYPE_CHECKING:
    from lobbycard.poster.trainer import MovieGenreTrainer

HALFWAY, FEATURES = "halfway.f16", "features.npy"  # in checkpoints/, while `cached` trains
FITTED = "fitted"  # of the head's row in the history, before anything was trained by steps


def train(trainer: "MovieGenreTrainer") -> None:
    """Train `trainer.network` by `config.strategy`, and keep its weights in checkpoints/. Raises InputError."""
    config, measured = trainer.config, bool(trainer.data.frame["is_valid"].any())
    state = RunState(trainer.settings)
    checkpoint = Checkpoint(
        trainer.checkpoints, state, config.seed, config.patience, trainer.say, measured, trainer.processes
    )
    if config.resume:
        checkpoint.load()  # refuses other settings before anything is put in the place of what is there
    trainer.processes.by_first(lambda: _sweep(trainer))
    if config.strategy == "probe":
        _probe(trainer)
    elif config.strategy == "cached":
        _upper_half(trainer, checkpoint)
    else:
        _run(trainer, checkpoint, lambda: trainer.learn, trainer.network)


def _sweep(trainer: "MovieGenreTrainer") -> None:
    """Remove what an earlier run left: parts of files, and in a run that begins anew what it had kept."""
    for left in trainer.checkpoints.glob(".*.part*"):  # of a run killed while it saved
        left.unlink()
    if not trainer.config.resume:
        forget_answers(trainer.checkpoints)
        Soup(trainer.checkpoints).clear()
        shutil.rmtree(refit_folder(trainer.config.out), ignore_errors=True)


def _upper_half(trainer: "MovieGenreTrainer", checkpoint: Checkpoint) -> None:
    """Train the upper half on what the frozen lower half answers, from a head that is fitted on the whole's features."""
    config, data = trainer.config, trainer.data
    is_valid = data.frame["is_valid"].to_numpy()
    halves = cut(trainer.network, trainer.size)
    file = halfway_file(trainer, halves)
    kept = trainer.answers / FEATURES
    another_runs = trainer.answers != trainer.checkpoints  # that has just made them, of the same movies

    def prepare() -> dict[str, torch.Tensor]:
        if not ((config.resume or another_runs) and file.whole and kept.is_file()):
            trainer.say(
                f"  the lower {halves.share:.0%} of the network stays as it is: its answers take {file.size / 1e9:.1f} GB"
            )
            features = _answer_halfway(trainer, halves, file)
            with atomic_path(kept) as part, part.open("wb") as features_file:
                np.save(features_file, features)
        if not config.resume:
            _fit_head(trainer, np.load(kept, allow_pickle=False)[~is_valid])
        return trainer.network.state_dict()

    trainer.network.load_state_dict(trainer.processes.by_first(prepare))  # the fitted head is measured by all

    def learner() -> Learner:
        set_seed(config.seed)
        dls = halfway_dataloaders(
            file, data.truth, is_valid, trainer.batch_share, trainer.device, trainer.processes.count
        )
        return trainer.learner(dls, halves.upper, lambda upper: [list(upper.parameters())])

    _run(trainer, checkpoint, learner, halves.upper)
    if trainer.processes.first:
        _keep_weights(trainer)  # of the whole network, not of its upper half
        if not (config.refit or another_runs):
            forget_answers(trainer.checkpoints)


def _probe(trainer: "MovieGenreTrainer") -> None:
    _fit_head(trainer, _features(trainer))
    trainer.chosen = "the fitted head"
    _keep_weights(trainer)
    (trainer.checkpoints / HISTORY).unlink(missing_ok=True)  # of an earlier run


def _run(
    trainer: "MovieGenreTrainer", checkpoint: Checkpoint, make_learner: Callable[[], Learner], network: nn.Module
) -> None:
    """Train `network`, which is the trainer's or a part of it, by the strategy's phases; it ends as its best row of history."""
    config, folder = trainer.config, trainer.checkpoints
    state = checkpoint.state
    if config.resume:
        trainer.say(f"  resuming after {state.epochs} finished epoch{'s' if state.epochs != 1 else ''}")
    checkpoint.load_weights(network)
    learn, phases, soup = make_learner(), repeated(PHASED[config.strategy](config), config.soup), Soup(folder)
    checkpoint.learn = learn
    with fitting(learn, config), trainer.processes.together(learn):
        if not config.resume:
            if config.strategy == "cached" and checkpoint.measured:
                checkpoint.judge(FITTED)  # where training makes nothing better of the fitted head, that goes out
            checkpoint.save()  # from here on there is something to resume
        run_phases(learn, phases, checkpoint, trainer.set_size, soup)
        trainer.set_size(phases[-1].size)  # resumed after its last epoch, a run has not come past its sizes
        if phases[-1].anew and state.history[-1]["phase"] != SOUP:
            trainer.processes.wait()  # for the last end to be on the disk
            soup.pour(learn.model, [number for number, phase in enumerate(phases) if phase.anew])
            checkpoint.learn = learn  # which fastai has taken from it
            checkpoint.judge(SOUP)
    trainer.processes.wait()
    best = read_weights(folder / BEST)
    # Resumed after its training had ended, a run of `cached` finds the whole network's weights there, not the upper half's.
    network.load_state_dict({name: best[name] for name in network.state_dict()})
    trainer.processes.wait()
    if trainer.processes.first:
        soup.clear()
    trainer.history = state.history
    if not checkpoint.measured:
        if not all(torch.isfinite(value).all() for value in best.values() if value.is_floating_point()):
            raise InputError(DIVERGED)
        return
    trainer.chosen = _described(state.history[state.best_row])
    worse = "; the average of the weights is no better" * (phases[-1].anew and state.best_row < len(state.history) - 1)
    trainer.say(f"  best: {trainer.chosen}{worse}. Validation mAP {state.best:.4f}")


def _described(row: dict[str, Any]) -> str:
    """Which weights a row of the history measured."""
    kinds = {
        FITTED: "the fitted head, before any epoch",
        SOUP: "the average of the weights that the trainings ended with",
    }
    return kinds.get(row["phase"], f"epoch {row['epoch']}")


def _features(trainer: "MovieGenreTrainer") -> np.ndarray:
    """What the network's last layer is given for each training poster and its mirror image, averaged: (N, D)."""
    paths = list(trainer.data.side(False)["path"])
    with progress(len(paths), "features") as bar, without_head(trainer.network) as body:
        forward = frozen_forward(body, (3, *trainer.size), trainer.device, trainer.precision)
        return network_outputs(forward, paths, trainer.size, trainer.mean, trainer.std, bar=bar, mirrored=True)


def halfway_file(trainer: "MovieGenreTrainer", halves: Halves) -> HalfwayFile:
    """The file of what the lower half answers, for as many movies as the trainer has by now."""
    return HalfwayFile(trainer.answers / HALFWAY, len(trainer.data.frame), halves.shape)


def forget_answers(checkpoints: Path) -> None:
    """Remove what is kept of a network's frozen half."""
    for name in (HALFWAY, FEATURES):
        (checkpoints / name).unlink(missing_ok=True)


def _answer_halfway(trainer: "MovieGenreTrainer", halves: Halves, file: HalfwayFile) -> np.ndarray:
    """Write what the lower half answers to every poster; returns the whole network's features, as `_features` but of all."""
    paths, pooled = list(trainer.data.frame["path"]), []
    with progress(len(paths), "features") as bar, without_head(halves.upper, head_name(trainer.network)) as body:
        lower = frozen_forward(halves.lower, (3, *trainer.size), trainer.device, trainer.precision)
        upper = frozen_forward(body, halves.shape, trainer.device, trainer.precision)

        def answers() -> Iterator[np.ndarray]:
            batches = each_batch(half_answers, [lower, upper], paths, trainer.size, trainer.mean, trainer.std)
            for maps, features in batches:
                pooled.append(features)
                bar.update(len(features))
                yield maps

        file.write(answers())
    return np.concatenate(pooled)


def _fit_head(trainer: "MovieGenreTrainer", features: np.ndarray) -> None:
    """Fit the network's head on the training posters' features, (N, D)."""
    data = trainer.data
    truth = data.truth[~data.frame["is_valid"].to_numpy()]
    groups = data.side(False)["group"].to_numpy()
    set_head(trainer.network, *fit_head(features, truth, groups, trainer.config.seed, trainer.say))


def _keep_weights(trainer: "MovieGenreTrainer") -> None:
    save_weights(trainer.network, trainer.checkpoints / BEST)
