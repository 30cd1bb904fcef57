"""MovieGenreTrainer: a movie table goes in, a trained, measured, exported poster-genre model comes out."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn

from lobbycard.catalog.split import write_split
from lobbycard.errors import InputError
from lobbycard.files import atomic_path
from lobbycard.poster import network as networks
from lobbycard.poster.artifact import WEIGHTS, ModelFolder, open_model
from lobbycard.poster.checkpoint import BEST, STATE, Checkpoint, RunState, load_state
from lobbycard.poster.config import Config
from lobbycard.poster.data import poster_dataloaders
from lobbycard.poster.dataset import Dataset, choose_movies, fetch_posters, resume_split, split_posters
from lobbycard.poster.inference import frozen_forward, network_outputs, without_head
from lobbycard.poster.learning import fitting, poster_learner, set_prior, suggest_lr
from lobbycard.poster.measure import Measured, measure
from lobbycard.poster.precision import choose_device, choose_precision
from lobbycard.poster.probe import fit_head, set_head
from lobbycard.poster.release import release
from lobbycard.poster.strategies import PHASED, run_phases
from lobbycard.progress import progress
from lobbycard.report.words import metrics_table

# Settings that may differ between a run and its resumption. `workers` draw augmentations of their own, which ends in
# other, equally good weights; the movies are compared by what they are, not by where they lie.
FREE_ON_RESUME = (
    "resume",
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
        trainer.load()        # the table: read, balanced
        trainer.download()    # the posters, resumable
        trainer.split()       # stratified, grouped, leak-checked
        trainer.fit()         # by --strategy; `trainer.learn` is a plain fastai Learner
        trainer.evaluate()    # calibration, thresholds, metrics with intervals
        trainer.export()      # the model folder, model.json last

    `fit` may be replaced by whatever a practitioner does with `trainer.learn`.
    """

    def __init__(self, config: Config | None = None, say: Callable[[str], None] = print, **settings: Any):
        """Settings are the fields of Config, and the flags of train_model.py. Raises InputError on impossible ones."""
        for name in ("csv", "images", "out", "start_from"):
            if isinstance(settings.get(name), str):
                settings[name] = Path(settings[name])
        self.config = replace(config or Config(), **settings)
        self.say = say
        self.seconds: dict[str, float] = {}
        self.data: Dataset | None = None
        self.measured: Measured | None = None
        self.history: list[dict[str, Any]] = []
        self.device = choose_device(self.config.device)
        self.precision = choose_precision(self.device, self.config.precision)
        if self.config.strategy == "probe" and self.device.type == "cpu":
            self.precision = (
                "fp32"  # nothing is trained by steps, and features come from ONNX Runtime (see inference.py)
            )
        self.size = self.config.sizes()[0]

    # -- the stages ------------------------------------------------------------------------------------------------

    def load(self) -> Dataset:
        """Read the table, keep the genres with enough movies, balance them. Raises InputError."""
        if self.config.resume:
            load_state(self.checkpoints)
        with self._stage("reading the table"):
            self.data = choose_movies(self.config, self.say)
        self._body  # noqa: B018 - wrong networks, weights and sizes must not be found out after the download
        return self.data

    def download(self) -> Dataset:
        """Fetch the posters that are not there yet, as `Config.download` allows. Raises InputError when none can be had."""
        with self._stage("posters"):
            self.data = fetch_posters(self._need("data", "load"), self.config, self.say)
        return self.data

    def split(self) -> Dataset:
        """Set the measuring side apart, so that no movie and no near-identical art stands on both. Raises InputError."""
        with self._stage("splitting"):
            if self.config.resume:
                self.data = resume_split(self._need("data", "load"), self._saved_split, self.config, self.say)
            else:
                self.data = split_posters(self._need("data", "load"), self.config, self.say)
        return self.data

    @cached_property
    def learn(self) -> Learner:
        """A plain fastai Learner on the training and validation posters; made when it is first asked for."""
        self._need("data", "split")
        set_seed(self.config.seed)  # the loaders draw their order from Python's generator
        dls = self._dataloaders(self.size)
        return poster_learner(dls, self.network, self.config, self.device, self.precision, self.config.out)

    def fit(self) -> None:
        """Train by the configured strategy. Raises InputError when weights cannot be had or memory runs out."""
        self._need("data", "split")
        self.say(
            f"  {self.architecture.name} ({self.architecture.library}), {self.config.strategy}, "
            f"{self.size[0]} x {self.size[1]} px, {self.precision} on {self.device}"
        )
        if not self.config.resume:
            # An older run's state must not meet this run's split: resumed, it would have seen what it is measured on.
            (self.checkpoints / STATE).unlink(missing_ok=True)
            write_split(self._saved_split, self.data.frame, self.data.frame["hash"].to_numpy())
        with self._stage("training"):
            self._fit_probe() if self.config.strategy == "probe" else self._fit_phases()

    def find_lr(self) -> float:
        """Print, plot (lr_find.png in the model folder) and return the learning rate that fastai's finder suggests."""
        plot = self.config.out / "lr_find.png"
        suggestion = suggest_lr(self.learn, self.config, plot)
        self.say(f"  suggested learning rate: {suggestion:.2g} (plot: {plot}); train with --lr {suggestion:.2g}")
        return suggestion

    def evaluate(self) -> Measured:
        """Calibrate, fit thresholds and measure on the validation side, with the fp32 network that goes out."""
        data = self._need("data", "split")
        valid = data.side(True)
        with self._stage("measuring"):
            paths = list(valid["path"])
            with progress(len(paths), "scoring the validation posters") as bar:
                forward = frozen_forward(self.network, self.size, self.device)
                logits = network_outputs(forward, paths, self.size, self.mean, self.std, bar=bar)
            truth = data.truth[data.frame["is_valid"].to_numpy()]
            groups = valid["group"].to_numpy()
            self.measured = measure(logits, truth, data.labels, data.prior, groups, self.config.seed)
        return self.measured

    def export(self) -> ModelFolder:
        """Write the model folder, `model.json` last. Raises InputError when the runtimes disagree."""
        self._need("measured", "evaluate")
        with self._stage("exporting"):
            return release(self)

    def summarize(self) -> None:
        """Print the metrics with their intervals beside no skill, the seconds by stage, and where everything is."""
        measured = self._need("measured", "evaluate")
        self.say(f"\n{metrics_table(measured.metrics, measured.baselines)}\n")
        self.say(f"calibration error {measured.ece[0]:.3f} before, {measured.ece[1]:.3f} after")
        self.say("  ".join(f"{stage} {seconds:.0f} s" for stage, seconds in self.seconds.items()))
        self.say(f"model   {self.config.out}\nreport  {self.config.out / 'report.html'}")

    def how_to_go_on(self) -> str:
        """What to tell a user who has stopped the run."""
        if (self.checkpoints / STATE).is_file():
            return "stopped. The last finished epoch is saved: run the same command with --resume to go on"
        return "stopped. Posters that were downloaded are kept: run the same command again to go on"

    def run(self) -> ModelFolder:
        """All stages. After SIGINT or SIGTERM, `resume=True` goes on from the last finished epoch."""
        self.load()
        self.download()
        self.split()
        self.fit()
        self.evaluate()
        folder = self.export()
        self.summarize()
        return folder

    # -- what the stages share -------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        return self.config.out / "checkpoints"

    @property
    def _saved_split(self) -> Path:
        return self.checkpoints / "split.csv"

    @cached_property
    def architecture(self) -> networks.Architecture:
        """The network that --arch names. Raises InputError."""
        return networks.resolve(self.config.arch)[0]

    @cached_property
    def _normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return networks.normalization(self.config.arch, self.architecture)

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
        network = networks.build(self.architecture, 1, weights)
        networks.check_size(network, self.config.sizes())
        return network

    @cached_property
    def _earlier(self) -> ModelFolder:
        """The model of --start-from. Raises InputError if it is none, or another network."""
        earlier = open_model(self.config.start_from)
        if earlier.about["network"] != self.architecture.to_dict():
            raise InputError(
                f"--start-from {self.config.start_from}: that model is a {earlier.about['network']['name']}, "
                f"this run a {self.architecture.name}; give the same --arch"
            )
        return earlier

    @cached_property
    def network(self) -> nn.Module:
        """The network with a head for this run's genres: --start-from's own where they are the same, else a fresh one."""
        data = self._need("data", "split")
        torch.manual_seed(self.config.seed)
        network = networks.replace_head(self._body, len(data.labels))
        if self.config.start_from is not None and self._earlier.labels == data.labels:
            network.load_state_dict(networks.read_state(self._earlier.file(WEIGHTS)))
            return network
        if self.config.start_from is not None:
            self.say("  --start-from: other genres than this run's, so the head starts anew")
        set_prior(network, data.prior)
        return network

    def _fit_phases(self) -> None:
        settings = {k: v for k, v in self.config.to_dict().items() if k not in FREE_ON_RESUME}
        settings |= {"labels": self.data.labels, "precision": self.precision, "movies": self.data.digest}
        state = RunState(settings)
        checkpoint = Checkpoint(self.checkpoints, state, self.config.seed, self.config.patience, self.say)
        if self.config.resume:
            checkpoint.load()
            done = len(checkpoint.state.history)
            self.say(f"  resuming after {done} finished epoch{'s' if done != 1 else ''}")
        checkpoint.load_weights(self.network)
        for left in self.checkpoints.glob(".*.part*"):  # of a run killed while it saved
            left.unlink()
        learn, phases = self.learn, PHASED[self.config.strategy](self.config)
        checkpoint.learn = learn
        if not self.config.resume:
            checkpoint.save()  # from here on there is something to resume
        with fitting(learn, self.config):
            run_phases(learn, phases, checkpoint, self._set_size)
        self._set_size(phases[-1].size)
        best = torch.load(self.checkpoints / BEST, map_location=self.device, weights_only=True)
        self.network.load_state_dict(best)
        self.history = state.history
        self.say(f"  best epoch: {state.best_epoch}, validation mAP {state.best:.4f}")

    def _fit_probe(self) -> None:
        train = self.data.side(False)
        paths, truth = list(train["path"]), self.data.truth[~self.data.frame["is_valid"].to_numpy()]
        with progress(len(paths), "features") as bar, without_head(self.network) as body:
            forward = frozen_forward(body, self.size, self.device, self.precision)
            features = network_outputs(forward, paths, self.size, self.mean, self.std, bar=bar, mirrored=True)
        weight, bias = fit_head(features, truth, train["group"].to_numpy(), self.config.seed, self.say)
        set_head(self.network, weight, bias)
        with atomic_path(self.checkpoints / BEST) as part:
            torch.save(self.network.state_dict(), part)
        (self.checkpoints / STATE).unlink(missing_ok=True)  # of an earlier run that could be resumed: no longer

    def _set_size(self, size: tuple[int, int]) -> None:
        if size != self.size:
            self.size = size
            self.learn.dls = self._dataloaders(size)

    def _dataloaders(self, size: tuple[int, int]):
        config, data = self.config, self.data
        return poster_dataloaders(
            data.frame, data.labels, size, self.mean, self.std, config.batch_size, self.device, config.workers
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.say(f"\n{name}")
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _need(self, attribute: str, stage: str) -> Any:
        if getattr(self, attribute) is None or (
            stage == "split" and (self.data is None or "is_valid" not in self.data.frame)
        ):
            raise InputError(f"call {stage}() first: this stage needs what it makes")
        return getattr(self, attribute)
