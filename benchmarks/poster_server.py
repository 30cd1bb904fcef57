"""Serves pictures over HTTP/1.1 on this machine, late and with faults: `poster_server.py FOLDER SECONDS FAULTY`.

`/<i>.jpg` is the i-th picture of the folder, over and over. FAULTY is the share of the addresses whose first answer is an error
503, a connection cut off, or half a picture. The first line printed is the server's address.
"""

import random
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = ("503", "cut", "half")


def main(folder: str, seconds: str, faulty: str) -> None:
    pictures = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    asked, alone = Counter(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        # Head and body in one packet: sent apart, the second waits 40 ms for the first one's receipt.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self):
            number = int(self.path.strip("/").split(".")[0])
            with alone:
                asked[number] += 1
                first = asked[number] == 1
            drawn = random.Random(number)
            fault = drawn.choice(FAULTS) if first and drawn.random() < float(faulty) else None
            time.sleep(float(seconds))
            body = pictures[number % len(pictures)]
            self.close_connection = fault in ("cut", "half")
            if fault == "cut":
                return
            self.send_response(503 if fault == "503" else 200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if fault != "half" else body[: len(body) // 2])

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size, daemon_threads = 128, True

        def handle_error(self, request, client_address):
            pass  # connections that a client has left

    with Server(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
