"""Fetch pictures: many at a time, politely, and so that a run can be stopped or killed and gone on with.

A picture counts once `load_poster` has decoded all of it. It is written under a temporary name and then renamed,
so a file that is there is whole, and every URL ends as one row of the manifest (`manifest.py`), whatever happened.
Pictures that somebody else put into the folder are checked, entered with `tries` 0, and never fetched or removed.
"""

import hashlib
import re
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pandas as pd
from PIL import Image

from lobbycard.catalog.image import ImageError, load_poster
from lobbycard.catalog.manifest import (
    FINAL,
    MANIFEST_COLUMNS,
    RETRYABLE,
    Entry,
    coverage,
    format_coverage,
    open_journal,
    read_entries,
    read_manifest,
    to_frame,
    write_entries,
)
from lobbycard.catalog.transport import Answer, DownloadOptions, Transport
from lobbycard.errors import InputError
from lobbycard.files import sha256

__all__ = [
    "FINAL",
    "MANIFEST_COLUMNS",
    "RETRYABLE",
    "DownloadOptions",
    "coverage",
    "download",
    "format_coverage",
    "read_manifest",
]

MIN_SIDE = 32  # pixels; anything smaller is a tracking pixel or an icon
FLAT = 3  # largest spread of values, of 255, in a picture of one colour: JPEG moves a flat colour a little
SAME_BYTES = 5  # different URLs that give one and the same file: a stand-in for pictures that are gone
STALE = 60.0  # seconds after which a temporary file is taken for the leftover of a killed run
PLACEHOLDER_URL = re.compile(  # not after a letter: "casino_poster.jpg" and "kimono-image.jpg" are pictures
    r"(?<![a-z])(no[-_]?(picture|image|img|poster|photo|cover)s?|placeholder)(?![a-z])"
    r"|(picture|image|poster|photo)[-_]?not[-_]?(available|found)"
)

Progress = Callable[[int, str], AbstractContextManager[Any]]
Note = Callable[[Entry], None]


class Task(NamedTuple):
    """One item that is not settled yet."""

    file: str
    url: str
    look: bool  # a file is there of which we know nothing
    otherwise: Entry | None  # its row if that file is no picture; None: fetch the URL
    ours: bool  # what may lie there was fetched by us, and is no longer wanted


# Settles tasks in a folder: notes each row, and yields it.
Settler = Callable[[list[Task], Path, DownloadOptions, Note], Iterator[Entry]]


def download(
    frame: pd.DataFrame,
    folder: Path,
    options: DownloadOptions | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
    settle: Settler | None = None,
) -> pd.DataFrame:
    """Bring the pictures of `frame` into `folder`, and return the manifest of them.

    Run again, it asks only for what may still succeed (RETRYABLE) or has a new URL. It may be stopped or killed at
    any moment, and two processes may share a folder.

    A picture counts as a placeholder when its URL says so, a side has fewer than 32 pixels, it is one flat colour,
    or at least 5 different URLs gave the very same bytes, counted over the whole manifest. Items that share one
    URL are not counted twice: that is what their table says.

    Args:
        frame: N items, with `url` ("" if none) and `file`, a plain file name.
        progress: called with the number of pictures to settle and a word; gives a context whose value has
            `update(n)` and `set_postfix_str(text)`. None is silent.
        say: takes a line of text, at the start and at the end.
        settle: who does the work; `settle_here` if None.

    Returns:
        one row a file of `frame`, in its order, with MANIFEST_COLUMNS.

    Raises:
        InputError: the folder cannot be written to, its manifest is none, or `file` is no plain name.
        KeyboardInterrupt: after what was fetched has been entered in the manifest.
    """
    options, folder, settle = options or DownloadOptions(), Path(folder), settle or settle_here
    urls = _urls(frame)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        known = read_entries(folder)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    plans = [_plan(file, url, folder, known.get(file), options) for file, url in urls.items()]
    tasks = [plan for plan in plans if isinstance(plan, Task)]
    settled = {plan.file: plan for plan in plans if isinstance(plan, Entry)}
    fetches = sum(task.otherwise is None for task in tasks)
    say(f"  {len(urls):,} pictures: {len(settled):,} settled before, {fetches:,} to fetch or check")

    start, news = time.monotonic(), [entry for entry in settled.values() if known.get(entry.file) != entry]
    if tasks or news:
        fresh: dict[str, Entry] = {}
        try:
            try:
                with open_journal(folder) as note:
                    for entry in news:
                        note(entry)
                    with (
                        closing(settle(tasks, folder, options, note)) as entries,
                        closing(_watched(entries, len(tasks), progress)) as watched,
                    ):
                        for entry in watched:
                            fresh[entry.file] = entry
                    for entry in _stand_ins(folder, known | settled | fresh):
                        fresh[entry.file] = entry
                        note(entry)
            finally:
                write_entries(folder, read_entries(folder) | fresh)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        settled |= {file: entry for file, entry in fresh.items() if file in urls}
    rows = [settled[file] for file in urls]
    say(_summary(rows, time.monotonic() - start))
    return to_frame(rows)


def _urls(frame: pd.DataFrame) -> dict[str, str]:
    """File name -> URL, in the frame's order; the first URL where a file is named twice."""
    urls: dict[str, str] = {}
    for file, url in zip(frame["file"], frame["url"], strict=True):
        if not file or Path(file).name != file or "\\" in file or file.startswith("."):
            raise InputError(f"file: expected a plain file name such as tt0084058.jpg, got {file!r}")
        urls[file] = urls.get(file) or " ".join(str(url).split())
    return urls


def _plan(file: str, url: str, folder: Path, known: Entry | None, options: DownloadOptions) -> Entry | Task:
    """The row that stands, or what is to be done."""
    try:
        size = (folder / file).stat().st_size
    except FileNotFoundError:
        size = None
    ours = known is not None and known.status == "ok" and known.tries > 0
    if known and known.status == "ok" and size == known.bytes and (not ours or url in (known.url, "")):
        return known._replace(url=url or known.url)
    otherwise = None
    if not url:
        otherwise = Entry(file, "", "no_url", message="the table gives no URL")
    elif known and known.url == url and known.status in FINAL and not options.retry_permanent:
        otherwise = known
    look = size is not None and (not ours or not url)
    return Task(file, url, look, otherwise, ours) if look or not otherwise else otherwise


def settle_here(
    tasks: list[Task], folder: Path, options: DownloadOptions, note: Note, kept: Transport | None = None
) -> Iterator[Entry]:
    """Settle every task in threads of this process: each row is noted at once, and yielded soon after.

    Args:
        kept: a transport that knows the hosts from earlier tasks, and is left open for later ones.
    """
    transport = kept or Transport(options)

    def settle(task: Task) -> Entry:
        entry = _adopt(task, folder) if task.look else None
        entry = entry or task.otherwise or _fetch(task, folder, transport)
        note(entry)
        return entry

    # As many threads as connections: with no thread left to open another, the limit holds for redirects too.
    pool = ThreadPoolExecutor(options.connections, thread_name_prefix="download")
    try:
        for future in as_completed([pool.submit(settle, task) for task in tasks]):
            yield future.result()
    finally:
        if kept is None:
            transport.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        if kept is None:
            transport.close()


def _watched(entries: Iterator[Entry], expected: int, progress: Progress | None) -> Iterator[Entry]:
    """The same rows, with what has failed so far beside the progress."""
    failed: Counter[str] = Counter()
    with progress(expected, "pictures") if progress else nullcontext() as bar:
        for entry in entries:
            yield entry
            if entry.status != "ok":
                failed[entry.status] += 1
            if bar is not None:
                bar.update(1)
                if entry.status != "ok":
                    bar.set_postfix_str(", ".join(f"{n} {status}" for status, n in failed.most_common()))


def _adopt(task: Task, folder: Path) -> Entry | None:
    """The row of a file that was there already, or None if it is of no use and something else can be done."""
    path = folder / task.file
    try:
        image = load_poster(path)
        message = "was in the folder already"
        return Entry(task.file, task.url, "ok", None, path.stat().st_size, *image.size, sha256(path), 0, message)
    except ImageError as error:
        return None if task.url else Entry(task.file, "", error.status, message=f"{error}; no URL to fetch it from")
    except FileNotFoundError:
        return None


def _fetch(task: Task, folder: Path, transport: Transport) -> Entry:
    path = folder / task.file
    if _says_placeholder(task.url):
        answer = Answer("placeholder", "the URL is that of a placeholder", tries=0)
    else:
        answer = transport.fetch(task.url, _judge)
    if answer.status == "ok":
        _store(path, answer.content)
    elif task.ours:
        # Before the row says so: a file without an "ok" row would be taken for somebody's own picture.
        path.unlink(missing_ok=True)
    width, height = answer.size or (None, None)
    digest = hashlib.sha256(answer.content).hexdigest() if answer.size else ""
    size = len(answer.content) or None
    return Entry(
        task.file, task.url, answer.status, answer.http_code, size, width, height, digest, answer.tries, answer.message
    )


def _judge(answer: Answer) -> Answer:
    try:
        image = load_poster(answer.content)
    except ImageError as error:
        return answer._replace(status=error.status, message=str(error))
    problem = _placeholder(image)
    if not problem and _says_placeholder(answer.url):
        problem = f"redirected to the placeholder {answer.url}"
    return answer._replace(size=image.size, status="placeholder" if problem else "ok", message=problem)


def _placeholder(image: Image.Image) -> str:
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        return f"{width} x {height} pixels, expected {MIN_SIDE} or more a side"
    if all(high - low <= FLAT for low, high in image.getextrema()):
        return "one flat colour"
    return ""


def _says_placeholder(url: str) -> bool:
    # Not the query, which may name what to send should the picture be gone.
    return PLACEHOLDER_URL.search(unquote(url.partition("?")[0]).lower()) is not None


def _stand_ins(folder: Path, entries: dict[str, Entry]) -> list[Entry]:
    """Rows that turn out to be placeholders because too many URLs gave the same bytes; what we fetched is removed."""
    urls = defaultdict(set)
    for entry in entries.values():
        if entry.sha256 and entry.tries and entry.status in ("ok", "placeholder"):
            urls[entry.sha256].add(entry.url)
    found = []
    for entry in entries.values():
        count = len(urls.get(entry.sha256, ()))
        if entry.status == "ok" and count >= SAME_BYTES:
            if entry.tries:
                (folder / entry.file).unlink(missing_ok=True)
            message = f"{count} different URLs gave this very file"
            found.append(entry._replace(status="placeholder", message=message))
    return found


def _store(path: Path, content: bytes) -> None:
    # Not flushed to the disk, which would cost more than the download: after a power cut the size in the manifest
    # does not fit, and the picture is fetched again.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)  # after closing: Windows renames no open file
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sweep(folder: Path) -> None:
    """Remove what killed runs left under temporary names; a young one may be another process's, at work."""
    for part in folder.glob(".*.part*"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()


def _cannot_write(folder: Path, error: OSError) -> InputError:
    where = f" ({error.filename})" if error.filename not in (None, str(folder)) else ""
    return InputError(
        f"{folder}: expected a folder that can be written to, got: {error.strerror or error}{where}; make room there, "
        "choose another folder, or download nothing"
    )


def _summary(rows: Iterable[Entry], seconds: float) -> str:
    counts = Counter(row.status for row in rows)
    ok = counts.pop("ok", 0)
    lines = [f"  {ok:,} of {ok + counts.total():,} pictures are there ({seconds:.1f} s)"]
    for status, count in counts.most_common():
        lines.append(f"    {status:<12} {count:>7,}" + ("  may succeed on another run" * (status in RETRYABLE)))
    return "\n".join(lines)
