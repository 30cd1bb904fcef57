"""One training run in two processes, started by torchrun as a user would."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lobbycard.errors import InputError
from lobbycard.poster.processes import Processes
from lobbycard.poster.trainer import MovieGenreTrainer
from tests.conftest import TINY

ROOT = Path(__file__).parent.parent
TRAIN = shlex.split(
    "train_model.py --no-download --min-count 10 --arch timm/test_resnet --size 64x48 --batch-size 32 --lr 0.005 "
    "--precision fp32 --freeze-epochs 1 --epochs 2 --weights none"
)
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(drawn, out, *more, together=True):
    where = ["--csv", str(drawn / "MovieGenre.csv"), "--images", str(drawn / "images"), "--out", str(out)]
    return subprocess.Popen([sys.executable, *(TORCHRUN if together else []), *TRAIN, *where, *more], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"})  # fmt: skip


def finished(process):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def history(out):
    with (out / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("strategy", ["standard", "cached --soup 2 --lr 0.0002"])
def test_two_processes_train_one_network_and_measure_it_on_all_validation_posters(drawn, tmp_path, strategy):
    flags = ["--strategy", *strategy.split()]
    output = finished(start(drawn, tmp_path / "two", *flags))
    assert output.count("splitting\n") == output.count("exporting\n") == 1  # the other one is silent
    rows = history(tmp_path / "two")
    about = json.loads((tmp_path / "two" / "model.json").read_text(encoding="utf-8"))
    # Each epoch's mAP was gathered from both; that of the network that went out was taken by one, on all posters.
    assert about["metrics"]["mAP"]["value"] == pytest.approx(max(float(row["mAP"]) for row in rows), abs=0.005)
    finished(start(drawn, tmp_path / "one", *flags, together=False))
    alone = history(tmp_path / "one")
    assert [row["phase"] for row in rows] == [row["phase"] for row in alone]
    for both, one in zip(rows, alone, strict=True):
        # What lies above frozen layers drawn at random explodes at first: half a batch's statistics make a difference there.
        near = 0.02 if both["phase"] == "fitted" else 0.2 if strategy.startswith("cached") else 0.05
        assert float(both["valid_loss"]) == pytest.approx(float(one["valid_loss"]), rel=near)
    left = {path.name for path in (tmp_path / "two" / "checkpoints").iterdir()}
    assert left == {path.name for path in (tmp_path / "one" / "checkpoints").iterdir()}


def kill(process):
    """It and all that it has started: torchrun gives each of its processes a session of its own."""
    pids, found = [process.pid], []
    while pids:
        pid = pids.pop()
        found.append(pid)
        pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes as Linux tells of them")
def test_killed_and_resumed_two_processes_end_where_unbroken_ones_do(drawn, tmp_path):
    finished(start(drawn, tmp_path / "unbroken", "--epochs", "8"))
    killed = start(drawn, tmp_path / "killed", "--epochs", "8")
    for line in killed.stdout:
        if "epoch  2" in line:
            break
    kill(killed)
    output = finished(start(drawn, tmp_path / "killed", "--epochs", "8", "--resume"))
    assert re.search("resuming after [2-8] finished epochs", output), output
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", "killed"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_where_the_first_one_fails_the_others_end_at_once(drawn, tmp_path):
    process = start(drawn, tmp_path / "m", "--images", str(tmp_path / "no-posters"))
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0 and output.count("error: ") == 1, output


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "probe"}, "--strategy probe runs in one process, 2 were started: leave torchrun out"),
        ({"learning_curve": True}, "--learning-curve runs in one process, 2 were started"),
        ({"refit": True}, "--refit runs in one process, 2 were started"),
        ({"find_lr": True, "strategy": "standard"}, "--find-lr runs in one process, 2 were started"),
        ({"batch_size": 33}, "--batch-size 33: expected a multiple of 2, the number of processes"),
    ],
)
def test_what_is_not_shared_out_is_refused_before_the_work(drawn, tmp_path, settings, words):
    given = TINY | {"csv": drawn / "MovieGenre.csv", "images": drawn / "images", "out": tmp_path / "m"} | settings
    trainer = MovieGenreTrainer(say=lambda text: None, **given)
    trainer.processes = Processes(rank=0, count=2, local=0)
    with pytest.raises(InputError, match=re.escape(words)):
        trainer.load()
    assert not (tmp_path / "m").exists()


def test_each_process_has_its_share_of_a_step_and_its_own_gpu(monkeypatch):
    second = Processes(rank=3, count=4, local=1)
    assert second.share(64) == 16 and not second.first
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert second.place(torch.device("cuda")) == torch.device("cuda", 1)
    assert second.place(torch.device("cpu")) == Processes().place(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(InputError, match="expected a multiple of 4"):
        second.share(66)
    with pytest.raises(InputError, match="2 or more for each"):
        second.share(4)


def test_the_environment_of_torchrun_is_read(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Processes.from_environment() == Processes(0, 1, 0)
    monkeypatch.setenv("RANK", "1")  # of some other program's: nobody else is there
    assert Processes.from_environment().first
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert Processes.from_environment() == Processes(5, 8, 1)


def test_what_the_first_process_alone_may_do_is_refused_in_the_others(monkeypatch):
    trainer = MovieGenreTrainer(csv="x.csv")
    trainer.processes = Processes(rank=1, count=2, local=1)
    for stage in (trainer.evaluate, trainer.export):
        with pytest.raises(InputError, match=r"runs in the first process alone: ask trainer\.processes\.first"):
            stage()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="process 2 on this machine has no GPU: 1 are here; give torchrun"):
        trainer.processes.place(torch.device("cuda"))
    with pytest.raises(InputError, match="--device mps: trains in one process, 2 were started"):
        trainer.processes.place(torch.device("mps"))
