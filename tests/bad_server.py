"""A real HTTP server on loopback that misbehaves as its paths ask, and counts what it sees."""

import hashlib
import io
import socket
import struct
import threading
import time
from collections import Counter
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


@cache
def picture(name: str, size: tuple[int, int] = (60, 90)) -> bytes:
    """A JPEG whose pixels depend on `name` alone."""
    seed = hashlib.sha256(name.encode()).digest()
    image = Image.frombytes("RGB", (2, 3), seed[:18]).resize(size, Image.Resampling.BICUBIC)
    return encoded(image)


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


class BadServer(ThreadingHTTPServer):
    """What it does is in the path: `/cut/a` is cut off; `/2/cut/a` twice, and well from the third request on."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Condition()
        self.requests: list[tuple[float, str]] = []  # when, path
        self.headers: dict[str, str] = {}  # of the last request
        self.sockets = self.open = self.open_peak = self.busy = self.busy_peak = 0
        self.served = 0  # whole pictures
        self.crowd = 0  # /crowd/ waits until so many requests are in hand at once
        self.when_served = lambda count: None
        self.leaving = threading.Event()

    @property
    def hits(self) -> Counter:
        """Path -> requests."""
        with self.lock:
            return Counter(path for _, path in self.requests)

    def process_request_thread(self, request, client_address):
        with self.lock:
            self.sockets += 1
            self.open += 1
            self.open_peak = max(self.open_peak, self.open)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.lock:
                self.open -= 1

    def handle_error(self, request, client_address):
        """A client that went away is what half of the tests are about."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.leaving.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: BadServer

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, path = self.server, self.path
        with server.lock:
            server.requests.append((time.monotonic(), path))
            server.headers = dict(self.headers)
            server.busy += 1
            server.busy_peak = max(server.busy_peak, server.busy)
            server.lock.notify_all()
            nth = sum(1 for _, seen in server.requests if seen == path)
        try:
            _, behaviour, *rest = path.split("/")
            if behaviour.isdecimal():
                behaviour, rest = (rest[0] if nth <= int(behaviour) else "good"), rest[1:]
            getattr(self, f"do_{behaviour}")(*rest)
        finally:
            with server.lock:
                server.busy -= 1

    def answer(self, body=b"", code=200, kind="image/jpeg", length=None, **headers):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_good(self, name, *_):
        self.answer(picture(name))
        with self.server.lock:
            self.server.served += 1
            count = self.server.served
        self.server.when_served(count)

    def do_code(self, code, *_):
        self.answer(b"<html>no</html>", int(code), "text/html")

    def do_wait(self, seconds, name):
        self.answer(b"slow down", 429, "text/plain", **({"Retry_After": seconds} if seconds else {}))

    def do_unavailable(self, seconds, name):
        self.answer(b"", 503, Retry_After=seconds)

    def do_later(self, seconds, name):
        self.answer(b"", 429, Retry_After=formatdate(time.time() + int(seconds), usegmt=True))

    def do_html(self, name):
        self.answer(b"<!DOCTYPE html><html>Not here any more</html>", 200)

    def do_cut(self, name):
        body = picture(name)
        self.answer(body[: len(body) // 2], length=len(body))
        self.close_connection = True

    def do_half(self, name):
        self.answer(picture(name)[:-60])

    def do_cutchunk(self, name):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = picture(name)
        self.wfile.write(b"%x\r\n" % len(body) + body[:100])
        self.close_connection = True

    def do_chunked(self, name):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = picture(name)
        for i in range(0, len(body), 100):
            part = body[i : i + 100]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def do_heavy(self, name):
        self.answer(b"", length=10**12)
        self.close_connection = True

    def do_endless(self, name):
        self.send_response(200)
        self.end_headers()
        while not self.server.leaving.is_set():
            self.wfile.write(bytes(65536))

    def do_bomb(self, name):
        self.answer(encoded(Image.new("1", (8_000, 8_000)), "PNG"))

    def do_drip(self, name):
        self.answer(b"", length=10**6)
        while not self.server.leaving.wait(0.02):
            self.wfile.write(b"\xff")

    def do_hang(self, name):
        self.server.leaving.wait()

    def do_reset(self, name):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def do_same(self, name):
        self.answer(picture("the stand-in"))

    def do_flat(self, name):
        self.answer(encoded(Image.new("RGB", (60, 90), (90, 20, 200))))

    def do_tiny(self, name):
        self.answer(picture("tiny", (31, 90)))

    def do_empty(self, name):
        self.answer(b"")

    def do_to(self, times, name):
        target = f"/to/{int(times) - 1}/{name}" if int(times) > 1 else f"/good/{name}"
        self.answer(b"moved", 302, "text/plain", Location=target)

    def do_toplaceholder(self, name):
        self.answer(b"", 302, Location="/good/nopicture.png")

    def do_tofile(self, name):
        self.answer(b"", 302, Location="file:///etc/hostname")

    def do_crowd(self, name):
        with self.server.lock:
            self.server.lock.wait_for(lambda: self.server.busy_peak >= self.server.crowd, timeout=5)
        self.do_good(name)
