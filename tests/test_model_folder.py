"""The model folder: whole or not there, the same answers from three runtimes, and nothing in it of our code or machine."""

import json
import os
import pickletools
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lobbycard.catalog.image import load_poster, poster_array
from lobbycard.errors import InputError
from lobbycard.files import sha256
from lobbycard.poster import runtimes
from lobbycard.poster.artifact import open_model
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.poster.trainer import MovieGenreTrainer
from lobbycard.scoring.decide import decide

from .conftest import TINY

ROOT = Path(__file__).parent.parent
CONTRACT = {
    "model.json", "model.safetensors", "model.onnx", "export.pkl", "vocab.txt", "report.html", "README.md", "history.csv",
    "split.csv",
}  # fmt: skip


@pytest.fixture
def folder(trained) -> Path:
    return trained.config.out


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def pictures(trained) -> list[Path]:
    return [Path(p) for p in trained.data.side(True)["path"][:24]]


def test_every_file_of_the_contract_is_there_and_hashed(folder):
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there >= CONTRACT and set(about["files"]) == there - {"model.json"}
    assert all(sha256(folder / name) == digest for name, digest in about["files"].items())
    assert (folder / "checkpoints" / "best_model.pth").is_file()
    assert {"format_version", "task", "labels", "arch", "input", "thresholds", "calibration", "metrics", "config", "data",
            "versions", "files"} <= set(about)  # fmt: skip
    assert about["labels"] == (folder / "vocab.txt").read_text(encoding="utf-8").split()
    assert set(about["thresholds"]) == set(about["labels"])
    assert set(about["metrics"]) >= {"mAP", "macro_f1", "micro_f1", "samples_f1"}
    assert all(len(metric["ci95"]) == 2 and metric["ci95"][0] <= metric["value"] <= metric["ci95"][1]
               for metric in about["metrics"].values())  # fmt: skip
    assert {"size", "resize", "mean", "std"} <= set(about["input"])


def test_three_runtimes_agree_in_every_probability(folder, pictures):
    answers = {name: PosterPredictor.load(folder, name).predict_proba(pictures) for name in ("onnx", "torch", "fastai")}
    labels = len(open_model(folder).labels)
    assert answers["onnx"].shape == (24, labels) and answers["onnx"].dtype == np.float32
    for name in ("torch", "fastai"):
        assert np.abs(answers[name] - answers["onnx"]).max() < 1e-3


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_batch_gives_what_one_by_one_gives(folder, pictures, runtime):
    predictor = PosterPredictor.load(folder, runtime)
    single = np.concatenate([predictor.predict_proba([p]) for p in pictures])
    assert np.abs(predictor.predict_proba(pictures) - single).max() < 1e-5


@pytest.mark.parametrize("tta", [False, True])
def test_many_pictures_answered_a_batch_a_core_get_what_few_get(folder, pictures, monkeypatch, tta):
    monkeypatch.setattr(runtimes, "cores", lambda: 3)
    predictor = PosterPredictor.load(folder, "onnx")
    few = predictor.predict_proba(pictures, tta)
    assert "on_one_core" not in vars(predictor._logits)
    many = [*pictures * 6, b"<html>"]
    *rows, (_, nothing, why) = predictor.stream(many, tta)
    assert "on_one_core" in vars(predictor._logits) and nothing is None and "a web page" in why
    assert [source for source, _, _ in rows] == many[:-1]
    assert np.abs(np.stack([row for _, row, _ in rows]) - np.tile(few, (6, 1))).max() < 1e-6


def test_a_network_whose_file_is_another_by_now_goes_on_as_it_was_loaded(copy, pictures, monkeypatch):
    monkeypatch.setattr(runtimes, "cores", lambda: 3)
    predictor = PosterPredictor.load(copy, "onnx")
    few = predictor.predict_proba(pictures)
    (copy / "model.onnx").write_bytes(b"another")
    assert np.abs(predictor.predict_proba(pictures * 6) - np.tile(few, (6, 1))).max() < 1e-6
    assert "on_one_core" not in vars(predictor._logits)


@pytest.mark.parametrize("count", [1, runtimes.MOST_LANES + 1])
def test_one_core_or_very_many_share_a_batch(folder, pictures, monkeypatch, count):
    monkeypatch.setattr(runtimes, "cores", lambda: count)
    predictor = PosterPredictor.load(folder, "onnx")
    assert len(predictor.predict_proba(pictures * 6)) == 144 and "on_one_core" not in vars(predictor._logits)


def test_training_and_serving_see_the_same_pixels(trained, pictures):
    """A batch of the validation loader, taken back to 0..255, is what `poster_array` gives the runtimes."""
    batch = trained.learn.dls.valid.one_batch()[0][: len(pictures)]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (trained.mean, trained.std))
    seen = ((batch.as_subclass(torch.Tensor).cpu() * std + mean) * 255).permute(0, 2, 3, 1).numpy()
    served = np.stack([poster_array(p, trained.size) for p in pictures])
    assert np.abs(seen - served).max() < 0.01


def test_the_calibration_is_folded_into_the_last_layer(trained, folder, pictures):
    """Served logits = scale * trained logits + bias, from the checkpoint written before export."""
    from lobbycard.catalog.batches import normalize
    from lobbycard.poster import network as networks

    about = open_model(folder).about
    plain = networks.build(trained.architecture, len(about["labels"])).eval()
    plain.load_state_dict(torch.load(folder / "checkpoints" / "best_model.pth", weights_only=True))
    pixels = normalize(np.stack([poster_array(p, trained.size) for p in pictures]), trained.mean, trained.std)
    with torch.inference_mode():
        logits = plain(torch.from_numpy(pixels)).numpy()
    scale, bias = (np.array([about["calibration"][k][label] for label in about["labels"]]) for k in ("scale", "bias"))
    expected = 1 / (1 + np.exp(-(scale * logits + bias)))
    assert np.abs(PosterPredictor.load(folder, "onnx").predict_proba(pictures) - expected).max() < 1e-4


def test_pain_8_weights_are_stored_fp32(folder):
    state = load_file(folder / "model.safetensors")
    assert {t.dtype for t in state.values()} <= {torch.float32, torch.int64}


def test_tta_averages_three_views(folder, pictures):
    predictor = PosterPredictor.load(folder, "onnx")
    from lobbycard.poster.predictor import tta_views

    pixels = np.stack([poster_array(p, predictor.size) for p in pictures])
    views = tta_views(pixels)
    assert np.array_equal(views[0], pixels) and np.array_equal(views[1][:, :, ::-1], pixels)
    mean = np.mean([predictor.from_pixels(v) for v in views], axis=0)
    assert np.abs(predictor.predict_proba(pictures, tta=True) - mean).max() < 1e-6


# -- export.pkl --------------------------------------------------------------------------------------------------------

STRANGER = """
import json, sys, warnings
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lobbycard", "train_model", "app_gradio"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
warnings.filterwarnings("ignore")
from fastai.vision.all import PILImage, load_learner
import torch
learn = load_learner(sys.argv[1])
paths = sys.argv[2:]
with learn.no_bar(), learn.no_logging():
    labels, given, probabilities = learn.predict(PILImage.create(paths[0]))
    together = learn.get_preds(dl=learn.dls.test_dl([PILImage.create(p) for p in paths]))[0]
print(json.dumps({"labels": list(labels), "given": given.tolist(), "single": probabilities.tolist(),
                  "together": together.tolist(), "path": str(learn.path), "vocab": list(learn.dls.vocab)}))
"""


def test_pain_1_the_learner_loads_where_only_fastai_is_and_predicts_the_same(folder, pictures, tmp_path):
    upright = []
    for number, path in enumerate(pictures[:4]):
        upright.append(str(tmp_path / f"{number}.png"))
        load_poster(path).save(upright[-1])  # load_poster's pixels, read by fastai itself
    run = subprocess.run([sys.executable, "-c", STRANGER, str(folder / "export.pkl"), *upright], cwd=tmp_path,
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    ours = PosterPredictor.load(folder, "onnx")
    expected = ours.predict_proba(pictures[:4])
    assert np.abs(np.array(found["together"]) - expected).max() < 1e-3
    assert np.abs(np.array(found["single"]) - expected[0]).max() < 1e-3
    assert found["vocab"] == ours.labels and found["path"] == "."
    # learn.predict decides with the model's own thresholds (it knows no "never empty")
    assert found["given"] == (expected[0] > ours.thresholds).tolist()


def test_a_model_whose_head_sees_several_levels_travels_like_any_other(drawn, pictures, tmp_path):
    trainer = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m",
                                say=lambda text: None, **TINY, strategy="probe")  # fmt: skip
    folder = trainer.run()
    assert folder.about["network"]["levels"] == ["layer1"]
    ours = PosterPredictor.load(folder.path, "onnx")
    expected = ours.predict_proba(pictures[:2])
    assert np.abs(PosterPredictor.load(folder.path, "torch").predict_proba(pictures[:2]) - expected).max() < 1e-3
    upright = []
    for number, path in enumerate(pictures[:2]):
        upright.append(str(tmp_path / f"{number}.png"))
        load_poster(path).save(upright[-1])
    run = subprocess.run([sys.executable, "-c", STRANGER, str(folder.path / "export.pkl"), *upright], cwd=tmp_path,
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert np.abs(np.array(found["together"]) - expected).max() < 1e-3
    roots = {name.split(".")[0].split(" ")[0] for name in globals_in(folder.path / "export.pkl")}
    assert not roots & {"cloudpickle", "lobbycard", "marshal"}


def globals_in(pickle_file: Path) -> set[str]:
    with zipfile.ZipFile(pickle_file) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("data.pkl")]
        data = archive.read(name)
    return {str(argument) for op, argument, _ in pickletools.genops(data) if op.name == "GLOBAL"}


def test_pain_2_no_bytecode_in_the_learner_so_any_python_can_load_it(folder):
    names = globals_in(folder / "export.pkl")
    roots = {name.split(".")[0].split(" ")[0] for name in names}
    assert not roots & {"cloudpickle", "lobbycard", "train_model", "__main__", "types", "marshal"}
    stock = {"fastai", "fastcore", "fasttransform", "torch", "torchvision", "timm", "numpy", "pandas", "plum", "PIL"}
    python = {
        "builtins",
        "__builtin__",
        "collections",
        "functools",
        "importlib",
        "inspect",
        "typing",
        "random",
        "_operator",
    }
    assert roots <= stock | python | {"_codecs", "copyreg", "copy_reg"}, roots


def test_pain_3_no_path_of_this_system_or_machine_in_any_artifact(folder, drawn):
    names = globals_in(folder / "export.pkl")
    assert not [n for n in names if re.search("PosixPath|WindowsPath|pathlib", n)]
    private = [str(drawn), str(folder.parent), str(Path.home()), str(ROOT), "site-packages", sys.prefix]
    for file in folder.rglob("*"):
        if file.is_file():
            data = zipfile.ZipFile(file).read if zipfile.is_zipfile(file) else None
            texts = (
                [data(n) for n in zipfile.ZipFile(file).namelist() if n.endswith(".pkl")]
                if data
                else [file.read_bytes()]
            )
            assert not [p for p in private for t in texts if p.encode() in t], file


def test_pain_4_the_default_loader_never_unpickles(folder, copy, pictures):
    (copy / "export.pkl").write_bytes(b"not a pickle at all")
    for runtime in ("onnx", "torch"):
        assert PosterPredictor.load(copy, runtime).predict_proba(pictures[:1]).shape[0] == 1
    with pytest.raises(InputError, match=r"export\.pkl: its sha256 is not the one in model\.json"):
        PosterPredictor.load(copy, "fastai")
    with pytest.raises(InputError, match=r"export\.pkl: its sha256 is not the one in model\.json"):
        PosterPredictor.load(copy / "export.pkl")


def test_pain_4_a_learner_alone_needs_trust(folder, pictures, tmp_path):
    alone = Path(shutil.copy(folder / "export.pkl", tmp_path))
    with pytest.raises(InputError, match="loading it runs the code in it. Give --trust if you know who made it"):
        PosterPredictor.load(alone)
    trusted, ours = PosterPredictor.load(alone, trust=True), PosterPredictor.load(folder)
    assert trusted.labels == ours.labels and trusted.size == ours.size
    assert np.allclose(trusted.thresholds, ours.thresholds, atol=1e-6)
    assert np.abs(trusted.predict_proba(pictures) - ours.predict_proba(pictures)).max() < 1e-3


def test_pain_6_a_learner_of_another_world_says_what_is_missing(tmp_path):
    (tmp_path / "old.pkl").write_bytes(b"cno_such_library.layers\nConv2dNormActivation\n.")
    with pytest.raises(InputError, match="this learner cannot be loaded here .*export it again"):
        PosterPredictor.load(tmp_path / "old.pkl", trust=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("best.pth", "a checkpoint: weights alone, no labels and no thresholds; give the model folder it lies in"),
        ("model.onnx", "one file of a model; give the folder it lies in"),
        ("film.jpg", "a file; expected a model folder, with model.json in it"),
    ],
)
def test_pain_7_whatever_is_given_instead_of_a_model_is_named(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=words):
        PosterPredictor.load(tmp_path / name)


# -- whole or not there ------------------------------------------------------------------------------------------------


def test_half_a_model_is_said_to_be_half_a_model(copy, tmp_path):
    (copy / "model.json").unlink()
    with pytest.raises(InputError, match=r"no model\.json, so this is no whole model .* --resume"):
        open_model(copy)
    with pytest.raises(InputError, match="no such model folder; `make train` makes models/sample"):
        open_model(tmp_path / "nowhere")


def test_a_changed_or_lost_file_is_found_out(copy):
    data = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"model\.onnx: its sha256 is not the one"):
        PosterPredictor.load(copy, "onnx")
    (copy / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx: named in model\.json but not there"):
        PosterPredictor.load(copy, "onnx")


def test_a_model_of_a_later_format_is_refused(copy):
    about = json.loads((copy / "model.json").read_text(encoding="utf-8"))
    (copy / "model.json").write_text(json.dumps(about | {"format_version": 99}), encoding="utf-8")
    with pytest.raises(InputError, match="format version 99, this lobbycard reads 1"):
        open_model(copy)
    (copy / "model.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not JSON"):
        open_model(copy)


KILLED_WHILE_EXPORTING = """
import os, signal, sys
from pathlib import Path
import lobbycard.poster.release as release
from lobbycard.poster import artifact
kill_at = sys.argv[2]
real_replace, count = Path.replace, 0
def replace(self, target):  # the process dies in the middle of moving the files in
    global count
    count += 1
    if Path(target).parent == Path(sys.argv[1]) and Path(target).name == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return real_replace(self, target)
Path.replace = replace
import train_model
train_model.main(sys.argv[3:])
"""


@pytest.mark.parametrize("kill_at", ["model.onnx", "vocab.txt", "model.json"])
def test_killed_while_exporting_no_half_model_is_taken_for_a_whole_one(drawn, tmp_path, kill_at):
    out = tmp_path / "m"
    flags = ["--csv", str(drawn / "MovieGenre.csv"), "--images", str(drawn / "images"), "--out", str(out), "--no-download",
             "--min-count", "10", "--per-genre", "0", "--arch", "timm/test_resnet", "--weights", "none", "--size", "32",
             "--freeze-epochs", "0", "--epochs", "1", "--workers", "0"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_EXPORTING, str(out), kill_at, *flags], env=env, cwd=tmp_path
    )
    assert killed.returncode == -9
    with pytest.raises(InputError, match="no whole model"):
        open_model(out)
    subprocess.run([sys.executable, "-m", "train_model", *flags, "--resume"], env=env, cwd=tmp_path, check=True)
    assert open_model(out).labels and not list(out.glob(".export-*"))


def test_decisions_of_the_folder_are_decides(folder, pictures):
    predictor = PosterPredictor.load(folder)
    probabilities = predictor.predict_proba(pictures)
    given = decide(probabilities, predictor.thresholds)
    assert given.any(axis=1).all()


def test_pain_27_pillow_images_of_every_mode_are_answered(folder, pictures):
    predictor = PosterPredictor.load(folder)
    image = load_poster(pictures[0])
    reference = predictor.predict_proba([pictures[0]])
    assert np.abs(predictor.predict_proba([image]) - reference).max() < 1e-6
    for mode in ("RGBA", "CMYK", "L", "P"):
        assert predictor.predict_proba([image.convert(mode)]).shape == reference.shape


def test_the_card_names_the_final_folder_and_says_that_the_sample_is_drawn(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"--model {folder.name} " in card and ".export-" not in card
    assert "drawn by code" in card and "browsing, tagging" not in card
