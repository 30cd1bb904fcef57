"""What may happen to a poster: enough to matter, never what no poster suffers."""

from functools import partial

import numpy as np
import pytest
import torch
from fastai.torch_core import TensorImage
from fastai.vision.augment import AffineCoordTfm, Brightness, Contrast, PadMode, Saturation, rotate_mat, setup_aug_tfms
from fasttransform import Pipeline
from PIL import Image

from lobbycard.poster.augment import (
    AREA,
    LIGHT,
    LIT,
    STRETCH,
    TURN,
    TURNED,
    augmentation_sheet,
    crop_mat,
    lights,
    moved,
    poster_augmentation,
    relit,
    turn_mat,
)


@pytest.fixture
def halves() -> Image.Image:
    """Red above, blue below, a green stripe on the left: tells up from down and left from right."""
    pixels = np.zeros((268, 182, 3), np.uint8)
    pixels[:134, :, 0], pixels[134:, :, 2] = 220, 220
    pixels[:, :40] = (0, 200, 0)
    return Image.fromarray(pixels)


def batch_of(picture: Image.Image, n: int) -> TensorImage:
    one = torch.tensor(np.asarray(picture.resize((64, 96)))).movedim(-1, 0).float() / 255
    return TensorImage(one.expand(n, -1, -1, -1).clone())


def test_it_changes_each_picture_otherwise_and_keeps_it_upright_and_unmirrored(halves):
    torch.manual_seed(0)
    copies = Pipeline(poster_augmentation(), split_idx=0)(batch_of(halves, 60))
    assert copies.shape == (60, 3, 96, 64) and copies.min() >= 0 and copies.max() <= 1
    assert len({copy.numpy().tobytes() for copy in copies}) == 60
    for copy in copies.movedim(1, -1).numpy():
        top, bottom, left = copy[:20, 40:].mean((0, 1)), copy[-20:, 40:].mean((0, 1)), copy[:, :3].mean((0, 1))
        right = copy[:, -3:].mean((0, 1))
        assert top[0] > top[2] and bottom[2] > bottom[0]  # never upside down
        # The stripe never stands on the right: lettering stays readable.
        assert right[1] < 0.5 or left[1] > right[1] - 0.01


def test_the_validation_side_stays_as_it_is(halves):
    batch = batch_of(halves, 4)
    assert torch.allclose(Pipeline(poster_augmentation(), split_idx=1)(batch.clone()), batch, atol=1e-5)


def test_crops_lie_within_the_poster_and_have_the_areas_and_shapes_they_may_have():
    torch.manual_seed(0)
    mats = crop_mat(torch.empty(20_000, 3, 4, 4))
    width, height, across, down = mats[:, 0, 0], mats[:, 1, 1], mats[:, 0, 2], mats[:, 1, 2]
    for side, shift in ((width, across), (height, down)):
        assert (shift.abs() <= 1 - side + 1e-6).all() and side.max() <= 1
        free = side < 0.95
        assert (shift[free] / (1 - side[free])).abs().max() > 0.99  # up to the edge
    area, shape = width * height, width / height
    assert AREA[0] * 0.9 < area.min() and area.max() <= AREA[1]
    assert 1 / STRETCH - 1e-6 <= shape.min() < 0.87 and 1.15 < shape.max() <= STRETCH + 1e-6
    assert (mats[:, 0, 1] == 0).all() and (mats[:, 2] == torch.tensor([0.0, 0.0, 1.0])).all()


def test_light_is_fastais(halves):
    """The same draws, so the same pixels, as of its Brightness, Contrast and Saturation."""
    theirs = setup_aug_tfms([change(max_lighting=LIGHT, p=LIT) for change in (Brightness, Contrast, Saturation)])
    batch = batch_of(halves, 40)
    torch.manual_seed(3)
    expected = Pipeline(theirs, split_idx=0)(batch.clone())
    torch.manual_seed(3)
    found = relit(torch.Tensor(batch.clone()), *lights(batch))
    assert torch.allclose(found, torch.Tensor(expected), atol=2e-6)
    assert (found - batch).abs().amax((1, 2, 3)).gt(0.02).float().mean() > 0.5


@pytest.mark.parametrize(
    ("ours", "theirs"), [(turn_mat, partial(rotate_mat, max_deg=TURN, p=TURNED)), (crop_mat, crop_mat)]
)
def test_turns_and_crops_are_resampled_as_by_fastai(halves, ours, theirs):
    batch = batch_of(halves, 40)
    transform = AffineCoordTfm(aff_fs=[theirs], pad_mode=PadMode.Border, align_corners=False)
    torch.manual_seed(3)
    expected = transform(batch, split_idx=0)
    torch.manual_seed(3)
    found = moved(torch.Tensor(batch), ours(torch.Tensor(batch)))
    assert torch.allclose(found, torch.Tensor(expected), atol=2e-5)
    assert (found - batch).abs().amax((1, 2, 3)).gt(0.1).sum() > 0


def test_a_poster_is_turned_about_its_middle_and_keeps_its_proportions():
    """A square on a poster that is not square stays a square."""
    picture = torch.zeros(1, 1, 240, 120)
    picture[..., 100:140, 40:80] = 1
    angle = torch.tensor([0.05])
    mat = turn_mat(torch.empty(4000, 1, 240, 120))
    turned = mat[(torch.atan2(-mat[:, 1, 0] * 2, mat[:, 0, 0]) - angle).abs().argmin()][None]
    rows, columns = (moved(picture, turned)[0, 0] > 0.5).nonzero().float().T
    assert rows.mean() == pytest.approx(119.5, abs=0.5) and columns.mean() == pytest.approx(59.5, abs=0.5)
    grown = 40 * (np.cos(0.05) + np.sin(0.05))  # what the corners of a square reach when it is turned
    for side in (rows, columns):
        assert side.max() - side.min() + 1 == pytest.approx(grown, abs=1.5)


def test_a_seed_repeats_it(halves):
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        draws.append(Pipeline(poster_augmentation(), split_idx=0)(batch_of(halves, 8)).numpy().tobytes())
    assert draws[0] == draws[1]


def test_the_sheet_shows_the_poster_itself_first_and_does_not_move_the_generator(halves, tmp_path):
    halves.save(tmp_path / "p.png")
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    sheet = augmentation_sheet([tmp_path / "p.png"] * 2, (96, 64), copies=3)
    assert torch.equal(torch.rand(1), expected)
    assert sheet.size == (4 * 70 + 6, 2 * 102 + 6)
    assert np.array_equal(
        np.asarray(sheet.crop((6, 6, 70, 102))), np.asarray(halves.resize((64, 96), Image.Resampling.BILINEAR))
    )
