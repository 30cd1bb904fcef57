"""From a trained, measured network to a model folder: every file made aside, moved in, and model.json written last."""

import copy
import os
import platform
import shutil
import tempfile
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from lobbycard.catalog.image import load_poster, poster_pixels
from lobbycard.catalog.split import write_split
from lobbycard.errors import InputError
from lobbycard.files import sha256, write_text
from lobbycard.poster import artifact
from lobbycard.poster.augment import augmentation_sheet
from lobbycard.poster.checkpoint import STATE, write_history
from lobbycard.poster.curve import parts_folder
from lobbycard.poster.export import AGREEMENT, fold_calibration, write_learner, write_onnx, write_safetensors
from lobbycard.poster.familiar import Familiarity
from lobbycard.poster.modes import measure_modes, quantize_again
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.poster.refit import refit_folder
from lobbycard.poster.training import FEATURES, HALFWAY, forget_answers
from lobbycard.report.card import write_card
from lobbycard.report.doubts import SHEET, write_doubts
from lobbycard.report.findings import Findings
from lobbycard.report.page import write_report
from lobbycard.report.words import number, signed

if TYPE_CHECKING:
    from lobbycard.poster.trainer import MovieGenreTrainer

FAMILIAR = 2000  # posters that say what posters look like; 300 MB while they are looked at
LIMITS = (
    "It sees the poster alone: not the title as text, the plot, the cast or the year.",
    "The table names at most three genres a movie and leaves some out: a genre it gives that the table lacks is not "
    "always wrong, and recall is measured against an incomplete truth.",
    "It was trained on posters of the size and style found in the table; artwork, photographs and other pictures get an "
    "answer too, and it means nothing.",
)
EPOCH_CHOSEN = (
    "The best epoch, or the average of several trainings' weights where that is better, was chosen by its mAP on the same "
    "posters that the figures are measured on: they lean a little high for that."
)
REFITTED = (
    "The figures are of a model trained on the training side alone. What is in this folder was then trained anew, by the same "
    "settings, on all {:,} movies: it should be a little better, and nothing can be measured on those movies any more."
)
DRAWN = "It was trained on posters drawn by code: a demonstration of the pipeline, of no use on real posters."
INTENDED_USE = (
    "Suggesting genres for a film from its poster, for browsing, tagging and cataloguing, with a person to confirm.",
    "Not for judging a film's quality or suitability for children, and not for decisions about people.",
)


def release(trainer: "MovieGenreTrainer") -> artifact.ModelFolder:
    """Write the model folder of a trainer that has measured its network.

    Where a learning curve is to follow, what resumes the run stays beside the model until that is whole.

    Raises:
        InputError: the written runtimes do not agree with each other.
    """
    config, data = trainer.config, trainer.data
    out = config.out
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(".export-*"):  # by an export that was killed
        shutil.rmtree(left, ignore_errors=True)
    about = _about(trainer)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        staged = Path(folder)
        _write_network(trainer, trainer.network, staged)
        write_text(staged / "vocab.txt", "\n".join(data.labels) + "\n")
        write_history(staged / "history.csv", trainer.history)
        write_split(staged / "split.csv", data.frame, data.frame["hash"].to_numpy())
        about["data"]["split"]["sha256"] = sha256(staged / "split.csv")
        half = _half_made(staged, about)
        about["agreement"] = _agreement(half, trainer)
        trainer.say("  comparing fp32, int8, bf16 and averaging over views, which may take a minute")
        about["modes"] = measure_modes(half, _posters(trainer, False), _posters(trainer, True), config.seed)
        trainer.say(f"  measured {_modes_measured(about['modes'])}")
        for row in _mode_rows(about["modes"]):
            change = "" if row["change"] is None else f"changes mAP by {signed(row['change'])}, "
            trainer.say(f"  {row['name']}: {change}{number(row['milliseconds'], 1)} ms a poster")
        about["familiarity"] = _familiarity(half, _posters(trainer, True)[0], config.seed)
        if trainer.refitted is not None:
            # Modes and familiarity are told of the network that had not seen the posters they were measured on.
            _write_network(trainer, trainer.refitted, staged)
            half = _half_made(staged, about)
            about["agreement"] = _agreement(half, trainer)
            if (staged / artifact.INT8).is_file():
                quantize_again(half, about["modes"], _posters(trainer, False), config.seed)
        findings = _findings(trainer, about)
        write_report(findings, staged / "report.html")
        write_card(findings, staged / "README.md", folder=out.name)
        write_doubts(findings.doubts, staged / SHEET)
        artifact.unseal(out)
        for file in sorted(staged.iterdir()):
            file.replace(out / file.name)
    folder = artifact.seal(out, about, leave_out=_unfinished(out))
    if not config.learning_curve:
        _forget(out)
    return folder


def _write_network(trainer: "MovieGenreTrainer", network: nn.Module, folder: Path) -> None:
    """A network of the trainer's, with its calibration folded in, for all runtimes."""
    network = copy.deepcopy(network).to("cpu").eval()  # the trainer's own stays as it was trained
    fold_calibration(network, trainer.measured.calibration)
    write_safetensors(network, folder / artifact.WEIGHTS)
    write_onnx(network, (3, *trainer.size), folder / artifact.ONNX)
    thresholds, file = trainer.measured.thresholds, folder / artifact.PICKLE
    write_learner(network, trainer.data.labels, thresholds, trainer.size, trainer.mean, trainer.std, file)


def add_curve(trainer: "MovieGenreTrainer", curve: dict[str, Any] | None) -> artifact.ModelFolder:
    """Write a released model's report, card and `model.json` once more, with its learning curve if there is one."""
    out, folder = trainer.config.out, trainer.folder
    if curve is not None:
        about = folder.about | {"learning_curve": curve}
        findings = _findings(trainer, about)
        with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as scratch:
            staged = Path(scratch)
            write_report(findings, staged / "report.html")
            write_card(findings, staged / "README.md", folder=out.name)
            artifact.unseal(out)
            for file in sorted(staged.iterdir()):
                file.replace(out / file.name)
        folder = artifact.seal(out, about, leave_out=_unfinished(out))
    _forget(out)
    return folder


def _unfinished(out: Path) -> list[Path]:
    """Files in a model folder that only a resumed run reads."""
    checkpoints = out / "checkpoints"
    answers = [checkpoints / name for name in (HALFWAY, FEATURES)]
    return [checkpoints / STATE, *answers, *parts_folder(out).rglob("*"), *refit_folder(out).rglob("*")]


def _forget(out: Path) -> None:
    """Remove what resumes a run: only when the model folder is whole is there nothing left to resume."""
    (out / "checkpoints" / STATE).unlink(missing_ok=True)
    forget_answers(out / "checkpoints")
    for folder in (parts_folder(out), refit_folder(out)):
        shutil.rmtree(folder, ignore_errors=True)


def _about(trainer: "MovieGenreTrainer") -> dict[str, Any]:
    data, measured, labels = trainer.data, trainer.measured, trainer.data.labels
    by_label = lambda values: {label: round(float(v), 6) for label, v in zip(labels, values, strict=True)}  # noqa: E731
    height, width = trainer.size
    return {
        "labels": labels,
        "arch": trainer.config.to_dict()["arch"],
        "network": trainer.architecture.to_dict(),
        "input": {
            "size": [height, width],
            "resize": "squash, bilinear, antialiased",
            "channels": "RGB",
            "mean": list(trainer.mean),
            "std": list(trainer.std),
        },
        "thresholds": by_label(measured.thresholds),
        "calibration": {
            "folded": True,  # the network's logits are calibrated already: these numbers are a record
            **{k: by_label(getattr(measured.calibration, k)) for k in ("scale", "bias")},
            "ece_before": measured.ece[0],
            "ece_after": measured.ece[1],
        },
        "metrics": measured.metrics,
        "baselines": measured.baselines,
        "per_label": measured.per_label,
        "weights_of": trainer.chosen + "; then trained anew on all movies" * (trainer.refitted is not None),
        "config": trainer.config.to_dict(),
        "data": data.about | {"prior": by_label(data.prior), "refit": trainer.refitted is not None},
    }


def _findings(trainer: "MovieGenreTrainer", about: dict[str, Any]) -> Findings:
    config, data, measured = trainer.config, trainer.data, trainer.measured
    valid, train = data.side(True), data.side(False)
    paths = list(valid["path"])
    rng = np.random.default_rng(config.seed)
    augmented = config.strategy not in ("probe", "cached")  # those see posters as they are, or mirrored
    shown = [Path(p) for p in rng.choice(train["path"].to_numpy(), size=min(4, len(train)), replace=False)]
    return Findings(
        name=config.out.name,
        task=artifact.TASK,
        labels=data.labels,
        truth=data.truth[data.frame["is_valid"].to_numpy()],
        probabilities=measured.probabilities,
        decisions=measured.decisions,
        thresholds=measured.thresholds,
        item_ids=list(valid["item_id"]),
        titles=list(valid["title"]),
        metrics=measured.metrics,
        baselines=measured.baselines,
        per_label=measured.per_label,
        sweep=measured.sweep,
        ece_before=measured.ece[0],
        ece_after=measured.ece[1],
        reliability_before=measured.reliability[0],
        reliability_after=measured.reliability[1],
        misses=measured.misses,
        thumbnails=lambda index: load_poster(paths[index]),
        history=trainer.history,
        weights_of=about["weights_of"],
        augmentation_sheet=augmentation_sheet(shown, trainer.size, config.seed) if augmented else None,
        data=about["data"],
        config=about["config"],
        arch=trainer.architecture.name,
        input_size=trainer.size,
        versions=artifact.versions(),
        seconds=trainer.seconds,
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {trainer.device}, {trainer.precision}",
        command=config.command,
        date=date.today().isoformat(),
        modes=_mode_rows(about["modes"]),
        modes_measured=_modes_measured(about["modes"]),
        limits=_limits(trainer),
        learning_curve=about.get("learning_curve"),
        intended_use=(DRAWN,) if data.about["drawn"] else INTENDED_USE,
        item_noun="poster",
        label_noun="genre",
    )


def _limits(trainer: "MovieGenreTrainer") -> tuple[str, ...]:
    said = [DRAWN] * trainer.data.about["drawn"] + [*LIMITS]
    if seen := trainer.data.about.get("seen_by_start"):
        said.append(
            f"It started from a model that was trained on {seen:,} of the movies it is measured on: the figures are too good."
        )
    if trainer.config.strategy != "probe":
        said.append(EPOCH_CHOSEN)
    if trainer.refitted is not None:
        said.append(REFITTED.format(len(trainer.data.frame)))
    return tuple(said)


def _posters(trainer: "MovieGenreTrainer", valid: bool) -> tuple[list[Path], np.ndarray]:
    """Paths of one side's posters and their (N, L) truth."""
    side = trainer.data.frame["is_valid"].to_numpy() == valid
    return list(trainer.data.side(valid)["path"]), trainer.data.truth[side]


def _half_made(staged: Path, about: dict[str, Any]) -> artifact.ModelFolder:
    """The staged files as a model that the predictor reads, before there is a model.json."""
    files = {name: sha256(staged / name) for name in (artifact.WEIGHTS, artifact.ONNX, artifact.PICKLE)}
    return artifact.ModelFolder(staged, about | {"files": files})


def _familiarity(folder: artifact.ModelFolder, paths: list[Path], seed: int) -> dict[str, Any]:
    """What posters look like that the network was not trained on, for telling a visitor that something else is none."""
    predictor, shapes, pixels = PosterPredictor(folder, "onnx"), [], []
    for path in np.random.default_rng(seed).permutation(paths)[:FAMILIAR]:  # tables are sorted by age
        picture = load_poster(path)
        shapes.append(picture.size)
        pixels.append(poster_pixels(picture, predictor.size))
    probabilities = [predictor.from_pixels(np.stack(pixels[i : i + 16])) for i in range(0, len(pixels), 16)]
    return Familiarity.fit(np.array(shapes), pixels, np.concatenate(probabilities)).to_dict()


def _mode_rows(modes: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured of each way to answer, for the report's table."""
    names = {
        "fp32": "as it is (fp32, ONNX Runtime)",
        "tta": "averaged over three views (TTA)",
        "int8": "fast: int8, ONNX Runtime",
        "torch fp32": "as it is, PyTorch",
        "bf16": "fast: bf16, PyTorch",
    }
    columns = ("mAP", "change", "ci95", "milliseconds", "refused")
    rows = []
    for key, name in names.items():
        row = {"name": name, **{column: modes[key].get(column) for column in columns}}
        if key == "fp32":
            row |= {"change": None, "ci95": None}
        elif key in ("int8", "bf16") and modes["formats_posters"] != modes["posters"]:
            row["mAP"] = None  # of other posters than the rows above: only the change can be compared
        rows.append(row)
    return rows


def _modes_measured(modes: dict[str, Any]) -> str:
    on = f"on {modes['posters']:,} validation posters"
    if modes["formats_posters"] != modes["posters"]:
        on += f" (int8 and bf16 on {modes['formats_posters']:,}, training posters among them, since those are few)"
    return f"{on}, one at a time on this machine's processor ({modes['machine']}, {modes['cores']} cores)"


def _agreement(folder: artifact.ModelFolder, trainer: "MovieGenreTrainer") -> dict[str, float]:
    """The largest difference in any probability between the runtimes, on real posters, from the written files."""
    paths = list(trainer.data.side(True)["path"])[:16]
    reference = PosterPredictor(folder, "onnx").predict_proba(paths)
    found = {}
    for runtime in ("torch", "fastai"):
        found[runtime] = float(np.abs(PosterPredictor(folder, runtime).predict_proba(paths) - reference).max())
        if found[runtime] > AGREEMENT:
            raise InputError(
                f"export: the {runtime} runtime differs from ONNX by {found[runtime]:.2g} in a probability, allowed is "
                f"{AGREEMENT}; this network cannot be exported faithfully, choose another --arch"
            )
    return found
