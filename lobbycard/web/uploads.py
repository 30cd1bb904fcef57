"""How pictures come in through a Gradio page: as files that were uploaded, are read once, and deleted seconds later.

Gradio itself keeps uploads until the process ends, and fetches any address that a client writes where a file is expected.
Importing this imports gradio.
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

KEEP = 300  # seconds after which an upload that no event came for is deleted
LINGER = 3  # seconds that a file stays after it was read: the browser shows it from there until the answer has come
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
        """Its bytes, once. Raises gr.Error where there is nothing any more."""
        try:
            return self.uploads.take(self.path)
        except OSError:
            raise gr.Error("the upload is gone; choose the picture once more", print_exception=False) from None


class Blocks(gr.Blocks):
    """`gr.Blocks` that fetches nothing a client names, and whose uploads are counted.

    Events that take files have `preprocess=False` and call `uploads`: left to itself, Gradio decodes pictures, where no limit
    holds, and copies files.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.upload_file_set = Uploads()
        self.temp_file_sets = [self.upload_file_set]

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        """Every event's inputs pass here, whichever route they came by, before Gradio opens or fetches what they name.

        Gradio's own check looks only at files that say they are some (`meta`), and lets addresses through.
        """
        client_utils.traverse(inputs, self._check_uploaded, _names_file)
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)

    def uploads(self, value: Any) -> list[Upload]:
        """What an event's file input holds: None, one file, or a list of them, as Gradio's plain dicts."""
        files = [] if value is None else value if isinstance(value, list) else [value]
        return [self._upload(file) for file in files]

    def _upload(self, file: Any) -> Upload:
        if not isinstance(file, dict) or not isinstance(file.get("path"), str):
            raise gr.Error("expected an uploaded file; upload the picture itself", print_exception=False)
        path = Path(self._check_uploaded(file)["path"])
        return Upload(file.get("orig_name") or path.name, path, self.upload_file_set)

    def _check_uploaded(self, file: dict) -> dict:
        if file["path"] not in self.upload_file_set:
            raise gr.Error("the upload is gone, or never was one; choose the picture once more", print_exception=False)
        return file


def _names_file(value: Any) -> bool:
    return isinstance(value, dict) and "path" in value


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder of this process alone for what Gradio must write; swept while it lasts, removed at the end.

    Uploads that broke off, and those that no event came for, are deleted after `KEEP` seconds; folders of processes that were
    killed, when the next one starts.
    """
    before = os.environ.get("GRADIO_TEMP_DIR")
    for left in Path(before or tempfile.gettempdir()).glob(f"{PREFIX}*"):  # by a process that could not clean up
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > DEAD:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=before, ignore_cleanup_errors=True) as folder:
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


def _sweep(folder: Path, done: threading.Event) -> None:
    while not done.wait(SWEEP):
        os.utime(folder)  # a sign of life for the next process that starts
        for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
            with contextlib.suppress(OSError):  # gone by itself, or a folder that is not empty
                if time.time() - path.stat().st_mtime > KEEP:
                    path.rmdir() if path.is_dir() else path.unlink()
