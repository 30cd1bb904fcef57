"""What may happen to a poster: enough to matter, never what no poster suffers."""

import numpy as np
import pytest
import torch
from PIL import Image

from lobbycard.poster.augment import augmentation_sheet, poster_augmentation


@pytest.fixture
def halves() -> Image.Image:
    """Red above, blue below, a green stripe on the left: tells up from down and left from right."""
    pixels = np.zeros((268, 182, 3), np.uint8)
    pixels[:134, :, 0], pixels[134:, :, 2] = 220, 220
    pixels[:, :40] = (0, 200, 0)
    return Image.fromarray(pixels)


def test_it_changes_the_picture_and_keeps_it_upright_and_unmirrored(halves):
    transform = poster_augmentation((96, 64))
    torch.manual_seed(0)
    copies = [np.asarray(transform(halves), int) for _ in range(60)]
    assert all(copy.shape == (96, 64, 3) for copy in copies)
    assert len({copy.tobytes() for copy in copies}) == 60
    for copy in copies:
        top, bottom, left = copy[:20, 40:].mean((0, 1)), copy[-20:, 40:].mean((0, 1)), copy[:, :3].mean((0, 1))
        right = copy[:, -3:].mean((0, 1))
        assert top[0] > top[2] and bottom[2] > bottom[0]  # never upside down
        assert (
            right[1] < 120 or left[1] > right[1] - 1
        )  # the stripe never stands on the right: lettering stays readable


def test_a_seed_repeats_it(halves):
    transform = poster_augmentation((96, 64))
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        draws.append([np.asarray(transform(halves)).tobytes() for _ in range(8)])
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
