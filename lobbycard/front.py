"""What every front door does alike: errors of the user's in one line, signals that stop cleanly, output that prints anywhere."""

import errno
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from lobbycard.errors import InputError

USAGE, INTERRUPTED = 2, 130
# What the machine refuses, and no change of the program would grant: told in a line. Other OSErrors keep their traceback.
REFUSED = {
    errno.ENOSPC: "make room there, or choose another place",
    errno.EDQUOT: "make room there, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "have the permission granted, or choose another place",
    errno.EPERM: "have the permission granted, or choose another place",
    errno.ENOTDIR: "a file stands where a folder is expected; choose another place",
    errno.EEXIST: "a file stands where a folder is expected; choose another place",
    errno.EISDIR: "a folder stands where a file is expected; move it away",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "a symbolic link that leads back to itself; mend it",
    errno.EIO: "the disk or the network drive fails; try another one",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n), or use fewer connections and workers",
}


@contextmanager
def front_door(if_interrupted: Callable[[], str] = lambda: "stopped") -> Iterator[None]:
    """Around a command: an InputError ends it with one line and status 2, Ctrl-C or SIGTERM with `if_interrupted` and 130.

    So do the machine's own refusals: no room, no permission, no memory.
    """

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    for stream in (sys.stdout, sys.stderr):
        # A Windows console in cp1252 cannot print a Japanese title: better a question mark than a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace", line_buffering=True)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # of no use to who runs a command
    # Pillow reports damage that it can read past; what it cannot comes as an error beside the file's name.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except InputError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print(f"\n{if_interrupted()}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # `… | head` has read enough
        sys.stderr.close()
        raise SystemExit(0) from None
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        place = f"{error.filename}: " if error.filename is not None else ""
        _fail(f"{place}{error.strerror}; {REFUSED[error.errno]}")
    except MemoryError:
        _fail("not enough memory; close other programs, or give smaller or fewer inputs")
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str) -> NoReturn:
    print("error: " + " ".join(message.splitlines()), file=sys.stderr)  # a file name may hold a line break
    raise SystemExit(USAGE) from None
