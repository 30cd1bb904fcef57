"""Files that are written whole or not at all, and cells of a CSV that stay text."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lobbycard.errors import InputError

NO_ROOM = 1 << 16  # bytes
SAVED_EVERY = 5.0  # seconds after which a growing file is put on the disk


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends well, and is removed otherwise.

    The content is flushed to the disk before the rename, so a power cut leaves the old file or the new one.
    A symbolic link stays one: the file that it points at is written.

    Raises:
        InputError: no file can be written there.
    """
    check_destination(path)
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name cut short: with what is added here, one as long as the file system allows would be too long.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=f".part{path.suffix[:20]}"
        )
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner may read
        try:
            part.replace(path)
        except OSError as error:
            raise _cannot_write(path, error) from error
    except BaseException as error:
        # torch.save tells of a full disk as "unexpected pos", a RuntimeError.
        full = isinstance(error, RuntimeError) and shutil.disk_usage(part.parent).free < NO_ROOM
        part.unlink(missing_ok=True)
        if full:
            raise _cannot_write(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
        raise


class Growing:
    """A file of rows that takes long: what is written of it survives the process, and the next one goes on there.

    Until it is finished it lies beside `path` under another name, and beside it how far it has come.
    """

    def __init__(self, path: Path, key: str):
        """`key` says what will be in it: an unfinished file of another key is begun anew."""
        check_destination(path)
        self.path, self.key = Path(os.path.realpath(path)) if path.is_symlink() else path, key
        name = f".{path.name[:40]}-{hashlib.sha256(os.fsencode(self.path.name)).hexdigest()[:8]}.unfinished"
        self.part, self.note, lock = (self.path.with_name(name + end) for end in ("", ".json", ".lock"))
        self.rows = 0  # that are whole in it
        self._bytes = 0  # that these have
        self._lock = FileLock(lock, timeout=0)
        self._saved = 0.0

    def __enter__(self) -> "Growing":
        """Raises InputError where nothing can be written, or another process is writing the same file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._find()
            self._file = self.part.open("rb+" if self._bytes else "wb")
            self._file.truncate(self._bytes)
            self._file.seek(0, os.SEEK_END)
        except Timeout:
            raise InputError(
                f"{self.path}: another process is writing it; wait for that, or give another name"
            ) from None
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        return self

    def write(self, text: str, rows: int) -> None:
        """Add some rows; every few seconds they are put on the disk for good."""
        try:
            # A name that is no text (bytes of another encoding, on Linux) is shown with its bytes escaped.
            self._file.write(text.encode("utf-8", errors="backslashreplace"))
            self.rows, self._bytes = self.rows + rows, self._file.tell()
            if time.monotonic() - self._saved > SAVED_EVERY:
                self._save()
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Finished without an error, the file takes its name; else it stays as far as it has come."""
        try:
            self._file.truncate(self._bytes)  # an error, or Ctrl-C, may have come in the middle of a write
            self._save()
            self._file.close()
            if kind is None:
                self.part.replace(self.path)
                self.note.unlink(missing_ok=True)
        except OSError as error:
            if kind is None:
                raise _cannot_write(self.path, error) from error
        finally:
            self._file.close()
            # Removed while it is held, or it might be another's by then; on Windows filelock removes it.
            with suppress(OSError):
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _save(self) -> None:
        """Put what is whole on the disk, and note how far that is."""
        self._file.flush()
        os.fsync(self._file.fileno())
        write_text(self.note, json.dumps({"key": self.key, "rows": self.rows, "bytes": self._bytes}))
        self._saved = time.monotonic()

    def _find(self) -> None:
        """What of an earlier process's rows is whole."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if note["key"] == self.key and self.part.stat().st_size >= note["bytes"]:
                self.rows, self._bytes = int(note["rows"]), int(note["bytes"])


def check_destination(path: Path, inputs: Iterable[Path] = ()) -> None:
    """See that a file may be put at `path`, before the work whose result it takes.

    Raises:
        InputError: something else than a file is there (a rename would take the place of a device), or `path` is one of
            the `inputs`, under whatever name.
    """
    try:
        there = path.stat()
    except OSError:
        return
    if not stat.S_ISREG(there.st_mode):
        what = "a folder" if stat.S_ISDIR(there.st_mode) else "a device or a pipe"
        raise InputError(f"{path}: {what} is there; expected the name of a file to write")
    for given in inputs:
        with suppress(OSError):
            if os.path.samestat(given.stat(), there):
                raise InputError(f"{path}: the result would overwrite {given}, which is read; give it another name")


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}); make room there, or choose another place"
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def harmless(text: str) -> str:
    """Somebody else's words for a cell of a CSV, so that no spreadsheet takes them for a formula.

    Source: OWASP, "CSV Injection": cells that begin with = + - @, tab or carriage return.
    """
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r") else text


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
