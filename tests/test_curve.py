"""The learning curve: nested parts, the same training on each, killed and gone on with, and what it is made to say."""

import copy
import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from lobbycard.errors import InputError
from lobbycard.poster import description
from lobbycard.poster.artifact import open_model
from lobbycard.poster.curve import PARTS, measure_curve, nested_parts, parts_folder
from lobbycard.poster.dataset import Dataset
from lobbycard.poster.measure import measure
from lobbycard.poster.predictor import sigmoid
from lobbycard.poster.trainer import MovieGenreTrainer
from lobbycard.report import growth, page
from lobbycard.report.card import card
from lobbycard.scoring.paired import Bootstrapped, holm

from .conftest import TINY
from .test_report import Page, findings

pytestmark = pytest.mark.filterwarnings("ignore")


class Told(list):
    """What a trainer says; Ctrl-C comes at the first line that holds the words, the n-th time."""

    def __init__(self, stop_at: str = "", times: int = 1):
        self.stop_at, self.left = stop_at, times
        self.before: dict[str, str] = {}  # the files, when the curve began
        self.out = None

    def __call__(self, text: str) -> None:
        self.append(text)
        if self.out and text.strip() == "learning curve":
            self.before = files_of(self.out)
        if self.stop_at and self.stop_at in text:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    def count(self, words: str) -> int:
        return sum(words in text for text in self)


def trainer_of(drawn, out, told, **settings):
    settings = {**TINY, "freeze_epochs": 1, "epochs": 2, "learning_curve": True, **settings}
    return MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=out, say=told, **settings)


def measured_trainer(drawn, out, told, **settings):
    trainer = trainer_of(drawn, out, told, **settings)
    for stage in (trainer.load, trainer.download, trainer.split, trainer.fit, trainer.evaluate):
        stage()
    return trainer


def files_of(out) -> dict[str, str]:
    """Of everything but the curve's own parts."""
    return {
        file.relative_to(out).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in out.rglob("*")
        if file.is_file() and parts_folder(out) not in file.parents
    }


@pytest.fixture(scope="module")
def curved(trained, tmp_path_factory):
    """A trained model's trainer with a folder of its own, and its curve, the parts still on disk."""
    trainer = copy.copy(trained)
    trainer.config = replace(trained.config, out=tmp_path_factory.mktemp("curve") / "tiny")
    trainer.say, trainer.folder = Told(), None
    return trainer, measure_curve(trainer)


@pytest.fixture(scope="module")
def interrupted(drawn, tmp_path_factory):
    """The same run, from the table on, stopped after the first epoch of the half of the movies."""
    out, told = tmp_path_factory.mktemp("killed") / "tiny", Told(stop_at="    epoch  1", times=3)
    trainer, told.out = trainer_of(drawn, out, told), out
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    return trainer, told


def grouped(sizes: list[int], n_valid: int) -> Dataset:
    """Training movies in groups of these sizes, shuffled among validation movies of one each."""
    group = [g for g, size in enumerate(sizes) for _ in range(size)] + [1000 + i for i in range(n_valid)]
    frame = pd.DataFrame({"group": group, "is_valid": np.arange(len(group)) >= sum(sizes)})
    return Dataset(frame.sample(frac=1, random_state=0).reset_index(drop=True), ["Drama"])


@pytest.mark.parametrize("sizes", [[1] * 800, [1] * 300 + [2] * 100 + [7] * 20 + [60]])
def test_parts_are_nested_hold_whole_groups_and_leave_the_validation_side_alone(sizes):
    data = grouped(sizes, 50)
    eighth, quarter, half = nested_parts(data, seed=1)
    assert (eighth <= quarter).all() and (quarter <= half).all() and not (half & data.frame["is_valid"]).any()
    for part, divisor in zip((eighth, quarter, half), PARTS.values(), strict=True):
        assert abs(part.sum() - sum(sizes) / divisor) <= max(sizes) / 2
        inside = set(data.frame["group"][part])
        assert data.frame["group"].isin(inside).to_numpy().sum() == part.sum()
    other = nested_parts(data, seed=2)[2]
    assert not np.array_equal(half, other) and np.array_equal(half, nested_parts(data, seed=1)[2])


def test_parts_do_not_depend_on_the_order_of_the_rows():
    data = grouped([1, 2, 3] * 40, 10)
    turned = Dataset(data.frame[::-1].reset_index(drop=True), data.labels)
    for part, again in zip(nested_parts(data, 0), nested_parts(turned, 0), strict=True):
        assert np.array_equal(part, again[::-1])


def test_the_last_point_is_the_full_run_and_counts_are_of_the_training_side(curved):
    trainer, curve = curved
    *parts, last = curve["points"]
    training = ~trainer.data.frame["is_valid"].to_numpy()
    assert last["metrics"] == trainer.measured.metrics and last["movies"] == training.sum()
    assert {label: row["ap"] for label, row in last["per_label"].items()} == {
        label: row["ap"] for label, row in trainer.measured.per_label.items()
    }
    shares = [point["movies"] / last["movies"] for point in parts]
    assert shares == pytest.approx([1 / 8, 1 / 4, 1 / 2], abs=0.02)
    half = nested_parts(trainer.data, trainer.config.seed)[2]
    for label, row in parts[2]["per_label"].items():
        assert row["count"] == sum(label in labels for labels in trainer.data.frame["labels"][half])
    assert all(set(point["per_label"]) == set(trainer.data.labels) for point in curve["points"])


def test_a_part_is_what_training_on_these_movies_by_hand_gives(curved, tmp_path):
    trainer, curve = curved
    frame, eighth = trainer.data.frame, nested_parts(trainer.data, trainer.config.seed)[0]
    by_hand = MovieGenreTrainer(replace(trainer.config, out=tmp_path / "hand"), say=Told())
    by_hand.data = Dataset(frame[eighth | frame["is_valid"]].reset_index(drop=True), trainer.data.labels)
    by_hand.fit()
    kept = np.load(parts_folder(trainer.config.out) / "part8.npy")
    assert np.array_equal(kept, by_hand.validation_logits())
    truth = trainer.data.truth[frame["is_valid"].to_numpy()]
    given = sigmoid(kept)
    ap = [average_precision_score(truth[:, j], given[:, j]) for j in range(truth.shape[1])]
    assert curve["points"][0]["metrics"]["mAP"]["value"] == pytest.approx(np.mean(ap))


def test_the_last_doubling_is_the_paired_bootstrap_of_the_half_and_the_whole(curved):
    trainer, curve = curved
    valid, labels, seed = trainer.data.side(True), trainer.data.labels, trainer.config.seed
    truth = trainer.data.truth[trainer.data.frame["is_valid"].to_numpy()]
    logits = np.load(parts_folder(trainer.config.out) / "part2.npy")
    decisions = measure(logits, truth, labels, truth.mean(0), valid["group"].to_numpy(), seed).decisions
    half = Bootstrapped(truth, sigmoid(logits), decisions, seed=seed)
    whole = Bootstrapped(truth, trainer.measured.ranking, trainer.measured.decisions, seed=seed)
    last = curve["last_doubling"]
    assert last["metrics"] == {name: change._asdict() for name, change in whole.minus(half).items()}
    for label, change in zip(labels, whole.minus_by_label(half), strict=True):
        ap = last["per_label"][label]["ap"]
        assert (ap["value"], ap["ci95"], ap["p"]) == change
    tested = [label for label, support in zip(labels, truth.sum(axis=0), strict=True) if support >= 20]
    assert last["tested_labels"] == tested
    p = holm([last["per_label"][label]["ap"]["p"] for label in tested])
    assert [last["per_label"][label]["ap"]["p_holm"] for label in tested] == p.tolist()


def test_the_curve_leaves_the_main_runs_files_alone(interrupted):
    trainer, told = interrupted
    assert {"model.json", *(f"checkpoints/{name}" for name in ("state.pth", "split.csv", "best_model.pth"))} <= set(
        told.before
    )
    assert files_of(trainer.config.out) == told.before


def test_finished_parts_are_not_trained_again_but_those_of_other_settings_are(curved, tmp_path):
    trainer, curve = curved
    again = copy.copy(trainer)
    again.say = Told()
    assert measure_curve(again) == curve
    assert again.say.count("trained before") == 3 and not again.say.count("epoch")
    # Other settings, in a copy of the folder: nothing there is theirs.
    other = copy.copy(trainer)
    folder = parts_folder(tmp_path)
    folder.mkdir(parents=True)
    for file in parts_folder(trainer.config.out).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    other.say = Told(stop_at="epoch")
    other.config = replace(trainer.config, out=tmp_path, lr=0.004)
    with pytest.raises(KeyboardInterrupt):
        measure_curve(other)
    assert not other.say.count("trained before") and not list(folder.glob("*.npy"))


def test_stopped_in_the_curve_the_model_is_whole_and_says_how_to_go_on(interrupted):
    trainer, told = interrupted
    folder = open_model(trainer.config.out)
    assert "learning_curve" not in folder.about
    assert not [name for name in folder.about["files"] if "curve" in name or "state" in name]
    for name in folder.about["files"]:
        folder.file(name)  # raises where the bytes are not the ones that were sealed
    assert trainer.how_to_go_on() == (
        f"stopped. The model in {trainer.config.out} is whole, only its learning curve is missing: "
        "run the same command again with --resume to go on with that"
    )
    assert told.count("mAP 0.") and told[-1].strip().startswith("epoch  1")


def test_resumed_it_goes_on_with_what_is_missing_and_ends_where_the_unbroken_curve_does(interrupted, curved, drawn):
    out, told = interrupted[0].config.out, Told()
    weights = (out / "model.safetensors").read_bytes()
    trainer = trainer_of(drawn, out, told, resume=True)
    folder = trainer.run()
    assert told.count("trained before") == 2
    assert [text.split()[1] for text in told if text.strip().startswith("epoch")] == ["2", "3"]  # the half's last two
    about = json.loads((out / "model.json").read_text(encoding="utf-8"))
    assert about["learning_curve"] == folder.about["learning_curve"] == json.loads(json.dumps(curved[1]))
    assert (out / "model.safetensors").read_bytes() == weights
    assert not parts_folder(out).exists() and not (out / "checkpoints" / "state.pth").exists()
    for name in open_model(out).about["files"]:
        folder.file(name)
    sentence = growth.in_brief(folder.about["learning_curve"], "poster")
    assert sentence in told and "another would" in sentence
    seen = Page((out / "report.html").read_text(encoding="utf-8"))
    assert "Would more data help?" in seen.words and "growth" in seen.ids and sentence in seen.words
    assert "The last doubling of the training posters" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("strategy", ["probe", pytest.param("cached", marks=pytest.mark.slow)])
def test_other_strategies_have_curves_too(drawn, tmp_path, strategy):
    told = Told()
    trainer = measured_trainer(drawn, tmp_path, told, strategy=strategy, epochs=1, limit=48, valid=0.3, min_count=5)
    curve = measure_curve(trainer)
    assert told.count("an eighth: left out, ") == told.count("a quarter: left out, ") == 1
    half, whole = curve["points"]
    assert half["movies"] == pytest.approx(whole["movies"] / 2, abs=1) and half["metrics"] != whole["metrics"]
    assert whole["metrics"] == trainer.measured.metrics
    assert measure_curve(trainer) == curve and told.count("trained before") == 1


def test_parts_too_small_to_train_on_are_left_out(curved):
    trainer, told = copy.copy(curved[0]), Told()
    training = np.flatnonzero(~trainer.data.frame["is_valid"])
    rows = np.sort(np.r_[training[:16], np.flatnonzero(trainer.data.frame["is_valid"])])
    trainer.say, trainer.data = told, Dataset(trainer.data.frame.iloc[rows].reset_index(drop=True), trainer.data.labels)
    trainer.config = replace(trainer.config, out=trainer.config.out.parent / "few")
    assert measure_curve(trainer) is None
    assert told.count("left out") == 3 and told[-1] == "  no learning curve: half of the movies are too few to train on"


def test_a_part_that_cannot_be_trained_says_that_the_model_is_whole(curved, monkeypatch):
    trainer, out = copy.copy(curved[0]), curved[0].config.out.parent / "failing"
    trainer.say, trainer.config = Told(), replace(trainer.config, out=out)

    def fit(self):
        raise InputError("out of memory")

    monkeypatch.setattr(MovieGenreTrainer, "fit", fit)
    with pytest.raises(
        InputError, match=r"^learning curve, an eighth of the movies: out of memory \(the model in .* is whole"
    ):
        measure_curve(trainer)


def test_the_curve_comes_after_the_export(curved):
    trainer = copy.copy(curved[0])
    assert trainer.folder is None
    with pytest.raises(InputError, match=r"call export\(\) first"):
        trainer.learning_curve()


# -- words -------------------------------------------------------------------------------------------------------------


def change(value, low, high, beyond=False):
    return {"value": value, "ci95": [low, high], "p": 0.5, "p_holm": 0.5, "beyond_chance": beyond}


def drawn_curve(value=0.0214, low=0.0121, high=0.0305, tested=("Animation", "Comedy")):
    points = [
        {
            "movies": movies,
            "metrics": {"mAP": {"value": 0.30 + i / 50, "ci95": [0.28 + i / 50, 0.32 + i / 50]}},
            "per_label": {
                "Animation": {"ap": 0.41 + i / 100, "count": 10 * 2**i},
                "Comedy": {"ap": 0.51 + i / 100, "count": 50 * 2**i},
                "Horror": {"ap": None, "count": i},
            },
        }
        for i, movies in enumerate((198, 395, 790, 1580))
    ]
    rows = {
        "Horror": {"ap": None, "f1": None},
        "Comedy": {"ap": change(0.0104, -0.0152, 0.0361), "f1": None},
        "Animation": {"ap": change(0.0512, 0.0203, 0.0821, beyond=True), "f1": None},
    }
    last = {"metrics": {"mAP": change(value, low, high)}, "per_label": rows, "tested_labels": list(tested)}
    return {"points": points, "last_doubling": last}


@pytest.mark.parametrize(
    ("mean_ap", "says"),
    [
        ((0.0214, 0.0121, 0.0305), "brought mAP +0.021 (+0.012 to +0.030); another would bring about as much or less."),
        ((0.004, -0.003, 0.011), "brought mAP +0.004 (\N{MINUS SIGN}0.003 to +0.011), not told from nothing by these "
         "validation posters; another would hardly bring more than +0.011."),
        ((-0.02, -0.03, -0.01), "cost mAP \N{MINUS SIGN}0.020 (\N{MINUS SIGN}0.030 to \N{MINUS SIGN}0.010): more posters "
         "alone do not help this training."),
    ],
)  # fmt: skip
def test_the_sentence_says_what_the_last_doubling_brought(mean_ap, says):
    curve = drawn_curve(*mean_ap)
    assert growth.in_brief(curve, "poster") == f"The last doubling of the training posters (790 to 1,580) {says}"


HOLM = (
    "Of the 2 genres looked at, the luck of the validation posters names any wrongly in at most 5 % of cases (Holm's "
    "correction); the luck of training is not in that."
)


def test_only_labels_beyond_chance_are_named_as_helped():
    assert growth.what_more_would_bring(drawn_curve(), "poster", "genre")[1:] == [
        "More would clearly help, by what it brought average precision: Animation +0.051.",
        HOLM,
        "Not shown that more would help, nor that it would not: Comedy.",
        "Too few validation posters to know (fewer than 20): Horror.",
    ]
    nobody = drawn_curve()
    nobody["last_doubling"]["per_label"]["Animation"]["ap"]["beyond_chance"] = False
    assert growth.what_more_would_bring(nobody, "poster", "genre")[1:] == [
        "No genre gained beyond chance from it.",
        "Not shown that more would help, nor that it would not: Animation and Comedy.",
        "Too few validation posters to know (fewer than 20): Horror.",
    ]
    worse = drawn_curve()
    worse["last_doubling"]["per_label"]["Comedy"]["ap"] = change(-0.05, -0.08, -0.02, beyond=True)
    assert "It cost, beyond chance: Comedy \N{MINUS SIGN}0.050." in growth.what_more_would_bring(worse)
    untested = growth.what_more_would_bring(drawn_curve(tested=()), "poster", "genre")
    assert untested[1:] == ["Too few validation posters to know (fewer than 20): Animation, Comedy and Horror."]


def test_the_report_has_the_curve_by_label_and_only_if_it_was_measured():
    seen = Page(page.report(findings(learning_curve=drawn_curve())))
    assert "Would more data help?" in seen.words and seen.unlabelled == []
    assert seen.row("genre", "of 198") == ["genre", "of 198", "of 395", "of 790", "of 1,580", "last doubling", "95 % interval",
                                           "more would help"]  # fmt: skip
    starts = [row for row in seen.rows if len(row) == 8 and row[-1] in ("clearly", "not shown", "too few")]
    assert starts == [
        ["Animation", "0.410 (10)", "0.420 (20)", "0.430 (40)", "0.440 (80)", "+0.051", "+0.020 to +0.082", "clearly"],
        [
            "Comedy",
            "0.510 (50)",
            "0.520 (100)",
            "0.530 (200)",
            "0.540 (400)",
            "+0.010",
            "\N{MINUS SIGN}0.015 to +0.036",
            "not shown",
        ],
        [
            "Horror",
            "\N{EN DASH} (0)",
            "\N{EN DASH} (1)",
            "\N{EN DASH} (2)",
            "\N{EN DASH} (3)",
            "\N{EN DASH}",
            "\N{EN DASH}",
            "too few",
        ],
    ]
    html = page.report(findings(learning_curve=drawn_curve()))
    assert '<td class="strong">+0.051</td>' in html and "<td>+0.010</td>" in html
    without = Page(page.report(findings()))
    assert "Would more data help?" not in without.words and "growth" not in without.ids
    sentence = "The last doubling of the training posters"
    made = [card(findings(learning_curve=curve), "mit", "image-classification", "x") for curve in (drawn_curve(), None)]
    assert [text.count(sentence) for text in made] == [1, 0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), []),
        (("points",), []),
        (("points", 0), 3),
        (("points", 0, "movies"), "many"),
        (("points", 0, "metrics"), {"mAP": 0.3}),
        (("points", 0, "per_label"), {"Comedy": "0.3"}),
        (("last_doubling",), None),
        (("last_doubling", "metrics"), {"mAP": {"value": "high", "ci95": None}}),
        (("last_doubling", "per_label"), {"Comedy": {"ap": {"value": 0.1, "ci95": [0]}}}),
        (("last_doubling", "per_label"), {"Comedy": 0.1}),
        (("last_doubling", "tested_labels"), "Comedy"),
    ],
)
def test_a_damaged_curve_in_model_json_is_refused(trained, path, value):
    about = copy.deepcopy(open_model(trained.config.out).about)
    assert list(description.wrong(about | {"learning_curve": drawn_curve()})) == []
    spoilt = {"learning_curve": drawn_curve()}
    *outer, last = ("learning_curve", *path)
    place = spoilt
    for key in outer:
        place = place[key]
    place[last] = value
    assert [name for name, _ in description.wrong(about | spoilt)] == ["learning_curve"]
