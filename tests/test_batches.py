"""Batches: in order, bad files told apart, the same pixels as one by one."""

from threading import Barrier, Event, Timer, get_ident

import numpy as np
import pytest
import torch
from PIL import Image

from lobbycard.catalog.batches import answered, batches, normalize
from lobbycard.catalog.image import poster_array


def pictures(folder, n):
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (20, 10, 3), np.uint8)).save(folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(n)]


def test_order_and_pixels_and_the_incomplete_last_batch(tmp_path):
    paths = pictures(tmp_path, 7)
    found = list(batches(paths, (16, 8), 3))
    assert [len(batch.sources) for batch in found] == [3, 3, 1]
    assert np.array_equal(
        np.concatenate([b.pixels for b in found]), np.stack([poster_array(p, (16, 8)) for p in paths])
    )


def test_a_bad_file_is_an_error_in_its_place(tmp_path):
    paths = pictures(tmp_path, 3)
    paths[1].write_bytes(b"<html>")
    (batch,) = batches([*paths, tmp_path / "gone.png"], (16, 8), 8)
    assert batch.rows.tolist() == [0, 2]
    assert "a web page" in batch.errors[1] and "cannot be read: No such file" in batch.errors[3]


def test_only_bad_files_and_no_files():
    (batch,) = batches([b"", b"x"], (16, 8), 4)
    assert batch.pixels.shape == (0, 16, 8, 3) and len(batch.errors) == 2
    assert list(batches([], (16, 8), 4)) == []


def test_an_endless_source_is_read_no_further_than_it_is_used():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield b""

    stream = batches(endless(), (16, 8), 10)
    next(stream)
    assert taken <= 30
    stream.close()


def test_several_threads_answer_in_order_at_the_same_time(tmp_path):
    """They meet at a barrier that lets nobody through alone."""
    paths, meet, seen = pictures(tmp_path, 9), Barrier(3, timeout=30), set()

    def answer(batch):
        meet.wait()
        seen.add(get_ident())
        return batch

    found = list(answered(paths, (16, 8), 1, answer, threads=3))
    assert [batch.sources for batch in found] == [[path] for path in paths] and len(seen) == 3
    assert all(np.array_equal(b.pixels[0], poster_array(p, (16, 8))) for b, p in zip(found, paths, strict=True))


def test_several_threads_tell_a_bad_file_apart_and_pass_on_what_the_answer_raises(tmp_path):
    paths = pictures(tmp_path, 5)
    paths[1].write_bytes(b"<html>")
    errors = [batch.errors for batch in answered(paths, (16, 8), 2, lambda batch: batch, threads=2)]
    assert "a web page" in errors[0][1] and errors[1:] == [{}, {}]

    def fail(batch):
        raise ZeroDivisionError(str(batch.sources[0]))

    with pytest.raises(ZeroDivisionError, match=r"0\.png"):
        list(answered(paths, (16, 8), 2, fail, threads=2))


def test_whoever_leaves_early_waits_for_no_more_than_what_is_being_answered():
    """The first batch is given, the next two are being answered in both threads, the fourth waits: it is never begun."""
    taken, begun, gate, both = 0, [], Event(), Barrier(3, timeout=30)

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield b""

    def answer(batch):
        begun.append(batch)
        if len(begun) > 1:
            both.wait()
            gate.wait(30)

    stream = answered(endless(), (16, 8), 10, answer, threads=2)
    next(stream)
    both.wait()
    Timer(0.3, gate.set).start()
    stream.close()
    assert taken == 40 and len(begun) == 3


def test_normalize_equals_torchvision():
    from torchvision.transforms.v2 import functional

    pixels = np.random.default_rng(1).integers(0, 255, (2, 6, 5, 3), np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    reference = torch.stack(
        [functional.normalize(functional.to_dtype(functional.to_image(p), scale=True), mean, std) for p in pixels]
    )
    assert np.abs(normalize(pixels, mean, std) - reference.numpy()).max() < 1e-6
