"""What is kept of a frozen half: the right numbers, both views, in training's order; whole or not there."""

import random
from collections import namedtuple
from contextlib import closing

import numpy as np
import pytest
import torch

from lobbycard.errors import InputError
from lobbycard.poster import halfway
from lobbycard.poster.halfway import VIEWS, HalfwayFile, half_answers, halfway_dataloaders

SHAPE = (4, 3, 2)


def whole(file: HalfwayFile) -> np.ndarray:
    """All that was written, (N, VIEWS, ...)."""
    with closing(file.open()) as kept:
        return kept.take(np.arange(VIEWS * file.n)).reshape(file.n, VIEWS, *kept.shape)


@pytest.fixture
def answers():
    return np.random.default_rng(0).normal(size=(10, 2, *SHAPE)).astype(np.float32)


@pytest.fixture
def file(tmp_path, answers):
    file = HalfwayFile(tmp_path / "kept", 10, SHAPE)
    file.write(iter([answers[:7], answers[7:]]))
    return file


def test_rows_come_back_in_order_channels_last(file, answers):
    assert file.whole and file.path.stat().st_size == file.size == 10 * 2 * 24 * 2
    np.testing.assert_allclose(whole(file), np.moveaxis(answers, 2, -1), atol=2e-3)


def test_tokens_are_kept_as_they_are(tmp_path):
    tokens = np.random.default_rng(0).normal(size=(5, 2, 7, 8)).astype(np.float32)
    file = HalfwayFile(tmp_path / "tokens", 5, (7, 8))
    file.write(iter([tokens]))
    np.testing.assert_allclose(whole(file), tokens, atol=2e-3)
    dls = halfway_dataloaders(file, np.eye(5, dtype=bool), np.arange(5) > 2, 2, torch.device("cpu"))
    assert dls.valid.one_batch()[0].shape == (2, 7, 8)


def test_answers_beyond_fp16_stay_finite(tmp_path):
    file = HalfwayFile(tmp_path / "large", 1, (2,))
    file.write(iter([np.array([[[1e6, -1e6], [1.0, 2.0]]], np.float32)]))
    assert whole(file)[0].tolist() == [[65504.0, -65504.0], [1.0, 2.0]]


def test_both_views_go_through_both_halves():
    """The lower half sums columns from the left: a mirrored picture gives something else, known beforehand."""
    pixels = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    weigh = np.array([1.0, 10.0], np.float32)
    maps, pooled = half_answers(lambda x: (x * weigh).sum(axis=(2, 3)), lambda x: 2 * x, pixels)
    straight, mirrored = (pixels * weigh).sum(axis=(2, 3)), (pixels * weigh[::-1]).sum(axis=(2, 3))
    np.testing.assert_allclose(maps, np.stack([straight, mirrored], axis=1))
    np.testing.assert_allclose(pooled, straight + mirrored)


def test_a_write_that_breaks_off_leaves_nothing(tmp_path, answers):
    def broken():
        yield answers[:7]
        raise KeyboardInterrupt

    file = HalfwayFile(tmp_path / "kept", 10, SHAPE)
    with pytest.raises(KeyboardInterrupt):
        file.write(broken())
    assert list(tmp_path.iterdir()) == [] and not file.whole


def test_a_disk_without_room_is_told_before_the_work(tmp_path, answers, monkeypatch):
    usage = namedtuple("Usage", "free")
    monkeypatch.setattr(halfway.shutil, "disk_usage", lambda folder: usage(100))
    file = HalfwayFile(tmp_path / "kept", 10, SHAPE)
    with pytest.raises(
        InputError, match=r"keeps 0\.0 GB for 10 posters.*0\.0 GB are free; make room, take fewer movies"
    ):
        file.write(iter([answers]))


def test_training_sees_every_row_once_an_epoch_in_one_of_its_views_validation_as_it_is(file, answers):
    truth = np.eye(10, dtype=bool)  # the target tells which row it is
    is_valid = np.arange(10) % 3 == 0  # 0, 3, 6, 9
    dls = halfway_dataloaders(file, truth, is_valid, 2, torch.device("cpu"))
    x, y = (torch.cat(part) for part in zip(*dls.valid, strict=True))
    assert y.argmax(dim=1).tolist() == [0, 3, 6, 9]
    np.testing.assert_allclose(x, answers[[0, 3, 6, 9], 0], atol=2e-3)
    assert x.is_contiguous(memory_format=torch.channels_last) and x.dtype == torch.float32

    torch.manual_seed(0)
    views = set()
    for _ in range(4):
        x, y = (torch.cat(part) for part in zip(*dls.train, strict=True))
        rows = y.argmax(dim=1).tolist()
        assert sorted(rows) == [1, 2, 4, 5, 7, 8]
        for picture, row in zip(x.numpy(), rows, strict=True):
            (view,) = [v for v in (0, 1) if np.allclose(picture, answers[row, v], atol=2e-3)]
            views.add((row, view))
    assert len(views) > 9  # of 12: both views of most rows


def test_an_incomplete_batch_is_dropped_in_training_alone_and_the_order_follows_the_generators(file):
    truth, is_valid = np.eye(10, dtype=bool), np.arange(10) < 5
    dls = halfway_dataloaders(file, truth, is_valid, 2, torch.device("cpu"))
    assert [len(y) for _, y in dls.train] == [2, 2] and [len(y) for _, y in dls.valid] == [2, 2, 1]

    def epoch(seed):
        torch.manual_seed(seed)
        dls.train.rng = random.Random(seed)
        return torch.cat([x.flatten() for x, _ in dls.train])

    assert torch.equal(epoch(1), epoch(1)) and not torch.equal(epoch(1), epoch(2))
