"""Before the page opens: which model, which examples, whose password; without Gradio."""

import csv
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lobbycard.catalog.image import load_poster
from lobbycard.errors import InputError
from lobbycard.poster.answers import PICTURES
from lobbycard.poster.artifact import INT8, MANIFEST, ONNX

EXAMPLES = 8
DRAWN = Path("data/sample/posters")  # where the drawn sample's pictures lie
SPLIT = "split.csv"  # of a model folder: which items were held out


class Loading:
    """Something made in a thread, since importing Gradio takes as long; `result` gives it, or raises what went wrong."""

    def __init__(self, make: Callable[[], Any]):
        self._make, self._made, self._error = make, None, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._made = self._make()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._made


def newest_model(here: Path) -> Path | None:
    """The model folder that the environment names, lies in `here` (a Space), or was trained below the current folder last."""
    if named := os.environ.get("LOBBYCARD_MODEL"):
        return Path(named)
    for folder in (here / "model", here):
        if (folder / MANIFEST).is_file():
            return folder
    trained = (path for path in Path("models").glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
    newest = max(trained, key=lambda path: path.stat().st_mtime, default=None)
    return newest and newest.parent


def only_precision(model: Path) -> str:
    """`fast` for a model whose `model.json` names the int8 network alone, as in a Space that was staged so; else `fp32`."""
    try:
        about = json.loads((model if model.name == MANIFEST else model / MANIFEST).read_text(encoding="utf-8"))
        files = set(about["files"])
    except (OSError, ValueError, KeyError, TypeError):  # who opens the model says what is wrong with it
        return "fp32"
    return "fast" if INT8 in files and ONNX not in files else "fp32"


def find_examples(model: Path, about: Mapping[str, Any], here: Path) -> list[Path]:
    """A few pictures to try: those staged in `here` or in the model folder, else drawn ones for a model of drawn ones.

    Of the drawn ones only those that the model was not trained on, where its folder tells. `about` is its `model.json`.
    """
    for folder in (here / "examples", model / "examples"):
        if found := _pictures(folder):
            return _spread(found)
    if not (about.get("data") or {}).get("drawn"):
        return []
    held_out = _held_out(model / SPLIT)
    return _spread(path for path in _pictures(DRAWN) if held_out is None or path.stem in held_out)


def readable(paths: Iterable[Path]) -> list[tuple[Path, Image.Image]]:
    """Pictures with their paths; one that cannot be read is said on standard error and left out."""
    found = []
    for path in paths:
        try:
            found.append((path, load_poster(path)))
        except (InputError, OSError) as error:
            print(f"lobbycard: example left out: {error}", file=sys.stderr)
    return found


def _held_out(split: Path) -> set[str] | None:
    """Items of the validation side; None where nobody knows."""
    if not split.is_file():
        return None
    with split.open(encoding="utf-8", newline="") as file:
        return {row["item_id"] for row in csv.DictReader(file) if row.get("side") == "valid" and row.get("item_id")}


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)


def _spread(paths: Iterable[Path]) -> list[Path]:
    paths = list(paths)
    return paths[:: max(1, len(paths) // EXAMPLES)][:EXAMPLES]


def credentials(text: str | None) -> tuple[str, str] | None:
    """User and password of `user:password`, or None for none.

    Raises:
        InputError: one of them is missing.
    """
    if not text:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise InputError(
            "--auth (or LOBBYCARD_AUTH): expected user:password, with something on both sides of the colon"
        )
    return user, password
