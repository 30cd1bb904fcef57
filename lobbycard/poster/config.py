"""Every setting of a training run, once: the fields are the flags of `train_model.py`, their defaults stand here alone."""

import math
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Literal

import tyro

from lobbycard.errors import InputError

POSTER_SIZE = (288, 192)  # height, width: a poster is 2:3, and this has about as many pixels as 224 x 224
EPOCHS = 10
CACHED_EPOCHS = 6
CACHED_SOUP = 4  # trainings; of 3, 4 and 6 the averages differed by no more than chance (docs/log.md)
PROGRESSIVE_SIZES = ((224, 224), (448, 448))


@dataclass(frozen=True)
class Config:
    """Train a poster-genre model from a movie table, measure it, and export it as one folder.

    Without --csv: MovieGenre.csv if that file is here, else an embedded sample of drawn posters.
    """

    csv: Path | None = None
    """movie table in the Kaggle file's columns: imdbId, Imdb Link, Title, IMDB Score, Genre, Poster"""
    images: Path = Path("data/posters")
    """folder of posters (tt<imdbId>.jpg); what is there is used, the rest is downloaded into it"""
    download: bool = True
    """fetch the posters that are not in --images"""
    out: Path = Path("models/poster-genres")
    """the model folder to make"""

    min_count: int = 50
    """drop genres with fewer movies than this"""
    per_genre: int = 0
    """balance to about this many movies a genre, rarest first; 0 keeps all, which made the better model (docs/log.md)"""
    limit: int = 0
    """use at most this many of the table's movies, drawn at random before anything else; 0 uses all"""
    valid: float = 0.2
    """share of the movies kept aside to measure on"""
    split_from: Path | None = None
    """take the sides from this split.csv, or from the model folder that has one, so that two models are measured on the
    same movies; --valid has no say then, --limit and --per-genre choose from the training side"""
    seed: int = 0
    """of everything drawn at random: same seed, same machine, same result"""
    connections: int = 16
    """open connections a host while downloading"""
    timeout: float = 20.0
    """seconds to wait for a host while downloading"""

    arch: str = "resnet50"
    """a torchvision or timm network, or local-dir:FOLDER with timm's config.json and model.safetensors"""
    weights: str = "imagenet"
    """start from: imagenet, none, or a file of weights (.safetensors, .pth)"""
    start_from: Path | None = None
    """start from an earlier model folder of the same --arch instead of --weights"""
    size: str = ""
    """input in pixels, HEIGHTxWIDTH or one number for a square; default 288x192, the shape of a poster"""

    strategy: Literal["auto", "standard", "discriminative", "progressive", "cached", "probe"] = "auto"
    """auto: cached on a CPU, standard on a GPU; standard: head first, then everything; discriminative: lower layers learn
    slower; progressive: 224 px, then 448; cached: the lower half stays frozen and is computed once, the upper half learns;
    probe: frozen network and a head fitted on several of its levels, quicker still"""
    epochs: int | None = None
    """epochs with all layers training, 10 if not given; of cached, with the upper half training, 6 a training if not given"""
    freeze_epochs: int = 3
    """epochs before that with only the head training; cached and probe fit the head instead"""
    lr: float = 1e-3
    """highest learning rate of the head, of cached of all that learns; --find-lr suggests one"""
    weight_decay: float = 0.05
    """AdamW's weight decay"""
    soup: int | None = None
    """train the last phase so many times, each time from the same start on other draws, and average the weights into one
    network; if not given, 4 times with cached, whose epochs are cheap, and once otherwise"""
    mixup: float = 0.4
    """blend posters and their genres in pairs; the Beta distribution's parameter, 0 blends none"""
    batch_size: int = 64
    """posters a step"""
    patience: int = 0
    """end a phase, or a training of a soup, when validation mAP has not risen in it for this many epochs; 0 never does"""
    refit: bool = False
    """once measured, train anew by the same settings on all movies, those measured on included, and let that network go out:
    trained on more movies, for about twice the time; the figures are those of the one before"""
    learning_curve: bool = False
    """also train on an eighth, a quarter and a half of the movies, to see how much more data would help;
    about doubles the time"""
    find_lr: bool = False
    """only look for a learning rate: print and plot it, then end"""
    resume: bool = False
    """go on from the last finished epoch of an interrupted run in --out"""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """where to train; auto takes a GPU if there is one"""
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """auto: fp16 on CUDA, bf16 on a CPU that has it, fp32 elsewhere"""
    workers: int = -1
    """threads that decode posters where their pixels cannot be kept beside them; below 1 for one a core"""
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """also log to a tracker, through fastai's own callback"""

    command: tyro.conf.Suppress[str] = ""  # the command line, for the report; not a setting

    def __post_init__(self):
        for name, low in (("min_count", 1), ("seed", 0), ("per_genre", 0), ("limit", 0), ("epochs", 0), ("freeze_epochs", 0),
                          ("batch_size", 1), ("patience", 0), ("soup", 1), ("workers", -1), ("connections", 1)):  # fmt: skip
            if (given := getattr(self, name)) is not None and given < low:
                raise InputError(f"{flag(name)}: expected {low} or more, got {given}")
        if self.seed >= 2**32:
            raise InputError(f"--seed: expected a number below 2^32, got {self.seed}")
        if self.batch_size == 1 and self.strategy != "probe":
            raise InputError(
                "--batch-size: expected 2 or more, batch norm cannot learn from one poster at a time, got 1"
            )
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out {self.out}: a file; expected a folder, or a name that is free")
        if not 0 < self.valid < 1:
            raise InputError(f"--valid: expected a share between 0 and 1, such as 0.2, got {self.valid}")
        if not (0 < self.lr < math.inf and 0 < self.timeout < math.inf):
            raise InputError("--lr and --timeout must be above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"--weight-decay: expected 0 or above, got {self.weight_decay}")
        if self.mixup != 0 and not 0.01 <= self.mixup <= 100:  # beyond, the distribution is one point or two
            raise InputError(f"--mixup: expected 0, or a parameter from 0.01 to 100, got {self.mixup}")
        if self.strategy != "probe" and self.epochs == self.freeze_epochs == 0:
            raise InputError("--epochs and --freeze-epochs are both 0: nothing would be trained; give one of them")
        if self.strategy == "cached" and self.epochs == 0:
            raise InputError(
                "--strategy cached with --epochs 0: only its upper half learns, in those epochs; give 1 or more"
            )
        if self.strategy in ("cached", "probe") and self.find_lr:
            raise InputError(
                f"--find-lr looks for a rate of the whole network, and --strategy {self.strategy} does not train that; use "
                "--strategy standard with it"
            )
        if self.strategy == "progressive" and self.epochs is not None and self.epochs < 3:
            raise InputError(
                f"--strategy progressive: needs --epochs 3 or more, a third of them at the large size, got {self.epochs}"
            )
        self.sizes()

    @property
    def pretrained(self) -> bool:
        """Whether the network starts from weights that somebody trained."""
        return self.weights != "none" or self.start_from is not None

    def settled(self, strategy: str) -> "Config":
        """With this strategy, and its defaults where nothing was given."""
        epochs, soup = (CACHED_EPOCHS, CACHED_SOUP) if strategy == "cached" else (EPOCHS, 1)
        epochs, soup = (own if own is not None else usual for own, usual in ((self.epochs, epochs), (self.soup, soup)))
        return replace(self, strategy=strategy, epochs=epochs, soup=soup)

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Input sizes (height, width) in the order they are trained at; the last is the model's. Raises InputError."""
        base = parse_size(self.size) if self.size else None
        if self.strategy == "progressive":
            return (base, (2 * base[0], 2 * base[1])) if base else PROGRESSIVE_SIZES
        return (base or POSTER_SIZE,)

    def to_dict(self) -> dict:
        """Settings as plain JSON values. Of paths only the last part is kept: a model folder travels, and where
        its maker kept their files is nobody's business."""
        values = {k: v for k, v in asdict(self).items() if k != "command"}
        values = {k: v.name if isinstance(v, PurePath) else v for k, v in values.items()}
        for name in ("arch", "weights"):
            values[name] = without_folders(values[name])
        return values


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) in pixels from `224` or `288x192`. Raises InputError on anything else, or outside 32 to 1024."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdecimal() and 32 <= int(p) <= 1024 for p in parts):
        raise InputError(f"--size: expected 224 or 288x192 (height x width, 32 to 1024 pixels), got {text!r}")
    return int(parts[0]), int(parts[-1])


def without_folders(text: str) -> str:
    """An argument as a report may show it: of an absolute path only the last part."""
    name, equals, value = text.partition("=")
    if equals and name.startswith("--"):
        return f"{name}={without_folders(value)}"
    prefix, found, path = text.rpartition("local-dir:")
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(path).is_absolute():
            path = kind(path).name
    return f"{prefix}{found}{path}"


def flag(name: str) -> str:
    """The command line's spelling of a field."""
    return "--" + name.replace("_", "-")


# Small, and fit to learn from nothing in minutes on two cores: the drawn posters need no ImageNet.
SAMPLE = {
    "images": Path("data/sample/posters"),
    "out": Path("models/sample"),
    "limit": 1200,
    "per_genre": 400,
    "arch": "resnet10t",
    "weights": "none",
    "size": "128x88",
    "strategy": "standard",
    "freeze_epochs": 0,
    "epochs": 14,
    "lr": 5e-3,
    "weight_decay": 0.01,
    "mixup": 0.0,
    "batch_size": 32,
}
DEFAULT_TABLE = Path("MovieGenre.csv")


def parse(arguments: list[str] | None = None) -> Config:
    """The command line of `train_model.py` as a Config; `--help` prints it and ends the process.

    Without --csv it is MovieGenre.csv if that file is here; else `csv` stays None and the sample's preset stands
    behind the flags.

    Raises:
        InputError: a flag has an impossible value.
    """
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    command = shlex.join(["python", "train_model.py", *map(without_folders, given)])
    read = partial(tyro.cli, Config, prog="train_model.py", args=given)
    config = read(default=Config(command=command))
    if config.csv is None and DEFAULT_TABLE.is_file():
        print(f"no --csv: taking {DEFAULT_TABLE}, which is here")
        return replace(config, csv=DEFAULT_TABLE)
    if config.csv is None:
        return read(default=Config(command=command, **SAMPLE))
    return config
