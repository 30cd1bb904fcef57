"""python -m lobbycard, as people call it."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lobbycard import files
from lobbycard.errors import InputError
from lobbycard.files import Growing
from lobbycard.poster import answers
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_table_that_repeats_its_posters_has_a_row_each_and_memory_does_not_grow_with_them(trained, drawn, tmp_path):
    header, *lines = (drawn / "MovieGenre.csv").read_text(encoding="latin-1").splitlines(keepends=True)
    # Not getrusage: what that tells is never below what this process had when it started the other one.
    code = (
        "import re, sys; from lobbycard.__main__ import main; main()\n"
        "print('most memory', re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    most = {}
    for n in (400, 4_000):
        table, out = tmp_path / f"{n}.csv", tmp_path / f"out{n}.csv"
        table.write_text(header + "".join(lines[i % 100] for i in range(n)) + "no id,,,,,\n", encoding="latin-1")
        flags = ["predict", "--model", trained.config.out, table, "--images", drawn / "images", "--out", out]
        run = subprocess.run([sys.executable, "-c", code, *map(str, flags)], cwd=ROOT, capture_output=True, text=True)
        assert "1 left out: imdbId" in run.stderr and len(rows_of(out)) == n, run.stderr
        most[n] = int(run.stderr.split("most memory ")[1].split()[0])
    assert most[4_000] - most[400] < 15_000, f"{most} kB: a poster at 64 x 48 has 9"


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


SLOW = """
import sys, time
from lobbycard import files
from lobbycard.poster import answers
files.SAVED_EVERY, answers.WRITTEN = 0.0, 16
write = files.Growing.write
def slowly(self, *given):
    write(self, *given)
    time.sleep(0.2)
files.Growing.write = slowly
from lobbycard.__main__ import main
main(sys.argv[1:])
"""


def killed_predict(given, out):
    """Start it, slowed down, and kill it once some answers are on the disk."""
    process = subprocess.Popen([sys.executable, "-c", SLOW, *map(str, given), "--out", str(out)], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        notes = list(out.parent.glob(f".{out.name}*.json"))
        if notes and json.loads(notes[0].read_text())["rows"] > 17:
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert notes and not out.exists()


def test_predict_killed_goes_on_where_it_was_and_ends_in_the_same_bytes(trained, drawn, tmp_path):
    bad, out = tmp_path / "not-there.jpg", tmp_path / "preds.csv"
    given = ["predict", bad, *[drawn / "images"] * 4, "--model", trained.config.out]
    assert lobbycard(*given, "--out", tmp_path / "whole.csv").returncode == 0
    killed_predict(given, out)
    done = lobbycard(*given, "--out", out)
    assert re.search(r"going on after [1-9]\d* of [\d,]+ posters", done.stderr), done.stderr
    assert "1 of " in done.stderr and "could not be read" in done.stderr  # the process that met it was killed
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not list(tmp_path.glob(".preds*"))


def test_predict_asked_for_something_else_begins_anew(trained, drawn, tmp_path):
    out = tmp_path / "preds.csv"
    given = ["predict", *[drawn / "images"] * 4, "--model", trained.config.out]
    killed_predict(given, out)
    done = lobbycard(*given, "--out", out, "--top-k", 1)
    assert "going on" not in done.stderr
    assert all("|" not in row["genres"] for row in rows_of(out)) and not list(tmp_path.glob(".preds*"))


def test_two_learners_without_folders_are_not_taken_for_one(trained, tmp_path):
    keys = []
    for name in "ab":
        learner = tmp_path / f"{name}.pkl"
        learner.write_bytes((trained.config.out / "export.pkl").read_bytes())
        with learner.open("ab") as file:
            file.write(name.encode())
        predictor = PosterPredictor.load(learner, trust=True)
        keys.append(answers._key(predictor, [], answers.Choice(), False))
    assert keys[0] != keys[1]


def test_predict_to_a_file_that_another_process_is_writing_is_refused(trained, drawn, tmp_path):
    given = ["predict", drawn / "images", "--model", trained.config.out, "--out", tmp_path / "preds.csv"]
    with Growing(tmp_path / "preds.csv", "another"):
        refused = lobbycard(*given)
        assert refused.returncode == 2 and "another process is writing it; wait for that" in refused.stderr
    assert lobbycard(*given).returncode == 0


def test_a_picture_that_was_mended_meanwhile_is_answered_anew(trained, drawn, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "preds.csv"
    shutil.copytree(drawn / "images", folder)
    first = sorted(folder.glob("*.jpg"))[0]
    whole = first.read_bytes()
    first.write_bytes(whole[:500])
    given = ["predict", folder, "--model", trained.config.out]
    killed_predict(given, out)
    first.write_bytes(whole)
    done = lobbycard(*given, "--out", out)
    assert "going on" not in done.stderr and "could not be read" not in done.stderr


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, InputError("no room")])
def test_a_growing_file_has_each_row_once_however_its_writing_was_stopped(tmp_path, monkeypatch, stopped_by):
    monkeypatch.setattr(files, "SAVED_EVERY", 1e9)

    class Breaks:
        """Stops after the bytes are in the file and before the caller hears of it."""

        def encode(self, *given, **more):
            file._file.write(b"half a row")
            raise stopped_by

    with pytest.raises((KeyboardInterrupt, InputError)), Growing(tmp_path / "rows", "k") as file:
        file.write("one\ntwo\n", 2)
        file.write(Breaks(), 1)
    with Growing(tmp_path / "rows", "k") as file:
        assert file.rows == 2
        file.write("three\n", 1)
    assert (tmp_path / "rows").read_text() == "one\ntwo\nthree\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_growing_files_of_long_names_that_begin_alike_are_kept_apart(tmp_path):
    names = [tmp_path / f"{'x' * 60}-{i}.csv" for i in range(2)]
    with Growing(names[0], "k") as one, Growing(names[1], "k") as other:
        one.write("1", 1)
        other.write("2", 1)
    assert [name.read_text() for name in names] == ["1", "2"]
