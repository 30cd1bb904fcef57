"""`python -m lobbycard predict`: pictures, folders or a movie table in, one CSV row a picture out, errors included."""

import csv
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from lobbycard.errors import InputError
from lobbycard.files import atomic_path, check_destination
from lobbycard.poster.predictor import PosterPredictor, decided
from lobbycard.progress import progress
from lobbycard.scoring.decide import decide

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"}


@dataclass(frozen=True)
class Choice:
    """How probabilities become genres; see `decide`. A `threshold` of None means the model's own, one a genre."""

    top_k: int | None = None
    threshold: float | None = None
    shift: float = 0.0

    def __call__(self, probabilities: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Decisions (N, L) bool for `probabilities` (N, L); `own` are the model's thresholds (L,). Raises InputError."""
        return decide(probabilities, own if self.threshold is None else self.threshold, self.top_k, self.shift)


def find_pictures(inputs: Sequence[str], images: Path | None = None) -> list[Path]:
    """The pictures that the arguments mean, in order: files as given, folders searched, tables' movies under `images`.

    Files that do not exist are kept: each becomes a row with its error.

    Raises:
        InputError: no input, a folder without pictures, or a table that cannot be read.
    """
    found: list[Path] = []
    for text in inputs:
        if not text.strip():
            raise InputError("an empty name, expected a picture, a folder or a movie table; is a variable unset?")
        path = Path(text)
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
            if not inside:
                raise InputError(
                    f"{path}: no pictures in this folder; expected files ending in {', '.join(sorted(PICTURES))}"
                )
            found += inside
        elif path.suffix.lower() in (".csv", ".tsv"):
            from lobbycard.catalog.table import read_table  # pandas, which pictures do not need

            folder = images if images is not None else path.parent / "images"
            found += [folder / name for name in read_table(path, need_url=False, need_labels=False).frame["file"]]
        elif path.suffix.lower() not in PICTURES and not os.path.exists(path):  # noqa: PTH110 - as above
            raise InputError(f"{path}: no such file or folder; expected pictures, a folder of them, or a movie table")
        else:
            found.append(path)
    if not found:
        raise InputError("nothing to predict: give pictures, folders of pictures, or a movie table with --images DIR")
    return found


def write_answers(
    predictor: PosterPredictor, pictures: Sequence[Path], out: Path | None, choice: Choice, tta: bool = False
) -> int:
    """Write the CSV (to standard output if `out` is None) and return how many pictures could not be read.

    Columns: `image`, `genres` (decided, joined by `|`), `error`, then one probability a label in the model's order.
    The file is whole or not there; memory does not grow with the number of pictures.
    """
    if out is not None:
        if out.suffix.lower() in PICTURES:  # `--out *.jpg`, made longer by the shell, would cost a picture
            raise InputError(f"--out {out}: expected the name of the CSV to write, got that of a picture")
        check_destination(out, [*pictures, *predictor.folder.all_files])
    choice(np.zeros((1, len(predictor.labels))), predictor.thresholds)  # impossible flags fail before the work begins
    failed = 0
    with _opened(out) as file, progress(len(pictures), "posters") as bar:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "genres", "error", *predictor.labels])
        for row in _rows(predictor, pictures, choice, tta):
            writer.writerow(row)
            failed += bool(row[2])
            bar.update(1)
    return failed


def _rows(predictor: PosterPredictor, pictures: Iterable[Path], choice: Choice, tta: bool) -> Iterator[list[str]]:
    for path, probabilities, error in predictor.stream(pictures, tta):
        if probabilities is None:
            yield [path.as_posix(), "", error, *[""] * len(predictor.labels)]
            continue
        genres = decided(predictor.labels, choice(probabilities[None], predictor.thresholds)[0])
        yield [path.as_posix(), "|".join(genres), "", *(f"{p:.6f}" for p in probabilities)]


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    # A name that is no text (bytes of another encoding, on Linux) is shown with its bytes escaped.
    with atomic_path(out) as part, part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield file
