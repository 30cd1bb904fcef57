"""A model soup: several trainings from one start, whose weights are averaged into one network.

It answers about as well as the average of all their answers, and costs what one of them costs. Source: Wortsman et al. 2022,
"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time".
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lobbycard.poster.checkpoint import read_weights, save_weights

SOUP = "soup"  # of the folder in checkpoints/, and of its row in the history


class Soup:
    """The start and the ends of the trainings, each a file, so that a run that is killed finds them again."""

    def __init__(self, checkpoints: Path):
        self.folder = checkpoints / SOUP

    def begin(self, network: nn.Module, first: bool) -> None:
        """Put `network` at the common start, which is where it stands before the `first` training.

        Raises:
            InputError: a later training's start is gone or damaged.
        """
        start = self.folder / "start.pth"
        if first:
            save_weights(network, start)
        else:
            network.load_state_dict(read_weights(start))

    def end(self, number: int) -> Path:
        """Where the last weights of the training of that number are kept."""
        return self.folder / f"end{number}.pth"

    def pour(self, network: nn.Module, numbers: Sequence[int]) -> None:
        """Give `network` the mean of the ends of these trainings; what cannot be averaged (counters) is that of the first.

        Raises:
            InputError: the weights of one are gone or damaged.
        """
        first, *others = (read_weights(self.end(number)) for number in numbers)
        for name, value in first.items():
            if value.is_floating_point():
                value.copy_(torch.stack([value, *(other[name] for other in others)]).double().mean(dim=0))
        network.load_state_dict(first)

    def clear(self) -> None:
        """Remove the files."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
