"""The loaders that training reads from: what they give is what serving would see, each poster once an epoch."""

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.core import TfmdDL

from lobbycard.catalog import pixels
from lobbycard.catalog.batches import normalize
from lobbycard.catalog.image import poster_array
from lobbycard.catalog.pixels import FilePixels, PixelFile
from lobbycard.poster.data import PosterDL, poster_dataloaders, poster_pixels

SIZE, MEAN, STD = (48, 32), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
LABELS = ["Action", "Comedy", "Drama"]


@pytest.fixture
def frame(drawn, tmp_path):
    paths = [Path(shutil.copy2(path, tmp_path)) for path in sorted((drawn / "images").glob("*.jpg"))[:70]]
    labels = [tuple(label for j, label in enumerate(LABELS) if (i + 1) >> j & 1) or ("Drama",) for i in range(70)]
    return pd.DataFrame({"path": paths, "labels": labels, "is_valid": np.arange(70) % 4 == 0})


def loaders(frame, kind=FilePixels, **more):
    paths = [Path(path) for path in frame["path"]]
    source = FilePixels(paths, SIZE) if kind is FilePixels else PixelFile(paths[0].parent, SIZE).open(paths)
    given = {"batch_size": 16, "device": torch.device("cpu"), "augmented": False, **more}
    return poster_dataloaders(frame, LABELS, source, MEAN, STD, **given)


def expected(frame):
    pictures = np.stack([poster_array(path, SIZE) for path in frame["path"]])
    truth = np.array([[label in given for label in LABELS] for given in frame["labels"]], np.float32)
    return normalize(pictures, MEAN, STD), truth


@pytest.mark.parametrize("kind", [FilePixels, PixelFile])
def test_validation_batches_are_what_serving_sees_in_the_tables_order(frame, kind):
    batches = list(loaders(frame, kind, augmented=True).valid)
    images, truth = expected(frame[frame["is_valid"]])
    assert [len(x) for x, _ in batches] == [16, 2]
    assert np.allclose(torch.cat([x for x, _ in batches]).numpy(), images, atol=1e-5)
    assert np.array_equal(torch.cat([y for _, y in batches]).numpy(), truth)


def test_an_epoch_has_each_training_poster_once_with_its_own_genres_but_for_a_short_last_batch(frame):
    dls = loaders(frame, PixelFile)
    images, truth = expected(frame[~frame["is_valid"]])
    seen = []
    for x, y in dls.train:
        assert len(x) == 16
        for image, genres in zip(x.numpy(), y.numpy(), strict=True):
            (row,) = np.flatnonzero(np.isclose(images, image, atol=1e-5).all(axis=(1, 2, 3)))
            assert np.array_equal(truth[row], genres)
            seen.append(row)
    assert len(seen) == len(set(seen)) == 48 and seen != sorted(seen)
    assert len(list(loaders(frame, batch_size=64).train)) == 1  # fewer posters than a batch: nothing is dropped
    assert len(list(loaders(frame, batch_size=32, processes=2).train)) == 2  # nor where all processes' are fewer


def test_augmentation_changes_the_training_side_alone(frame):
    dls = loaders(frame, augmented=True)
    plain, _ = expected(frame[~frame["is_valid"]])
    x, _ = dls.train.one_batch()
    assert not any(np.allclose(image, other, atol=1e-3) for image in x.numpy() for other in plain)


def test_it_is_fastais_loader_to_a_practitioner(frame):
    matplotlib.use("Agg")
    dls = loaders(frame)
    assert isinstance(dls.train, PosterDL) and isinstance(dls.valid, PosterDL) and list(dls.vocab) == LABELS
    assert (
        dls.train.num_workers == 1 and dls.train.fake_l.num_workers == 0
    )  # no processes: nothing to fork or to pickle
    dls.show_batch(max_n=4)
    others = dls.test_dl(list(frame["path"][:5]))
    assert type(others) is TfmdDL
    assert np.allclose(others.one_batch()[0].numpy(), expected(frame[:5])[0], atol=1e-5)
    again = dls.valid.new(bs=4, num_workers=2)
    assert again.fake_l.num_workers == 0
    assert isinstance(again, PosterDL) and len(again) == 5 and len(again.one_batch()[0]) == 4


def test_without_room_for_the_pixels_the_posters_are_decoded_anew_and_it_says_so(frame, tmp_path, monkeypatch):
    said, paths = [], [Path(path) for path in frame["path"]]
    monkeypatch.setattr(pixels.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1000))
    found = poster_pixels(paths, tmp_path, SIZE, say=said.append)
    assert isinstance(found, FilePixels) and len(said) == 1
    assert "cannot be kept" in said[0] and "they are decoded in every epoch" in said[0]
    monkeypatch.undo()
    packed = poster_pixels(paths, tmp_path, SIZE, say=said.append)
    assert len(said) == 1 and np.array_equal(packed.take(np.arange(70)), found.take(np.arange(70)))
