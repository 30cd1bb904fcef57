"""The model folder: whole or not there, checked by sha256, read without pickle. Needs neither torch nor fastai."""

import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lobbycard.errors import InputError
from lobbycard.files import sha256, write_text
from lobbycard.poster.description import wrong

FORMAT_VERSION = 1
TASK = "poster-genres"
MANIFEST, WEIGHTS, ONNX, PICKLE = "model.json", "model.safetensors", "model.onnx", "export.pkl"
INT8 = "model.int8.onnx"
NEEDED = ("labels", "arch", "input", "thresholds", "calibration", "metrics", "config", "data", "versions", "files")


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk and what its `model.json` says."""

    path: Path
    about: dict[str, Any]

    @cached_property
    def labels(self) -> list[str]:
        return list(self.about["labels"])

    @property
    def size(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        height, width = self.about["input"]["size"]
        return int(height), int(width)

    @cached_property
    def thresholds(self) -> np.ndarray:
        """(L,), in the order of the labels."""
        return np.array([self.about["thresholds"][label] for label in self.labels], dtype=np.float64)

    @cached_property
    def prior(self) -> np.ndarray | None:
        """(L,) share of the training items that have each label, or None where the model does not say."""
        prior = self.about.get("data", {}).get("prior")
        return None if prior is None else np.array([prior[label] for label in self.labels], dtype=np.float64)

    @property
    def all_files(self) -> list[Path]:
        """Every file that belongs to the model, whether it is there or not."""
        return [self.path, self.path / MANIFEST, *(self.path / name for name in self.about.get("files", ()))]

    def file(self, name: str) -> Path:
        """One of the model's files, its bytes checked against `model.json`.

        Raises:
            InputError: the model has no such file, it is gone, or its bytes are not the ones that were written.
        """
        known = self.about["files"]
        if name not in known:
            raise InputError(f"{self.path}: this model has no {name}; it has {', '.join(sorted(known))}")
        path = self.path / name
        if not path.is_file():
            raise InputError(f"{path}: named in {MANIFEST} but not there; copy the whole folder again")
        if sha256(path) != known[name]:
            raise InputError(
                f"{path}: its sha256 is not the one in {MANIFEST}; the file was changed or cut off, copy the folder again"
            )
        return path


def open_model(path: Path | str) -> ModelFolder:
    """Read a model folder's `model.json`; the large files are looked at when they are needed.

    Raises:
        InputError: `path` is no model folder; the message says what it is instead and what to do.
    """
    path = Path(path)
    if path.name == MANIFEST:
        path = path.parent
    if path.is_file():
        raise InputError(f"{path}: {_what_instead(path)}")
    if not path.exists():
        raise InputError(f"{path}: no such model folder; `make train` makes models/sample, train_model.py any other")
    manifest = path / MANIFEST
    if not manifest.is_file():
        unfinished = (path / "checkpoints").is_dir()
        advice = "finish it with train_model.py --resume and the same flags" if unfinished else "train it again"
        raise InputError(f"{path}: no {MANIFEST}, so this is no whole model (training or export was cut off); {advice}")
    try:
        about = json.loads(manifest.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{manifest}: not JSON ({error}); copy the model folder again") from error
    if not isinstance(about, dict) or about.get("task") != TASK:
        raise InputError(
            f"{manifest}: expected task {TASK!r}, found {about.get('task') if isinstance(about, dict) else about!r}"
        )
    if about.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{manifest}: format version {about.get('format_version')}, this lobbycard reads {FORMAT_VERSION}; "
            "install the lobbycard that made it, or train again"
        )
    lacking = [key for key in NEEDED if key not in about]
    if lacking:
        raise InputError(f"{manifest}: lacks {', '.join(lacking)}; it was not written by lobbycard, or was edited")
    for name, expected in wrong(about):
        raise InputError(
            f"{manifest}: {name}: expected {expected}; it was edited or damaged, copy the model folder again"
        )
    return ModelFolder(path, about)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")  # Python would read it, and the API could not write it


def unseal(path: Path) -> None:
    """Take `model.json` away first, so that a folder whose files are being replaced is no whole model."""
    (path / MANIFEST).unlink(missing_ok=True)


def seal(path: Path, about: dict[str, Any], leave_out: Iterable[Path] = ()) -> ModelFolder:
    """Hash every file in the folder and write `model.json`, last and whole.

    Args:
        about: the contract's keys but `files` and `versions`, plain JSON values.
        leave_out: files that are no part of the model.
    """
    skip = {path / MANIFEST, *leave_out}
    names = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.is_file() and file not in skip and not file.name.startswith(".")
    )
    about = {
        "format_version": FORMAT_VERSION,
        "task": TASK,
        **about,
        "versions": versions(),
        "files": {name: sha256(path / name) for name in names},
    }
    write_text(path / MANIFEST, json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return ModelFolder(path, about)


def versions() -> dict[str, str]:
    """Of what this model was made with."""
    found = {"python": platform.python_version()}
    for name in (
        "lobbycard",
        "torch",
        "torchvision",
        "fastai",
        "timm",
        "onnx",
        "onnxruntime",
        "numpy",
        "pillow",
        "scikit-learn",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name == "lobbycard":
                from lobbycard import __version__

                found[name] = __version__
    return found


def _what_instead(path: Path) -> str:
    if path.suffix == ".pth":
        return "a checkpoint: weights alone, no labels and no thresholds; give the model folder it lies in"
    if path.suffix in (".pkl", ".pickle"):
        return "a fastai learner; loading one runs the code in it. Give the model folder, or --trust if you know who made it"
    if path.suffix in (".onnx", ".safetensors"):
        return f"one file of a model; give the folder it lies in, {path.parent}"
    return "a file; expected a model folder, with model.json in it"
