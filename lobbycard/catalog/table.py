"""Read and check a movie table: one typed DataFrame, whatever the file looked like, and a count of what was dropped.

The columns are those of Kaggle's MovieGenre.csv; `docs/design.md` gives them.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from lobbycard.errors import InputError

COLUMNS = ("item_id", "title", "labels", "url", "file")

# Why a row is not in the frame.
BAD_LINE = "line that is no row of this table (too many fields, or a quotation mark left open)"
BAD_ID = "imdbId is no IMDb number"
REPEATED = "same imdbId again, merged into its first row"
UNITED = "same imdbId again with other genres, which were united"
NO_LABELS = "no genre"
NO_URL = "no poster address"

_ID = re.compile(r"(?:tt)?0*([1-9][0-9]{0,7})(?:\.0*)?", re.IGNORECASE)  # 7 or 8 digits on IMDb, fewer without zeros
_MISSING = {"", "n/a", "na", "nan", "none", "null", "-", "\\n"}
_SEPARATORS = (",", "\t", ";")  # Kaggle's; a .tsv; what Excel writes where the comma is the decimal sign
_LONGEST_ROW = 20  # lines; more than a title with line breaks ever has, so a quotation mark was left open
_FOREIGN = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF"),
    (b"\xff\xfe", "UTF-16 text; save it as CSV in UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as CSV in UTF-8"),
    (b"<", "a web page or an XML file; download the CSV itself"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)


@dataclass(frozen=True)
class MovieTable:
    """A movie table as read.

    `frame` has one row a movie (or, not merged, one a row of the file), in the file's order, and the columns `item_id`
    ("tt0084058"), `title` ("" if unknown), `labels` (tuple of genres, in the file's order, none twice), `url` ("" if none)
    and `file` ("tt0084058.jpg").
    `dropped` maps a reason to the number of rows it cost, so that `rows_read` = rows of `frame` + all that was dropped.
    """

    frame: pd.DataFrame
    dropped: dict[str, int]
    rows_read: int
    encoding: str

    def summary(self) -> str:
        """For people: rows read, kept, and dropped by reason, the numbers aligned."""
        width = len(f"{self.rows_read:,}")
        lines = [
            f"  {self.rows_read:>{width},} rows read ({self.encoding})",
            f"  {len(self.frame):>{width},} movies kept",
        ]
        lines += [f"  {count:>{width},} left out: {reason}" for reason, count in self.dropped.items()]
        return "\n".join(lines)


def read_table(path: Path | str, need_url: bool = True, need_labels: bool = True, merge: bool = True) -> MovieTable:
    """Read a movie table in the Kaggle file's columns.

    Column names match in any case, with or without spaces. The text is UTF-8 where it decodes as that, else
    Windows-1252, else Latin-1. Rows that repeat an imdbId become one movie: its first title and first poster address,
    and the union of the genres, because a missing genre is not always a wrong one.

    Args:
        path: the file; fields separated by commas, tabs or semicolons.
        need_url: drop movies without a poster address; the column may be absent when False.
        need_labels: drop movies without a genre; the column may be absent when False.
        merge: make one movie of rows that repeat an imdbId; False keeps every row.

    Raises:
        InputError: no such file, not a CSV, empty, a needed column is not there, or nothing is left.
    """
    path = Path(path)
    text, encoding = _decode(path)
    needed = ["imdbId"] + ["Genre"] * need_labels + ["Poster"] * need_url
    lines = list(io.StringIO(text, newline=""))  # str.splitlines would also split at U+0085 and U+2028
    places, separator, width, first = _find_columns(path, lines, needed)

    dropped: Counter[str] = Counter()
    movies: dict[str | int, dict] = {}
    rows_read = 0
    for fields in _rows(lines, first, separator):
        if fields is not None and not any(field.strip() for field in fields):
            continue  # the empty lines that spreadsheets leave at the end are no rows
        rows_read += 1
        if fields is None or any(field.strip() for field in fields[width:]):
            dropped[BAD_LINE] += 1
            continue
        fields += [""] * (width - len(fields))
        value = {name: fields[place].strip() for name, place in places.items()}
        number = _ID.fullmatch(value["imdbId"])
        if number is None:
            dropped[BAD_ID] += 1
            continue
        movie = _movie(int(number[1]), value)
        known = movies.setdefault(movie["item_id"] if merge else rows_read, movie)
        if known is not movie:
            dropped[_merge(known, movie)] += 1

    kept = []
    for movie in movies.values():
        if need_labels and not movie["labels"]:
            dropped[NO_LABELS] += 1
        elif need_url and not movie["url"]:
            dropped[NO_URL] += 1
        else:
            kept.append(movie)
    if rows_read == 0:
        raise InputError(f"{path}: only a header, expected one row a movie below it")
    if not kept:
        reasons = "; ".join(f"{count:,} x {reason}" for reason, count in dropped.most_common())
        raise InputError(f"{path}: no usable movie in {rows_read:,} rows ({reasons}); correct the table and run again")
    return MovieTable(pd.DataFrame(kept, columns=list(COLUMNS)), dict(dropped.most_common()), rows_read, encoding)


def _decode(path: Path) -> tuple[str, str]:
    """The text and the name of its encoding."""
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected a movie table (a CSV file)")
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a movie table; give its place with --csv")
    data = path.read_bytes()
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:8]
    if not start:
        raise InputError(f"{path}: an empty file, expected a movie table with columns imdbId, Genre, Poster")
    for mark, what in _FOREIGN:
        if start.startswith(mark):
            raise InputError(f"{path}: not a CSV but {what}")
    if b"\0" in data:
        raise InputError(f"{path}: not a CSV but binary data, expected text with columns imdbId, Genre, Poster")
    # Latin-1 accepts every byte, so it comes last. Windows-1252 differs from it only in the bytes 0x80 to 0x9f, which
    # are quotation marks and dashes there and invisible control characters in Latin-1.
    for codec, name in (("utf-8-sig", "UTF-8"), ("cp1252", "Windows-1252")):
        try:
            text = data.decode(codec)
        except UnicodeDecodeError:
            continue
        same = name == "Windows-1252" and text == data.decode("latin-1")
        return text, "Latin-1" if same else name
    return data.decode("latin-1"), "Latin-1"


def _find_columns(path: Path, lines: list[str], needed: list[str]) -> tuple[dict[str, int], str, int, int]:
    """Where the columns stand, the separator, the number of columns, and the line after the header."""
    first = next(i for i, line in enumerate(lines) if line.strip())
    headers = {separator: next(csv.reader(lines[first : first + 1], delimiter=separator)) for separator in _SEPARATORS}
    separator = max(_SEPARATORS, key=lambda s: len(headers[s]))
    found = [name.strip() for name in headers[separator]]
    places = {}
    for name in ("imdbId", "Title", "Genre", "Poster"):
        matching = [i for i, other in enumerate(found) if _folded(other) == _folded(name)]
        if matching:
            places[name] = next((i for i in matching if found[i] == name), matching[0])
    missing = [name for name in needed if name not in places]
    if missing:
        shown = ", ".join(repr(name[:40]) for name in found[:12]) + (", ..." if len(found) > 12 else "")
        raise InputError(
            f"{path}: expected the columns {', '.join(needed)}, found {shown}; "
            f"missing: {', '.join(_with_hint(name, found) for name in missing)}"
        )
    return places, separator, len(found), first + 1


def _folded(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _with_hint(name: str, found: list[str]) -> str:
    near = get_close_matches(_folded(name), [_folded(other) for other in found], n=1)
    if not near:
        return name
    return f"{name} (rename {next(other for other in found if _folded(other) == near[0])!r}?)"


def _rows(lines: list[str], start: int, separator: str) -> Iterator[list[str] | None]:
    """Rows from line `start` on, None for a line that opens a quotation mark and never closes it.

    The csv module alone would swallow every line up to the next quotation mark, silently.
    """
    while start < len(lines):
        window = lines[start : start + _LONGEST_ROW]
        reader = csv.reader(window, delimiter=separator)
        try:
            fields = next(reader)
        except csv.Error:  # a field longer than the module allows
            fields, taken = None, 1
        else:
            taken = reader.line_num
            if taken == _LONGEST_ROW or (taken > 1 and sum(line.count('"') for line in window[:taken]) % 2):
                fields, taken = None, 1
        yield fields
        start += taken


def _movie(number: int, value: dict[str, str]) -> dict:
    labels = (label.strip() for label in value.get("Genre", "").split("|"))
    title = " ".join(value.get("Title", "").split())
    url = value.get("Poster", "")
    return {
        "item_id": f"tt{number:07d}",
        "title": "" if title == "N/A" else title,  # "Null" and "None" are titles
        "labels": tuple(dict.fromkeys(label for label in labels if label.lower() not in _MISSING)),
        "url": "" if url.lower() in _MISSING else url,
        "file": f"tt{number:07d}.jpg",
    }


def _merge(known: dict, again: dict) -> str:
    """Complete `known` by another row of the same movie, and give the reason to count that row under."""
    differ = known["labels"] and again["labels"] and set(known["labels"]) != set(again["labels"])
    known["labels"] = tuple(dict.fromkeys(known["labels"] + again["labels"]))
    known["title"] = known["title"] or again["title"]
    known["url"] = known["url"] or again["url"]
    return UNITED if differ else REPEATED
