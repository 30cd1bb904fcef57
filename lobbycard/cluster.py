"""Work on very large tables spread over a Ray cluster, or over one that is started on this machine."""

import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lobbycard.errors import InputError

Engine = Literal["local", "ray"]
RETRIES = 3
BLOCK = 2000  # items that are handed out together: what a worker that dies loses, and another one does again


def connect() -> Any:
    """The `ray` module, connected to the cluster of RAY_ADDRESS, or to one that is started here.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError("--engine ray: Ray is not installed here; pip install '.[ray]'") from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of its own defaults
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
        _knock(os.environ.get("RAY_ADDRESS", ""))
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # Without an address Ray would join any cluster that somebody has started on this machine.
        named = os.environ.get("RAY_ADDRESS")
        settings = {"address": named} if named else {"address": "local", "include_dashboard": False}
        try:
            ray.init(
                logging_level="ERROR", log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}}, **settings
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"--engine ray: Ray could not be started or reached: {error}") from error
    for name in ("ray", "ray.data"):  # which tell at length how their work is going
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True  # answers are written as they come, in the table's order
    context.enable_progress_bars = False
    return ray


def _knock(address: str) -> None:
    """Raises InputError if nothing listens at a host and port, which Ray itself finds out after minutes."""
    if not (there := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)):
        return
    try:
        socket.create_connection((there[1], int(there[2])), timeout=10).close()
    except OSError as error:
        raise InputError(f"--engine ray: no cluster at {address} (RAY_ADDRESS): {error}") from error


def spread(
    items: Sequence[Any], work: type, made_with: dict[str, Any], threads: int = 0, first: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """What workers make of `items`, in their order, each once, whatever worker dies meanwhile.

    Args:
        items: what can be sent: texts, bytes or numbers.
        work: a class; a worker makes one with `made_with` and `threads`, and calls it with {"item": (B,), "number": (B,)}, B of
            the items and their places; it gives a dict of arrays of as many rows.
        threads: processors of a worker; 0 takes four, or all that a small machine has.
        first: items before this one are left out.

    Yields:
        what the workers give, some at a time, without "number".

    Raises:
        InputError: the cluster cannot be had, or a worker cannot do the work; in its words where it has any.
        RuntimeError: items came back that are not those sent: never seen, and never passed over.
    """
    import pyarrow

    if first == len(items):
        return
    ray = connect()
    threads, workers = worker_threads(ray.nodes(), threads)
    numbers = np.arange(first, len(items))
    block = max(1, min(BLOCK, len(numbers) // (4 * workers)))  # a few for each worker, so that all end together
    tables = [
        pyarrow.table({"item": [items[n] for n in some], "number": some})
        for some in np.array_split(numbers, -(-len(numbers) // block))
    ]
    # A worker that dies is begun again, and so is its batch: Ray's own default for actors of a pool.
    found = ray.data.from_arrow(tables).map_batches(
        work, fn_constructor_kwargs={**made_with, "threads": threads}, batch_size=64, batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers), num_cpus=threads,
    )  # fmt: skip
    expected = first
    for batch in _in_words(found.iter_batches(batch_size=1024, batch_format="numpy")):
        came = batch.pop("number")
        if not np.array_equal(came, np.arange(expected, expected + len(came))):
            raise RuntimeError(
                f"expected item {expected} and those after it, {came[:3]} came: nothing of this is written"
            )
        expected += len(came)
        yield batch
    if expected != len(items):
        raise RuntimeError(f"expected {len(items)} items, {expected} came")


def each(work: Callable[..., Any], pieces: Iterable[tuple], at_once: int) -> Iterator[Any]:
    """Call `work(*piece)` somewhere in the cluster for each piece, so many at a time; one whose worker dies is begun again.

    Args:
        work: waits more than it computes, so no processors are set aside for it.

    Yields:
        what the calls give, as they end. Closed, it stops those that are still running.

    Raises:
        InputError: as `spread`; a piece has ended `RETRIES` workers more.
    """
    ray = connect()
    task, pieces, running = ray.remote(num_cpus=0, max_retries=RETRIES)(work), iter(pieces), []

    def ended() -> Iterator[Any]:
        nonlocal running
        while True:
            running += [task.remote(*piece) for piece in islice(pieces, at_once - len(running))]
            if not running:
                return
            (done, *_), running = ray.wait(running)
            yield ray.get(done)

    try:
        yield from _in_words(ended())
    finally:  # stopped or failed: nobody may go on with it
        for one in running:
            ray.cancel(one, force=True)
        ray.wait(running, num_returns=len(running), timeout=10) if running else None


def worker_threads(nodes: list[dict[str, Any]], threads: int = 0) -> tuple[int, int]:
    """Processors of a worker, and how many workers there is room for; a worker lives on one machine.

    Args:
        nodes: as `ray.nodes()` tells of them.
        threads: those of a worker; 0 takes four, or what the smallest machine has.
    """
    cores = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    cores = [count for count in cores if count > 0] or [1]
    threads = threads or min(4, *cores)
    return threads, max(1, sum(count // threads for count in cores))


def _in_words(found: Iterable[Any]) -> Iterator[Any]:
    """The same; what went wrong in a worker is told without the pages that Ray puts around it."""
    from ray.exceptions import RayError

    try:
        yield from found
    except RayError as error:
        # Ray's text ends with the line that the worker's own traceback ended with.
        last = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        words = last.partition(f"{InputError.__name__}: ")[2]
        raise InputError(words or f"--engine ray: a worker failed: {last}") from error
