"""Files that are written whole or not at all, and cells of a CSV that stay text."""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lobbycard.errors import InputError

NO_ROOM = 1 << 16  # bytes


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
