"""The service that page and API share: batching, limits, errors as readings, decisions."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
from PIL import Image

from lobbycard.poster.answers import Choice
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.web.batcher import Batcher, Busy
from lobbycard.web.service import Limits, Reading, Service


@pytest.fixture(scope="module")
def predictor(trained):
    return PosterPredictor.load(trained.config.out)


@pytest.fixture()
def service(predictor):
    service = Service(predictor)
    yield service
    service.close()


def test_many_at_once_get_what_the_predictor_gives_one_by_one(service, predictor, drawn):
    paths = sorted((drawn / "images").glob("*.jpg"))[:24]
    readings = service.read(paths)
    assert [r.name for r in readings] == [p.name for p in paths]
    expected = np.stack([predictor.predict_proba([p])[0] for p in paths])
    np.testing.assert_allclose(np.stack([r.probabilities for r in readings]), expected, atol=1e-5)
    viewed = service.read(paths[:3], tta=True)
    np.testing.assert_allclose(
        np.stack([r.probabilities for r in viewed]), predictor.predict_proba(paths[:3], tta=True), atol=1e-5
    )


def test_a_bad_picture_is_a_reading_with_its_error_and_the_rest_go_on(service, drawn, tmp_path):
    good = next((drawn / "images").glob("*.jpg"))
    cut = good.read_bytes()[:2000]
    readings = service.read(
        [good, cut, b"<html>404", tmp_path / "gone.jpg"], names=["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    )
    assert readings[0].error == "" and readings[0].probabilities is not None
    assert [r.status for r in readings[1:]] == ["truncated", "not_image", "unreadable"]
    assert readings[1].error.startswith("b.jpg: cut off or damaged")
    assert readings[2].error.startswith("c.jpg: not a picture but a web page; expected one of JPEG")
    assert readings[3].error.startswith("d.jpg: cannot be read")


def test_pixels_are_limited_before_decoding_and_large_pictures_still_read(predictor):
    service = Service(predictor, Limits(pixels=20_000_000))
    large, small = Image.new("RGB", (4000, 4000), "red"), Image.new("RGB", (400, 400), "red")
    one, two, three = service.read([large, small, Image.new("L", (5000, 5000))])
    service.close()
    np.testing.assert_allclose(one.probabilities, two.probabilities, atol=1e-5)
    assert three.status == "too_large" and "at most 20,000,000" in three.error


def test_more_than_may_wait_is_told_to_come_again_and_room_comes_back(predictor, drawn):
    service = Service(predictor, Limits(waiting=4))
    path = next((drawn / "images").glob("*.jpg"))
    held = threading.Event()
    forward = predictor.from_pixels
    service._batcher._forward = lambda *a: (held.wait(10), forward(*a))[1]
    waiting = service.submit([path] * 4)
    with pytest.raises(Busy, match="busy: 4 pictures are waiting and at most 4 may; try again in 2 seconds"):
        service.submit([path])
    held.set()
    assert all(w.result(10).probabilities is not None for w in waiting)
    assert service.read([path])[0].probabilities is not None
    service.close()


def test_whoever_goes_away_frees_the_place_and_disturbs_nobody(predictor, drawn):
    service = Service(predictor, Limits(waiting=8))
    path = next((drawn / "images").glob("*.jpg"))
    for _ in range(5):
        futures = service.submit([path] * 8)
        gone = [f for f in futures[::2] if f.cancel()]
        assert all(f.result(10).probabilities is not None for f in futures[1::2])
        for f in gone:
            with pytest.raises(CancelledError):
                f.result(10)
        deadline = time.monotonic() + 5
        while service._batcher._taken and time.monotonic() < deadline:
            time.sleep(0.01)
        assert service._batcher._taken == 0
    service.close()


def test_closing_answers_what_was_accepted(predictor, drawn):
    service = Service(predictor)
    futures = service.submit(sorted((drawn / "images").glob("*.jpg"))[:10])
    service.close()
    assert all(f.result(10).probabilities is not None for f in futures)


def test_requests_that_gather_share_a_run_and_a_failed_run_is_the_askers_own():
    sizes, go = [], threading.Event()

    def forward(pixels, views):
        go.wait(10)
        sizes.append((len(pixels), views))
        if pixels.max() == 9:
            raise RuntimeError("out of luck")
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)

    batcher = Batcher(forward, batch=4, waiting=99)
    picture = lambda value: np.full((1, 1, 3), value, np.uint8)  # noqa: E731
    first = batcher.submit(picture(0))
    rest = [batcher.submit(picture(i)) for i in range(1, 7)] + [
        batcher.submit(picture(7), True),
        batcher.submit(picture(9)),
    ]
    go.set()
    assert [float(f.result(10)[0]) for f in [first, *rest[:-1]]] == [0, 1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(RuntimeError, match="out of luck"):
        rest[-1].result(10)
    batcher.close()
    assert sum(n for n, _ in sizes) == 9 and max(n for n, _ in sizes) == 4 and (1, True) in sizes
    with pytest.raises(Busy, match="stopping"):
        batcher.submit(picture(1))


def test_when_all_that_waited_have_gone_away_the_next_is_still_served():
    go, sizes = threading.Event(), []
    batcher = Batcher(lambda p, _: (go.wait(10), sizes.append(len(p)), p.reshape(len(p), -1)[:, :1])[2], 4, 99)
    ask = lambda: batcher.submit(np.zeros((1, 1, 3), np.uint8))  # noqa: E731
    first = ask()
    while not first.running():
        time.sleep(0.001)
    gone = [ask() for _ in range(3)]
    assert all(future.cancel() for future in gone)
    go.set()
    first.result(10)
    assert ask().result(10).tolist() == [0] and sizes == [1, 1]
    batcher.close()


def test_an_answer_names_its_thresholds_and_says_when_it_is_a_guess(service):
    n = len(service.labels)
    own = service.predictor.thresholds
    sure = Reading("a", probabilities=np.clip(own + 0.05, 0, 1).astype(np.float32))
    assert set(service.answer(sure, Choice()).labels) == set(service.labels)
    assert not service.answer(sure, Choice()).guess
    faint = Reading("a", probabilities=np.linspace(1e-4, 2e-4, n, dtype=np.float32))
    answer = service.answer(faint, Choice(threshold=0.9))
    assert answer.guess and answer.labels == [service.labels[-1]]
    assert set(answer.thresholds.values()) == {0.9}
    assert len(service.answer(sure, Choice(top_k=2)).labels) == 2
    stricter = service.answer(sure, Choice(shift=1.0)).thresholds
    assert all(stricter[label] > t for label, t in zip(service.labels, own, strict=True) if 0 < t < 1)


def test_small_pictures_go_past_large_ones(predictor, drawn):
    service = Service(predictor)
    large = Image.new("RGB", (4500, 4500), "navy")
    waiting = service.submit([large] * 3)
    small = service.submit([next((drawn / "images").glob("*.jpg"))] * 2)
    assert all(f.result(30).probabilities is not None for f in small)
    assert not waiting[-1].done(), "two large pictures held both decoders"
    assert all(f.result(60).probabilities is not None for f in waiting)
    service.close()
