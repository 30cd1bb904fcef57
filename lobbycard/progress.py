"""Progress that reads well in a terminal, in a notebook and in a log file."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class LogLines:
    """Stands in for a tqdm bar where there is no terminal: a plain line now and then, no control characters."""

    every = 15.0  # seconds between lines

    def __init__(self, total: int, desc: str, quiet: bool = False):
        self.quiet = quiet
        self.total, self.desc, self.done, self.note = total, desc, 0, ""
        self.start = self.last = time.monotonic()

    def update(self, n: int = 1) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.last >= self.every and self.done < self.total:
            self.last = now
            rate = self.done / max(now - self.start, 1e-9)
            left = (self.total - self.done) / max(rate, 1e-9)
            print(
                f"  {self.desc}: {self.done}/{self.total}, {_short(rate)}/s, {left:.0f} s left {self.note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        self.note = text

    def close(self) -> None:
        if self.quiet:
            return
        seconds = time.monotonic() - self.start
        rate = self.done / max(seconds, 1e-9)
        print(
            f"  {self.desc}: {self.done}/{self.total} in {seconds:.1f} s ({_short(rate)}/s) {self.note}".rstrip(),
            file=sys.stderr,
            flush=True,
        )


def _short(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


@contextmanager
def progress(total: int, desc: str, quiet: bool = False) -> Iterator[Any]:
    """A bar with rate and time left: tqdm in a terminal or notebook, a few plain lines elsewhere.

    What it yields has `update(n)` and `set_postfix_str(text)`. A `quiet` one leaves no line behind when it ends. Of several
    processes that torchrun has started, the first one alone shows its own.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and int(os.environ.get("RANK", 0)) > 0:
        yield LogLines(0, desc, quiet=True)
        return
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        from tqdm.auto import tqdm

        bar = tqdm(total=total, desc=f"  {desc}", dynamic_ncols=True, leave=not quiet)
    else:
        bar = LogLines(total, desc, quiet)
    try:
        yield bar
    finally:
        bar.close()


def tracked(items: Iterable, total: int, desc: str) -> Iterator:
    """`items`, with `progress` beside them."""
    with progress(total, desc) as bar:
        for item in items:
            yield item
            bar.update(1)
