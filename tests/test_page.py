"""The page: built without touching anything, answering real clients, keeping and fetching nothing."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import app_gradio
from app_gradio import GradioPredictor, build_demo, credentials, find_examples, find_model, only_precision, readable
from lobbycard.catalog.image import ImageError
from lobbycard.errors import InputError
from lobbycard.poster.answers import Choice
from lobbycard.web.about import about_html, views_words
from lobbycard.web.bars import answer_html, problem_html
from lobbycard.web.gallery import Row, csv_text, gallery_html, harmless
from lobbycard.web.opening import EXAMPLES
from lobbycard.web.page import MAPS, Page, Visit, choice_of
from lobbycard.web.service import Answer, Limits, Reading, Service
from lobbycard.web.stage import maps_html
from lobbycard.web.words import Words, listed, percent

gradio_client = pytest.importorskip("gradio_client")
WORDS = app_gradio.WORDS
HOSTILE = '"><img src=x onerror=alert(1)>${1+1}{{7*7}}'


class Served:
    """A launched app: its address, and the folder where Gradio puts what it must write."""

    def __init__(self, predictor, examples=()):
        from lobbycard.web import uploads
        from lobbycard.web.look import look
        from lobbycard.web.server import serve

        self.predictor, up = predictor, threading.Event()

        def ready(url):
            self.url = url.rstrip("/")
            up.set()

        def run():
            with uploads.private_folder() as self.folder:
                self.demo = build_demo(predictor, examples)
                serve(self.demo, predictor, look=look(), item_noun="poster", label_noun="genre", port=0, ready=ready)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert up.wait(60)

    def client(self):
        return gradio_client.Client(self.url, verbose=False, analytics_enabled=False)

    def files(self):
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def close(self):
        self.demo.close(verbose=False)
        self._thread.join(60)


@pytest.fixture(scope="module")
def pictures(drawn):
    return sorted((drawn / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def predictor(trained):
    return GradioPredictor(trained.config.out, "onnx")


@pytest.fixture(scope="module")
def served(predictor, pictures):
    served = Served(predictor, pictures[:3])
    yield served
    served.close()


def gone(served) -> bool:
    until = time.monotonic() + 10
    while served.files() and time.monotonic() < until:
        time.sleep(0.05)
    return not served.files()


# Built, found, started


def test_the_page_is_built_without_files_network_or_model(trained, monkeypatch, tmp_path):
    import socket

    predictor = GradioPredictor(trained.config.out, "onnx")
    build_demo(predictor)  # what is imported is imported
    monkeypatch.chdir(tmp_path)
    opened = []
    seen = lambda event, args: opened.append((event, args[0])) if watching and event in EVENTS else None  # noqa: E731
    watching = False
    sys.addaudithook(seen)
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("the network was asked"))
    monkeypatch.setattr(predictor.predictor, "_logits", lambda *a: pytest.fail("the network ran"))
    watching = True
    build_demo(predictor)
    watching = False
    package = str(Path(sys.modules["gradio"].__file__).parent)
    mine = [path for _, path in opened if not str(path).startswith((package, sys.prefix, sys.base_prefix))]
    assert [path for path in mine if "gradio" not in str(path)] == []
    assert list(tmp_path.iterdir()) == []


EVENTS = ("open", "os.listdir", "os.mkdir", "socket.connect")


def test_pain_09_and_10_the_installed_gradio_builds_launches_and_answers_without_a_warning(trained, pictures):
    """Major versions of Gradio renamed modules and moved arguments: one real prediction with warnings as errors."""
    code = (
        "import warnings, sys; warnings.simplefilter('error', DeprecationWarning, append=True)\n"
        "import app_gradio, gradio\n"
        "from lobbycard.web.look import look\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    demo = app_gradio.build_demo(app_gradio.GradioPredictor(sys.argv[1], 'onnx'))\n"
        "    demo.launch(prevent_thread_lock=True, quiet=True, server_port=None, **look())\n"
        "    said = [w for w in said if w.category is not ResourceWarning]\n"
        "    print([str(w.message) for w in said if 'gradio' in str(w.filename) or 'gradio' in str(w.message).lower()])\n"
        "from gradio_client import Client, handle_file\n"
        "print(Client(demo.local_url, verbose=False).predict(handle_file(sys.argv[2]), api_name='/predict')['genres'])\n"
        "demo.close(verbose=False)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(trained.config.out), str(pictures[0])],
        cwd=Path(app_gradio.__file__).parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    said, genres = run.stdout.strip().splitlines()[-2:]
    assert said == "[]" and "probability" in genres


def test_a_model_is_found_beside_the_app_then_where_training_puts_it_and_its_absence_names_the_command(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("LOBBYCARD_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="make one with: make train"):
        find_model(tmp_path / "space")
    folders = ("models/poster-genres", "models/sample", "models/.half", "space", "space/model")
    for age, folder in enumerate(folders):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "model.json").write_text("{}")
        os.utime(tmp_path / folder / "model.json", (age, age))
    assert find_model(tmp_path / "space") == tmp_path / "space/model"
    shutil.rmtree(tmp_path / "space/model")
    assert find_model(tmp_path / "space") == tmp_path / "space"
    shutil.rmtree(tmp_path / "space")
    assert find_model(tmp_path / "space") == Path("models/sample")
    os.utime("models/poster-genres/model.json", (9, 9))
    assert find_model(tmp_path / "space") == Path("models/poster-genres")
    monkeypatch.setenv("LOBBYCARD_MODEL", "elsewhere")
    assert find_model() == Path("elsewhere")


def test_without_a_model_the_command_says_how_to_make_one_in_one_line(tmp_path):
    shutil.copy(app_gradio.__file__, tmp_path)
    root = Path(app_gradio.__file__).parent
    run = subprocess.run(
        [sys.executable, "app_gradio.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(root), "PATH": ""},
    )  # fmt: skip
    assert run.returncode == 2 and "make train" in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["alice", "alice:", ":secret", ":"])
def test_malformed_credentials_are_refused_in_words(text):
    with pytest.raises(InputError, match="expected user:password"):
        credentials(text)


def test_credentials_may_hold_colons_and_may_be_absent():
    assert credentials("alice:a:b") == ("alice", "a:b")
    assert credentials("") is None and credentials(None) is None


def test_examples_are_spread_over_the_folder_beside_the_model(tmp_path, pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_examples(tmp_path / "model", {}, tmp_path) == []
    shutil.copytree(pictures[0].parent, tmp_path / "model" / "examples")
    found = find_examples(tmp_path / "model", {}, tmp_path)
    assert len(found) == EXAMPLES and found == sorted(found)


def test_drawn_examples_are_for_models_of_drawn_posters_and_only_those_held_out(tmp_path, pictures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures[0].parent, tmp_path / "data" / "sample" / "posters")
    model, drawn = tmp_path / "model", {"data": {"drawn": True}}
    model.mkdir()
    assert find_examples(model, {"data": {"drawn": False}}, tmp_path) == find_examples(model, {}, tmp_path) == []
    assert len(find_examples(model, drawn, tmp_path)) == EXAMPLES
    held_out = {path.stem for path in pictures[::40]}
    rows = [f"{path.stem},{'valid' if path.stem in held_out else 'train'},0,0" for path in pictures]
    (model / "split.csv").write_text("\n".join(["item_id,side,group,hash", *rows]))
    found = find_examples(model, drawn, tmp_path)
    assert found and {path.stem for path in found} == held_out


# From code


def test_from_code_it_answers_as_the_predictor_does_and_says_what_it_cannot_read(predictor, pictures, tmp_path):
    rows = predictor.predict_proba(pictures[:3])
    answer = predictor.predict(pictures[1])
    assert list(answer.probabilities.values()) == pytest.approx(rows[1].tolist(), abs=1e-5)
    assert len(predictor.predict(pictures[1], top_k=1, shift=-5.0).labels) == 1
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(ImageError, match="page.jpg: not a picture but a web page"):
        predictor.predict(tmp_path / "page.jpg")


# Over the wire


def test_a_client_gets_genres_with_every_other_argument_left_out(served, pictures):
    handle_file = gradio_client.handle_file
    client = served.client()
    found = client.predict(handle_file(str(pictures[0])), api_name="/predict")
    expected = served.predictor.predict(pictures[0])
    assert [genre["name"] for genre in found["genres"]] == expected.labels
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert (found["runtime"], found["precision"]) == ("onnx", "fp32") and found["milliseconds"] > 0
    one = client.predict(handle_file(str(pictures[0])), top_k=1, threshold=0.0, api_name="/predict")
    assert len(one["genres"]) == 1 and one["genres"][0]["threshold"] == 0
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/predict"]


def test_the_client_s_answer_has_the_shape_of_the_rest_api_s(served, pictures):
    with pictures[0].open("rb") as file:
        rest = httpx.post(f"{served.url}/api/v1/predict", files={"files": (pictures[0].name, file)}, timeout=60).json()
    ours = served.client().predict(gradio_client.handle_file(str(pictures[0])), api_name="/predict")
    shared = {key: value for key, value in rest["results"][0].items() if key != "error"}
    assert shared == {key: ours[key] for key in shared}
    assert {"runtime", "precision", "milliseconds"} <= set(ours) & set(rest)


def test_bad_pictures_and_bad_choices_are_told_to_the_client_in_words(served, tmp_path, pictures):
    client = served.client()
    (tmp_path / "bad.jpg").write_text("<html>404</html>")
    with pytest.raises(Exception, match="not a picture but a web page"):
        client.predict(gradio_client.handle_file(str(tmp_path / "bad.jpg")), api_name="/predict")
    with pytest.raises(Exception, match="top_k"):
        client.predict(gradio_client.handle_file(str(pictures[0])), top_k=0, api_name="/predict")


def test_uploads_are_gone_once_they_were_read_and_broken_off_ones_a_while_later(
    served, pictures, tmp_path, monkeypatch
):
    from lobbycard.web import uploads

    client = served.client()
    for path in pictures[:3]:
        client.predict(gradio_client.handle_file(str(path)), api_name="/predict")
    assert gone(served)
    (tmp_path / "bad.jpg").write_text("<html>404</html>")
    with pytest.raises(Exception, match="not a picture"):
        client.predict(gradio_client.handle_file(str(tmp_path / "bad.jpg")), api_name="/predict")
    assert gone(served)
    # Uploaded, and then no event: the visitor closed the page.
    monkeypatch.setattr(uploads, "KEEP", 1)
    answer = httpx.post(f"{served.url}/gradio_api/upload", files={"files": ("a.jpg", pictures[0].read_bytes())})
    assert answer.status_code == 200 and served.files()
    assert gone(served)


def test_two_visitors_with_the_same_picture_do_not_take_it_from_each_other(served, pictures):
    bytes_ = pictures[5].read_bytes()
    uploads = [
        httpx.post(f"{served.url}/gradio_api/upload", files={"files": ("same.jpg", bytes_)}).json()[0] for _ in range(4)
    ]
    assert len(set(uploads)) == 1
    store = served.demo.upload_file_set
    assert [store.take(Path(path)) for path in uploads] == [bytes_] * 4
    with pytest.raises(FileNotFoundError):
        store.take(Path(uploads[0]))
    assert not store._counts and not store


def test_visitors_at_the_same_time_each_get_their_own_answer(served, pictures):
    paths = pictures[10:26]
    expected = [served.predictor.predict(path).probabilities for path in paths]

    def ask(path):
        return served.client().predict(gradio_client.handle_file(str(path)), api_name="/predict")["probabilities"]

    with ThreadPoolExecutor(8) as visitors:
        for found, wanted in zip(visitors.map(ask, paths), expected, strict=True):
            assert found == pytest.approx(wanted, abs=1e-5)


def test_pain_24_uploads_have_a_size_limit_by_default(served):
    big = b"\xff\xd8" + bytes(served.predictor.limits.file_bytes)
    answer = httpx.post(f"{served.url}/gradio_api/upload", files={"files": ("big.jpg", big)}, timeout=60)
    assert answer.status_code == 413 and "maximum allowed size" in answer.text


def join(wire: httpx.Client, number: int, data: list, session: str = "test") -> str:
    """What the event stream says to an event of a client that does not keep to the rules."""
    body = {"data": data, "fn_index": number, "session_hash": session}
    answer = wire.post("/gradio_api/queue/join", json=body)
    if answer.status_code != 200:
        return answer.text
    with wire.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            if "process_completed" in line or "unexpected_error" in line:
                return line
    return ""


def events(served):
    return [(fn.id if hasattr(fn, "id") else n, fn) for n, fn in enumerate(served.demo.fns.values())]


class Trap:
    """A server that must never be asked."""

    def __init__(self):
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/poster.jpg"


def test_pain_29_no_event_fetches_an_address_or_reads_a_file_that_the_client_names(served, pictures, monkeypatch):
    from gradio import processing_utils

    fetched, trap = [], Trap()

    async def fetch(url, cache_dir):
        fetched.append(url)
        raise RuntimeError("fetched")

    # Gradio refuses private addresses by itself and this machine may have no other: what it would fetch is counted.
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    secret = pictures[0].resolve()
    meta = {"meta": {"_type": "gradio.FileData"}}
    named = (trap.url, "https://huggingface.co/a.jpg", str(secret), f"file://{secret}", "../../etc/passwd")
    files = [
        file for p in named for file in ({"path": p, **meta}, {"path": p, "url": p, **meta}, {"path": p}, {"url": p})
    ]
    with httpx.Client(base_url=served.url, timeout=30) as wire:
        for number, fn in events(served):
            for place in range(len(fn.inputs) if fn.fn else 0):
                takes_files = fn.inputs[place].get_block_name() in ("image", "file")
                for file in files if takes_files else files[:1] + files[-1:]:
                    data = [None] * len(fn.inputs)
                    data[place] = [file] if fn.inputs[place].get_block_name() == "file" else file
                    said = join(wire, number, data)
                    assert "probabilities" not in said and "data:image" not in said, (file, fn.name)
    assert fetched == [] and trap.asked == [] and secret.exists()


def test_a_client_cannot_have_files_of_this_machine_deleted(served, tmp_path):
    """Uploads are deleted once they were read: only what was uploaded may be."""
    precious = tmp_path / "precious.jpg"
    precious.write_bytes(b"not yours")
    number = next(number for number, fn in events(served) if fn.api_name == "predict")
    with httpx.Client(base_url=served.url, timeout=30) as wire:
        said = join(wire, number, [{"path": str(precious)}, None, None, 0.0, False])
    assert "never was one" in said and precious.exists()
    with pytest.raises(FileNotFoundError):
        served.demo.upload_file_set.take(precious)
    assert precious.exists()


def test_the_file_route_serves_nothing_but_what_was_uploaded(served, pictures):
    for path in (str(pictures[0]), "/etc/passwd", str(Path(app_gradio.__file__)), "app_gradio.py", "../app_gradio.py"):
        answer = httpx.get(f"{served.url}/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


def test_pain_23_a_full_queue_says_busy_and_the_next_try_succeeds(trained, pictures, monkeypatch):
    monkeypatch.setattr(app_gradio, "QUEUE", 1)
    monkeypatch.setattr(app_gradio, "CONCURRENCY", 1)
    predictor = GradioPredictor(trained.config.out, "onnx")
    held, inside = threading.Event(), threading.Event()
    read = predictor.read

    def slow(*given):
        inside.set()
        held.wait(30)
        return read(*given)

    monkeypatch.setattr(predictor, "read", slow)
    served = Served(predictor)
    ask = lambda: served.client().predict(gradio_client.handle_file(str(pictures[0])), api_name="/predict")  # noqa: E731
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask)
        assert inside.wait(30)
        second = pool.submit(ask)
        until = time.monotonic() + 20
        while len(served.demo._queue) < 1 and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(Exception, match=r"(?i)queue is full|busy"):
            ask()
        held.set()
        assert first.result(30)["genres"] and second.result(30)["genres"]
    assert ask()["genres"]
    served.close()


def test_pain_23_the_service_s_own_limit_reaches_the_visitor_in_words(trained, pictures):
    predictor = GradioPredictor(trained.config.out, "onnx", limits=Limits(waiting=1))
    predictor._batcher.reserve(1)
    page = Page(predictor, WORDS, (None, None, None))
    *_, answer = page.read(Visit(), pictures[0], "a.jpg", Choice(), False)
    assert "busy: 1 pictures are waiting" in answer.lower() and 'role="alert"' in answer
    predictor.close()


# What is shown


def page_of(predictor) -> Page:
    from lobbycard.poster.explain import heat_maps, overlay

    return Page(predictor, WORDS, (heat_maps, overlay, lambda heat: ""))


def test_moving_a_slider_decides_anew_without_another_look(predictor, pictures, monkeypatch):
    page, visit = page_of(predictor), Visit()
    picture, _, answer = page.read(visit, pictures[0].read_bytes(), "a.jpg", Choice(), False)
    assert "data:image/webp;base64," in picture and 'class="bars given"' in answer
    monkeypatch.setattr(predictor._batcher, "submit", lambda *a: pytest.fail("the network was asked again"))
    n = len(predictor.labels)
    bold = page.decide(visit, Choice(threshold=0.0))
    assert given(bold) == predictor.answer(visit.reading, Choice(threshold=0.0)).labels
    assert len(given(bold)) == n and len(given(page.decide(visit, Choice(top_k=1)))) == 1


def given(html: str) -> list[str]:
    first = re.search(r'<ul class="bars given".*?</ul>', html)[0]
    return re.findall(r'class="name">([^<]*)<', first)


def test_pain_17_each_bar_has_its_own_threshold_and_no_answer_is_empty(predictor):
    reading = Reading("a", np.full(len(predictor.labels), 1e-4, np.float32))
    page = page_of(predictor)
    html = page.decide(Visit(reading), Choice())
    ticks = [float(t) for t in re.findall(r'class="tick" style="left:([0-9.]+)%', html)]
    assert sorted(ticks) == pytest.approx(sorted(100 * predictor.predictor.thresholds), abs=0.06)
    assert len(set(ticks)) > 1 and len(given(html)) == 1
    assert "Best guess" in html and "No genre reached its threshold" in html


def test_looking_again_with_views_gives_what_reading_with_views_gives(predictor, pictures):
    page, visit = page_of(predictor), Visit()
    page.read(visit, pictures[0].read_bytes(), "a.jpg", Choice(), False)
    html = page.look_again(visit, Choice(), True)
    [viewed] = predictor.read([pictures[0]], tta=True)
    np.testing.assert_allclose(visit.reading.probabilities, viewed.probabilities, atol=1e-5)
    assert "three views" in html
    assert "three views" not in page.look_again(visit, Choice(), False)


def test_maps_come_for_every_label_and_never_for_a_picture_that_was_left(predictor, pictures):
    page, visit = page_of(predictor), Visit()
    page.read(visit, pictures[0].read_bytes(), "a.jpg", Choice(), False)
    html = page.maps(visit)
    assert html.count('class="layer ') == len(predictor.labels)
    assert all(f"<span>{label}</span>" in html for label in predictor.labels)
    page.read(visit, pictures[0].read_bytes(), "a.jpg", Choice(), False)
    real = page._maps

    def meanwhile(*given):
        page.read(visit, pictures[1].read_bytes(), "b.jpg", Choice(), False)
        return real(*given)

    page._maps = meanwhile
    assert page.maps(visit) is None
    assert visit.reading.name == "b.jpg" and visit.reading.shown is not None


def test_few_wait_for_maps_and_whoever_comes_then_is_told_at_once(predictor, pictures):
    page, visits = page_of(predictor), [Visit() for _ in range(MAPS + 1)]
    for visit in visits:
        page.read(visit, pictures[0].read_bytes(), "a.jpg", Choice(), False)
    held, real = threading.Event(), page._maps
    page._maps = lambda *given: (held.wait(30), real(*given))[1]
    with ThreadPoolExecutor(MAPS) as pool:
        waiting = [pool.submit(page.maps, visit) for visit in visits[:MAPS]]
        assert until_true(lambda: len(page._mapping) == MAPS)
        assert "too many are waiting" in page.maps(visits[MAPS])
        assert page.maps(visits[0]) is None  # asked twice
        held.set()
        assert all("data:image" in done.result(30) for done in waiting)
    assert page._mapping == [] and "data:image" in page.maps(visits[MAPS])


def test_maps_of_one_visitor_leave_the_queue_to_the_answers_of_others(trained, pictures, monkeypatch):
    monkeypatch.setattr(app_gradio, "QUEUE", 4)
    predictor = GradioPredictor(trained.config.out, "onnx")
    served, held, inside = Served(predictor), threading.Event(), threading.Event()
    forward = predictor._batcher._forward
    slow = lambda pixels, views: (inside.set(), held.wait(30)) if len(pixels) > 1 else None  # noqa: E731
    monkeypatch.setattr(predictor._batcher, "_forward", lambda *given: (slow(*given), forward(*given))[1])
    number, read = event_of(served, "read")
    maps, event = event_of(served, "maps")
    with httpx.Client(base_url=served.url, timeout=60) as wire:
        join(wire, number, values_of(served, read, image=upload(served, pictures[0])), "greedy")
        body = {"data": values_of(served, event), "fn_index": maps, "session_hash": "greedy"}
        taken = [wire.post("/gradio_api/queue/join", json=body).status_code]
        assert inside.wait(30)
        for _ in range(30):
            taken.append(wire.post("/gradio_api/queue/join", json=body).status_code)
            assert until_true(lambda: len(served.demo._queue) == 0)
        held.set()
        assert set(taken) == {200}
    assert served.client().predict(gradio_client.handle_file(str(pictures[1])), api_name="/predict")["genres"]
    served.close()


def test_what_has_to_be_said_of_the_first_map_is_said_without_a_click():
    picture = Image.new("RGB", (20, 30))
    silent = maps_html([("Drama", picture, "No place in particular."), ("War", picture, "")], WORDS, picture.size)
    assert '<p class="caption n0">Drama: no place in particular.</p>' in silent and 'class="n0" checked' in silent
    assert ".maps:has(input.n0:checked) .n0:is(.layer,.caption)" in silent
    assert "caption n0" not in maps_html([("War", picture, "")], WORDS, picture.size)


def test_a_value_out_of_its_range_is_told_to_the_visitor_and_is_no_traceback(served, pictures, capfd):
    number, decide = event_of(served, "decide")
    with httpx.Client(base_url=served.url, timeout=30) as wire:
        for place, odd in ((-1, 99), (-1, "x"), (-1, [1]), (2, {"a": 1}), (2, -5)):
            values = values_of(served, decide)
            values[place] = odd
            assert '"success":false' in join(wire, number, values, "odd").replace(": ", ":"), odd
    assert "Traceback" not in capfd.readouterr().err


def test_one_threshold_for_all_is_the_one_that_is_set():
    assert choice_of(3, True, 0.5, 3.0, 10) == Choice(3, 0.5, 0.0)
    assert choice_of(3, False, 0.5, 3.0, 10) == Choice(3, None, 3.0)


def test_a_guess_is_marked_in_the_table_and_file_names_stay_as_they_are():
    guess = Answer(["War"], True, {"War": 0.2}, {"War": 0.5})
    html = gallery_html([Row("a.jpg", guess, "data:,"), Row("nc_bad.jpg", error="nc_bad.jpg: empty")], ["War"], WORDS)
    assert "<td>War (best guess)</td>" in html and "1 of 2 posters read." in html
    assert "(best guess)" not in csv_text([Row("a.jpg", guess)], ["War"], WORDS)
    assert "<p>nc_bad.jpg: empty" in problem_html("nc_bad.jpg: empty", begins_with="nc_bad.jpg")
    assert "<p>Busy now" in problem_html("busy now")


def test_an_example_that_cannot_be_read_is_left_out_and_named(predictor, pictures, tmp_path, capsys):
    cut, pipe = tmp_path / "cut.jpg", tmp_path / "pipe.jpg"
    cut.write_bytes(pictures[0].read_bytes()[:700])
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
    assert [path for path, _ in readable([cut, pictures[1], pipe, tmp_path / "none.jpg"])] == [pictures[1]]
    said = capsys.readouterr().err
    assert "example left out: cut.jpg: cut off or damaged" in said and "pipe.jpg" in said
    demo = build_demo(predictor, [cut, pictures[1]])
    [examples] = [block for block in demo.blocks.values() if block.elem_id == "examples"]
    assert examples.value.count("<button") == 1


def test_fast_is_chosen_by_itself_only_for_a_model_that_has_nothing_else(tmp_path):
    (tmp_path / "model.int8.onnx").write_bytes(b"")
    wanted = {"fast": ["model.int8.onnx"], "fp32": ["model.int8.onnx", "model.onnx"]}
    for precision, files in wanted.items():
        (tmp_path / "model.json").write_text(json.dumps({"files": dict.fromkeys(files, "")}))
        assert only_precision(tmp_path) == precision
    for text in ("{", "[]", '{"files": 3}'):
        (tmp_path / "model.json").write_text(text)
        assert only_precision(tmp_path) == "fp32"
    assert only_precision(tmp_path / "export.pkl") == "fp32"


def test_a_model_of_drawn_posters_says_so_beside_its_answers(predictor, monkeypatch):
    seen = []
    for drawn in (True, False):
        about = predictor.predictor.folder.about
        monkeypatch.setitem(about, "data", {**about["data"], "drawn": drawn})
        [line] = [block for block in build_demo(predictor).blocks.values() if block.elem_id == "knows"]
        seen.append(line.visible)
        assert "posters drawn by code" in line.value
    assert seen == [True, False]


def event_of(served, name):
    return next((number, fn) for number, fn in events(served) if fn.name == name)


def upload(served, path) -> dict:
    answer = httpx.post(f"{served.url}/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    return {"path": answer.json()[0], "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


def values_of(served, fn, **by_kind) -> list:
    """What a page sends for an event: each input's first value, but for the kinds that are named."""
    return [None if b.stateful else by_kind.get(b.get_block_name(), getattr(b, "value", None)) for b in fn.inputs]


def visits(served, session) -> list[Visit]:
    data = served.demo.state_holder.session_data
    return list(data[session].state_data.values()) if session in data else []


def test_a_visitor_who_closes_the_page_is_forgotten_at_once(served, pictures):
    """Gradio itself would keep the thumbnail for another hour."""
    number, read = event_of(served, "read")
    with httpx.Client(base_url=served.url, timeout=30) as wire:
        with wire.stream("GET", "/gradio_api/heartbeat/closer") as heart:
            beats = heart.iter_lines()  # kept, or else the connection is closed
            assert "ALIVE" in next(beats)
            said = join(wire, number, values_of(served, read, image=upload(served, pictures[0])), "closer")
            assert "Now showing" in said or "Best guess" in said
            assert [visit.reading is not None for visit in visits(served, "closer")] == [True]
        until = time.monotonic() + 20
        while "closer" in served.demo.state_holder.session_data and time.monotonic() < until:
            time.sleep(0.05)
    assert visits(served, "closer") == [] and "closer" not in served.demo.state_holder.session_data


def test_gradio_keeps_nothing_of_what_it_showed(served, pictures):
    assert served.demo.state_holder.capacity < 1000
    with httpx.Client(base_url=served.url, timeout=60) as wire:
        number, read = event_of(served, "read")
        assert "data:image" in join(wire, number, values_of(served, read, image=upload(served, pictures[0])), "kept")
        number, maps = event_of(served, "maps")
        assert "data:image" in join(wire, number, values_of(served, maps), "kept")
        number, many = event_of(served, "read_many")
        assert "data:text/csv" in join(
            wire, number, values_of(served, many, file=[upload(served, pictures[1])]), "kept"
        )
    session = served.demo.state_holder.session_data["kept"]
    assert session.state_data  # it is the session that was used
    examples = [b._id for b in served.demo.blocks.values() if "examples" in (b.elem_id or "")]
    kept = repr([value for key, value in session.config_values.items() if key not in examples])
    assert "data:image" not in kept and "data:text" not in kept and pictures[0].name not in kept
    assert "data:image" not in repr(
        [vars(b).get("value") for k, b in session.blocks_config.blocks.items() if k not in examples]
    )


def test_a_forgotten_poster_is_said_when_a_slider_moves_and_a_move_starts_the_time_anew(served, pictures):
    number, read = event_of(served, "read")
    moved, decide = event_of(served, "decide")
    with httpx.Client(base_url=served.url, timeout=30) as wire:
        quiet = join(wire, moved, values_of(served, decide), "slow")
        assert "forgotten" not in quiet and "answer" not in quiet
        join(wire, number, values_of(served, read, image=upload(served, pictures[0])), "slow")
        session = served.demo.state_holder.session_data["slow"]
        [(key, (_, began))] = session._state_ttl.items()
        answered = values_of(served, decide)
        answered[1] = True  # the page's own knowledge that it shows an answer
        assert "Now showing" in (said := join(wire, moved, answered, "slow")) or "Best guess" in said
        assert session._state_ttl[key][1] > began
        del session.state_data[key]  # as Gradio does when the time is over
        assert "forgotten after a while" in join(wire, moved, answered, "slow")


def test_one_upload_that_is_gone_is_a_row_and_the_rest_are_read(served, pictures):
    number, many = event_of(served, "read_many")
    files = [upload(served, path) for path in pictures[50:53]]
    Path(files[1]["path"]).unlink()
    never = {**files[0], "path": "/etc/passwd", "orig_name": "never.jpg"}
    with httpx.Client(base_url=served.url, timeout=60) as wire:
        said = join(wire, number, values_of(served, many, file=[*files, never]), "lost")
    [html] = [
        v for v in json.loads(said.removeprefix("data:"))["output"]["data"] if isinstance(v, str) and "cards" in v
    ]
    assert html.count('<li class="bad">') == 2 and "2 of 4 posters read" in html
    assert html.count("the upload is gone, or never was one; choose the picture once more") >= 2
    assert [re.sub("<.*", "", part) for part in html.split('class="file">')[1:]] == [
        *(path.name for path in pictures[50:53]), "never.jpg"
    ]  # fmt: skip


def test_an_example_that_there_is_none_of_is_refused(served):
    number, example = event_of(served, "read_example")
    with httpx.Client(base_url=served.url, timeout=30) as wire:
        for click in (-1, 3, 10**9, None, "0"):
            values = values_of(served, example)
            values[-1] = click
            said = join(wire, number, values, "examples")
            assert "data:image" not in said and '"success":false' in said, click


def test_uploads_of_events_that_wait_are_not_swept(trained, pictures, monkeypatch):
    monkeypatch.setattr(app_gradio, "CONCURRENCY", 1)
    predictor = GradioPredictor(trained.config.out, "onnx")
    held, inside, read = threading.Event(), threading.Event(), predictor.read
    monkeypatch.setattr(predictor, "read", lambda *given: (inside.set(), held.wait(30), read(*given))[2])
    served = Served(predictor)
    number, event = event_of(served, "read")
    files = [upload(served, path) for path in pictures[:4]]
    ask = lambda wire, n: join(wire, number, values_of(served, event, image=files[n]), f"waits{n}")  # noqa: E731
    with httpx.Client(base_url=served.url, timeout=60) as wire, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, wire, 0)
        assert inside.wait(30)
        second = pool.submit(ask, wire, 1)
        assert until_true(lambda: len(served.demo._queue) == 1)
        stale = time.time() - 200
        for file in files:
            os.utime(file["path"], (stale, stale))
        served.demo.keep_waiting(files[2])
        fresh = [Path(file["path"]).stat().st_mtime > stale + 100 for file in files]
        held.set()
        assert "data:image" in first.result(30) and "data:image" in second.result(30)
    assert fresh[1:] == [True, True, False]
    served.close()


class File:
    def __init__(self, name, content):
        self.name, self._content = name, content

    def take(self):
        return self._content


def test_many_posters_give_progress_then_a_row_each_and_a_bad_one_is_a_row(predictor, pictures, tmp_path):
    from lobbycard.poster.answers import write_answers

    paths = pictures[:11]
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(paths[0].read_bytes()[:900])
    files = [File(path.as_posix(), path.read_bytes()) for path in [*paths, bad]]
    *progress, (_, html) = page_of(predictor).many(files, Choice(), False)
    assert [int(re.search(r'value="(\d+)"', said)[1]) for said, _ in progress] == [0, 8]
    link = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', html)[1]
    ours = list(csv.reader(io.StringIO(b64decode(link).decode())))
    write_answers(predictor.predictor, [*paths, bad], tmp_path / "cli.csv", Choice())
    theirs = list(csv.reader(io.StringIO((tmp_path / "cli.csv").read_text(encoding="utf-8"))))
    assert ours[0] == theirs[0] and [row[:2] for row in ours] == [row[:2] for row in theirs]
    for mine, its in zip(ours[1:-1], theirs[1:-1], strict=True):
        assert [float(p) for p in mine[3:]] == pytest.approx([float(p) for p in its[3:]], abs=2e-5)
    assert "cut off or damaged" in ours[-1][2] and set(ours[-1][3:]) == {""}
    assert "11 of 12 posters read" in html


def test_while_many_are_read_others_are_served_in_between(predictor, pictures):
    many = page_of(predictor).many([File(p.name, p.read_bytes()) for p in pictures[:40]], Choice(), False)
    next(many)
    next(many)
    assert predictor.predict(pictures[0]).labels  # the visitor with forty holds no place between two chunks
    assert predictor._batcher._taken == 0
    *_, (_, html) = many
    assert html.count('class="frame"') == 40


@pytest.mark.parametrize("name", ["=1+1.jpg", "+a.jpg", "-a.jpg", "@SUM(A1).jpg", "\tx.jpg", " =x.jpg"])
def test_file_names_that_a_spreadsheet_would_compute_are_made_text(name):
    assert harmless(name) == "'" + name
    answer = Answer(["-Odd", "Drama"], False, {"-Odd": 0.9, "Drama": 0.8}, {"-Odd": 0.5, "Drama": 0.5})
    row = list(csv.reader(io.StringIO(csv_text([Row(name, answer)], ["-Odd", "Drama"], WORDS))))[1]
    assert row == ["'" + name, "-Odd|Drama", "", "0.900000", "0.800000"]
    assert harmless("a-b.jpg") == "a-b.jpg"


def test_labels_names_and_reasons_are_text_wherever_they_stand():
    words = Words("poster", "posters", "genre", "genres")
    answer = Answer([HOSTILE], True, {HOSTILE: 0.7, "b": 0.1}, {HOSTILE: 0.8, "b": 0.5}, unlike=HOSTILE)
    rows = [Row(HOSTILE, answer, "data:,"), Row(HOSTILE, error=HOSTILE)]
    about = {"per_label": {HOSTILE: {"ap": 0.5, "support": 3}}, "data": {"source": HOSTILE}, "arch": HOSTILE}
    for html in (answer_html(answer, words, HOSTILE), gallery_html(rows, ["b"], words), about_html(about, words)):
        assert "<img src=x" not in html and "&lt;img src=x" in html


def test_about_shows_measured_figures_beside_no_skill_and_lives_without_them(predictor):
    about = predictor.predictor.folder.about
    html = about_html(about, WORDS, ["It cannot sing."], "ONNX Runtime, fp32")
    low, high = about["metrics"]["mAP"]["ci95"]
    best = max(row["mAP"]["value"] for row in about["baselines"].values())
    assert f"{about['metrics']['mAP']['value']:.3f}" in html and f"{low:.3f} to {high:.3f}" in html
    assert f"): {best:.3f}" in html and "It cannot sing." in html
    assert all(f'<th scope="row">{label}</th>' in html for label in about["labels"])
    bare = about_html({"labels": ["a"], "input": {"size": [4, 4]}, "thresholds": {"a": 0.5}}, WORDS)
    assert "carries no measurements" in bare and "4 x 4 pixels" in bare


def test_numbers_and_lists_are_written_for_people():
    assert [percent(p) for p in (0, 0.004, 0.5, 0.996, 1)] == ["0 %", "<1 %", "50 %", ">99 %", "100 %"]
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert choice_of(10, False, 0.3, 0.5, 10) == Choice(None, None, 0.5)
    assert choice_of(3, True, 0.3, 0, 10) == Choice(3, 0.3, 0.0)


def test_the_look_asks_no_other_server_for_anything():
    from lobbycard.web.look import look

    parts = look()
    assert not re.search(r"https?:|@import|url\(|src=|href=", parts["head"])
    assert parts["theme"]._stylesheets == [] and "url(" not in parts["theme"]._get_theme_css().replace('url("data:', "")


def test_pain_22_a_share_link_s_life_is_said_when_it_starts():
    from lobbycard.web import server

    assert "1 week (best effort" in server.SHARED and "only while this program runs" in server.SHARED


def test_pictures_stay_shut_to_gradio_whose_decoders_have_no_limits(served, tmp_path):
    """A picture of 900 million pixels in 110 kB is refused by its header, in no time."""
    bomb = Image.new("1", (30_000, 30_000))
    bomb.save(tmp_path / "bomb.png")
    began = time.monotonic()
    with pytest.raises(Exception, match="at most 50,000,000|too large|scale it down"):
        served.client().predict(gradio_client.handle_file(str(tmp_path / "bomb.png")), api_name="/predict")
    assert time.monotonic() - began < 5


def test_importing_and_building_writes_nothing_beside_the_sources(predictor):
    build_demo(predictor)
    root = Path(app_gradio.__file__).parent
    assert list(root.glob("*.pyi")) + list((root / "lobbycard").rglob("*.pyi")) == []


def test_a_service_is_closed_with_its_predictor(trained, pictures):
    predictor = GradioPredictor(trained.config.out, "onnx")
    assert isinstance(predictor, Service)
    predictor.close()
    with pytest.raises(InputError, match="stopping"):
        predictor.predict(pictures[0])


def test_about_says_what_looking_three_times_changes():
    measured = {"change": 0.0012, "ci95": [-0.0022, 0.0054]}
    modes = {"posters": 1000, "tta": measured, "int8": {"change": -0.1, "refused": "it loses 0.1"}}
    html = about_html({"modes": modes}, WORDS)
    assert "Looking three times" in html and "+0.001 (\u22120.002 to +0.005), measured on 1,000 posters" in html
    assert "int8" not in html
    said = "slower; it changed mAP by +0.001 (\u22120.002 to +0.005) on 1,000 posters"
    assert views_words(modes, WORDS) == said and views_words({}, WORDS) == "slower"


def test_what_looking_three_times_brings_is_never_promised(predictor):
    demo = build_demo(predictor)
    [box] = [b for b in demo.blocks.values() if getattr(b, "label", "") == "Look three times"]
    change = predictor.predictor.folder.about["modes"]["tta"]["change"]
    assert f"{abs(change):.3f}" in box.info and "surer" not in box.info


def test_what_a_killed_process_left_is_removed_by_the_next_and_the_living_are_left_alone(tmp_path, monkeypatch):
    from lobbycard.web.uploads import DEAD, PREFIX, private_folder

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    dead, living, other = tmp_path / f"{PREFIX}dead", tmp_path / f"{PREFIX}living", tmp_path / "another-program"
    for folder in (dead, living, other):
        folder.mkdir()
        (folder / "poster.jpg").write_bytes(b"somebody's")
    for folder in (dead, other):
        os.utime(folder, (time.time() - DEAD - 9,) * 2)
    with private_folder() as mine:
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([living.name, other.name, mine.name])
    assert not mine.exists() and (living / "poster.jpg").exists()


def test_a_living_process_s_folder_stays_however_long_it_was_suspended(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    from lobbycard.web.uploads import DEAD, private_folder

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    code = (
        "import sys; from lobbycard.web import uploads; uploads.SWEEP = 600\n"
        "context = uploads.private_folder(); print(context.__enter__(), flush=True); sys.stdin.read()\n"
        "import os; os._exit(0)"
    )
    living = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(app_gradio.__file__).parent,
    )  # fmt: skip
    folder = Path(living.stdout.readline().strip())
    old = (time.time() - DEAD - 9,) * 2
    os.utime(folder, old)
    with private_folder():
        assert folder.is_dir()
    living.communicate("")
    assert folder.is_dir()
    os.utime(folder, old)
    with private_folder():
        assert not folder.exists()


def test_the_sweeper_outlives_the_removal_of_its_folder(tmp_path, monkeypatch):
    from lobbycard.web import uploads

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(uploads, "SWEEP", 0.02)
    with uploads.private_folder() as mine:
        for _ in range(3):
            shutil.rmtree(mine, ignore_errors=True)
            assert until_true(mine.is_dir)
        (mine / "late.jpg").write_bytes(b"x")
        os.utime(mine / "late.jpg", (1, 1))
        assert until_true(lambda: not (mine / "late.jpg").exists())


def test_all_uploads_together_take_no_more_than_the_budget_and_the_oldest_go_first(tmp_path, monkeypatch):
    from lobbycard.web import uploads

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(uploads, "SWEEP", 0.02)
    monkeypatch.setattr(uploads, "BUDGET", 2500)
    with uploads.private_folder() as mine:
        now = time.time()
        for age in (1, 2, 3, 4):
            (mine / "new").write_bytes(bytes(1000))
            os.utime(mine / "new", (now - age, now - age))
            (mine / "new").rename(mine / f"{age}.jpg")
        assert until_true(lambda: sorted(p.name for p in mine.iterdir()) == ["1.jpg", "2.jpg"])


def until_true(check, seconds=10) -> bool:
    until = time.monotonic() + seconds
    while not check() and time.monotonic() < until:
        time.sleep(0.02)
    return check()
