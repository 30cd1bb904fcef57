"""What everybody is measured on in bench_quality.py, and the one scorer of all."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lobbycard.catalog.batches import batches, normalize
from lobbycard.catalog.select import label_matrix
from lobbycard.catalog.split import write_split
from lobbycard.files import sha256, write_text
from lobbycard.scoring import calibrate, metrics
from lobbycard.scoring.baselines import baselines
from lobbycard.scoring.decide import decide

SAME = 1e-3  # how near the exported model's figures come to those in its model.json
SINGLE_THRESHOLDS = np.arange(0.01, 1, 0.01)


@dataclass(frozen=True)
class Yardstick:
    """What everybody is measured on: `rows` has `item_id`, `file`, `labels` (tuples), `is_valid` and `group`."""

    rows: pd.DataFrame
    images: Path
    csv: Path  # the whole table
    folder: Path  # split.csv, rows.csv for the recipe, valid.csv for `evaluate`
    min_count: int
    digest: str

    @cached_property
    def labels(self) -> list[str]:
        return sorted({label for labels in self.rows["labels"] for label in labels})

    @cached_property
    def valid(self) -> pd.DataFrame:
        return self.rows[self.rows["is_valid"]]

    @cached_property
    def truth(self) -> np.ndarray:
        """(N, L) bool of the validation rows."""
        return label_matrix(self.valid, self.labels)

    @property
    def prior(self) -> np.ndarray:
        return label_matrix(self.rows[~self.rows["is_valid"]], self.labels).mean(axis=0)


def make_yardstick(posters: Path | None, work: Path, n_drawn: int) -> Yardstick:
    """Read, check and split once, as train_model.py does; later calls read what the first one wrote."""
    if posters is None:
        posters = work / f"drawn-{n_drawn}"
        if not (posters / "MovieGenre.csv").is_file():
            from lobbycard.catalog.sample import write_sample

            write_sample(posters, n=n_drawn, seed=0)
    csv, images = (posters / "MovieGenre.csv").resolve(), (posters / "images").resolve()
    drawn = (posters / "sample.json").is_file()
    min_count = 10 if drawn else 50
    key = digest([sha256(csv), min_count, sorted(path.name for path in images.iterdir())])
    folder = work / f"split-{key}"
    if not (folder / "digest.txt").is_file():
        from lobbycard.poster.config import Config
        from lobbycard.poster.dataset import choose_movies, fetch_posters, split_posters

        config = Config(csv=csv, images=images, download=False, per_genre=0, min_count=min_count, valid=0.2, seed=0)
        data = split_posters(fetch_posters(choose_movies(config), config), config)
        write_rows(data.frame, folder)
        write_text(folder / "digest.txt", data.digest)  # last: all of it is there
    return read_yardstick(folder, csv, images, min_count)


def write_rows(frame: pd.DataFrame, folder: Path) -> None:
    """A split data set for all who read it: train_model.py, the recipe, `evaluate`."""
    write_split(folder / "split.csv", frame, frame["hash"].to_numpy())
    joined = frame.assign(labels=frame["labels"].map("|".join))
    joined[["item_id", "file", "labels", "is_valid", "group"]].to_csv(folder / "rows.csv", index=False)
    table = joined[joined["is_valid"]][["item_id", "title", "labels"]]
    table.set_axis(["imdbId", "Title", "Genre"], axis=1).to_csv(folder / "valid.csv", index=False)


def read_yardstick(folder: Path, csv: Path, images: Path, min_count: int) -> Yardstick:
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    rows["labels"] = rows["labels"].map(lambda labels: tuple(labels.split("|")))
    return Yardstick(rows, images, csv, folder, min_count, (folder / "digest.txt").read_text(encoding="utf-8"))


def digest(of: Any) -> str:
    """Twelve digits that stand for plain JSON values."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]


def untrained_backbone(folder: Path, images: Path) -> str:
    """A tiny network with random weights as `local-dir:`, for the smoke test.

    Its batch norms have seen posters: layers that stay frozen would blow up with the statistics they are born with.
    """
    if (folder / "model.safetensors").is_file():
        return f"local-dir:{folder}"
    import timm
    import torch
    from timm.models import save_for_hf

    from lobbycard.poster.network import IMAGENET_MEAN, IMAGENET_STD

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=10).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it sees
    with torch.no_grad():
        for batch in batches(sorted(images.glob("*.jpg"))[:64], (96, 64), 32):
            network(torch.from_numpy(normalize(batch.pixels, IMAGENET_MEAN, IMAGENET_STD)))
    save_for_hf(network, folder, safe_serialization=True)
    return f"local-dir:{folder}"


def score(truth: np.ndarray, probabilities: ArrayLike, decisions: ArrayLike) -> dict[str, float]:
    """mAP and ECE of (N, L) probabilities, macro-F1 of decisions."""
    return {
        "mAP": float(np.nanmean(metrics.average_precision(truth, probabilities))),
        "macro_f1": metrics.macro_f1(truth, decisions),
        "ece": metrics.expected_calibration_error(probabilities, truth),
    }


def score_recipe(yard: Yardstick, logits: np.ndarray, averaged: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """The recipe as its users score it, and with what they could have had: better thresholds, averaged views.

    At 0.5 nothing is given where nothing passes, as fastai's metrics have it.
    """
    probabilities = 1 / (1 + np.exp(-logits))
    best = max(SINGLE_THRESHOLDS, key=lambda threshold: metrics.macro_f1(yard.truth, probabilities >= threshold))
    fitted = calibrate.cross_fit(logits, yard.truth, seed=seed, groups=yard.valid["group"].to_numpy())
    by_genre = decide(fitted.probabilities, fitted.thresholds)
    return {
        "recipe": score(yard.truth, probabilities, probabilities >= 0.5),
        "recipe_tta": score(yard.truth, averaged, averaged >= 0.5),
        "recipe_best_threshold": score(yard.truth, probabilities, probabilities >= best) | {"threshold": float(best)},
        "recipe_threshold_per_genre": score(yard.truth, probabilities, by_genre),
    }


def score_ours(yard: Yardstick, model: Path) -> dict[str, float]:
    """The figures in `model.json`; the written model, asked as `evaluate` asks it, must come to the same."""
    from lobbycard.poster.evaluation import ask
    from lobbycard.poster.predictor import PosterPredictor

    predictor = PosterPredictor.load(model)
    about = predictor.folder.about
    told = {name: about["metrics"][name]["value"] for name in ("mAP", "macro_f1")}
    told["ece"] = about["calibration"]["ece_after"]
    asked = ask([predictor], yard.folder / "valid.csv", yard.images, yard.labels, say=lambda text: None)
    if predictor.labels != yard.labels or asked.item_ids != list(yard.valid["item_id"]):
        raise SystemExit(
            f"{model}: other genres or movies than the yardstick's; were its posters changed? Use another --work"
        )
    # The model's answers have been calibrated on these rows: back to what the network said, then as for the recipe.
    by_label = [[about["calibration"][part][label] for label in yard.labels] for part in ("scale", "bias")]
    (probabilities,) = asked.probabilities
    odds = np.clip(probabilities.astype(float), 1e-12, 1 - 1e-12)
    logits = (np.log(odds / (1 - odds)) - by_label[1]) / by_label[0]
    seed = about["config"]["seed"]
    fitted = calibrate.cross_fit(logits, yard.truth, seed=seed, groups=yard.valid["group"].to_numpy())
    found = {
        "mAP": score(yard.truth, probabilities, asked.truth)["mAP"],  # what `evaluate` writes
        "macro_f1": metrics.macro_f1(yard.truth, decide(fitted.probabilities, fitted.thresholds)),
        "ece": metrics.expected_calibration_error(fitted.probabilities, yard.truth),
    }
    for name, value in found.items():
        if abs(value - told[name]) > SAME:
            raise SystemExit(
                f"{model}: {name} is {told[name]:.5f} in model.json, and {value:.5f} when the model is asked"
            )
    return told


def no_skill(yard: Yardstick) -> dict[str, Any]:
    """What is known without looking, in the shape of a run."""
    found = baselines(yard.truth, yard.prior, n_boot=2)
    nothing, prior = np.zeros(yard.truth.shape), np.broadcast_to(yard.prior, yard.truth.shape)
    scores = {}
    for name, answer in {"none": nothing, "top2": prior, "prior": prior}.items():
        scores[name] = {key: found[name][key]["value"] for key in ("mAP", "macro_f1")}
        scores[name]["ece"] = metrics.expected_calibration_error(answer, yard.truth)
    return {"scores": scores, "seconds": 0.0, "wall_seconds": 0.0, "peak_gb": None}
