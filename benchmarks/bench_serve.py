"""Serving, side by side with fastai's learner and with the bare network: latency, start, memory, throughput.

    python benchmarks/bench_serve.py            # minutes; 60 s under 32 clients
    python benchmarks/bench_serve.py --quick    # under 50 s

ResNet-50 at 224 x 224 with random weights, real posters (LOBBYCARD_POSTERS) or drawn ones. Everything is measured in one
run, interleaved where it is quick. The last line is one JSON object: `latency_ratio` and `throughput_ratio` are higher for
better and the fast mode's, `start_ratio` and `memory_ratio` are ours over the learner's.
"""

import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.subjects import ROOT, context, finish, posters, resnet50_folder

BOUNDARY = "lobbycard-benchmark"
SIZE = 224


def main(quick: bool = False, clients: int = 32, seconds: float | None = None, json_file: Path | None = None) -> None:
    """Measure serving.

    Args:
        quick: few repetitions; ends within 50 s
        clients: that ask at the same time
        seconds: under load; 60, or 3 with --quick
        json_file: also write the last line there
    """
    seconds = seconds or (3 if quick else 60)
    with TemporaryDirectory() as scratch:
        pictures = posters(104, Path(scratch))
        with resnet50_folder(SIZE, pictures) as folder:
            latency = measure_latency(folder, pictures, rounds=8 if quick else 60)
            bare = measure_bare(folder, pictures, seconds=1 if quick else 10)
            start = measure_start(folder, pictures[0], rounds=1 if quick else 3)
            load = measure_load(folder, pictures, clients, seconds)
    ms = {name: round(1000 * statistics.median(times), 2) for name, times in latency.items()}
    ours, theirs = start["ours"], start["learner"]
    found = {
        "latency_ratio": round(ms["learn.predict"] / ms["ours, fast"], 3),
        "start_ratio": round(ours["seconds"] / theirs["seconds"], 3),
        "memory_ratio": round(ours["rss_mb"] / theirs["rss_mb"], 3),
        "throughput_ratio": round(load["per_second"] / bare["int8"], 3),
        "latency_ratio_fp32": round(ms["learn.predict"] / ms["ours, fp32"], 3),
        "over_bare_fp32": round(ms["ours, fp32"] / ms["bare fp32"], 3),
        "over_bare_fast": round(ms["ours, fast"] / ms["bare int8"], 3),
        "latency_ms": ms,
        "start": start,
        "bare_per_second": bare,
        "load": load,
        **context(seed=0),
    }
    print_table(found)
    finish(found, json_file)


def measure_latency(folder: Path, pictures: list[bytes], rounds: int) -> dict[str, list[float]]:
    """Seconds from a poster's bytes to its genres, each way in turn, so that a busy moment hurts all alike."""
    from fastai.vision.all import PILImage, load_learner  # as its users import it; `no_bar` comes with it

    from lobbycard.catalog.image import poster_array
    from lobbycard.poster.answers import Choice
    from lobbycard.poster.artifact import INT8, ONNX
    from lobbycard.poster.predictor import PosterPredictor
    from lobbycard.poster.runtimes import OnnxNetwork
    from lobbycard.web.service import Service

    learn = load_learner(folder / "export.pkl")
    services = {name: Service(PosterPredictor.load(folder, "onnx", precision=name)) for name in ("fp32", "fast")}
    bare = {"fp32": OnnxNetwork(str(folder / ONNX)), "int8": OnnxNetwork(str(folder / INT8))}
    pixels = np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)

    def fastai(picture: bytes) -> None:
        with learn.no_bar():
            learn.predict(PILImage.create(io.BytesIO(picture)))

    def ours(name: str) -> Callable[[bytes], None]:
        return lambda picture: services[name].answer(services[name].read([picture])[0], Choice())

    ways = {
        "learn.predict": fastai,
        "ours, fp32": ours("fp32"),
        "ours, fast": ours("fast"),
        "bare fp32": lambda _: bare["fp32"](pixels),
        "bare int8": lambda _: bare["int8"](pixels),
        "decode and resize": lambda picture: poster_array(picture, (SIZE, SIZE)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-2, rounds):
        for name, way in ways.items():
            time.sleep(0.02)  # until the others' threads have stopped spinning
            began = time.perf_counter()
            way(pictures[turn % len(pictures)])
            if turn >= 0:
                times[name].append(time.perf_counter() - began)
    for service in services.values():
        service.close()
    return times


def measure_bare(folder: Path, pictures: list[bytes], seconds: float) -> dict[str, float]:
    """Posters a second that the network alone does, pixels ready in memory, at the best batch size of a few."""
    from lobbycard.poster.artifact import INT8
    from lobbycard.poster.runtimes import OnnxNetwork

    logits = OnnxNetwork(str(folder / INT8))
    rates = {}
    for batch in (1, 4, 8, 16):
        pixels = np.random.default_rng(0).normal(size=(batch, 3, SIZE, SIZE)).astype(np.float32)
        logits(pixels)
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds / 4:
            logits(pixels)
            done += batch
        rates[batch] = done / (time.perf_counter() - began)
    best = max(rates, key=rates.get)
    return {"int8": round(rates[best], 1), "batch": best, "by_batch": {b: round(r, 1) for b, r in rates.items()}}


def measure_start(folder: Path, picture: bytes, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds from starting the process to its first answer, and its resident memory then: ONNX against the learner."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for name, model in (("ours", folder), ("learner", folder / "export.pkl")):
            server = Server(model)
            try:
                server.wait(picture)
                row = found.setdefault(name, {"seconds": [], "rss_mb": []})
                row["seconds"].append(server.seconds)
                row["rss_mb"].append(server.rss_mb())
            finally:
                server.stop()
    return {
        name: {key: round(statistics.median(values), 2) for key, values in row.items()} for name, row in found.items()
    }


def measure_load(folder: Path, pictures: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    """Many clients, each asking for one poster after the other, from a process of their own."""
    server = Server(folder, "--precision", "fast")
    try:
        server.wait(pictures[0])
        with TemporaryDirectory() as scratch:
            for i, picture in enumerate(pictures):
                (Path(scratch) / f"{i:03d}.jpg").write_bytes(picture)
            asked = [sys.executable, __file__, "--ask", str(server.port), str(clients), str(seconds), scratch]
            asking = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)
            warm = 0.0
            began = time.perf_counter()
            while asking.poll() is None:
                time.sleep(0.1)
                if not warm and time.perf_counter() - began > 0.3 * seconds:
                    warm = server.rss_mb()
            answered = json.loads(asking.stdout.read())
        after = server.rss_mb()
    finally:
        server.stop()
    return answered | {
        "clients": clients,
        "rss_mb_warm": warm,
        "rss_mb_after": after,
        "growth": round(after / warm - 1, 4),
    }


class Server:
    """`python app_gradio.py` on a free port, as a user starts it."""

    def __init__(self, model: Path, *flags: str):
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "app_gradio.py", "--model", str(model), "--port", str(self.port), *flags]
        self.began = time.perf_counter()
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.seconds = 0.0

    def wait(self, picture: bytes) -> None:
        """Until it has answered one poster."""
        body = multipart(picture)
        while True:
            try:
                status, _ = ask(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), body)
                if status == 200:
                    self.seconds = time.perf_counter() - self.began
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit(f"the server ended: {self.process.stderr.read()}") from None
            time.sleep(0.02)

    def rss_mb(self) -> float:
        """Resident memory of the process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def multipart(picture: bytes) -> bytes:
    """One poster as the body of a request."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="p.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", "/api/v1/predict", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def ask_all(port: int, clients: int, seconds: float, folder: Path) -> None:
    """The clients' process: a thread each, a connection each, one request after the other."""
    bodies = [multipart(path.read_bytes()) for path in sorted(folder.iterdir())]
    taken: list[float] = []
    wrong: list[int] = []
    until = time.perf_counter() + seconds

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        turn = first
        while time.perf_counter() < until:
            began = time.perf_counter()
            try:
                status, _ = ask(connection, bodies[turn % len(bodies)])
            except OSError:
                status, connection = 0, http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            taken.append(time.perf_counter() - began)
            if status != 200:
                wrong.append(status)
            turn += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    quantile = lambda share: round(1000 * sorted(taken)[int(share * (len(taken) - 1))], 1)  # noqa: E731
    print(
        json.dumps(
            {
                "seconds": round(spent, 1),
                "requests": len(taken),
                "errors": len(wrong),
                "per_second": round((len(taken) - len(wrong)) / spent, 1),
                "p50_ms": quantile(0.5),
                "p95_ms": quantile(0.95),
            }
        )
    )


def print_table(found: dict) -> None:
    """For people."""
    ms, start, load = found["latency_ms"], found["start"], found["load"]
    print(f"\nResNet-50, {SIZE} x {SIZE}, on {found['machine']}\n\none poster, bytes in to genres out, median")
    for name, value in ms.items():
        print(f"  {name:<20}{value:8.2f} ms   {ms['learn.predict'] / value:5.2f} times as fast as learn.predict")
    print(f"  ours over the bare network: fp32 {found['over_bare_fp32']}, fast {found['over_bare_fast']}")
    print("process start to first answer, resident memory then")
    for name, row in start.items():
        print(f"  {name:<20}{row['seconds']:8.2f} s  {row['rss_mb']:8.0f} MB")
    print(f"{load['clients']} clients for {load['seconds']} s, fast mode")
    bare = found["bare_per_second"]
    print(f"  {load['per_second']} posters/s, bare network {bare['int8']} (batch {bare['batch']})")
    print(
        f"  p50 {load['p50_ms']} ms, p95 {load['p95_ms']} ms, {load['errors']} errors, memory {load['growth']:+.1%}\n"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        ask_all(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
    else:
        os.environ.setdefault("TQDM_DISABLE", "1")
        tyro.cli(main)
