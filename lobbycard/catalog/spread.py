"""A download spread over a Ray cluster."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from lobbycard import cluster
from lobbycard.catalog.download import DownloadOptions, Note, Task, settle_here
from lobbycard.catalog.manifest import Entry, open_journal
from lobbycard.catalog.transport import Transport
from lobbycard.errors import InputError

SHARES = 8  # workers at a time: each has a share of the connections
PIECE = 256  # pictures that a worker settles in one go, and that are fetched again if it dies


def settle_on_ray(tasks: list[Task], folder: Path, options: DownloadOptions, note: Note) -> Iterator[Entry]:
    """As `settle_here`, in workers that all see the folder; what a host has asked for is known to each worker by itself.

    Every worker has a journal of its own beside the manifest, which this process alone writes: killed, nothing is lost that was
    settled. `note` is not called.

    Args:
        options: `connections` are those of all workers together.

    Raises:
        InputError: the cluster cannot be had, or its workers do not see the folder.
    """
    if not tasks:
        return
    pieces = [tasks[begin : begin + PIECE] for begin in range(0, len(tasks), PIECE)]
    at_once = max(1, min(SHARES, options.connections, len(pieces)))
    share = replace(options, connections=options.connections // at_once)
    run = uuid4().hex[:8]
    given = ((piece, str(folder.resolve()), share, run) for piece in pieces)
    for entries in cluster.each(_settle_some, given, at_once):
        for entry in entries:
            _see(entry, folder)
            yield entry


def _settle_some(tasks: list[Task], folder: str, options: DownloadOptions, run: str) -> list[Entry]:
    with open_journal(Path(folder), f"{run}-{socket.gethostname()}-{os.getpid()}") as note:
        return list(settle_here(tasks, Path(folder), options, note, _transport(options, run)))


@lru_cache(1)
def _transport(options: DownloadOptions, run: str) -> Transport:
    """This worker's, for all pieces of a run: which hosts are down, or have asked to be left alone, is not found out anew."""
    return Transport(options)


def _see(entry: Entry, folder: Path) -> None:
    """Raises InputError if a picture that a worker has stored is not here."""
    if entry.status == "ok":
        try:
            size = (folder / entry.file).stat().st_size
        except FileNotFoundError:
            size = None
        if size != entry.bytes:
            raise InputError(
                f"--engine ray: a worker stored {entry.file} in {folder.resolve()}, and it is not there: the machines of the "
                "cluster have to see the same folder"
            )
