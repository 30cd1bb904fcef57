"""Where a server listens, and under which address a proxy shows it: tried before anything starts, refused in words."""

import errno
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from lobbycard.errors import InputError


def check_root_path(root_path: str) -> str:
    """`root_path` without a slash at its end."""
    address = urlsplit(root_path)
    whole = address.scheme in ("http", "https") and address.netloc
    path = not address.scheme and not address.netloc and (address.path.startswith("/") or not root_path)
    if not (whole or path) or address.query or address.fragment:
        raise InputError(
            f"--root-path {root_path}: expected a path that begins with / (/lobby), or a whole address "
            "(https://host/lobby), without ? and #"
        )
    return root_path.rstrip("/")


def check_environment() -> None:
    """What Gradio reads from the environment, some of it while it is imported: call this before.

    Raises:
        InputError: a variable that Gradio would fail on.
    """
    for name, most in (("GRADIO_SERVER_PORT", 65535), ("GRADIO_NUM_PORTS", 65535)):
        given = os.environ.get(name)
        if given is not None and not (given.isdecimal() and len(given) <= 5 and 1 <= int(given) <= most):
            raise InputError(f"{name}={given[:80]}: expected a whole number from 1 to {most}, or leave it unset")
    folder = os.environ.get("GRADIO_TEMP_DIR")
    if folder is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"GRADIO_TEMP_DIR={folder[:200]}: cannot be made ({why}); name a folder that can be written to"
            ) from error


def claim_port(host: str | None, port: int | None) -> int | None:
    """The port that will be listened on, after trying whether it can be; None where gradio is to search.

    Raises:
        InputError: it cannot, or the host is no address of this machine.
    """
    if port is not None and not 0 <= port <= 65535:
        raise InputError(f"--port {port}: expected 1 to 65535, or 0 for any that is free")
    given = f"--host {host[:80]}" if host else f"GRADIO_SERVER_NAME={os.environ.get('GRADIO_SERVER_NAME', '')[:80]}"
    name = (host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1").strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(name, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as trial:
            if sys.platform != "win32":  # there it would allow two programs on one port
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return None if port is None else trial.getsockname()[1]
    except PermissionError as error:
        raise InputError(f"--port {port}: this user may not listen on it; take one from 1024 upwards") from error
    except OverflowError as error:
        raise InputError(f"--port {port}: expected 1 to 65535") from error
    except (
        socket.gaierror,
        ValueError,
    ) as error:  # no such name, or none that could be one: empty or endless between dots
        raise InputError(
            f"{given}: no such address; 127.0.0.1 is this machine alone, 0.0.0.0 is every network it is in"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(
                f"{given}: not an address of this machine; 0.0.0.0 listens on every network it is in"
            ) from error
        raise InputError(
            f"--port {port}: another program listens there; stop it, take another port, or --port 0 for any that is free"
        ) from error
