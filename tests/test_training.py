"""Training: seeds, resumption, early stopping, precision, strategies, on drawn posters with a tiny network."""

import csv
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.learner import Learner
from safetensors.torch import load_file

from lobbycard.errors import InputError
from lobbycard.poster import checkpoint
from lobbycard.poster.artifact import open_model
from lobbycard.poster.checkpoint import save_weights
from lobbycard.poster.config import Config
from lobbycard.poster.learning import mean_average_precision
from lobbycard.poster.network import Architecture, build, head
from lobbycard.poster.precision import (
    Autocast,
    choose_device,
    choose_precision,
    is_strided_depthwise,
    precision_callbacks,
)
from lobbycard.poster.soup import SOUP, Soup
from lobbycard.poster.strategies import PHASED, choose_strategy
from lobbycard.poster.trainer import MovieGenreTrainer

from .conftest import TINY

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore")


def trainer_of(drawn, out, **settings):
    return MovieGenreTrainer(
        csv=drawn / "MovieGenre.csv", images=drawn / "images", out=out,
        **{**TINY, "freeze_epochs": 1, "epochs": 2, "say": lambda text: None, **settings},
    )  # fmt: skip


def train(drawn, out, **settings):
    trainer = trainer_of(drawn, out, **settings)
    trainer.load()
    trainer.download()
    trainer.split()
    trainer.fit()
    return trainer


def weights(trainer):
    return {k: v.float() for k, v in trainer.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_learn_is_a_plain_fastai_learner_with_fastais_metrics(trained):
    learn = trained.learn
    assert type(learn) is Learner
    assert [m.name for m in learn.metrics] == ["mAP", "f1_score", "precision_score", "recall_score"]
    batch, targets = learn.dls.one_batch()
    assert batch.shape[1:] == (3, 64, 48) and targets.shape[1] == len(trained.data.labels)


def test_history_has_a_row_an_epoch_and_map_equals_scikit_learn(trained, drawn):
    with (trained.config.out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], row["epoch"]) for row in rows] == [("head", "1"), ("all", "2"), ("all", "3")]
    from sklearn.metrics import average_precision_score

    # The network holds the best epoch's weights, with the calibration folded in: the ranking is the same.
    probabilities, targets = trained.learn.get_preds(ds_idx=1)
    best = max(float(row["mAP"]) for row in rows)
    assert average_precision_score(targets.numpy(), probabilities.numpy(), average="macro") == pytest.approx(
        best, abs=0.01
    )


def test_same_seed_same_result_other_seed_another(drawn, tmp_path):
    first, second = (train(drawn, tmp_path / name, epochs=1) for name in "ab")
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(train(drawn, tmp_path / "c", epochs=1, seed=1)))


COMMAND = [sys.executable, "train_model.py"]
COMMAND += shlex.split(
    "--no-download --min-count 10 --per-genre 0 --arch timm/test_resnet --weights none --size 64x48 "
    "--batch-size 32 --workers 0 --lr 0.005 --precision fp32 --freeze-epochs 1 --epochs 3"
)


def start(drawn, out, *more):
    flags = ["--csv", str(drawn / "MovieGenre.csv"), "--images", str(drawn / "images"), "--out", str(out)]
    return subprocess.Popen([*COMMAND, *flags, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, "PYTHONUNBUFFERED": "1"})  # fmt: skip


def read_until(process, words):
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return "".join(seen)
    raise AssertionError(f"{words!r} never came:\n{''.join(seen)}")


@pytest.mark.parametrize(
    "flags, finished",
    [
        ("--strategy standard", 2),  # the first unfrozen epoch is saved, the next one runs
        ("--strategy standard --soup 2", 4),  # the first training has ended, the second begins
        ("--strategy cached --soup 2", 5),  # within the second
    ],
)
def test_killed_and_resumed_ends_where_the_unbroken_run_does(drawn, tmp_path, flags, finished):
    unbroken = start(drawn, tmp_path / "unbroken", *flags.split())
    unbroken.communicate(timeout=300)
    assert unbroken.returncode == 0

    killed = start(drawn, tmp_path / "killed", *flags.split())
    read_until(killed, f"epoch  {finished}")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "model.json").exists()
    resumed = start(drawn, tmp_path / "killed", *flags.split(), "--resume")
    output = resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0 and f"resuming after {finished} finished epochs" in output, output

    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", "killed"))
    assert same(a, b)
    columns = ["train_loss", "valid_loss", "mAP"]
    histories = [list(csv.DictReader((tmp_path / name / "history.csv").open())) for name in ("unbroken", "killed")]
    assert [[row[c] for c in columns] for row in histories[0]] == [[row[c] for c in columns] for row in histories[1]]
    assert "\x1b" not in output and "\r" not in output  # no control characters where there is no terminal


def test_sigterm_stops_with_the_words_that_resume(drawn, tmp_path):
    process = start(drawn, tmp_path / "m", "--epochs", "50")
    read_until(process, "epoch  1")
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "run the same command with --resume" in output and "Traceback" not in output
    assert (tmp_path / "m" / "checkpoints" / "state.pth").is_file()


def test_resume_with_other_settings_or_without_a_run_is_refused(drawn, tmp_path):
    with pytest.raises(InputError, match="--resume: there is no unfinished run"):
        train(drawn, tmp_path / "none", resume=True)
    trainer = train(drawn, tmp_path / "m", epochs=1)
    assert trainer.history
    with pytest.raises(InputError, match=r"trained with other settings \(lr was 0.005, is 0.1\)"):
        train(drawn, tmp_path / "m", epochs=1, lr=0.1, resume=True)


def test_early_stopping_ends_a_phase_and_keeps_the_best_epoch(drawn, tmp_path):
    # A rate at which nothing is learned: the first epoch stays the best one, or nearly.
    trainer = train(drawn, tmp_path / "m", lr=1e-9, freeze_epochs=0, epochs=12, patience=2)
    scores = [row["mAP"] for row in trainer.history]
    best = int(np.argmax(scores))
    assert len(scores) == best + 3 < 12


@pytest.mark.parametrize("strategy", ["discriminative", "progressive", "cached", "probe"])
def test_every_strategy_trains_and_its_network_answers(drawn, tmp_path, strategy):
    said = []
    trainer = train(drawn, tmp_path / "m", strategy=strategy, epochs=3, say=said.append)
    measured = trainer.evaluate()
    assert measured.metrics["mAP"]["value"] > measured.baselines["prior"]["mAP"]["value"]
    assert trainer.size == ((128, 96) if strategy == "progressive" else (64, 48))
    warned = any("drawn at random" in words for words in said)
    assert warned == (strategy in ("cached", "probe"))


def killed_before_pouring(monkeypatch, drawn, out, **settings):
    def killed(soup, network, numbers):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Soup, "pour", killed)
        train(drawn, out, **settings)


def test_a_soup_is_poured_at_the_size_it_is_served_at_even_if_the_run_is_killed_before(drawn, tmp_path, monkeypatch):
    settings = {"strategy": "progressive", "soup": 2, "epochs": 3, "freeze_epochs": 0, "size": "32x32"}
    unbroken = train(drawn, tmp_path / "unbroken", **settings)

    killed_before_pouring(monkeypatch, drawn, tmp_path / "killed", **settings)
    resumed = train(drawn, tmp_path / "killed", **settings, resume=True)
    assert resumed.size == (64, 64) and same(weights(resumed), weights(unbroken))
    without_time = [[{k: v for k, v in row.items() if k != "time"} for row in t.history] for t in (unbroken, resumed)]
    assert without_time[0] == without_time[1]


def test_damaged_checkpoints_are_told_and_nothing_is_averaged_without_them(drawn, tmp_path, monkeypatch):
    settings = {"soup": 2, "epochs": 1}
    killed_before_pouring(monkeypatch, drawn, tmp_path / "m", **settings)
    checkpoints = tmp_path / "m" / "checkpoints"
    with pytest.raises(InputError, match=r"trained with other settings \(strategy was 'standard', is 'probe'\)"):
        train(drawn, tmp_path / "m", **settings | {"strategy": "probe", "resume": True})
    end, state = checkpoints / "soup" / "end2.pth", checkpoints / "state.pth"
    for file, content, words in ((end, None, "end2.pth is gone"), (end, b"PK", "end2.pth cannot be read"),
                                 (state, b"", "state.pth cannot be read")):  # fmt: skip
        whole = file.read_bytes()
        file.write_bytes(content) if content is not None else file.unlink()
        with pytest.raises(
            InputError, match=f"{words}, and training cannot go on without it; begin anew, without --resume"
        ):
            train(drawn, tmp_path / "m", **settings, resume=True)
        file.write_bytes(whole)
    torch.save({"a": torch.zeros(1)}, state)
    with pytest.raises(InputError, match=r"state.pth is not what an interrupted run leaves"):
        train(drawn, tmp_path / "m", **settings, resume=True)


def test_patience_is_counted_within_each_training_of_a_soup(drawn, tmp_path):
    # A rate at which nothing is learned: whichever epoch was the best of the first training, no later one is better.
    trainer = train(drawn, tmp_path / "m", lr=1e-9, freeze_epochs=0, epochs=12, patience=2, soup=2)
    for name in ("all 1", "all 2"):
        scores = [row["mAP"] for row in trainer.history if row["phase"] == name]
        assert len(scores) == int(np.argmax(scores)) + 3 < 12


def test_a_soup_of_no_epochs_is_the_head_alone(drawn, tmp_path):
    assert [row["phase"] for row in train(drawn, tmp_path / "m", soup=3, epochs=0).history] == ["head"]


def test_a_soup_is_the_mean_of_trainings_that_began_at_one_start(tmp_path):
    network, soup = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1)), Soup(tmp_path)
    began = network[0].weight.detach().clone()
    for number, moved in enumerate((1.0, 4.0)):
        soup.begin(network, first=number == 0)
        assert torch.equal(network[0].weight, began)
        with torch.no_grad():
            network[0].weight += moved
            network[1].num_batches_tracked += number
        save_weights(network, soup.end(number))
    soup.pour(network, [0, 1])
    assert torch.allclose(network[0].weight, began + 2.5)
    assert network[1].num_batches_tracked == 0  # a counter: the first one's
    soup.clear()
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"start\.pth is gone"):  # not: begun from wherever the last one ended
        soup.begin(network, first=False)


def test_a_soup_has_one_row_more_and_leaves_nothing_behind(drawn, tmp_path):
    trainer = train(drawn, tmp_path / "m", soup=2)
    phases = [row["phase"] for row in trainer.history]
    assert phases == ["head", "all 1", "all 1", "all 2", "all 2", "soup"]
    assert trainer.history[1]["train_loss"] != trainer.history[3]["train_loss"]  # other draws
    assert not (trainer.checkpoints / "soup").exists()


def test_the_fitted_head_goes_out_where_training_makes_nothing_better_of_it(drawn, tmp_path, monkeypatch):
    measured, fitted = checkpoint.Checkpoint._add, []

    def nothing_is_as_good(self, row):
        if row["phase"] != "fitted":
            return measured(self, row | {"mAP": 0.0})
        fitted.append({name: value.clone() for name, value in self.learn.model.state_dict().items()})
        return measured(self, row)

    monkeypatch.setattr(checkpoint.Checkpoint, "_add", nothing_is_as_good)
    trainer = train(drawn, tmp_path / "m", strategy="cached", soup=2, epochs=1)
    assert [(row["phase"], row["epoch"]) for row in trainer.history] == [
        ("fitted", 0),
        ("upper 1", 1),
        ("upper 2", 2),
        ("soup", 2),
    ]
    assert trainer.chosen == "the fitted head, before any epoch"
    state = trainer.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in fitted[0].items())
    trainer.evaluate()
    assert trainer.export().about["weights_of"] == trainer.chosen
    assert trainer.chosen in (tmp_path / "m" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("spoilt", ["the average", "the epochs"])
def test_the_better_of_the_average_and_the_best_epoch_goes_out(drawn, tmp_path, monkeypatch, spoilt):
    said, pour, measured = [], Soup.pour, checkpoint.Checkpoint._add

    def pour_badly(soup, network, numbers):
        pour(soup, network, numbers)
        with torch.no_grad():
            head(network).weight.neg_()

    def no_epoch_is_good(self, row):
        return measured(self, row if row["phase"] == "soup" else row | {"mAP": 0.0})

    if spoilt == "the average":
        monkeypatch.setattr(Soup, "pour", pour_badly)
    else:
        monkeypatch.setattr(checkpoint.Checkpoint, "_add", no_epoch_is_good)
    trainer = train(drawn, tmp_path / "m", soup=2, say=said.append)
    truth = torch.tensor(trainer.data.truth[trainer.data.frame["is_valid"].to_numpy()]).float()
    reached = mean_average_precision(torch.tensor(trainer.validation_logits()), truth)
    assert reached == pytest.approx(max(row["mAP"] for row in trainer.history), abs=0.005)
    words = (
        "the average of the weights is no better"
        if spoilt == "the average"
        else "best: the average of the weights that"
    )
    assert words in said[-1]


def test_cached_leaves_the_lower_half_as_it_was_and_ends_as_one_network(drawn, tmp_path, monkeypatch):
    # Of a network drawn at random the fitted head is the best that comes: without its row, what was trained goes out.
    judge = checkpoint.Checkpoint.judge
    monkeypatch.setattr(checkpoint.Checkpoint, "judge", lambda self, phase: phase == SOUP and judge(self, phase))
    trainer = train(drawn, tmp_path / "m", strategy="cached", epochs=1)
    torch.manual_seed(trainer.config.seed)
    before = build(trainer.architecture, 1).state_dict()
    after = trainer.network.state_dict()
    kept = [name for name in before if "fc." not in name and torch.equal(before[name], after[name])]
    assert any(name.startswith("conv1") for name in kept) and not any(name.startswith("layer4") for name in kept)
    # The learner's own validation, from the file and through the upper half, against posters through the whole network.
    logits = trainer.validation_logits()
    truth = trainer.data.truth[trainer.data.frame["is_valid"].to_numpy()]
    assert mean_average_precision(torch.tensor(logits), torch.tensor(truth).float()) == pytest.approx(
        max(row["mAP"] for row in trainer.history), abs=0.005
    )
    checkpoints = trainer.checkpoints
    assert not list(checkpoints.glob("halfway*"))
    whole = torch.load(checkpoints / "best_model.pth", weights_only=True)
    assert same(whole, dict(after))


def test_a_cached_run_is_resumed_after_its_training_has_ended(drawn, tmp_path):
    """Killed while measuring or exporting: the state is there, the best weights are the whole network's."""
    first = train(drawn, tmp_path / "m", strategy="cached", epochs=1)
    again = train(drawn, tmp_path / "m", strategy="cached", epochs=1, resume=True)
    assert same(weights(first), weights(again)) and again.history == first.history


def test_bf16_on_a_cpu_leaves_strided_depthwise_layers_in_fp32():
    def conv(groups, stride):
        return torch.nn.Conv2d(4, 4, 3, stride, groups=groups)

    layers = [conv(4, 2), conv(4, 1), conv(2, 2), conv(1, 2)]
    network, seen = torch.nn.Sequential(*layers), []
    for layer in layers:
        layer.register_forward_hook(lambda layer, given, out: seen.append(out.dtype))
    assert [is_strided_depthwise(layer) for layer in layers] == [True, False, False, False]
    (callback,) = precision_callbacks(torch.device("cpu"), "bf16")
    callback.learn = SimpleNamespace(model=network, pred=torch.zeros(1))
    callback.before_fit()
    out = network(torch.randn(2, 4, 64, 64))
    callback.after_fit()
    assert seen == [torch.float32] + [torch.bfloat16] * 3 and out.dtype == torch.bfloat16
    assert not any("forward" in vars(layer) for layer in layers)  # an export of it would name our code


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("diverged")])
def test_stopped_in_a_notebook_the_model_is_in_its_own_precision_again(drawn, tmp_path, error):
    """fastai does not tell its callbacks of errors; autocast left open would turn all that follows to bf16."""
    trainer = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m",
                                say=lambda t: None, **{**TINY, "precision": "bf16", "device": "cpu"})  # fmt: skip
    trainer.load()
    trainer.download()
    trainer.split()

    def stop(module, given):
        raise error

    hook = trainer.network.get_submodule("layer4").register_forward_pre_hook(stop)
    with pytest.raises((KeyboardInterrupt, InputError)):
        trainer.fit()
    hook.remove()
    assert not torch.is_autocast_enabled("cpu")
    assert trainer.network.eval()(torch.zeros(2, 3, 96, 64)).dtype == torch.float32


def test_head_alone_may_be_trained_on_a_cpu_too(drawn, tmp_path):
    assert choose_strategy(Config(epochs=0), torch.device("cpu"), torch.nn.Identity()) == "standard"
    with pytest.raises(InputError, match="--strategy cached with --epochs 0"):
        Config(strategy="cached", epochs=0)
    with pytest.raises(InputError, match="--find-lr looks for a rate of the whole network"):
        Config(strategy="cached", find_lr=True)


def test_auto_is_cached_on_a_cpu_where_there_is_something_to_keep():
    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if x.mean() > 0 else -x

    cpu, gpu, network = torch.device("cpu"), torch.device("cuda"), build(Architecture("torchvision", "resnet18"), 2)
    assert choose_strategy(Config(), cpu, network) == "cached"
    assert choose_strategy(Config(), gpu, network) == "standard"
    assert choose_strategy(Config(weights="none"), cpu, network) == "standard"
    assert choose_strategy(Config(), cpu, Branching()) == "standard"
    assert choose_strategy(Config(strategy="probe"), cpu, Branching()) == "probe"
    with pytest.raises(InputError, match="Branching cannot be traced.*--strategy cached needs to cut it in two"):
        choose_strategy(Config(strategy="cached"), cpu, Branching())


def test_discriminative_gives_lower_layers_lower_rates():
    head, groups = PHASED["discriminative"](Config(lr=1e-3).settled("discriminative"))
    assert head.frozen and head.epochs == 3 and groups.epochs == 10
    assert groups.lr.start == pytest.approx(1e-5) and groups.lr.stop == 1e-3


def test_standard_is_three_frozen_epochs_then_ten():
    phases = PHASED["standard"](Config().settled("standard"))
    assert [(phase.epochs, phase.frozen) for phase in phases] == [(3, True), (10, False)]


def test_find_lr_suggests_and_plots(drawn, tmp_path):
    trainer = MovieGenreTrainer(
        csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m", say=lambda t: None, **TINY
    )
    trainer.load()
    trainer.download()
    trainer.split()
    assert 1e-7 < trainer.find_lr() < 10
    assert (tmp_path / "m" / "lr_find.png").read_bytes().startswith(b"\x89PNG")


def test_movies_that_the_start_was_trained_on_are_told_where_they_are_measured_on(trained, drawn, tmp_path):
    said = []
    trainer = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m", seed=7,
                                start_from=trained.config.out, say=said.append, **{**TINY, "strategy": "probe"})  # fmt: skip
    trainer.load()
    trainer.download()
    data = trainer.split()
    learnt = set(trained.data.side(False)["item_id"])
    both = learnt.intersection(data.side(True)["item_id"])
    assert both and data.about["seen_by_start"] == len(both)
    assert any(
        f"{len(both)} of the {len(data.side(True))} movies to measure on were trained on" in line for line in said
    )
    trainer.fit()
    trainer.evaluate()
    folder = trainer.export()
    assert f"trained on {len(both)} of the movies it is measured on" in (folder.path / "README.md").read_text("utf-8")
    assert open_model(folder.path).about["data"]["seen_by_start"] == len(both)

    own = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "n", seed=7,
                            start_from=trained.config.out, split_from=trained.config.out, say=said.append, **TINY)  # fmt: skip
    own.load()
    own.download()
    assert own.split().about["seen_by_start"] == 0


def test_start_from_an_earlier_model(trained, drawn, tmp_path):
    trainer = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m",
                                start_from=trained.config.out, say=lambda t: None, **TINY)  # fmt: skip
    trainer.load()
    trainer.download()
    trainer.split()
    assert same(weights(trainer), load_file(trained.config.out / "model.safetensors"))
    with pytest.raises(InputError, match="that model is a test_resnet, this run a resnet18"):
        other = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m",
                                  start_from=trained.config.out, say=lambda t: None, **{**TINY, "arch": "resnet18"})  # fmt: skip
        other.load()
        other.download()
        other.split()
        other.network  # noqa: B018


def test_pain_8_precision_is_chosen_from_the_device(monkeypatch):
    cpu = torch.device("cpu")
    for there, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("lobbycard.poster.precision.cpu_has_bf16", lambda there=there: there)
        assert choose_precision(cpu) == expected
    assert choose_precision(torch.device("cuda")) == "fp16"
    with pytest.raises(InputError, match="--precision fp16: needs a CUDA GPU"):
        choose_precision(cpu, "fp16")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda: this PyTorch .* sees no such device"):
            choose_device("cuda")


def test_bf16_really_computes_in_bf16_and_leaves_fp32_weights(drawn, tmp_path):
    seen = []
    trainer = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m",
                                say=lambda t: None, **{**TINY, "precision": "bf16", "device": "cpu"})  # fmt: skip
    trainer.load()
    trainer.download()
    trainer.split()
    trainer.network.get_submodule("conv1.0").register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    with trainer.learn.no_bar(), trainer.learn.no_logging():
        trainer.learn.fit(1)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}
    assert [type(cb) for cb in precision_callbacks(torch.device("cpu"), "fp32")] == []
    assert isinstance(precision_callbacks(torch.device("cpu"), "bf16")[0], Autocast)


def test_pain_21_no_worker_processes_anywhere(drawn, tmp_path):
    """Batches are read by a thread: `--workers` are no processes."""
    import multiprocessing

    dls = staged(drawn, tmp_path / "m", workers=4).learn.dls
    assert dls.train.fake_l.num_workers == dls.valid.fake_l.num_workers == 0
    batches = iter(dls.train)
    next(batches)
    assert not multiprocessing.active_children()


def test_pain_21_all_that_a_worker_of_windows_gets_can_be_pickled(drawn, tmp_path):
    """There, workers are fresh interpreters and get everything by pickle: a lambda or a local class anywhere would fail."""
    import pickle

    learn = staged(drawn, tmp_path / "m").learn
    again = pickle.loads(pickle.dumps(learn.dls.valid))
    assert torch.equal(again.one_batch()[0], learn.dls.valid.one_batch()[0])
    assert pickle.loads(pickle.dumps(learn.dls.train)).one_batch()[0].shape == learn.dls.train.one_batch()[0].shape
    for entry in ("train_model.py", "lobbycard/__main__.py"):
        assert 'if __name__ == "__main__":' in (ROOT / entry).read_text()


def test_stages_out_of_order_say_which_comes_first(drawn, tmp_path):
    trainer = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", out=tmp_path)
    for stage, first in ((trainer.download, "load"), (trainer.fit, "split"), (trainer.export, "evaluate")):
        with pytest.raises(InputError, match=rf"call {first}\(\) first"):
            stage()


def test_importing_the_front_door_is_quick_and_gives_the_trainer():
    code = (
        "import sys, train_model; print('torch' in sys.modules); "
        "from train_model import MovieGenreTrainer; print(MovieGenreTrainer.__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "MovieGenreTrainer"]


def test_pain_18_fastais_metrics_are_instances_and_give_numbers_every_epoch(trained):
    """`F1ScoreMulti` passed as a class fails at the first batch; ours run, and are numbers."""
    with (trained.config.out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("f1_score", "precision_score", "recall_score"))


def test_frozen_layers_do_not_move(drawn, tmp_path):
    trainer = MovieGenreTrainer(csv=drawn / "MovieGenre.csv", images=drawn / "images", out=tmp_path / "m",
                                say=lambda t: None, **{**TINY, "freeze_epochs": 1, "epochs": 0})  # fmt: skip
    trainer.load()
    trainer.download()
    trainer.split()
    before = {k: v.clone() for k, v in trainer.network.named_parameters()}
    trainer.fit()
    moved = {name for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"fc.weight", "fc.bias"}


def staged(drawn, out, **settings):
    """A trainer whose data stages are done."""
    trainer = MovieGenreTrainer(
        csv=drawn / "MovieGenre.csv", images=drawn / "images", out=out, say=lambda text: None, **{**TINY, **settings}
    )
    trainer.load()
    trainer.download()
    trainer.split()
    return trainer


def test_a_practitioner_may_train_learn_by_hand_and_export_twice(drawn, tmp_path):
    from lobbycard.poster.predictor import PosterPredictor

    trainer = staged(drawn, tmp_path / "m")
    with trainer.learn.no_bar(), trainer.learn.no_logging():
        trainer.learn.fit(1)
    trainer.evaluate()
    pictures = list(trainer.data.side(True)["path"][:8])
    answers = [PosterPredictor(trainer.export()).predict_proba(pictures) for _ in range(2)]
    assert np.array_equal(*answers)  # the calibration is folded in once, not once an export


def test_progressive_keeps_the_best_epoch_of_its_own_size(drawn, tmp_path):
    trainer = staged(drawn, tmp_path / "m", strategy="progressive", freeze_epochs=0, epochs=3)
    trainer.fit()
    assert [row["phase"] for row in trainer.history] == ["64 px", "64 px", "128 px"]
    best = torch.load(tmp_path / "m" / "checkpoints" / "best_model.pth", weights_only=True)
    last = torch.load(tmp_path / "m" / "checkpoints" / "state.pth", weights_only=True)["model"]
    assert same(best, last)
    with pytest.raises(InputError, match="--strategy progressive: needs --epochs 3 or more"):
        Config(strategy="progressive", epochs=2)


def test_a_diverged_run_says_so(drawn, tmp_path):
    trainer = staged(drawn, tmp_path / "m", lr=1e30, freeze_epochs=0, epochs=2)
    with pytest.raises(InputError, match="training diverged: the network answers NaN; try a lower --lr"):
        trainer.fit()


def test_memory_errors_bring_the_batch_size_that_may_fit(drawn, tmp_path):
    from lobbycard.poster.learning import fitting

    trainer = staged(drawn, tmp_path / "m")
    with (
        pytest.raises(InputError, match="out of memory with --batch-size 32 at 64 x 48 pixels; try --batch-size 16"),
        fitting(trainer.learn, trainer.config),
    ):
        torch.empty(2**50)  # a petabyte: the allocator's own words
    with pytest.raises(RuntimeError, match="mat1 and mat2"), fitting(trainer.learn, trainer.config):
        torch.zeros(2, 3) @ torch.zeros(2, 3)  # any other error stays what it is


def test_resume_without_a_run_leaves_the_sample_as_it_is(tmp_path, monkeypatch):
    from lobbycard.poster.config import Config
    from lobbycard.poster.sources import movie_table

    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(InputError, match="--resume: there is no unfinished run in models/none"),
        movie_table(Config(resume=True, limit=5, out=Path("models/none"))),
    ):
        pass
    assert not (tmp_path / "data").exists()
