"""Batches: in order, bad files told apart, the same pixels as one by one."""

import numpy as np
import torch
from PIL import Image

from lobbycard.catalog.batches import batches, normalize
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


def test_normalize_equals_torchvision():
    from torchvision.transforms.v2 import functional

    pixels = np.random.default_rng(1).integers(0, 255, (2, 6, 5, 3), np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    reference = torch.stack(
        [functional.normalize(functional.to_dtype(functional.to_image(p), scale=True), mean, std) for p in pixels]
    )
    assert np.abs(normalize(pixels, mean, std) - reference.numpy()).max() < 1e-6
