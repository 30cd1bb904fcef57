"""Where the network looked: places that are known beforehand must be found, whoever answers."""

import numpy as np
import pytest
from PIL import Image

from lobbycard.catalog.drawing.poster import draw_poster
from lobbycard.catalog.image import poster_array
from lobbycard.poster.explain import FAINT, FORWARDS, grid, heat_maps, log_odds, overlay, strength, verdict

SIZES = [(288, 192), (224, 224), (128, 88), (64, 48), (40, 200)]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def looks_at(*boxes, weight=4.0):
    """A "network" with a label for each box (top, bottom, left, right): it counts the white in it, and nothing else."""
    whiteness = lambda x, box: x[:, box[0] : box[1], box[2] : box[3]].mean(axis=(1, 2, 3)) / 255  # noqa: E731
    return lambda x: sigmoid(np.stack([weight * whiteness(x, box) - 2 for box in boxes], axis=1)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), SIZES, ids=str)
def test_a_network_that_looks_at_one_place_is_found_looking_there(height, width):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    h, w = height // 5, width // 5
    boxes = [(0, h, 0, w), (2 * h, 3 * h, 2 * w, 3 * w), (height - h, height, w, 2 * w)]
    for top, bottom, left, right in boxes:
        pixels[top:bottom, left:right] = 250
    heat = heat_maps(looks_at(*boxes), pixels)
    assert heat.shape == (3, height, width) and heat.dtype == np.float32
    for label, (top, bottom, left, right) in enumerate(boxes):
        hottest = np.argwhere(heat[label] >= heat[label].max() - 1e-6).mean(axis=0)
        down, across = grid(height, width)
        assert abs(hottest[0] - (top + bottom - 1) / 2) <= height / down
        assert abs(hottest[1] - (left + right - 1) / 2) <= width / across


def test_what_speaks_against_a_label_is_below_zero_and_what_it_does_not_see_is_zero():
    pixels = np.full((96, 64, 3), 40, np.uint8)
    pixels[:24, :16] = 255
    box = (0, 24, 0, 16)
    heat = heat_maps(lambda x: 1 - looks_at(box)(x), pixels)
    assert heat.min() < -0.3 and heat.max() <= 1e-6
    assert np.abs(heat[0][60:, 42:]).max() < 1e-6


def test_the_value_is_the_drop_in_log_odds_worked_out_another_way():
    """One patch by hand: it alone hides the corner that the network looks at, and a twentieth of each neighbour tells there."""
    height, width = 70, 50
    assert grid(height, width) == (7, 5)
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    network = looks_at((0, 5, 0, 5), weight=30)
    changed = pixels.copy()
    changed[:15, :15] = np.rint(pixels.mean(axis=(0, 1)))  # its middle lies at (5, 5), and it reaches 10 pixels
    drop = (log_odds(network(pixels[None])) - log_odds(network(changed[None])))[0, 0]
    assert abs(drop) > 0.1
    assert heat_maps(network, pixels)[0, 0, 0] == pytest.approx(drop / 1.05**2, rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_changes_how_many_go_at_once_and_nothing_else(batch_size):
    pixels = np.random.default_rng(2).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    network, seen = looks_at((10, 40, 10, 40), (50, 90, 20, 60)), []

    def counted(x):
        assert x.dtype == np.uint8 and x.shape[1:] == pixels.shape
        seen.append(len(x))
        return network(x)

    heat = heat_maps(counted, pixels, batch_size)
    np.testing.assert_array_equal(heat, heat_maps(network, pixels))
    assert max(seen) <= batch_size and sum(seen) <= FORWARDS + 1


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (4096, 2), (3, 900)], ids=str)
def test_the_grid_has_at_least_one_place_and_never_more_than_it_may(size):
    down, across = grid(*size)
    assert 1 <= down * across <= FORWARDS and down <= size[0] and across <= size[1]


def test_a_network_that_is_certain_gives_finite_maps():
    heat = heat_maps(lambda x: np.tile(np.float32([0.0, 1.0]), (len(x), 1)), np.full((64, 48, 3), 90, np.uint8))
    assert np.isfinite(heat).all() and strength(heat) == 0


def test_a_map_without_a_place_is_said_to_be_one():
    flat, spot = np.full((9, 6), 0.9 * FAINT), np.zeros((9, 6))
    spot[4, 2] = 1.5
    assert strength(spot) == pytest.approx(1.5) and strength(-spot) == pytest.approx(1.5)
    assert verdict(flat).startswith("No place in particular")
    assert verdict(spot) == ""
    assert verdict(-spot) == "No place speaks for it: the marked ones speak against it."


@pytest.mark.parametrize("size", [(182, 268), (1000, 1500), (31, 700), (1, 1)], ids=str)
def test_the_overlay_has_the_pictures_size_and_leaves_it_alone_where_there_is_nothing(size):
    picture = Image.effect_noise(size, 60).convert("RGB")
    drawn = overlay(picture, np.zeros((96, 64), np.float32))
    assert drawn.size == size and drawn.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(picture))


def test_the_overlay_is_warm_where_the_map_speaks_for_and_blue_where_it_speaks_against():
    heat = np.zeros((96, 64), np.float32)
    heat[:24], heat[-24:] = 1.0, -1.0
    picture = Image.new("RGB", (200, 300), (90, 90, 90))
    drawn = np.asarray(overlay(picture, heat)).astype(int)
    warm, cold, middle = drawn[20, 100], drawn[280, 100], drawn[150, 100]
    assert warm[0] > warm[2] + 60 and cold[2] > cold[0] + 15
    assert (middle == 90).all()
    lightness = lambda v: np.asarray(overlay(picture, heat * v).convert("L"))[20, 100]  # noqa: E731
    assert lightness(0.3) < lightness(0.6)  # told apart without colours too
    assert (drawn == 255).all(axis=2).any() and (drawn == 0).all(axis=2).any()  # the line, light beside dark


def test_a_picture_with_transparency_is_drawn_on_too():
    assert overlay(Image.new("RGBA", (20, 30), (0, 0, 0, 0)), np.ones((9, 6), np.float32)).mode == "RGB"


def test_every_runtime_of_a_model_gives_the_same_map(trained):
    from lobbycard.poster.predictor import PosterPredictor

    out = trained.config.out
    pixels = np.asarray(draw_poster(["Horror"], seed=9).resize((48, 64)))
    maps = [
        heat_maps(PosterPredictor.load(out, runtime).from_pixels, pixels) for runtime in ("onnx", "torch", "fastai")
    ]
    assert maps[0].shape == (len(trained.data.labels), 64, 48) and strength(maps[0]) > 0
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=2e-3)


def test_hiding_the_marked_places_changes_the_answer_more_than_hiding_others(trained, drawn):
    """Deletion, on a network that was trained: the fifth of the picture that the map marks, against the fifth it does not."""
    from lobbycard.poster.predictor import PosterPredictor

    predictor = PosterPredictor.load(trained.config.out)
    marked, unmarked = [], []
    for path in sorted((drawn / "images").glob("*.jpg"))[:12]:
        pixels = poster_array(path, predictor.size)
        heat = heat_maps(predictor.from_pixels, pixels)
        label = int(predictor.from_pixels(pixels[None])[0].argmax())
        order = np.argsort(heat[label], axis=None)
        share = order.size // 5
        for places, drops in ((order[-share:], marked), (order[:share], unmarked)):
            hidden = pixels.reshape(-1, 3).copy()
            hidden[places] = pixels.mean(axis=(0, 1)).astype(np.uint8)
            answers = predictor.from_pixels(np.stack([pixels, hidden.reshape(pixels.shape)]))
            drops.append(-np.diff(log_odds(answers[:, label]))[0])
    assert np.mean(np.array(marked) > np.array(unmarked)) >= 0.8
    assert np.mean(marked) > 0 > np.mean(unmarked)
