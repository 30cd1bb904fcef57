"""`python -m lobbycard predict`: pictures, folders or a movie table in, one CSV row a picture out, errors included."""

import csv
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lobbycard import __version__, cluster
from lobbycard.cluster import Engine
from lobbycard.errors import InputError
from lobbycard.files import Growing, check_destination, sha256
from lobbycard.poster import runtimes
from lobbycard.poster.predictor import FEW, PosterPredictor, decided
from lobbycard.progress import progress
from lobbycard.scoring.decide import decide

WRITTEN = 64  # rows written at a time
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
    """The pictures that the arguments mean, in order: files as given, folders searched, a table's rows under `images`.

    Files that do not exist are kept: each becomes a row with its error. Rows of a table that name no movie are told of on
    standard error; rows that repeat one repeat its picture.

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
            table = read_table(path, need_url=False, need_labels=False, merge=False)
            if table.dropped:
                print(f"{path}:\n{table.summary()}", file=sys.stderr)
            found += [folder / name for name in table.frame["file"]]
        elif path.suffix.lower() not in PICTURES and not os.path.exists(path):  # noqa: PTH110 - as above
            raise InputError(f"{path}: no such file or folder; expected pictures, a folder of them, or a movie table")
        else:
            found.append(path)
    if not found:
        raise InputError("nothing to predict: give pictures, folders of pictures, or a movie table with --images DIR")
    return found


def write_answers(
    predictor: PosterPredictor,
    pictures: Sequence[Path],
    out: Path | None,
    choice: Choice,
    tta: bool = False,
    engine: Engine = "local",
) -> int:
    """Write the CSV (to standard output if `out` is None) and return how many pictures could not be read.

    Columns: `image`, `genres` (decided, joined by `|`), `error`, then one probability a label in the model's order.
    The file is whole or not there; killed, the same call goes on with the pictures that are missing. Memory does not grow with
    the number of pictures.

    Args:
        engine: `ray` asks workers of a Ray cluster, all of which have to see the same model folder and pictures.

    Raises:
        InputError: nothing can be written at `out`, a flag is impossible, or the cluster cannot be had.
    """
    if out is not None:
        if out.suffix.lower() in PICTURES:  # `--out *.jpg`, made longer by the shell, would cost a picture
            raise InputError(f"--out {out}: expected the name of the CSV to write, got that of a picture")
        check_destination(out, [*pictures, *predictor.folder.all_files])
    choice(np.zeros((1, len(predictor.labels))), predictor.thresholds)  # impossible flags fail before the work begins
    answers = _answers if engine == "local" else _answers_on_ray

    def answer(write: Callable[[str, int], Any], done: int = 0) -> int:
        failed = 0
        with progress(len(pictures), "posters") as bar:
            bar.update(done)
            for lines in answers(predictor, pictures, choice, tta, done):
                write(lines.text, lines.rows)
                failed += lines.failed
                bar.update(lines.rows)
        return failed

    header = as_csv([["image", "genres", "error", *predictor.labels]])
    if out is None:
        sys.stdout.write(header)
        return answer(lambda text, rows: sys.stdout.write(text))
    with Growing(out, _key(predictor, pictures, choice, tta)) as file:
        done = max(0, file.rows - 1)
        if file.rows:
            print(f"  going on after {done:,} of {len(pictures):,} posters", file=sys.stderr)
        else:
            file.write(header, 1)
        answer(file.write, done)
    return _failed(out)


class Lines(NamedTuple):
    """Some rows of the CSV, and how many of them have an error."""

    text: str
    rows: int
    failed: int


def _answers(
    predictor: PosterPredictor, pictures: Sequence[Path], choice: Choice, tta: bool, done: int
) -> Iterator[Lines]:
    """Those of `pictures`, in order, from the one after `done`."""
    # Asked for in the same way however many are left: a killed run gives the bytes of one that was not.
    rows = _rows(predictor, islice(pictures, done, None), choice, tta, many=len(pictures) > FEW)
    while some := list(islice(rows, WRITTEN)):
        yield Lines(as_csv(some), len(some), sum(bool(row[2]) for row in some))


def _answers_on_ray(
    predictor: PosterPredictor, pictures: Sequence[Path], choice: Choice, tta: bool, done: int
) -> Iterator[Lines]:
    """The same, from workers that load the model themselves."""
    folder, paths = predictor.folder, [os.fsencode(path) for path in pictures]  # a name need not be text
    if "files" not in folder.about:
        raise InputError(f"--engine ray: expected a model folder, {folder.path} is a learner without one")
    made_with = {"model": str(folder.path.resolve()), "runtime": predictor.runtime, "choice": choice, "tta": tta,
                 "precision": "fp32" if predictor.precision == "fp32" else "fast", "cwd": str(Path.cwd())}  # fmt: skip
    for batch in cluster.spread(paths, Answerer, made_with, first=done):
        yield Lines(b"".join(batch["text"]).decode(), len(batch["text"]), int(batch["failed"].sum()))


class Answerer:
    """What a worker of a cluster has: the model, loaded once, which answers pictures by their paths."""

    def __init__(self, model: str, runtime: str, precision: str, choice: Choice, tta: bool, cwd: str, threads: int):
        runtimes.THREADS = threads
        with suppress(OSError):  # of another machine: absolute paths alone are found there
            os.chdir(cwd)
        self.predictor = PosterPredictor.load(Path(model), runtime, precision=precision)
        self.choice, self.tta = choice, tta

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`item` (B,) are paths as bytes; gives `text`, a line of the CSV each, in UTF-8, and whether it `failed`."""
        paths = [Path(os.fsdecode(path)) for path in batch["item"]]
        rows = list(_rows(self.predictor, paths, self.choice, self.tta, many=True))
        return {
            "number": batch["number"],
            "text": np.array([as_csv([row]).encode(errors="backslashreplace") for row in rows], dtype=object),
            "failed": np.array([bool(row[2]) for row in rows]),
        }


def _rows(
    predictor: PosterPredictor, pictures: Iterable[Path], choice: Choice, tta: bool, many: bool
) -> Iterator[list[str]]:
    for path, probabilities, error in predictor.stream(pictures, tta, many):
        if probabilities is None:
            yield [path.as_posix(), "", error, *[""] * len(predictor.labels)]
            continue
        genres = decided(predictor.labels, choice(probabilities[None], predictor.thresholds)[0])
        yield [path.as_posix(), "|".join(genres), "", *(f"{p:.6f}" for p in probabilities)]


def as_csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _failed(out: Path) -> int:
    """Rows with an error in a finished file, those of an earlier process among them."""
    with out.open(encoding="utf-8", newline="") as file:
        return sum(bool(row["error"]) for row in csv.DictReader(file))


def _key(predictor: PosterPredictor, pictures: Sequence[Path], choice: Choice, tta: bool) -> str:
    """What the answers depend on: a file that was begun with anything else is not gone on with."""
    digest = hashlib.sha256()
    about, path = predictor.folder.about, predictor.folder.path
    files = about.get("files") or sha256(path)  # of a learner without a folder
    model = [files, about.get("thresholds"), about.get("labels")]
    digest.update(
        json.dumps([__version__, model, predictor.runtime, predictor.precision, asdict(choice), tta]).encode()
    )
    for path in pictures:
        try:
            stat = path.stat()
            there = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            there = (0, 0)
        digest.update(b"%b\0%d %d\0" % (os.fsencode(path), *there))
    return digest.hexdigest()
