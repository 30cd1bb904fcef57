"""The folder of a staged Space: what its marker says of it, and its renewal, whole or not at all.

It may come from elsewhere, a clone of somebody's Space for one, so no name in it is followed out of it.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from lobbycard.errors import InputError
from lobbycard.web.space_card import read_card

MARKER, README = "lobbycard-space.json", "README.md"
SPACE_VERSION = 1
LEFT_BY_RUNS = ("__pycache__", ".gradio", "*.pyi")  # gradio writes type stubs beside components


def read_marker(out: Path) -> dict[str, Any] | None:
    """What a staged Space says of itself, `files` (name -> sha256) among it; None where there is none.

    Raises:
        InputError: it names files outside of the folder, or lacks what lobbycard writes into it.
    """
    try:
        about = json.loads((out / MARKER).read_text(encoding="utf-8"))
        if about["space_version"] != SPACE_VERSION:
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(about.get("files"), dict) or not isinstance(about.get("model_format"), int):
        raise InputError(
            f"{out / MARKER}: expected an object 'files' and a number 'model_format'; it was edited or damaged, stage into a "
            "new folder"
        )
    for name in about["files"]:
        if not _inside(name):
            raise InputError(
                f"{out / MARKER}: expected names of files in this folder, found {name[:200]!r}; lobbycard wrote no such name, "
                "so trust nothing here and stage into a new folder"
            )
    return about


def sizes(out: Path) -> dict[str, int]:
    """Bytes of a staged Space: by first part of the name, and in `total`."""
    found: dict[str, int] = {}
    for name in [*read_marker(out)["files"], MARKER]:
        top = PurePosixPath(name).parts[0]
        found[top] = found.get(top, 0) + (out / name).stat().st_size
    return found | {"total": sum(found.values())}


@contextmanager
def renewed(given: Path, keep: bool = False) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder that takes the place of `given` when the block ends well, and the front matter of the README.md there.

    What somebody put there beside the staged files is taken along. A link stays one: the folder behind it is renewed.

    Args:
        keep: start from what was staged before.

    Raises:
        InputError: nothing can be put there, or what is there is no staged Space, or one that is not to be trusted.
    """
    out = _destination(given)
    about = read_marker(out)
    if about is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"--out {given}: holds something else than a staged Space, and is left alone; give an empty folder or a new name"
        )
    before: dict[str, Any] = {}
    if about:
        _check_links(out, about)
        before, _ = read_card(out / README) if (out / README).is_file() else ({}, "")
    with _beside(out, given) as aside:
        staged = aside / "new"
        staged.mkdir()
        for name in about["files"] if keep else ():
            if (out / name).is_file():
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(out / name, staged / name)
        yield staged, before
        for name in _added(out, about):
            if (staged / name).exists():
                raise InputError(
                    f"{out / name}: was not staged before, and now something of this name is; move it away, then stage again"
                )
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            if (out / name).is_dir() and not (out / name).is_symlink():
                shutil.copytree(out / name, staged / name, symlinks=True)
            else:
                shutil.copy2(out / name, staged / name, follow_symlinks=False)
        _swap(out, staged, aside / "old")


def _inside(name: str) -> bool:
    """Whether a name is one of a file below a folder, on every system, written in the one way that there is."""
    path = PurePosixPath(name)
    safe = name.isprintable() and not {"\\", ":"} & set(name) and not path.is_absolute() and ".." not in path.parts
    return safe and path.as_posix() == name != "."


def _check_links(out: Path, about: dict[str, Any]) -> None:
    for name in [MARKER, README, *about["files"]]:
        for path in [PurePosixPath(name), *PurePosixPath(name).parents]:
            if path.parts and (out / path).is_symlink():
                raise InputError(
                    f"{out / path}: a link, where a staged Space has a file or folder of its own; remove it, then stage again"
                )


def _destination(given: Path) -> Path:
    """Where `given` leads: absolute, links followed."""
    if given.is_symlink() and not given.exists():
        raise InputError(f"--out {given}: a link that leads nowhere; remove it, or make the folder that it names")
    out, here = given.resolve(), Path.cwd().resolve()
    if out == here or out in here.parents:
        raise InputError(
            f"--out {given}: is the folder you are in, or one above it, and a Space takes the place of its folder; give "
            "the name of a folder to make, such as space"
        )
    return out


@contextmanager
def _beside(out: Path, given: Path) -> Iterator[Path]:
    """A temporary folder from which moving to `out` is a rename; errors tell of `given` in its stead."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name[:40]}-")
    except OSError as error:
        raise _cannot_write(given, error) from error
    with holder as name:
        try:
            yield Path(name)
        except InputError as error:
            raise InputError(str(error).replace(str(Path(name) / "new"), str(given))) from error
        except OSError as error:
            if name not in f"{error.filename} {error.filename2}":
                raise
            raise _cannot_write(given, error) from error


def _cannot_write(given: Path, error: OSError) -> InputError:
    return InputError(f"--out {given}: cannot be written ({error.strerror or error}); choose another place")


def _swap(out: Path, staged: Path, old: Path) -> None:
    if out.exists():
        out.replace(old)
    try:
        staged.replace(out)
    except BaseException:
        if old.exists():
            old.replace(out)
        raise


def _added(out: Path, about: dict[str, Any] | None, below: Path = Path()) -> Iterator[Path]:
    """What somebody put into a staged Space, relative to it: files, and whole folders; not what running it leaves there."""
    if about is None:
        return
    staged = [PurePosixPath(name) for name in [*about["files"], MARKER]]
    for entry in sorted((out / below).iterdir()):
        name = below / entry.name
        if any(map(entry.match, LEFT_BY_RUNS)) or PurePosixPath(name) in staged:
            continue
        if any(PurePosixPath(name) in file.parents for file in staged):
            yield from _added(out, about, name)
        else:
            yield name
