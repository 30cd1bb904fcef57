"""python -m lobbycard, as people call it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lobbycard.poster.predictor import PosterPredictor
from lobbycard.scoring.decide import decide

ROOT = Path(__file__).parent.parent


def lobbycard(*arguments, cwd=ROOT):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "lobbycard", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, env=env
    )


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predict_has_the_contracts_columns_and_decides_by_decide(trained, tmp_path):
    model, out = trained.config.out, tmp_path / "preds.csv"
    pictures = [Path(p) for p in trained.data.side(True)["path"][:5]]
    run = lobbycard("predict", "--model", model, *pictures, "--out", out)
    assert run.returncode == 0, run.stderr
    predictor = PosterPredictor.load(model)
    rows = rows_of(out)
    assert list(rows[0]) == ["image", "genres", "error", *predictor.labels]
    probabilities = np.array([[float(row[label]) for label in predictor.labels] for row in rows])
    assert np.abs(probabilities - predictor.predict_proba(pictures)).max() < 1e-5
    given = decide(predictor.predict_proba(pictures), predictor.thresholds)
    for row, picture, decision in zip(rows, pictures, given, strict=True):
        assert row["image"] == picture.as_posix() and row["error"] == ""
        assert row["genres"].split("|") == [label for label, g in zip(predictor.labels, decision, strict=True) if g]


def test_a_bad_image_is_one_row_with_its_error_and_the_run_goes_on(trained, drawn, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    good = shutil.copy(next((drawn / "images").glob("*.jpg")), folder / "b good.jpg")
    (folder / "a.jpg").write_text("<html>")
    (folder / "c.jpg").write_bytes(Path(good).read_bytes()[:900])
    run = lobbycard(
        "predict", "--model", trained.config.out, folder, tmp_path / "gone.jpg", "--out", tmp_path / "p.csv"
    )
    rows = rows_of(tmp_path / "p.csv")
    assert run.returncode == 0 and "3 of 4 pictures could not be read" in run.stderr
    assert [Path(row["image"]).name for row in rows] == ["a.jpg", "b good.jpg", "c.jpg", "gone.jpg"]
    assert "a web page" in rows[0]["error"] and "cut off or damaged" in rows[2]["error"]
    assert "cannot be read" in rows[3]["error"]
    assert rows[1]["error"] == "" and rows[1]["genres"] and all(not row["genres"] for row in rows if row["error"])


def test_predict_of_a_movie_table_and_the_flags_that_decide(trained, drawn, tmp_path):
    table, model = drawn / "MovieGenre.csv", trained.config.out
    run = lobbycard("predict", "--model", model, table, "--images", drawn / "images", "--out", tmp_path / "all.csv")
    assert run.returncode == 0, run.stderr
    rows = rows_of(tmp_path / "all.csv")
    read = [row for row in rows if not row["error"]]
    assert len(rows) > 200 and len(read) == len(
        [r for r in rows if (drawn / "images" / Path(r["image"]).name).exists()]
    )

    def genres(*flags):
        lobbycard("predict", "--model", model, table, "--images", drawn / "images", "--out", tmp_path / "f.csv", *flags)
        return [len(r["genres"].split("|")) for r in rows_of(tmp_path / "f.csv") if not r["error"]]

    assert max(genres("--top-k", 1)) == 1
    assert min(genres("--threshold", 0.0)) == len(PosterPredictor.load(model).labels)
    assert set(genres("--threshold", 1.0)) == {1}  # never empty
    own = sum(len(r["genres"].split("|")) for r in read)
    assert sum(genres("--shift", 1)) < own < sum(genres("--shift=-1"))


def test_without_out_the_csv_goes_to_standard_output(trained, drawn):
    run = lobbycard("predict", "--model", trained.config.out, next((drawn / "images").glob("*.jpg")))
    lines = run.stdout.splitlines()
    assert lines[0].startswith("image,genres,error,") and len(lines) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "--model", "nowhere", "x.jpg"], "error: nowhere: no such model folder"),
        (["predict", "--model", "MODEL"], "nothing to predict: give pictures"),
        (["predict", "--model", "MODEL", "--threshold", "2", "x.jpg"], "error: thresholds must"),
        (["predict", "--model", "MODEL", "--top-k", "0", "x.jpg"], "error: top_k must"),
        (["evaluate", "--model", "MODEL", "--csv", "none.csv", "--images", "."], "error: .*none.csv"),
    ],
)
def test_errors_are_one_line_and_status_2(trained, tmp_path, arguments, words):
    import re

    run = lobbycard(*[str(trained.config.out) if a == "MODEL" else a for a in arguments], cwd=tmp_path)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert re.search(words, run.stderr), run.stderr
    assert len([line for line in run.stderr.splitlines() if line.startswith("error:")]) == 1


def test_evaluate_on_the_validation_rows_repeats_the_trainers_map(trained, drawn, tmp_path):
    """A second path to the same number: the exported ONNX model, the table read anew, only the validation rows left in it."""
    import pandas as pd

    table = pd.read_csv(drawn / "MovieGenre.csv", encoding="latin-1", dtype=str)
    valid = set(trained.data.side(True)["item_id"])
    table[["tt" + str(i).zfill(7) in valid for i in table["imdbId"]]].to_csv(
        tmp_path / "valid.csv", index=False, encoding="latin-1"
    )
    run = lobbycard("evaluate", "--model", trained.config.out, "--csv", tmp_path / "valid.csv", "--images", drawn / "images",
                    "--json", tmp_path / "e.json")  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert set(found) >= {"n", "labels", "metrics", "baselines", "per_label"} and set(found["baselines"]) == {
        "none",
        "top2",
        "prior",
    }
    assert found["n"] == len(valid) and found["labels"] == trained.data.labels
    assert found["metrics"]["mAP"]["value"] == pytest.approx(trained.measured.metrics["mAP"]["value"], abs=2e-3)
    assert set(next(iter(found["per_label"].values()))) >= {"ap", "f1", "precision", "recall", "support", "threshold"}


def test_evaluate_counts_what_it_leaves_out(trained, tmp_path):
    (tmp_path / "t.csv").write_text("imdbId,Genre,Poster\n1,Game-Show,\n2,Comedy,\n", encoding="utf-8")
    run = lobbycard("evaluate", "--model", trained.config.out, "--csv", tmp_path / "t.csv", "--images", tmp_path)
    assert run.returncode == 2
    assert "1 no genre that the model knows, 1 no poster on disk" in run.stderr


def test_evaluate_says_when_the_model_was_trained_on_what_it_is_measured_on(trained, drawn):
    run = lobbycard(
        "evaluate", "--model", trained.config.out, "--csv", drawn / "MovieGenre.csv", "--images", drawn / "images"
    )
    n_train = trained.data.about["n_train"]
    assert f"{n_train} of these" in run.stdout and "were trained on" in run.stdout


def test_a_mistyped_folder_is_no_picture(trained, tmp_path):
    run = lobbycard("predict", "--model", trained.config.out, "nowhere", cwd=tmp_path)
    assert run.returncode == 2 and "error: nowhere: no such file or folder" in run.stderr
