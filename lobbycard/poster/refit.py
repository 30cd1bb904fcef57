"""The same training once more, on all movies: once it is known how good a model is, none has to be set apart any longer."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from lobbycard.poster.checkpoint import STATE
from lobbycard.poster.dataset import Dataset

if TYPE_CHECKING:
    from lobbycard.poster.trainer import MovieGenreTrainer


def refit_folder(out: Path) -> Path:
    """Where a run trains anew, until its model is written."""
    return out / "checkpoints" / "refit"


def train_on_all(trainer: "MovieGenreTrainer") -> nn.Module:
    """A network trained by the trainer's own settings on its movies of both sides; nothing is measured meanwhile.

    Of a soup the average is taken, else the last epoch. What the frozen lower half answers is not computed again. Interrupted,
    it goes on from its last finished epoch.

    Raises:
        InputError: training diverged, or memory runs out.
    """
    data, folder = trainer.data, refit_folder(trainer.config.out)
    begun = trainer.config.resume and (folder / "checkpoints" / STATE).is_file()
    config = replace(
        trainer.config, out=folder, resume=begun, refit=False, learning_curve=False, split_from=None, tracker="none"
    )
    runner = type(trainer)(config, say=lambda text: trainer.say(f"  {text.strip()}"))
    runner.data = Dataset(data.frame.assign(is_valid=False), data.labels, data.about)
    runner.answers = trainer.checkpoints
    runner.fit()
    return runner.network
