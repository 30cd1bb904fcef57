"""Where a run's movies come from when no table is named: MovieGenre.csv if it is here, else the drawn sample."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lobbycard.catalog import sample
from lobbycard.errors import InputError
from lobbycard.poster.config import Config

SAMPLE_FOLDER = Path("data/sample")


@contextmanager
def movie_table(config: Config, say: Callable[[str], None] = print) -> Iterator[Config]:
    """The settings with a table in them; while open, the sample's posters are served over HTTP on this machine."""
    if config.csv is not None:
        yield config
        return
    if config.resume:
        from lobbycard.poster.checkpoint import (
            load_state,
        )  # torch, which a fresh run on the sample need not wait for here

        load_state(config.out / "checkpoints")  # or say that there is none, before the sample is drawn anew
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("several processes train on a table of your own: give --csv, or leave torchrun out")
    say(f"no --csv and no MovieGenre.csv here: training on the embedded sample, {config.limit} posters drawn by code")
    with sample.serve(SAMPLE_FOLDER) as address:
        table = sample.write_sample(SAMPLE_FOLDER, n=config.limit, seed=config.seed, base_url=address)
        yield replace(config, csv=table)
