"""benchmarks/bench_quality.py: the one scorer, what is kept, and (slow) the whole of it, killed and gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from benchmarks import bench_quality, yardstick
from benchmarks.bench_quality import ROOT, Bench
from lobbycard.poster import config

pytestmark = pytest.mark.filterwarnings("ignore")
CONTRACT = {"mAP", "mAP_sd", "macro_f1", "macro_f1_sd", "ece", "seconds"}


@pytest.fixture(scope="module")
def yard(trained, drawn, tmp_path_factory):
    """On the very split of the trained model."""
    folder = tmp_path_factory.mktemp("yard")
    yardstick.write_rows(trained.data.frame, folder)
    (folder / "digest.txt").write_text(trained.data.digest, encoding="utf-8")
    return yardstick.read_yardstick(folder, drawn / "MovieGenre.csv", drawn / "images", min_count=10)


def test_the_yardsticks_rows_are_the_products(yard, trained):
    assert yard.labels == trained.data.labels and yard.digest == trained.data.digest
    assert (yard.truth == trained.data.truth[trained.data.frame["is_valid"].to_numpy()]).all()
    assert yard.prior == pytest.approx(trained.data.prior)


def test_perfect_logits_score_one_at_every_threshold(yard):
    found = yardstick.score_recipe(yard, np.where(yard.truth, 30.0, -30.0), yard.truth.astype(float), seed=0)
    assert [*found] == ["recipe", "recipe_tta", "recipe_best_threshold", "recipe_threshold_per_genre"]
    for row in found.values():
        assert row["mAP"] == row["macro_f1"] == 1 and row["ece"] < 1e-9


def test_right_ranking_below_one_half_scores_nothing_until_the_threshold_suits(yard):
    found = yardstick.score_recipe(yard, np.where(yard.truth, -1.0, -3.0), np.full(yard.truth.shape, 0.1), seed=0)
    assert found["recipe"]["mAP"] == 1 and found["recipe"]["macro_f1"] == 0  # as fastai has it: no best guess is given
    assert found["recipe_best_threshold"]["macro_f1"] == found["recipe_threshold_per_genre"]["macro_f1"] == 1
    assert 0.04 < found["recipe_best_threshold"]["threshold"] <= 0.27
    share = yard.truth.mean()
    assert found["recipe_tta"]["ece"] == pytest.approx(abs(share - 0.1))
    assert found["recipe"]["ece"] == pytest.approx(share * (1 - 0.268941) + (1 - share) * 0.047426, abs=1e-5)


def test_scores_are_scikit_learns(yard):
    logits = np.random.default_rng(0).normal(-1, 2, yard.truth.shape) + 2 * yard.truth
    row = yardstick.score_recipe(yard, logits, logits > 0, seed=0)["recipe"]
    assert row["mAP"] == pytest.approx(average_precision_score(yard.truth, logits, average="macro"))
    assert row["macro_f1"] == pytest.approx(f1_score(yard.truth, logits >= 0, average="macro"))


def test_a_model_that_says_other_figures_than_it_gives_is_refused(yard, trained, tmp_path):
    found = yardstick.score_ours(yard, trained.config.out)
    about = json.loads((trained.config.out / "model.json").read_text(encoding="utf-8"))
    assert (
        found["macro_f1"] == about["metrics"]["macro_f1"]["value"] and found["ece"] == about["calibration"]["ece_after"]
    )
    liar = shutil.copytree(trained.config.out, tmp_path / "liar")
    for name in ("mAP", "macro_f1"):
        told = json.loads(json.dumps(about))
        told["metrics"][name]["value"] += 0.002
        (liar / "model.json").write_text(json.dumps(told), encoding="utf-8")
        with pytest.raises(SystemExit, match=f"{name} is .* in model.json, and .* when the model is asked"):
            yardstick.score_ours(yard, liar)


def test_means_and_spread_over_seeds_the_least_time_and_the_most_memory():
    runs = [{"scores": {"a": {"mAP": m, "macro_f1": 0.5, "ece": 0.01}}, "seconds": s, "wall_seconds": 90.0, "peak_gb": g}
            for m, s, g in ((0.1, 70.0, 1.0), (0.2, 60.0, None), (0.6, 65.0, 2.0))]  # fmt: skip
    row = bench_quality.summarize(runs)["a"]
    assert (row["n"], row["mAP"], row["macro_f1_sd"], row["peak_gb"], row["seconds"]) == (3, 0.3, 0, 2.0, 60.0)
    assert row["mAP_sd"] == pytest.approx(0.2646, abs=1e-4)  # sqrt(0.14 / 2)
    alone = bench_quality.summarize(runs[:1])["a"]
    assert row.keys() >= CONTRACT and alone["mAP_sd"] is None


def test_a_process_is_timed_to_its_marker_and_weighed(tmp_path):
    code = "import time; x = bytearray(300_000_000); print('done'); time.sleep(1)"
    spent = bench_quality.timed([sys.executable, "-c", code], tmp_path / "log.txt", marker="done")
    assert spent["seconds"] + 0.9 <= spent["wall_seconds"]
    assert spent["peak_gb"] is None or spent["peak_gb"] >= 0.3
    with pytest.raises(SystemExit, match="ended with 3; its last lines:\nno luck"):
        bench_quality.timed([sys.executable, "-c", "print('no luck'); exit(3)"], tmp_path / "log.txt", marker="done")


def test_what_defines_a_row_defines_its_result(yard, tmp_path, monkeypatch):
    bench = Bench(yard, tmp_path, "timm/test_resnet", quick=True, recipe_precision="fp32")
    key = bench._key("probe", bench._flags("probe"), 0)
    assert str(yard.csv.parent) not in json.dumps(key)
    others = [
        bench._key("probe", bench._flags("probe"), 1),
        bench._key("probe", [*bench._flags("probe"), "--lr", "1"], 0),
    ]
    monkeypatch.setitem(bench_quality.OURS, "probe", "--per-genre 7 --strategy probe")
    others.append(bench._key("probe", bench._flags("probe"), 0))
    kept = [bench._key("cached", bench._flags("cached"), 0)]
    monkeypatch.setattr(config, "CACHED_SOUP", 9)
    kept.append(bench._key("cached", bench._flags("cached"), 0))
    assert len({yardstick.digest(k) for k in (key, *others, *kept)}) == 6


def test_a_second_call_runs_nothing(yard, tmp_path):
    arch = yardstick.untrained_backbone(tmp_path / "net", yard.images)
    bench = Bench(yard, tmp_path, arch, quick=True)
    first = bench.run("probe", 0)
    shutil.rmtree(tmp_path / "runs")
    assert bench.run("probe", 0) == first
    assert not (tmp_path / "runs").exists()
    assert (
        first["scores"]["probe"].keys() == {"mAP", "macro_f1", "ece"} and 0 < first["seconds"] < first["wall_seconds"]
    )


def start(*flags):
    command = [sys.executable, "benchmarks/bench_quality.py", "--quick", *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def running(work: Path) -> list[str]:
    """Command lines of processes that write into `work`."""
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if str(work) in line and "bench_quality" not in line]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGTERM ends nothing gently there")
def test_killed_it_goes_on_where_it_was_and_ends_with_one_json_object(tmp_path):
    killed = start("--work", str(tmp_path))
    for line in killed.stdout:
        if "probe, seed 0" in line:  # the recipe is done
            break
    killed.send_signal(signal.SIGTERM)
    killed.communicate(timeout=30)
    assert killed.returncode and not running(tmp_path)

    output, _ = (again := start("--work", str(tmp_path))).communicate(timeout=600)
    assert again.returncode == 0, output
    assert "recipe, seed 0: kept from commit" in output and "probe, seed 0: --per-genre 0" in output
    found = json.loads(output.splitlines()[-1])
    assert [*found] == ["none", "top2", "prior", "recipe", "recipe_tta", "recipe_best_threshold",
                        "recipe_threshold_per_genre", "probe", "cached"]  # fmt: skip
    assert all(row.keys() >= CONTRACT for row in found.values())
    assert found["probe"]["mAP"] > found["prior"]["mAP"] + 0.1

    output, _ = (redone := start("--work", str(tmp_path), "--only", "probe", "--redo", "probe")).communicate(
        timeout=600
    )
    assert redone.returncode == 0 and "probe, seed 0: --per-genre 0" in output
    assert json.loads(output.splitlines()[-1])["probe"]["mAP"] == found["probe"]["mAP"]


def test_an_unknown_name_is_refused_in_words():
    with pytest.raises(SystemExit, match="expected some of recipe, probe, cached, standard; got probes"):
        bench_quality.main(only=("probes",))
