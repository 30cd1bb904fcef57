"""What every front door does alike: errors of the user's in one line, signals that stop cleanly, output that prints anywhere."""

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lobbycard.errors import InputError

USAGE, INTERRUPTED = 2, 130


@contextmanager
def front_door(if_interrupted: str = "stopped") -> Iterator[None]:
    """Around a command: an InputError ends it with one line and status 2, Ctrl-C or SIGTERM with `if_interrupted` and 130."""

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    for stream in (sys.stdout, sys.stderr):
        # A Windows console in cp1252 cannot print a Japanese title: better a question mark than a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace", line_buffering=True)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # of no use to who runs a command
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USAGE) from None
    except KeyboardInterrupt:
        print(f"\n{if_interrupted}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # `… | head` has read enough
        sys.stderr.close()
        raise SystemExit(0) from None
    finally:
        signal.signal(signal.SIGTERM, before)
