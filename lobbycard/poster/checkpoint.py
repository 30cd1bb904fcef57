"""What a training run needs to be stopped at any moment and taken up again, and the record of its epochs."""

import csv
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException
from fastai.learner import Learner
from fastai.torch_core import get_model
from fastprogress.fastprogress import format_time

from lobbycard.errors import InputError
from lobbycard.files import atomic_path
from lobbycard.poster.processes import Processes

TRACKERS = ("fastai.callback.tensorboard", "fastai.callback.wandb")
STATE, BEST, HISTORY = "state.pth", "best_model.pth", "history.csv"


@dataclass
class RunState:
    """Where a run stands: everything but the tensors. Saved after each epoch beside them."""

    settings: dict[str, Any]  # those that make two runs the same run
    phase: int = 0  # phases finished
    epoch: int = 0  # epochs finished within the current phase
    best_row: int = -1  # index in `history`
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The best validation mAP so far; minus infinity before anything was measured."""
        return self.history[self.best_row]["mAP"] if self.best_row >= 0 else -np.inf

    @property
    def epochs(self) -> int:
        """Epochs finished in all phases: rows of the history without a training loss are none."""
        return sum(row["train_loss"] is not None for row in self.history)


class Checkpoint(Callback):
    """After each epoch: one row of history, the best weights kept, and the whole state saved, each file whole or absent.

    The random generators are set from (seed, phase, epoch) when an epoch begins, so a resumed run draws what the
    unbroken one would have drawn and no generator's state has to be saved.
    """

    order = 80  # after fastai's Recorder has written its row

    def __init__(
        self,
        folder: Path,
        state: RunState,
        seed: int,
        patience: int = 0,
        say=print,
        measured: bool = True,
        processes: Processes | None = None,
    ):
        """Where nothing is set apart to be `measured` on, the last weights are the best ones, and `patience` has no say.

        Of several `processes` that train together, the first one writes, and all keep the same state.
        """
        self.folder, self.state, self.seed, self.say = folder, state, seed, say
        self.patience, self.measured = patience if measured else 0, measured
        self.processes = processes or Processes()
        self.first = 0
        self.phase_name = ""
        self.end_in: Path | None = None  # keeps the phase's last weights as well
        self._tensors: dict[str, Any] | None = None

    def load(self) -> None:
        """Take up the state saved in the folder; the tensors follow when fitting begins. Raises InputError."""
        saved = load_state(self.folder)
        meta = json.loads(saved.pop("json"))
        changed = {k for k, v in self.state.settings.items() if meta["settings"].get(k) != v}
        if changed:
            first = sorted(changed)[0]
            raise InputError(
                f"--resume: {self.folder.parent} was trained with other settings ({first} was "
                f"{meta['settings'].get(first)!r}, is {self.state.settings[first]!r}); give the same flags, "
                "or leave --resume out to begin anew"
            )
        self.state.__dict__.update(meta)
        self._tensors = saved

    def load_weights(self, network: torch.nn.Module) -> None:
        """Put the resumed weights into `network`; does nothing in a fresh run."""
        if self._tensors is not None:
            network.load_state_dict(self._tensors["model"])

    def before_fit(self):
        self.first = self.state.epoch
        if self._tensors is not None and self.first > 0:
            saved = self._tensors["opt"]
            self.opt.load_state_dict({"state": saved, "hypers": self.opt.hypers})
            self.opt.state = {p: {k: _to(v, p.device) for k, v in s.items()} for p, s in self.opt.state.items()}
            if self._tensors.get("scaler") and getattr(self.learn, "scaler", None) is not None:
                self.learn.scaler.load_state_dict(self._tensors["scaler"])
            # fastai's running mean of the training loss goes on from epoch to epoch.
            smooth = self.recorder.smooth_loss
            smooth.val, smooth.count = torch.tensor(self._tensors["smooth_loss"]), self._tensors["steps"]
        self._tensors = None

    def before_epoch(self):
        draw = np.random.SeedSequence([self.seed, self.state.phase, self.epoch]).generate_state(4)
        random.seed(int(draw[0]))
        np.random.seed(int(draw[1]))
        torch.manual_seed(int(draw[2]) + self.processes.rank)  # each process changes its own posters
        self.processes.ordering(self.dls.train).rng = random.Random(int(draw[3]))

    def before_validate(self):
        if not self.measured:
            raise CancelValidException

    def after_epoch(self):
        if self.epoch < self.first:  # skipped: trained before the interruption
            return
        values = [float(v) for v in self.recorder.log[1:-1]]  # but for the time
        row = dict(zip(self.recorder.metric_names[1:-1], values, strict=self.measured))
        row = {"phase": self.phase_name, "epoch": self.state.epochs + 1, **row, "time": self.recorder.log[-1]}
        self.state.epoch = self.epoch + 1
        improved = self._add(row)
        # Counted within the phase: a head that has stopped learning is the reason to unfreeze, not to end the run, and
        # each training of a soup is one of its own.
        scores = [past.get("mAP", 0.0) for past in self.state.history[-self.state.epoch :]]
        waited = len(scores) - 1 - scores.index(max(scores))
        stop = 0 < self.patience <= waited
        if stop or self.state.epoch == self.n_epoch:
            if self.end_in is not None:
                self._keep(self.end_in)
            self.state.phase, self.state.epoch = self.state.phase + 1, 0
        self.save()
        self.say(epoch_line(row, improved))
        if stop:
            self.say(f"  stopped early: validation mAP has not risen for {waited} epochs (--patience {self.patience})")
            raise CancelFitException

    def judge(self, phase: str) -> None:
        """Measure the network as it is, which no epoch has brought about, as one row more of the history."""
        began, values = time.monotonic(), []
        if self.measured:
            # Trackers take what is logged for an epoch's columns, and need an optimiser.
            with self.learn.removed_cbs(trackers(self.learn)):
                values = [float(v) for v in self.learn.validate()]
        row = {"phase": phase, "epoch": self.state.epochs, "train_loss": None}
        row |= dict(zip(["valid_loss", *(metric.name for metric in self.learn.metrics)], values, strict=self.measured))
        row["time"] = format_time(time.monotonic() - began)
        improved = self._add(row)
        self.save()
        self.say(epoch_line(row, improved))

    def _add(self, row: dict[str, Any]) -> bool:
        """One row more; where it is the best one, the weights are kept."""
        self.state.history.append(row)
        improved = not self.measured or row["mAP"] > self.state.best
        if improved:
            self.state.best_row = len(self.state.history) - 1
            self._keep(self.folder / BEST)
        return improved

    def _keep(self, path: Path) -> None:
        if self.processes.first:
            save_weights(get_model(self.learn.model), path)

    def save(self) -> None:
        """Write the whole state of the run, so that it may be killed from here on."""
        if not self.processes.first:
            return
        write_history(self.folder / HISTORY, self.state.history)
        scaler = getattr(self.learn, "scaler", None)
        opt = self.learn.opt.state_dict()["state"] if self.learn.opt is not None else []
        tensors = {
            "model": get_model(self.learn.model).state_dict(),
            "opt": [dict(s) for s in opt],
            "smooth_loss": float(self.learn.recorder.smooth_loss.val),
            "steps": self.learn.recorder.smooth_loss.count,
            "scaler": scaler.state_dict() if scaler is not None else {},
            "json": json.dumps(self.state.__dict__),
        }
        with atomic_path(self.folder / STATE) as part:
            torch.save(tensors, part)


def trackers(learn: Learner) -> list[Callback]:
    """The callbacks that log to somewhere else, which `--tracker` has added."""
    return [callback for callback in learn.cbs if type(callback).__module__ in TRACKERS]


def load_state(folder: Path) -> dict[str, Any]:
    """The tensors and JSON of a saved run; nothing in the file is executed.

    Raises:
        InputError: there is nothing to resume.
    """
    file = folder / STATE
    if not file.is_file():
        raise InputError(
            f"--resume: there is no unfinished run in {folder.parent} (no {folder.name}/{STATE}); leave --resume out to begin one"
        )
    saved = read_weights(file)
    if "json" not in saved:
        raise InputError(f"--resume: {file} is not what an interrupted run leaves; leave --resume out to begin anew")
    return saved


def read_weights(file: Path) -> dict[str, Any]:
    """Tensors that an interrupted run has left, on the CPU. Raises InputError if they are gone or damaged."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, UnpicklingError) as error:
        why = "is gone" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise InputError(f"{file} {why}, and training cannot go on without it; begin anew, without --resume") from error


def save_weights(network: torch.nn.Module, path: Path) -> None:
    """Write a network's state as `torch.load` takes it, whole or not at all. Raises InputError."""
    with atomic_path(path) as part:
        torch.save(network.state_dict(), part)


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """`history.csv`: one row an epoch, and one for weights that no epoch has brought about; only a header while there is none."""
    columns = list(history[0]) if history else ["phase", "epoch"]
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)


def epoch_line(row: dict[str, Any], improved: bool) -> str:
    """One epoch in one line, for a terminal and a log file alike."""
    scores = "  ".join(f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float))
    best = "  *best" if improved and "mAP" in row else ""
    return f"  epoch {row['epoch']:>2} {row['phase']:<8} {scores}  {row['time']}{best}"


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
