"""What became of every URL: one row an item, kept beside the pictures, and whole at any moment.

`manifest.csv` is only ever replaced as a whole. While a download runs, every row that is settled is appended to
`manifest.journal.csv`; a run that was killed leaves its journal, and reading the manifest merges it. A later row
for the same file takes the place of an earlier one, so merging twice changes nothing.
"""

import csv
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lobbycard.errors import InputError
from lobbycard.files import atomic_path

MANIFEST = "manifest.csv"
JOURNAL = "manifest.journal.csv"

# What may still succeed on another run, and what will not while the URL stays as it is.
RETRYABLE = frozenset({"rate_limited", "timed_out", "unreachable", "server_error", "truncated"})
FINAL = frozenset({"missing", "refused", "not_image", "too_large", "placeholder", "bad_url", "no_url"})
STATUSES = frozenset({"ok"}) | RETRYABLE | FINAL


class Entry(NamedTuple):
    """One row of the manifest. Numbers are None, texts empty, where there is nothing to say."""

    file: str  # name of the picture in the folder
    url: str
    status: str  # one of STATUSES
    http_code: int | None = None  # of the last answer
    bytes: int | None = None  # of the file, or of the body that was turned down
    width: int | None = None  # pixels, after EXIF rotation
    height: int | None = None
    sha256: str = ""  # of the bytes as they came
    tries: int = 0  # requests sent by the run that wrote this row; 0 with "ok": the file was already there
    message: str = ""


MANIFEST_COLUMNS = Entry._fields
_NUMBERS = ("http_code", "bytes", "width", "height", "tries")


def read_manifest(folder: Path) -> pd.DataFrame:
    """Every row known for `folder`, the journal of an unfinished run merged in; empty if there is none.

    Columns are MANIFEST_COLUMNS; counts and sizes are nullable integers (`Int64`), the rest strings.

    Raises:
        InputError: `manifest.csv` is there and is no manifest.
    """
    return to_frame(read_entries(folder).values())


def to_frame(entries: Iterable[Entry]) -> pd.DataFrame:
    """The same rows as a table."""
    frame = pd.DataFrame(list(entries), columns=list(MANIFEST_COLUMNS))
    return frame.astype({name: "Int64" if name in _NUMBERS else "object" for name in MANIFEST_COLUMNS})


def read_entries(folder: Path) -> dict[str, Entry]:
    """File name -> its newest row. Raises as `read_manifest`."""
    entries: dict[str, Entry] = {}
    path = folder / MANIFEST
    if path.exists():
        with path.open(encoding="utf-8", newline="", errors="replace") as file:
            header = file.readline().strip()
            if header != ",".join(MANIFEST_COLUMNS):
                raise InputError(
                    f"{path}: expected the columns {','.join(MANIFEST_COLUMNS)}, found {header[:200] or 'nothing'}; "
                    "move that file away, pictures that are in the folder are not fetched again"
                )
            entries |= _parse(file)
    for journal in _journals(folder):
        with suppress(FileNotFoundError), journal.open(encoding="utf-8", newline="", errors="replace") as file:
            entries |= _parse(file)
    return entries


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{Path(JOURNAL).stem}*{Path(JOURNAL).suffix}"))


def write_entries(folder: Path, entries: dict[str, Entry]) -> None:
    """Replace `manifest.csv` with these rows, by file name, whole or not at all, and drop the journal they contain."""
    with (
        atomic_path(folder / MANIFEST) as part,
        part.open("w", encoding="utf-8", errors="replace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(MANIFEST_COLUMNS)
        writer.writerows(_cells(entries[file]) for file in sorted(entries))
    # Windows lets nobody remove a journal that another process has open; merged once more it does no harm.
    for journal in _journals(folder):
        with suppress(OSError):
            journal.unlink()


@contextmanager
def open_journal(folder: Path, process: str = "") -> Iterator[Callable[[Entry], None]]:
    """A function that appends one row and hands it to the operating system; threads may share it.

    Processes that write at the same time, from whatever machine, need a journal each: each is another `process`.
    """
    name = Path(JOURNAL).stem + f".{process}" * bool(process) + Path(JOURNAL).suffix
    path, lock = folder / name, threading.Lock()
    # What a killed run left of its last line must not become the beginning of ours.
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if torn:
            file.write("\n")

        def append(entry: Entry) -> None:
            with lock:
                writer.writerow(_cells(entry))
                file.flush()

        yield append


def _cells(entry: Entry) -> list[str]:
    # A line break inside a message or URL would make two lines of one row.
    return ["" if value is None else " ".join(str(value).split()) for value in entry]


def _parse(lines: Iterable[str]) -> dict[str, Entry]:
    """Rows, newest last; a line that is torn or no row is passed over: its file, if any, is looked at again."""
    entries = {}
    for line in lines:
        try:
            # One line at a time: a quote opened by a torn line must not swallow the whole ones after it.
            cells = next(csv.reader([line]), [])
            row = dict(zip(MANIFEST_COLUMNS, cells, strict=True))
            row |= {name: int(row[name]) if row[name] else None for name in _NUMBERS}
        except (ValueError, csv.Error):
            continue
        if row["file"] and row["status"] in STATUSES:
            entries[row["file"]] = Entry(**row | {"tries": row["tries"] or 0})
    return entries


def coverage(frame: pd.DataFrame, available: pd.DataFrame | Collection[str]) -> pd.DataFrame:
    """How many items of each label have their picture, so that a loss that favours some labels is seen.

    Args:
        frame: N items, with `file` and `labels`.
        available: a manifest, of which the "ok" rows count, or the names of the files that are there.

    Returns:
        one row a label, most lost first: `label`, `items` and `have` (counts), `share` (`have / items`, 0 to 1).
    """
    if isinstance(available, pd.DataFrame):
        available = available.loc[available["status"] == "ok", "file"]
    have = frame["file"].isin(set(available))
    rows = pd.DataFrame({"label": frame["labels"], "have": have}).explode("label").dropna()
    counts = rows.astype({"have": bool}).groupby("label")["have"].agg(items="size", have="sum").reset_index()
    counts["share"] = counts["have"] / counts["items"]
    return counts.sort_values(["share", "label"], ignore_index=True)


def format_coverage(table: pd.DataFrame) -> str:
    """`coverage` as aligned text, one line a label, most lost first."""
    width = max([len("label"), *map(len, table["label"])])
    lines = [f"  {'label':<{width}}  {'items':>7}  {'have':>7}  {'share':>7}"]
    for row in table.itertuples():
        # Rounded down: 100 % is said only where nothing was lost.
        share = f"{int(row.share * 1000) / 10:.1f} %"
        lines.append(f"  {row.label:<{width}}  {row.items:>7,}  {row.have:>7,}  {share:>7}")
    return "\n".join(lines)
