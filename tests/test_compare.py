"""`compare`: several models on the posters that none was trained on, and what is said of them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from lobbycard.__main__ import main
from lobbycard.errors import InputError
from lobbycard.files import sha256
from lobbycard.poster.artifact import ModelFolder, open_model
from lobbycard.poster.comparison import compare_models, open_models, short_names
from lobbycard.poster.evaluation import evaluate_model
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.poster.runtimes import open_logits
from lobbycard.report.comparison import comparison_text, verdict
from lobbycard.report.words import aligned, with_interval
from lobbycard.scoring.decide import decide

SPLIT = "split.csv"


@pytest.fixture(scope="module")
def model(trained) -> PosterPredictor:
    return PosterPredictor(open_model(trained.config.out), "onnx")


@pytest.fixture(scope="module")
def table(drawn):
    return drawn / "MovieGenre.csv", drawn / "images"


@pytest.fixture(scope="module")
def spoilt(model) -> PosterPredictor:
    """The same network with noise on its logits: a worse model whose mistakes are like those of the first."""
    network, rng = open_logits(model.folder, "onnx", "fp32"), np.random.default_rng(0)

    def noisy(pixels):
        logits = network(pixels)
        return (logits + rng.normal(0, 4, logits.shape)).astype(np.float32)

    return PosterPredictor(model.folder, "onnx", logits=noisy)


@pytest.fixture(scope="module")
def found(model, spoilt, table):
    return compare_models({"plain": model, "spoilt": spoilt}, *table, say=lambda line: None)


def other(model: PosterPredictor, **changes) -> PosterPredictor:
    return PosterPredictor(ModelFolder(model.folder.path, model.folder.about | changes), "onnx")


def other_split(model: PosterPredictor, folder: Path, sides: dict[str, str]) -> PosterPredictor:
    """A copy of the model whose split.csv puts the movies in `sides` on those sides."""
    shutil.copytree(model.folder.path, folder)
    lines = (folder / SPLIT).read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in lines]
    rows = [[row[0], sides.get(row[0], row[1]), *row[2:]] for row in rows]
    (folder / SPLIT).write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
    about = model.folder.about
    return PosterPredictor(
        ModelFolder(folder, about | {"files": about["files"] | {SPLIT: sha256(folder / SPLIT)}}), "onnx"
    )


def test_each_model_scores_what_scikit_learn_says_on_the_posters_it_was_not_trained_on(found, model, trained):
    valid = trained.data.frame["is_valid"].to_numpy()
    truth = trained.data.truth[valid]
    probabilities = model.predict_proba(list(trained.data.side(True)["path"]))
    ap = [average_precision_score(truth[:, j], probabilities[:, j]) for j in np.flatnonzero(truth.any(axis=0))]
    assert found["n"] == valid.sum() == found["models"]["plain"]["tuned_on"]
    assert found["left_out"]["trained on by one of the models"] == (~valid).sum()
    assert found["models"]["plain"]["metrics"]["mAP"]["value"] == pytest.approx(np.mean(ap), abs=1e-6)
    given = decide(probabilities, model.thresholds)
    hits = 2 * (truth & given).sum() / (truth.sum() + given.sum())
    assert found["models"]["plain"]["metrics"]["micro_f1"]["value"] == pytest.approx(hits)


def test_the_difference_is_that_of_the_models_and_a_spoilt_one_is_called_worse(found):
    good, bad = found["models"].values()
    for metric, row in found["differences"]["spoilt"]["metrics"].items():
        assert row["value"] == pytest.approx(bad["metrics"][metric]["value"] - good["metrics"][metric]["value"])
    assert found["first"] == "plain" and set(found["differences"]) == {"spoilt"}
    assert re.match(
        r"spoilt is worse than plain: mAP -0\.\d+ \(-0.\d+ to -0.\d+\), \d+ posters\.",
        plain(verdict(found, "spoilt", "poster")),
    )


def test_compare_and_evaluate_read_the_same_posters_alike(found, model, trained, table, tmp_path):
    csv, images = table
    valid = set(trained.data.side(True)["item_id"])
    lines = csv.read_text(encoding="latin-1").splitlines(keepends=True)
    kept = [line for line in lines[1:] if f"tt{int(line.split(',')[0]):07d}" in valid]
    (tmp_path / "valid.csv").write_text(lines[0] + "".join(kept), encoding="latin-1")
    alone = evaluate_model(model, tmp_path / "valid.csv", images, say=lambda line: None)
    beside = found["models"]["plain"]
    assert alone["n"] == found["n"] and alone["trained_on"] == 0
    assert {key: alone[key] for key in ("metrics", "per_label", "ece")} == {
        key: beside[key] for key in ("metrics", "per_label", "ece")
    }


def test_movies_that_any_of_the_models_was_trained_on_are_left_out(model, trained, table, tmp_path):
    valid = sorted(trained.data.side(True)["item_id"])
    split = other_split(model, tmp_path / "other", dict.fromkeys(valid[:20], "train"))
    said = []
    found = compare_models({"a": model, "b": split}, *table, say=said.append)
    assert found["n"] == len(valid) - 20
    n_train = trained.data.about["n_train"] + 20
    assert any(f"{n_train} trained on by one of the models" in line for line in said)


def test_pain_of_too_good_figures_nothing_that_is_new_to_all_models_is_refused(model, trained, table, tmp_path):
    valid = trained.data.side(True)["item_id"]
    split = other_split(model, tmp_path / "other", dict.fromkeys(valid, "train"))
    n = len(trained.data.frame)
    words = f"MovieGenre.csv: a model was trained on each of the {n} movies with a poster; give a table with movies that none"
    with pytest.raises(InputError, match=re.escape(words)):
        compare_models({"a": model, "b": split}, *table, say=lambda line: None)


def test_a_poster_that_cannot_be_read_is_left_out_for_every_model_and_counted(
    found, model, spoilt, trained, table, tmp_path
):
    csv, images = table
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / trained.data.side(True)["file"].iloc[0]).write_bytes(b"<html>gone</html>")
    again = compare_models({"plain": model, "spoilt": spoilt}, csv, tmp_path / "images", say=lambda line: None)
    assert again["n"] == found["n"] - 1 and again["left_out"]["poster cannot be read"] == 1


def test_a_model_without_split_is_compared_and_said_to_be_unchecked(model, trained, table):
    about = model.folder.about
    unknown = other(model, files={name: digest for name, digest in about["files"].items() if name != SPLIT})
    said = []
    found = compare_models({"a": model, "b": unknown}, *table, say=said.append)
    assert found["models"]["b"]["tuned_on"] is None and found["n"] == len(trained.data.side(True))
    assert any("b has no split.csv: whether it was trained on these movies cannot be checked" in line for line in said)
    assert any(f"some were used to set thresholds ({found['n']} by a)" in line for line in said)
    both = compare_models({"b": unknown, "c": unknown}, *table, say=lambda line: None)
    assert both["n"] == len(trained.data.frame) and "trained on by one" not in " ".join(
        why for why, count in both["left_out"].items() if count
    )


def renamed(model: PosterPredictor, names: dict[str, str]) -> PosterPredictor:
    about = model.folder.about
    rename = lambda table: {names.get(label, label): value for label, value in table.items()}  # noqa: E731
    return other(
        model,
        labels=[names.get(label, label) for label in model.labels],
        thresholds=rename(about["thresholds"]),
        data=about["data"] | {"prior": rename(about["data"]["prior"])},
    )


def test_models_of_other_genres_are_compared_on_those_that_both_know(model, table):
    first, second = model.labels[0], model.labels[1]
    swapped = renamed(model, {first: second, second: first, model.labels[-1]: "Noir"})
    said = []
    found = compare_models({"a": model, "b": swapped}, *table, say=said.append)
    assert found["labels"] == model.labels[:-1]
    assert found["labels_left_out"] == {"a": [model.labels[-1]], "b": ["Noir"]}
    assert f"  genres that not all models know, not compared: {model.labels[-1]} (a)" in said
    # The columns are found by name: what b calls by the first's name is the network's second output.
    changed = found["differences"]["b"]["per_label"]
    assert changed[first]["ap"]["value"] < 0 and changed[second]["ap"]["value"] < 0
    assert all(changed[label]["ap"]["value"] == 0 for label in model.labels[2:-1])


def test_models_without_a_genre_in_common_are_refused(model, table):
    strange = renamed(model, {label: f"{label}?" for label in model.labels})
    with pytest.raises(InputError, match=r"no genre that all of these models know: a knows Action.*; b knows Action\?"):
        compare_models({"a": model, "b": strange}, *table)


def test_three_models_are_one_family_of_tests(model, spoilt, table, monkeypatch):
    monkeypatch.setattr("lobbycard.scoring.paired.ENOUGH_POSITIVES", 4)  # the drawn sample has few of each
    found = compare_models({"a": model, "b": spoilt, "c": model}, *table, say=lambda line: None)
    assert found["tested_labels"] and set(found["differences"]) == {"b", "c"}
    rows = [found["differences"][name]["per_label"][label]["ap"] for name in "bc" for label in found["tested_labels"]]
    assert min(row["p_holm"] for row in rows) == pytest.approx(min(1, len(rows) * min(row["p"] for row in rows)))
    assert all(row["beyond_chance"] == (row["p_holm"] <= 0.05) for row in rows)
    assert not any(
        found["differences"]["c"]["per_label"][label]["ap"]["beyond_chance"] for label in found["tested_labels"]
    )


def test_the_command_line_prints_the_verdict_and_writes_the_numbers(model, table, tmp_path, capsys):
    twin = tmp_path / "a" / model.folder.path.name
    shutil.copytree(model.folder.path, twin)
    csv, images = map(str, table)
    main(
        [
            "compare",
            str(model.folder.path),
            str(twin),
            "--csv",
            csv,
            "--images",
            images,
            "--json",
            str(tmp_path / "c.json"),
        ]
    )
    out, found = capsys.readouterr().out, json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    first, second = found["models"]
    assert second == f"a/{model.folder.path.name}" and first != second and first.endswith(model.folder.path.name)
    assert f"Between {second} and {first} there is no difference that {found['n']} posters could show: mAP 0.000" in out
    assert set(found) == {
        *("n", "labels", "support", "first", "models", "differences", "tested_labels", "untested_labels"),
        *("enough_positives", "left_out", "labels_left_out", "unknown_labels"),
    }
    assert set(found["models"][first]) == {"path", "metrics", "ece", "per_label", "tuned_on"}
    change = found["differences"][second]
    assert change["metrics"]["mAP"] == {"value": 0, "ci95": [0, 0], "p": 1}
    assert set(change["metrics"]) == {"mAP", "macro_f1", "micro_f1", "samples_f1"}
    assert set(change["per_label"]) == set(found["labels"])


def test_what_cannot_be_compared_is_one_line_and_status_2(model, table, tmp_path, capsys):
    path, (csv, images) = model.folder.path, table
    flags = ["--csv", str(csv), "--images", str(images)]
    for arguments, words in (
        ([str(path), f"{path}/../{path.name}", *flags], "the same model is named twice; compare it with another one"),
        ([str(path), str(path / "export.pkl"), *flags], "export.pkl: the same model is named twice"),
        ([str(path), *flags], "compare needs two models or more, got 1"),
        ([str(path), str(tmp_path / "none"), *flags], "none: no such model folder"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["compare", *arguments])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and words in error and error.count("\n") == 1, error
    twin = shutil.copytree(path, tmp_path / "twin")
    with pytest.raises(SystemExit):
        main(["compare", str(path), str(twin), *flags, "--json", str(twin / "model.json")])
    assert "the result would overwrite" in capsys.readouterr().err and open_model(twin)


def test_models_are_named_by_as_much_of_their_paths_as_tells_them_apart():
    assert short_names([Path("/x/a/probe"), Path("/x/b/probe"), Path("/x/b/tuned")]) == ["a/probe", "b/probe", "tuned"]
    assert short_names([Path("/m"), Path("/x/m")]) == ["/m", "x/m"]
    with pytest.raises(InputError, match="compare needs two models or more, got 0"):
        open_models([])


def plain(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-")


def outcome(*rows, n=1580):
    """A comparison as `compare_models` gives it: a row is a model's name and its mAP's difference with both ends."""
    metrics = {name: {"value": 0.321, "ci95": [0.304, 0.33]} for name in ("mAP", "macro_f1", "micro_f1")}
    aps = {"Horror": 0.5, "War": 0.1, "Drama": 0.7, "Noir": 0.2}
    models = {
        name: {"metrics": metrics, "ece": 0.0061, "per_label": {label: {"ap": ap} for label, ap in aps.items()}}
        for name in ("A", *(row[0] for row in rows))
    }

    def difference(value, low, high, beyond=()):
        change = {"value": value, "ci95": [low, high], "p": 0.01}
        per_label = {
            label: {
                "ap": {
                    "value": dict(beyond).get(label, 0.0),
                    "ci95": [-0.2, 0.2],
                    "beyond_chance": label in dict(beyond),
                }
            }
            for label in ("Horror", "War", "Drama")
        }
        return {"metrics": dict.fromkeys(metrics, change), "per_label": per_label}

    return {
        "n": n,
        "first": "A",
        "models": models,
        "differences": {name: difference(*row) for name, *row in rows},
        "support": {"Horror": 185, "War": 21, "Drama": 1200, "Noir": 3},
        "tested_labels": ["Horror", "War", "Drama"],
        "untested_labels": ["Noir"],
        "enough_positives": 20,
    }


def test_the_sentences_say_better_worse_and_not_told_apart():
    found = outcome(("B", 0.031, 0.018, 0.044), ("C", -0.03, -0.05, -0.01), ("D", 0.003, -0.008, 0.014))
    assert verdict(found, "B", "poster") == "B is better than A: mAP +0.031 (+0.018 to +0.044), 1,580 posters."
    assert plain(verdict(found, "C", "poster")) == "C is worse than A: mAP -0.030 (-0.050 to -0.010), 1,580 posters."
    assert plain(verdict(found, "D", "poster")) == (
        "Between D and A there is no difference that 1,580 posters could show: mAP +0.003 (-0.008 to +0.014)."
    )
    text = comparison_text(found, "poster", "genre")
    assert (
        "Looked at: 3 genres for each of 3 models." in text
        and "No genre in which D and A differ beyond chance." in text
    )
    assert "of 20 models as good as the first, one would seem to differ." in text


def test_a_handful_of_posters_names_no_winner():
    found = outcome(("B", 0.4, 0.3, 0.5), n=7)
    assert (
        verdict(found, "B", "poster")
        == "7 posters cannot tell B from A: give 20 or more (mAP +0.400 (+0.300 to +0.500))."
    )


def test_where_every_genre_is_too_rare_nothing_is_said_of_any():
    found = outcome(("B", 0.031, 0.018, 0.044)) | {"tested_labels": [], "untested_labels": ["Noir"]}
    blocks = comparison_text(found, "poster", "genre").split("\n\n")
    assert len(blocks) == 5
    assert blocks[-1] == "Looked at: 0 genres.\nToo few posters (under 20) to look at: Noir (3)."


def test_the_genres_beyond_chance_are_listed_with_both_figures_best_first():
    text = comparison_text(
        outcome(("B", 0.031, 0.018, 0.044, (("War", -0.05), ("Horror", 0.02), ("Drama", 0.08)))), "poster", "genre"
    )
    assert plain(text).split("\n\n")[4:] == [
        "Beyond chance, B is better than A at Drama and Horror, and worse at War.",
        "average precision      A      B                 difference  posters\n"
        "-------------------------------------------------------------------\n"
        "Drama              0.700  0.700  +0.080 (-0.200 to +0.200)    1,200\n"
        "Horror             0.500  0.500  +0.020 (-0.200 to +0.200)      185\n"
        "War                0.100  0.100  -0.050 (-0.200 to +0.200)       21",
        "Looked at: 3 genres. The chance that any is wrongly named above is at most 5 % (Holm's correction).\n"
        "Too few posters (under 20) to look at: Noir (3).",
    ]
    worse = comparison_text(outcome(("B", -0.1, -0.2, -0.05, (("War", -0.05),))), "poster", "genre")
    assert "Beyond chance, B is worse than A at War.\n" in worse


def test_numbers_with_intervals_and_aligned_tables():
    assert with_interval(0.3214, [0.304, 0.33]) == "0.321 (0.304 to 0.330)"
    assert plain(with_interval(-0.0312, (-0.04, 0.002), change=True)) == "-0.031 (-0.040 to +0.002)"
    assert with_interval(0.5, None) == "0.500" and with_interval(None, None, change=True) == "\N{EN DASH}"
    assert aligned([["", "mAP"], ["long name", "0.3"]]) == "           mAP\n--------------\nlong name  0.3"
