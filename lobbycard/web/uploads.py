"""How pictures come in through a Gradio page: as files that were uploaded, are read once, and deleted seconds later.

Gradio itself keeps uploads until the process ends, fetches any address that a client writes where a file is expected, and
remembers what it showed to every visitor. Importing this imports gradio.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client import utils as client_utils

from lobbycard.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

KEEP = 300  # seconds after which an upload that no event came for is deleted
LINGER = 3  # seconds that a file stays after it was read: the browser shows it from there until the answer has come
BUDGET = 1_000_000_000  # bytes of all uploads together: two full batches of large files, and small beside any disk
SWEEP = 1  # seconds between two looks for files whose time is over
PREFIX = "lobbycard-uploads-"
DEAD = 60  # seconds without a look after which a folder's process must have been killed


class Uploads(set):
    """Paths of uploaded files, as Gradio's own set, and how many uploads each stands for.

    Gradio names an upload's folder after its content, so two visitors with the same picture share one file: it is deleted
    when the last of them has been read.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def update(self, *paths: Iterable[str]) -> None:
        with self._lock:
            for path in [path for path in self if not os.path.exists(path)]:  # noqa: PTH110 - swept away, never read
                self._forget(path)
            for path in (str(path) for group in paths for path in group):
                self._counts[path] += 1
                self.add(path)

    def take(self, path: Path) -> bytes:
        """The file's bytes; the file goes at the next sweep.

        Raises:
            FileNotFoundError: it was read before, lay too long, or was never uploaded: other files are neither read nor
                deleted.
        """
        with self._lock:
            if str(path) not in self._counts:
                raise FileNotFoundError(path)
            self._counts[str(path)] -= 1
            last = self._counts[str(path)] <= 0
            try:
                return path.read_bytes()
            finally:
                if last:
                    self._forget(str(path))
                    with contextlib.suppress(OSError):
                        over = time.time() - KEEP + LINGER
                        os.utime(path, (over, over))

    def keep(self, paths: Iterable[str]) -> None:
        """Those of the paths that are uploads and not read yet are needed: their time begins anew."""
        with self._lock:
            for path in paths:
                if path in self._counts:
                    with contextlib.suppress(OSError):
                        os.utime(path)

    def _forget(self, path: str) -> None:
        self.discard(path)
        self._counts.pop(path, None)


@dataclass(frozen=True)
class Upload:
    """One uploaded file, still on disk. `name` is what its owner calls it: untrusted text."""

    name: str
    path: Path
    uploads: Uploads

    def take(self) -> bytes:
        """Its bytes, once. Raises InputError where there is nothing any more."""
        try:
            return self.uploads.take(self.path)
        except OSError:
            raise InputError("the upload is gone, or never was one; choose the picture once more") from None


class Blocks(gr.Blocks):
    """`gr.Blocks` that fetches nothing a client names, counts uploads, and remembers nothing that it showed.

    Events that take files have `preprocess=False` and call `uploads`: left to itself, Gradio decodes pictures, where no limit
    holds, and copies files.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.upload_file_set = Uploads()
        self.temp_file_sets = [self.upload_file_set]

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        """Every event's inputs pass here, whichever route they came by, before Gradio opens or fetches what they name.

        Gradio's own check looks only at files that say they are some (`meta`), lets addresses through, and refuses all files
        for one that is gone. So it sees none of those that `uploads` will check one by one.
        """
        self.keep_waiting(inputs)
        files = {} if block_fn.preprocess else dict(self._files(block_fn, inputs))
        rest = [None if n in files else value for n, value in enumerate(inputs)]
        client_utils.traverse(rest, self._check_uploaded, _names_file)
        try:
            processed = await super().preprocess_data(block_fn, rest, state, explicit_call)
        except gr.Error as error:  # a value out of its range: the visitor's mistake, not one of this program's
            error.print_exception = False
            raise
        except (TypeError, ValueError, KeyError, AttributeError) as error:  # of a kind that the page never sends
            raise gr.Error(f"unexpected input ({type(error).__name__})", print_exception=False) from None
        return [files.get(n, value) for n, value in enumerate(processed)]

    async def postprocess_data(self, block_fn, predictions, state):
        """Gradio keeps each visitor's last outputs for links to them, which there are none of here: pictures would pile up."""
        try:
            return await super().postprocess_data(block_fn, predictions, state)
        finally:
            if state is not None:
                # An output that was skipped is a new block from then on, with a number of its own.
                known = {block._id for block in block_fn.outputs}
                for key in [key for key in state.config_values if key in known or key not in self.blocks]:
                    del state.config_values[key]

    async def forget(self, request: gr.Request) -> None:
        """For `unload`: all that is known of a visitor who closed the page, which Gradio would keep for an hour.

        Asynchronous, so that it runs where Gradio itself walks through the sessions.
        """
        self.state_holder.session_data.pop(request.session_hash, None)
        self.state_holder.time_last_used.pop(request.session_hash, None)

    def keep_waiting(self, *more: Any) -> None:
        """Uploads of the events that wait in the queue, and those named in `more`, are needed still."""
        queues = getattr(getattr(self, "_queue", None), "event_queue_per_concurrency_id", {}).values()
        waiting = [getattr(event.data, "data", None) for queue in list(queues) for event in list(queue.queue)]
        named: list[str] = []
        client_utils.traverse([*waiting, *more], lambda file: named.append(str(file["path"])) or file, _names_file)
        self.upload_file_set.keep(named)

    def uploads(self, value: Any) -> list[Upload]:
        """What an event's file input holds: None, one file, or a list of them, as Gradio's plain dicts.

        Whether a file is an upload shows when it is taken.
        """
        files = [] if value is None else value if isinstance(value, list) else [value]
        return [self._upload(file) for file in files]

    def _upload(self, file: Any) -> Upload:
        if not isinstance(file, dict) or not isinstance(file.get("path"), str):
            raise gr.Error("expected an uploaded file; upload the picture itself", print_exception=False)
        return Upload(str(file.get("orig_name") or Path(file["path"]).name), Path(file["path"]), self.upload_file_set)

    def _files(self, block_fn: Any, inputs: list[Any]) -> Iterator[tuple[int, Any]]:
        for n, (block, value) in enumerate(zip(block_fn.inputs, inputs, strict=False)):
            if isinstance(block, gr.Image | gr.File) and value is not None:
                yield n, value

    def _check_uploaded(self, file: dict) -> dict:
        if file["path"] not in self.upload_file_set:
            raise gr.Error("the upload is gone, or never was one; choose the picture once more", print_exception=False)
        return file


def _names_file(value: Any) -> bool:
    return isinstance(value, dict) and "path" in value


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder of this process alone for what Gradio must write; swept while it lasts, removed at the end.

    Uploads that broke off, and those that no event came for, are deleted after `KEEP` seconds, or the oldest earlier when all
    take more than `BUDGET`; folders of processes that were killed, when the next one starts.
    """
    before = os.environ.get("GRADIO_TEMP_DIR")
    for left in Path(before or tempfile.gettempdir()).glob(f"{PREFIX}*"):  # by a process that could not clean up
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > DEAD and not _locked(left):
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=before, ignore_cleanup_errors=True) as folder, _lock(folder):
        os.environ["GRADIO_TEMP_DIR"] = folder
        done = threading.Event()
        sweeper = threading.Thread(target=_sweep, args=(Path(folder), done), name="sweeper", daemon=True)
        sweeper.start()
        try:
            yield Path(folder)
        finally:
            done.set()
            sweeper.join()
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


@contextlib.contextmanager
def _lock(folder: Path | str) -> Iterator[None]:
    """Hold a folder, where this system can: the lock lasts as long as the process, even a suspended one, and no longer.

    Raises:
        BlockingIOError: a living process holds it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # some disks over a network have no locks
            pass
        yield
    finally:
        os.close(handle)


def _locked(folder: Path) -> bool:
    """Whether a living process holds it."""
    try:
        with _lock(folder):
            return False
    except BlockingIOError:
        return True


def _sweep(folder: Path, done: threading.Event) -> None:
    while not done.wait(SWEEP):
        with contextlib.suppress(OSError):  # whatever somebody else does to the folder, the next look comes
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)  # a sign of life for the next process that starts, where folders cannot be locked
            _look(folder)


def _look(folder: Path) -> None:
    now, kept = time.time(), []
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        with contextlib.suppress(OSError):  # gone by itself, or a folder that is not empty
            about = path.stat()
            if now - about.st_mtime > KEEP:
                path.rmdir() if path.is_dir() else path.unlink()
            elif path.is_file():
                kept.append((about.st_mtime, about.st_size, path))
    over = sum(size for _, size, _ in kept) - BUDGET
    for _, size, path in sorted(kept):  # those that no event waits for are the oldest
        if over <= 0:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            over -= size
