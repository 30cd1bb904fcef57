"""Real servers for tests: the API alone on uvicorn in a thread, or the front door with page and API in its own process."""

import base64
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]


@contextmanager
def api_server(service, **options):
    """The address of the service's API, served by uvicorn on a free port until the block ends."""
    import uvicorn

    from lobbycard.web.api import build_api

    app = build_api(service, item_noun="poster", label_noun="genre", **options)
    with _uvicorn(uvicorn.Config(app, port=0, log_level="error", lifespan="off")) as url:
        yield url


class Process:
    """`python ARGUMENTS`, its output line by line, and the address that it says it listens on."""

    def __init__(self, arguments, **environment):
        self.popen = subprocess.Popen(
            [sys.executable, "-u", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=ROOT,
            # A shell's background job hands down that SIGINT is ignored; these processes shall hear it.
            preexec_fn=None if sys.platform == "win32" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False", **environment},
        )
        self.lines, self._news = [], queue.Queue()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))
            self._news.put(line)
        self._news.put(None)

    def until(self, word, seconds=60):
        """The first line with `word` in it, waiting for it."""
        deadline, seen = time.monotonic() + seconds, 0
        while True:
            for line in self.lines[seen:]:
                seen += 1
                if word in line:
                    return line
            try:
                if self._news.get(timeout=max(0.01, deadline - time.monotonic())) is None and seen == len(self.lines):
                    raise AssertionError(f"ended without {word!r}:\n" + "\n".join(self.lines))
            except queue.Empty:
                raise AssertionError(f"no {word!r} in {seconds} s:\n" + "\n".join(self.lines)) from None

    def ended(self, seconds=40):
        """Its exit status and everything it printed."""
        status = self.popen.wait(seconds)
        wait_until(lambda: self._news.empty() or None in self._news.queue)
        return status, "\n".join(self.lines)


@contextmanager
def served(model, *flags, **environment):
    """The front door itself, page and API, in a process of its own; `.url` is where it listens."""
    process = Process([ROOT / "app_gradio.py", "--model", model, "--port", "0", *flags], **environment)
    try:
        process.url = process.until("page: ").split()[1]
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()


@contextmanager
def stripping_proxy(target, prefix):
    """A proxy that shows `target` under `prefix`, which it takes away, as nginx does; gives the outer address."""
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    client = httpx.AsyncClient(base_url=target, timeout=30)

    async def forward(request):
        path = request.url.path
        if not path.startswith(prefix):
            return Response("not here", 404)
        headers = {k: v for k, v in request.headers.items() if k not in ("connection", "content-length")}
        headers["x-forwarded-host"] = request.headers["host"]
        asked = client.build_request(
            request.method,
            path[len(prefix) :] or "/",
            params=request.url.query,
            headers=headers,
            content=await request.body(),
        )
        answer = await client.send(asked, stream=True)
        left = {k: v for k, v in answer.headers.items() if k not in ("transfer-encoding", "connection")}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, left)

    app = Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "HEAD", "POST"])])
    with _uvicorn(uvicorn.Config(app, port=0, log_level="error", lifespan="off")) as url:
        yield f"{url}{prefix}"


@contextmanager
def _uvicorn(config):
    import uvicorn

    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def wait_until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def healthy(url):
    """Whether health says 200, within two seconds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=2)
    connection.request("GET", f"{parts.path}/api/v1/health")
    return connection.getresponse().status == 200


def ask_page(url, name, data):
    """What the page's own `predict` answers, through Gradio's upload and queue: ("answer", dict) or ("refusal", words)."""
    import httpx

    body, kind = multipart(("files", name, data))
    sent = httpx.post(f"{url}/gradio_api/upload", content=body, headers={"Content-Type": kind}, timeout=60)
    if sent.status_code != 200:
        assert sent.status_code in (400, 413), f"{name!r}: {sent.status_code} {sent.text[:200]}"
        return "refusal", sent.text
    file = {"path": sent.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    return ask_page_about(url, file)


def ask_page_about(url, file):
    import httpx

    asked = httpx.post(f"{url}/gradio_api/call/predict", json={"data": [file, None, None, 0, False]}, timeout=60)
    assert asked.status_code == 200, asked.text[:200]
    told = httpx.get(f"{url}/gradio_api/call/predict/{asked.json()['event_id']}", timeout=60).text
    event, _, data = told.strip().split("\n\n")[-1].partition("\n")
    found = json.loads(data.removeprefix("data: "))
    return ("answer", found[0]) if event == "event: complete" else ("refusal", (found or {}).get("error") or "")


def multipart(*files, boundary="frontier"):
    """Body and content type of `files`, (field, name, bytes) each, written by hand so that names may be anything."""
    body = b""
    for field, name, data in files:
        safe = name if isinstance(name, bytes) else name.replace('"', "%22").encode("utf-8", "surrogateescape")
        body += b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n' % (
            boundary.encode(),
            field.encode(),
            safe,
        )
        body += b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
