"""What looks unlike the posters a model was trained on, and how seldom a poster does."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lobbycard.catalog.drawing.poster import PALETTES, draw_poster
from lobbycard.errors import InputError
from lobbycard.poster.familiar import STATISTICS, Familiarity, statistics

LABELS = sorted(PALETTES)
SIZE = (176, 256)  # width, height of the network's input


def pixels_of(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR))


def answers(rng: np.random.Generator, n: int) -> np.ndarray:
    """Probabilities as a network might give them: two labels that go together, others alone."""
    logits = rng.normal(-2, 1, (n, 4))
    logits[:, 1] = logits[:, 0] + rng.normal(0, 0.2, n)
    return 1 / (1 + np.exp(-logits))


@pytest.fixture(scope="module")
def posters():
    """400 drawn posters: shapes, pixels, probabilities."""
    drawn = [draw_poster([LABELS[i % 10], LABELS[(i // 10 + i) % 10]], seed=i) for i in range(400)]
    return (
        np.array([p.size for p in drawn]),
        np.stack([pixels_of(p) for p in drawn]),
        answers(np.random.default_rng(0), 400),
    )


@pytest.fixture(scope="module")
def familiarity(posters):
    return Familiarity.fit(*(part[:200] for part in posters))


def alarms(familiarity: Familiarity, posters) -> list[str]:
    return [familiarity.unlike(tuple(s), x, p) for s, x, p in zip(*posters, strict=True)]


def test_other_posters_are_seldom_called_unlike(familiarity, posters):
    said = alarms(familiarity, [part[200:] for part in posters])
    assert sum(map(bool, said)) <= 6  # 1 % of 200 is 2; more than 6 by chance is one time in 200


def test_the_rate_of_false_alarms_is_the_promised_one_on_numbers_whose_distribution_is_known():
    """The second path: Gaussian looks, where the share beyond the limit can be counted on a hundred thousand others."""
    rng = np.random.default_rng(3)
    blank = np.zeros((6, 4, 3), np.uint8)
    rates = []
    for _ in range(8):
        fitted = Familiarity.fit(np.full((300, 2), 10), [blank] * 300, answers(rng, 300))
        odds = answers(rng, 4000)
        look = np.log(odds / (1 - odds))
        off = (
            (np.column_stack([np.tile(statistics(blank), (4000, 1)), look]) - fitted.mean) / fitted.scale
        ) @ fitted.whiten.T
        rates.append((np.square(off).sum(axis=1) > fitted.limit).mean())
    assert 0.004 < np.mean(rates) < 0.016


def page_of_text() -> Image.Image:
    page = Image.new("RGB", (500, 740), "white")
    draw = ImageDraw.Draw(page)
    for y in range(40, 700, 14):
        draw.text((40, y), "it was the best of times, it was the worst of times, it was the age " * 2, fill="black")
    return page


def gradient() -> Image.Image:
    return Image.linear_gradient("L").resize((182, 268)).convert("RGB")


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (268, 182, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (Image.new("RGB", (182, 268), "#3366cc"), "almost without detail, unlike the posters it was trained on"),
        (page_of_text(), "unlike the posters it was trained on"),
        (gradient(), "unlike the posters it was trained on"),
        (noise(), "unlike the posters it was trained on"),
    ],
    ids=["one colour", "a page of text", "a gradient", "noise"],
)
def test_what_is_no_poster_is_said_to_look_unlike_one_and_why(familiarity, posters, picture, words):
    said = familiarity.unlike((182, 268), pixels_of(picture), posters[2][0])
    assert said.endswith(words)


def test_the_shape_alone_gives_a_picture_away(familiarity, posters):
    shape, pixels, probabilities = (part[0] for part in posters)
    unlike = lambda width, height: familiarity.unlike((width, height), pixels, probabilities)  # noqa: E731
    assert unlike(*shape) == "" == unlike(2000, 3000) == unlike(2480, 3508)
    assert unlike(1280, 800) == "wider than tall, which the posters it was trained on were not"
    assert unlike(500, 500) == "broader than the posters it was trained on"
    assert unlike(390, 844) == "narrower than the posters it was trained on"


def test_an_answer_no_poster_gets_is_noticed_though_each_number_in_it_is_usual(familiarity, posters):
    shape, pixels, _ = (part[0] for part in posters)
    usual, odd = np.array([0.12, 0.12, 0.12, 0.12]), np.array([0.35, 0.04, 0.12, 0.12])
    assert familiarity.unlike(shape, pixels, usual) == ""
    assert familiarity.unlike(shape, pixels, odd) == "unlike the posters it was trained on"


def test_saturated_probabilities_are_numbers_like_others(familiarity, posters):
    shape, pixels, _ = (part[0] for part in posters)
    assert familiarity.unlike(shape, pixels, np.array([1.0, 1.0, 0.0, 0.0], np.float32))


def test_the_words_take_the_noun(familiarity, posters):
    assert familiarity.unlike((900, 300), posters[1][0], posters[2][0], noun="cover").endswith(
        "the covers it was trained on were not"
    )


def test_it_travels_through_json_and_says_the_same(familiarity, posters):
    text = json.dumps(familiarity.to_dict(), allow_nan=False)
    assert len(text) < 20_000
    again = Familiarity.from_dict(json.loads(text))
    strange = np.random.default_rng(1).random((400, 4))
    mixed = [(posters[0], posters[1], posters[2]), (posters[0], posters[1], strange)]
    for pictures in mixed:
        assert alarms(again, pictures) == alarms(familiarity, pictures)


def test_with_28_labels_it_is_still_small(posters):
    rng = np.random.default_rng(2)
    fitted = Familiarity.fit(posters[0], posters[1], rng.random((400, 28)))
    assert len(json.dumps(fitted.to_dict())) < 20_000


def test_a_model_that_says_nothing_never_alarms(posters):
    assert Familiarity.from_dict(None).unlike((1, 900), posters[1][0] * 0, posters[2][0]) == ""


def test_too_few_posters_for_the_rate_leave_the_shape_alone(posters):
    fitted = Familiarity.fit(*(part[:98] for part in posters))
    fitted = Familiarity.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert fitted.limit is None
    assert fitted.unlike((182, 268), posters[1][0] * 0, posters[2][0]) == ""
    assert fitted.unlike((268, 182), posters[1][0], posters[2][0]).startswith("wider than tall")


def test_a_model_made_with_other_statistics_is_asked_about_the_shape_alone(familiarity, posters):
    other = familiarity.to_dict() | {"statistics": ["brightness"]}
    found = Familiarity.from_dict(other)
    assert found.unlike((182, 268), posters[1][0] * 0, posters[2][0]) == ""
    assert found.unlike((268, 182), posters[1][0], posters[2][0])


@pytest.mark.parametrize(
    "damage",
    [{"mean": None}, {"whiten": [1.0, 2.0]}, {"limit": float("nan")}, {"shape": [1.0]}, {"scale": ["x"]}, {"shape": 3}],
    ids=str,
)
def test_damage_is_said_in_one_line(familiarity, damage):
    with pytest.raises(InputError, match="familiarity in model.json is damaged .*train again"):
        Familiarity.from_dict(familiarity.to_dict() | damage)


def test_parts_about_other_pictures_are_refused(posters):
    with pytest.raises(InputError, match="the same pictures, got 400, 400 and 3"):
        Familiarity.fit(posters[0], posters[1], posters[2][:3])


def test_statistics_know_known_pictures():
    of = lambda array: dict(zip(STATISTICS, statistics(array), strict=True))  # noqa: E731
    plain = of(np.full((128, 88, 3), (255, 0, 0), np.uint8))
    assert (
        plain["saturation"] == pytest.approx(1)
        and plain["colours"] == 0
        and plain["brightness"] == pytest.approx(0.299)
    )
    halves = np.zeros((128, 88, 3), np.uint8)
    halves[:64] = 255
    halves = of(halves)
    assert halves["colours"] == pytest.approx(1)  # one bit: two colours, equally common
    assert halves["darkest"] == 0 and halves["brightest"] == pytest.approx(1)
    assert halves["upright_edges"] < 0  # its only edge lies level


def test_how_sharp_the_file_was_makes_no_difference(familiarity, posters):
    pixels = posters[1][200:]
    soft = [np.asarray(Image.fromarray(x).resize((132, 192)).resize(SIZE, Image.Resampling.BILINEAR)) for x in pixels]
    said = alarms(familiarity, (posters[0][200:], soft, posters[2][200:]))
    assert sum(map(bool, said)) <= 8
