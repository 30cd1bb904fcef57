"""MovieGenreTrainer: a movie table goes in, a trained, measured, exported poster-genre model comes out."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn

from lobbycard.catalog.split import write_split
from lobbycard.errors import InputError
from lobbycard.poster import network as networks
from lobbycard.poster.artifact import WEIGHTS, ModelFolder, open_model
from lobbycard.poster.checkpoint import STATE, load_state
from lobbycard.poster.config import Config
from lobbycard.poster.curve import measure_curve
from lobbycard.poster.data import poster_dataloaders, poster_pixels
from lobbycard.poster.dataset import (
    Dataset,
    choose_movies,
    count_seen,
    fetch_posters,
    given_split,
    resume_split,
    split_posters,
)
from lobbycard.poster.evaluation import sides
from lobbycard.poster.halves import cut
from lobbycard.poster.inference import frozen_forward, network_outputs
from lobbycard.poster.learning import poster_learner, set_prior, suggest_lr
from lobbycard.poster.levels import find_levels, with_levels
from lobbycard.poster.measure import Measured, measure
from lobbycard.poster.network import layer_groups
from lobbycard.poster.precision import choose_device, choose_precision
from lobbycard.poster.processes import Processes
from lobbycard.poster.refit import train_on_all
from lobbycard.poster.release import add_curve, release
from lobbycard.poster.strategies import choose_strategy
from lobbycard.poster.training import halfway_file, train
from lobbycard.progress import progress
from lobbycard.report.growth import in_brief
from lobbycard.report.words import metrics_table

# Settings that may differ between a run and its resumption. The movies are compared by what they are, not by where they lie.
FREE_ON_RESUME = (
    "resume",
    "learning_curve",
    "split_from",
    "find_lr",
    "workers",
    "tracker",
    "download",
    "connections",
    "timeout",
    "images",
    "csv",
    "out",
)


class MovieGenreTrainer:
    """The pipeline, one method a stage, to be called in this order:

        trainer = MovieGenreTrainer(csv="MovieGenre.csv", arch="resnet50")
        trainer.load()        # the table: read, rare genres dropped
        trainer.download()    # the posters, resumable
        trainer.split()       # stratified, grouped, leak-checked
        trainer.fit()         # by --strategy; `trainer.learn` is a plain fastai Learner
        trainer.evaluate()    # calibration, thresholds, metrics with intervals
        trainer.refit()       # if wanted: the same training on all movies, those measured on included
        trainer.export()      # the model folder, model.json last
        trainer.learning_curve()  # if wanted: what more data would bring

    `fit` may be replaced by whatever a practitioner does with `trainer.learn`.
    """

    def __init__(self, config: Config | None = None, say: Callable[[str], None] = print, **settings: Any):
        """Settings are the fields of Config, and the flags of train_model.py. Raises InputError on impossible ones."""
        for name in ("csv", "images", "out", "start_from", "split_from"):
            if isinstance(settings.get(name), str):
                settings[name] = Path(settings[name])
        self.config = replace(config or Config(), **settings)
        self.say = say
        self.seconds: dict[str, float] = {}
        self.data: Dataset | None = None
        self.measured: Measured | None = None
        self.folder: ModelFolder | None = None
        self.history: list[dict[str, Any]] = []
        self.chosen = ""  # which of the weights that the training came by go out, in words
        self.refitted: nn.Module | None = None  # the network that goes out, where it is not the one that was measured
        self.answers = self.checkpoints  # where the frozen half's answers are kept
        self.processes = Processes.from_environment()
        if not self.processes.first:
            self.say = lambda text: None
        self.device = self.processes.place(choose_device(self.config.device))
        self.processes.meet(self.device)
        self.precision = choose_precision(self.device, self.config.precision)
        if self.config.strategy == "probe" and self.device.type == "cpu":
            self.precision = (
                "fp32"  # nothing is trained by steps, and features come from ONNX Runtime (see inference.py)
            )
        self.size = self.config.sizes()[0]

    # -- the stages ------------------------------------------------------------------------------------------------

    def load(self) -> Dataset:
        """Read the table, keep the genres with enough movies, balance them if wanted. Raises InputError."""
        if self.config.resume:
            load_state(self.checkpoints)
        with self._stage("reading the table"):
            self.data = choose_movies(self.config, self.say)
        # Wrong networks, weights and sizes must not be found out after the download.
        self.config = self.config.settled(choose_strategy(self.config, self.device, self._body))
        self._check_processes()
        if self.config.strategy in ("cached", "probe") and not self.config.pretrained:
            self.say(
                f"  --weights none: {self.config.strategy} keeps layers as they are, here as they were drawn at random, "
                "and learns little from them; --strategy standard trains all of them"
            )
        if self.config.strategy == "cached" and not self.config.resume:
            halfway_file(self, cut(self._body, self.size)).check_room()
        return self.data

    def download(self) -> Dataset:
        """Fetch the posters that are not there yet, as `Config.download` allows. Raises InputError when none can be had."""
        with self._stage("posters"):
            data = self._need("data", "load")
            self.data = self.processes.by_first(lambda: fetch_posters(data, self.config, self.say))
        return self.data

    def split(self) -> Dataset:
        """Set the measuring side apart, so that no movie and no near-identical art stands on both. Raises InputError."""
        with self._stage("splitting"):
            data = self._need("data", "load")
            self.data = self.processes.by_first(lambda: self._set_apart(data))
        return self.data

    def _set_apart(self, data: Dataset) -> Dataset:
        if self.config.resume:
            data = resume_split(data, self._saved_split, self.config, self.say)
        elif self.config.split_from is not None:
            data = given_split(data, self.config, self.say)
        else:
            data = split_posters(data, self.config, self.say)
        if self.config.start_from is not None:
            earlier = sides(self._earlier)
            data = count_seen(data, earlier and earlier["train"], self.say)
        return data

    @cached_property
    def learn(self) -> Learner:
        """A plain fastai Learner on the training and validation posters; made when it is first asked for."""
        self._need("data", "split")
        set_seed(self.config.seed)  # the loaders draw their order from Python's generator
        return self.learner(self._dataloaders(self.size), self.network)

    def learner(self, dls: DataLoaders, network: nn.Module, splitter: Callable = layer_groups) -> Learner:
        """A Learner on loaders of this run and its network, or a part of that; the first process alone tracks."""
        tracked = self.config if self.processes.first else replace(self.config, tracker="none")
        return poster_learner(dls, network, tracked, self.device, self.precision, self.config.out, splitter, self.say)

    def fit(self) -> None:
        """Train by the configured strategy. Raises InputError when weights cannot be had or memory runs out."""
        self._need("data", "split")
        self.say(
            f"  {self.architecture.name} ({self.architecture.library}), {self.config.strategy}, "
            f"{self.size[0]} x {self.size[1]} px, {self.precision} on {self.device}"
        )
        if not self.config.resume and self.processes.first:
            # An older run's state must not meet this run's split: resumed, it would have seen what it is measured on.
            (self.checkpoints / STATE).unlink(missing_ok=True)
            write_split(self._saved_split, self.data.frame, self.data.frame["hash"].to_numpy())
        with self._stage("training"):
            train(self)
        self.processes.part()

    def find_lr(self) -> float:
        """Print, plot (lr_find.png in the model folder) and return the learning rate that fastai's finder suggests."""
        plot = self.config.out / "lr_find.png"
        suggestion = suggest_lr(self.learn, self.config, plot)
        self.say(f"  suggested learning rate: {suggestion:.2g} (plot: {plot}); train with --lr {suggestion:.2g}")
        return suggestion

    def evaluate(self) -> Measured:
        """Calibrate, fit thresholds and measure on the validation side, with the fp32 network that goes out.

        Raises InputError in a process that only helps the first one to train.
        """
        self._need_first("evaluate")
        data = self._need("data", "split")
        valid = data.side(True)
        with self._stage("measuring"):
            logits = self.validation_logits()
            truth = data.truth[data.frame["is_valid"].to_numpy()]
            groups = valid["group"].to_numpy()
            self.measured = measure(logits, truth, data.labels, data.prior, groups, self.config.seed)
        return self.measured

    def validation_logits(self) -> np.ndarray:
        """What the trained network answers to the validation posters, uncalibrated: (N, L)."""
        paths = list(self._need("data", "split").side(True)["path"])
        with progress(len(paths), "scoring the validation posters") as bar:
            forward = frozen_forward(self.network, (3, *self.size), self.device)
            return network_outputs(forward, paths, self.size, self.mean, self.std, bar=bar)

    def refit(self) -> nn.Module:
        """Train anew by the same settings on all movies, and let that network go out, with the figures of the one before.

        Raises InputError when training diverges or memory runs out.
        """
        self._need("measured", "evaluate")
        with self._stage(f"training anew on all {len(self.data.frame):,} movies"):
            self.refitted = train_on_all(self)
        return self.refitted

    def export(self) -> ModelFolder:
        """Write the model folder, `model.json` last. Raises InputError when the runtimes disagree, and as `evaluate`."""
        self._need_first("export")
        self._need("measured", "evaluate")
        with self._stage("exporting"):
            self.folder = release(self)
        return self.folder

    def learning_curve(self) -> ModelFolder:
        """Train anew on an eighth, a quarter and a half of the movies, and add to the model folder what more would bring.

        Stopped, it leaves the exported model whole, and `resume=True` goes on with what is missing. Raises InputError.
        """
        self._need("folder", "export")
        with self._stage("learning curve"):
            curve = measure_curve(self)
        self.folder = add_curve(self, curve)
        return self.folder

    def summarize(self) -> None:
        """Print the metrics with their intervals beside no skill, the seconds by stage, and where everything is."""
        measured = self._need("measured", "evaluate")
        self.say(f"\n{metrics_table(measured.metrics, measured.baselines)}\n")
        if self.refitted is not None:
            self.say(
                "The figures are of the network before it was trained anew on all movies, which could not be measured."
            )
        self.say(f"calibration error {measured.ece[0]:.3f} before, {measured.ece[1]:.3f} after")
        if self.folder and (curve := self.folder.about.get("learning_curve")):
            self.say(in_brief(curve, "poster"))
        self.say("  ".join(f"{stage} {seconds:.0f} s" for stage, seconds in self.seconds.items()))
        self.say(f"model   {self.config.out}\nreport  {self.config.out / 'report.html'}")

    def how_to_go_on(self) -> str:
        """What to tell a user who has stopped the run."""
        resumable = (self.checkpoints / STATE).is_file()
        if self.folder is not None and self.config.learning_curve:
            again = " with --resume" * resumable
            return (
                f"stopped. The model in {self.config.out} is whole, only its learning curve is missing: "
                f"run the same command again{again} to go on with that"
            )
        if resumable:
            return "stopped. The last finished epoch is saved: run the same command with --resume to go on"
        return "stopped. Posters that were downloaded are kept: run the same command again to go on"

    def run(self) -> ModelFolder | None:
        """All stages; None in a process that only helps the first one to train.

        After SIGINT or SIGTERM, `resume=True` goes on from the last finished epoch.
        """
        self.load()
        self.download()
        self.split()
        self.fit()
        if not self.processes.first:
            return None  # the first process has what they trained together
        self.evaluate()
        if self.config.refit:
            self.refit()
        folder = self.export()
        if self.config.learning_curve:
            folder = self.learning_curve()
        self.summarize()
        return folder

    # -- what the stages share -------------------------------------------------------------------------------------

    @property
    def batch_share(self) -> int:
        """Posters a step, in this process."""
        return self.processes.share(self.config.batch_size)

    def _check_processes(self) -> None:
        """What is not shared out is not started in several processes. Raises InputError."""
        config = self.config
        if self.processes.count > 1:
            alone = {"--strategy probe": config.strategy == "probe", "--learning-curve": config.learning_curve,
                     "--refit": config.refit, "--find-lr": config.find_lr}  # fmt: skip
            if given := [flag for flag, is_given in alone.items() if is_given]:
                raise InputError(
                    f"{given[0]} runs in one process, {self.processes.count} were started: leave torchrun out"
                )
            self.processes.share(config.batch_size)

    @property
    def checkpoints(self) -> Path:
        return self.config.out / "checkpoints"

    @property
    def settings(self) -> dict[str, Any]:
        """What makes two runs the same run, as JSON values."""
        data = self._need("data", "split")
        settings = {k: v for k, v in self.config.to_dict().items() if k not in FREE_ON_RESUME}
        return settings | {"labels": data.labels, "precision": self.precision, "movies": data.digest}

    @property
    def _saved_split(self) -> Path:
        return self.checkpoints / "split.csv"

    @cached_property
    def architecture(self) -> networks.Architecture:
        """The network that --arch names, and which of its levels the last layer sees. Raises InputError."""
        # A head that is fitted gains by lower levels; one that trains beside the layers below it loses (docs/log.md).
        levels = find_levels(self._body, self.size) if self.config.strategy == "probe" else ()
        return replace(self._stock, levels=levels)

    @cached_property
    def _stock(self) -> networks.Architecture:
        return networks.resolve(self.config.arch)[0]

    @cached_property
    def _normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return networks.normalization(self.config.arch, self._stock)

    @property
    def mean(self) -> tuple[float, ...]:
        return self._normalization[0]

    @property
    def std(self) -> tuple[float, ...]:
        return self._normalization[1]

    @cached_property
    def _body(self) -> nn.Module:
        """The network with its starting weights, before this run's genres are known. Raises InputError."""
        torch.manual_seed(self.config.seed)
        weights, local = self.config.weights, networks.resolve(self.config.arch)[1]
        if self.config.start_from is not None:
            weights = str(self._earlier.file(WEIGHTS))
        elif local is not None and weights == "imagenet":
            weights = str(local)  # a local folder brings its own
        network = networks.build(self._stock, 1, weights)
        networks.check_size(network, self.config.sizes())
        return network

    @cached_property
    def _earlier(self) -> ModelFolder:
        """The model of --start-from. Raises InputError if it is none, or another network."""
        earlier = open_model(self.config.start_from)
        if networks.Architecture.from_dict(earlier.about["network"]).stock != self._stock:
            raise InputError(
                f"--start-from {self.config.start_from}: that model is a {earlier.about['network']['name']}, "
                f"this run a {self._stock.name}; give the same --arch"
            )
        return earlier

    @cached_property
    def network(self) -> nn.Module:
        """The network with a head for this run's genres: --start-from's own where they are the same, else a fresh one."""
        data = self._need("data", "split")
        torch.manual_seed(self.config.seed)
        network, levels = self._body, self.architecture.levels
        if levels:
            network = with_levels(network, levels, self.size, networks.head_name(network))
        network = networks.replace_head(network, len(data.labels))
        if self.config.start_from is not None:
            theirs = networks.Architecture.from_dict(self._earlier.about["network"]).levels
            if self._earlier.labels == data.labels and theirs == levels:
                network.load_state_dict(networks.read_state(self._earlier.file(WEIGHTS)))
                return network
            self.say("  --start-from: other genres or levels than this run's, so the head starts anew")
        set_prior(network, data.prior)
        return network

    def set_size(self, size: tuple[int, int]) -> None:
        """Train and measure at another input size (height, width) from here on."""
        if size != self.size:
            self.size = size
            self.learn.dls = self._dataloaders(size)

    def _dataloaders(self, size: tuple[int, int]):
        config, data = self.config, self.data
        paths = [Path(path) for path in data.frame["path"]]
        pixels = poster_pixels(paths, config.images, size, config.workers, self.say)
        return poster_dataloaders(
            data.frame, data.labels, pixels, self.mean, self.std, self.batch_share, self.device, self.processes.count
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.say(f"\n{name}")
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _need_first(self, stage: str) -> None:
        if not self.processes.first:
            raise InputError(f"{stage}() runs in the first process alone: ask trainer.processes.first")

    def _need(self, attribute: str, stage: str) -> Any:
        if getattr(self, attribute) is None or (
            stage == "split" and (self.data is None or "is_valid" not in self.data.frame)
        ):
            raise InputError(f"call {stage}() first: this stage needs what it makes")
        return getattr(self, attribute)
