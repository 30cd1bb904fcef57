"""One process that serves page, API and share link, until it is told to stop."""

import contextlib
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lobbycard.errors import InputError
from lobbycard.web.address import check_root_path, claim_port
from lobbycard.web.api import build_api
from lobbycard.web.desk import Desk
from lobbycard.web.service import Service

if TYPE_CHECKING:
    import gradio

GRACE = 30  # seconds that running requests get to finish once the process was told to stop
SESSIONS = 300  # pages whose last answers, pictures among them, Gradio keeps in memory; its own default is 10,000
ALL_INTERFACES = ("0.0.0.0", "::", "[::]", "")

# Words of gradio 6.31's own announcement: "temporary and will last for up to 1 week (best effort)".
SHARED = """public address: {url}
  Everyone who has this link can use this app, on this machine, through gradio's servers{protected}.
  It lasts up to 1 week (best effort, it may end sooner), and only while this program runs.
  For an address that stays, make a Hugging Face Space: python -m lobbycard space --help"""
NOT_SHARED = (
    "no share link: gradio's servers could not be reached or refused ({why}); check the internet connection or "
    "https://status.gradio.app. The local address above goes on working"
)


def serve(
    demo: "gradio.Blocks",
    service: Service,
    *,
    look: dict[str, Any],
    item_noun: str,
    label_noun: str,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    root_path: str = "",
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish and return.

    Health says 503 until the network has answered once, which it does while the port is being opened. Stopping on
    request is a server's normal end, so nothing is raised for it; a second signal stops at once.

    Args:
        demo: the page; its `queue` is its own business.
        look: further arguments of `demo.launch` (theme, css, head, js).
        item_noun: what a picture is called ("poster"); with `label_noun` ("genre") the words of the API.
        host: address to listen on; None is gradio's default, this machine alone (or GRADIO_SERVER_NAME).
        port: None searches from 7860 upwards, 0 takes any free one.
        auth: user and password, asked for by page and API alike.
        root_path: path (`/lobby`) or whole address (`https://host/lobby`) under which a proxy shows this server.
        ready: called with the local address once it listens.

    Raises:
        InputError: the port is taken or not allowed, the host is no address of this machine, or `root_path` is neither.
    """
    root_path = check_root_path(root_path)
    port = claim_port(host, port)
    api = build_api(service, item_noun=item_noun, label_noun=label_noun, auth=auth)
    desk = Desk(api)
    demo.analytics_enabled = False
    with _signals():
        warming = _Warming(service)
        try:
            if share:
                print("asking gradio's servers for a share link, which may take a minute", flush=True)
            told = io.StringIO()
            # Its own lines are said below, in words that tell what they mean.
            with contextlib.redirect_stdout(told), _bounded_heads():
                demo.launch(
                    prevent_thread_lock=True,
                    server_name=host,
                    server_port=port,
                    share=share,
                    auth=auth,
                    root_path=root_path or None,
                    max_file_size=service.limits.file_bytes,
                    app_kwargs={"lifespan": desk.lifespan, "openapi_url": None},
                    show_error=False,  # gr.Error is shown all the same; what else goes wrong is not the visitor's
                    ssr_mode=False,
                    enable_monitoring=False,
                    run_history=False,
                    mcp_server=False,
                    state_session_capacity=SESSIONS,
                    quiet=True,
                    **look,
                )
            announce(demo, share, auth, told.getvalue())
            if ready is not None:
                ready(demo.local_url)
            while demo.server.thread.is_alive():
                warming.check()
                time.sleep(0.2)
        except KeyboardInterrupt:
            print("stopping: running requests are finished first; once more to stop at once", flush=True)
        except OSError as error:
            if "Cannot find empty port" not in str(error):
                raise
            raise InputError(
                "no free port from 7860 to 7959: give one with --port, or --port 0 for any that is free"
            ) from error
        finally:
            with contextlib.suppress(KeyboardInterrupt):  # the second signal
                _stop(demo, desk)
                service.close()


class _Warming:
    """The network's first answer, in a thread of its own; `check` raises what went wrong there."""

    def __init__(self, service: Service):
        self._service, self._error = service, None
        threading.Thread(target=self._run, name="warm-up", daemon=True).start()

    def _run(self) -> None:
        try:
            self._service.warm_up()
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        if self._error is not None:
            raise self._error


@contextlib.contextmanager
def _bounded_heads() -> Iterator[None]:
    """Servers that start here read requests with h11, which refuses a head beyond 64 kB.

    Gradio leaves the choice to uvicorn, and that takes httptools where it is installed, which keeps whatever comes.
    """
    from uvicorn.config import HTTP_PROTOCOLS

    before = HTTP_PROTOCOLS["auto"]
    HTTP_PROTOCOLS["auto"] = HTTP_PROTOCOLS["h11"]
    try:
        yield
    finally:
        HTTP_PROTOCOLS["auto"] = before


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM is told like Ctrl-C; where this is not the main thread, signals are the caller's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(demo: "gradio.Blocks", desk: Desk) -> None:
    """Stop accepting, wait for the requests that run, then end the streams that nobody waits for."""
    server = getattr(demo, "server", None)
    if server is None:
        return
    server.config.timeout_graceful_shutdown = GRACE
    server.should_exit = True  # closes the port; idle connections go, those with a request stay until it is answered
    until = time.monotonic() + GRACE
    try:
        while desk.waiting and server.thread.is_alive() and time.monotonic() < until:
            time.sleep(0.05)
    except KeyboardInterrupt:
        server.force_exit = True
        raise
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            demo.close(verbose=False)


def announce(demo: "gradio.Blocks", share: bool, auth: tuple[str, str] | None, told: str) -> None:
    url = demo.local_url.rstrip("/")
    print(f"page: {url}  (API: {url}/docs)", flush=True)
    if demo.server_name in ALL_INTERFACES and auth is None and not demo.space_id:
        print("  Everyone in this machine's networks can open it; --auth user:password asks for a password", flush=True)
    if demo.share_url:
        protected = "; they are asked for the password" if auth else ""
        print(SHARED.format(url=demo.share_url, protected=protected), flush=True)
    elif share and demo.space_id:
        print("no share link: a Space has its own public address, and needs none", flush=True)
    elif share:
        lines = [line.strip() for line in told.splitlines() if "share link" in line]
        why = (
            lines[-1].removeprefix("Could not create share link.").strip().split(". ")[0]
            if lines
            else "no reason given"
        )
        print(NOT_SHARED.format(why=why or "no reason given"), flush=True)
