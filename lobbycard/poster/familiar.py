"""Whether a picture looks like the posters a model was trained on: its shape, its pixels, and what the network answers.

Fitted on posters alone, so that about one in a hundred other posters is called unlike them; how much of anything else
is noticed is another matter: text, screenshots, drawings and patterns mostly are, photographs cut like a poster seldom.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lobbycard.errors import InputError
from lobbycard.poster.explain import log_odds

FALSE_ALARMS = 0.01  # of posters that are called unlike posters by their look
FOLDS = 5
SHRINK = (
    1e-3  # share of the mean variance added to each direction, so that one nobody saw vary is not held against anyone
)
SHAPE_TAIL = 0.0025  # share of the posters, at either end, whose shape is not taken for a poster's
SHAPE_MARGIN = 1.2  # by which a picture may be broader or narrower than those: posters of other countries are
THUMBNAIL = (48, 72)  # width, height
TOLD = 3.0  # standard deviations from which a statistic is named as the reason

# Statistics of the pixels, and what is said of a picture that has too little or too much of one.
STATISTICS = {
    "brightness": ("very dark", "very bright"),
    "contrast": ("of hardly any contrast", ""),
    "saturation": ("", "of very strong colours"),
    "saturation_spread": ("of hardly any colour", ""),
    "edges": ("almost without detail", "crowded with fine detail"),
    "edge_spread": ("almost without detail", ""),
    "flatness": ("", "mostly empty"),
    "fine_detail": ("almost without detail", "crowded with fine detail"),
    "colours": ("of very few colours", ""),
    "commonest_colour": ("", "almost one colour"),
    "upright_edges": ("", ""),
    "darkest": ("", "very bright"),
    "brightest": ("very dark", ""),
    "border": ("", ""),
}


@dataclass(frozen=True)
class Familiarity:
    """What posters are like. `Familiarity()` finds nothing unlike them.

    `shape` is the range of width / height. A picture's look is D numbers, those of `STATISTICS` and each label's log-odds;
    less `mean`, over `scale` (both (D,)) and times `whiten` (D, D), their squares add up to at most `limit` in a poster.
    """

    shape: tuple[float, float] | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    whiten: np.ndarray | None = None
    limit: float | None = None

    @classmethod
    def fit(cls, shapes: np.ndarray, pixels: Iterable[np.ndarray], probabilities: np.ndarray) -> "Familiarity":
        """From posters that the network was not trained on, since it answers more surely about those it was.

        With fewer than 99 of them a rate of one in a hundred cannot be had: then only the shape is looked at.

        Args:
            shapes: (N, 2) width and height of the posters as they came.
            pixels: N arrays (H, W, 3) uint8, the same posters at the network's input size; taken one at a time.
            probabilities: (N, L), what the network answers to them.

        Raises:
            InputError: the three are not about the same number of posters, or there are none.

        Source:
            Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS 2018 (Mahalanobis
            distance); Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005 (the rank of the limit).
        """
        shapes = np.asarray(shapes, np.float64)
        looks = [statistics(picture) for picture in pixels]
        if not len(shapes) == len(looks) == len(probabilities) or not looks:
            raise InputError(
                f"familiarity needs shape, pixels and probabilities of the same pictures, got {len(shapes)}, {len(looks)} "
                f"and {len(probabilities)}"
            )
        aspect = np.quantile(shapes[:, 0] / shapes[:, 1], [SHAPE_TAIL, 1 - SHAPE_TAIL])
        shape = (float(aspect[0] / SHAPE_MARGIN), float(aspect[1] * SHAPE_MARGIN))
        rank = int(np.ceil((len(looks) + 1) * (1 - FALSE_ALARMS)))
        if rank > len(looks):
            return cls(shape)
        look = np.column_stack([np.stack(looks), log_odds(probabilities)])
        # Each poster is held against the others only: against itself it would look more familiar than a new one does.
        fold = np.arange(len(look)) % FOLDS
        distances = np.concatenate([_distance(look[fold == k], *_gaussian(look[fold != k])) for k in range(FOLDS)])
        return cls(shape, *_gaussian(look), float(np.sort(distances)[rank - 1]))

    def unlike(
        self,
        shape: tuple[int, int],
        pixels: np.ndarray,
        probabilities: np.ndarray,
        noun: str = "poster",
        numbers: np.ndarray | None = None,
    ) -> str:
        """Why a picture looks unlike the posters, in some words that go after "this picture is", or an empty string.

        Args:
            shape: width and height of the picture as it came.
            pixels: (H, W, 3) uint8 at the network's input size.
            probabilities: (L,), what the network answers to it.
            numbers: `statistics(pixels)`, where they are known already; taking them is nearly all of the time.
        """
        if self.shape is not None:
            aspect = shape[0] / shape[1]
            if aspect > self.shape[1]:
                if self.shape[1] <= 1 < aspect:
                    return f"wider than tall, which the {noun}s it was trained on were not"
                return f"broader than the {noun}s it was trained on"
            if aspect < self.shape[0]:
                return f"narrower than the {noun}s it was trained on"
        if self.limit is None:
            return ""
        look = np.append(statistics(pixels) if numbers is None else numbers, log_odds(probabilities))
        if _distance(look[None], self.mean, self.scale, self.whiten)[0] <= self.limit:
            return ""
        off = ((look - self.mean) / self.scale)[: len(STATISTICS)]
        said = [(abs(z), words[int(z > 0)]) for z, words in zip(off, STATISTICS.values(), strict=True)]
        size, reason = max((z, words) if words else (0.0, "") for z, words in said)
        return (f"{reason}, " if size > TOLD else "") + f"unlike the {noun}s it was trained on"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; of `whiten` the lower triangle, row by row, as there is nothing above it."""
        if self.limit is None:
            return {"shape": self.shape and [_short(v) for v in self.shape]}
        rows, columns = np.tril_indices(len(self.mean))
        return {
            "shape": [_short(v) for v in self.shape],
            "statistics": list(STATISTICS),
            "mean": [_short(v) for v in self.mean],
            "scale": [_short(v) for v in self.scale],
            "whiten": [_short(v) for v in self.whiten[rows, columns]],
            "limit": _short(self.limit),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None, labels: int | None = None) -> "Familiarity":
        """Read what `to_dict` wrote; None, from a model that says nothing of it, finds nothing unlike.

        Args:
            labels: how many the network has; where it is given, the numbers must be about so many.

        A model made with other statistics of the pixels than these is asked about the shape alone.

        Raises:
            InputError: it is damaged.
        """
        if data is None:
            return cls()
        try:
            shape = data["shape"] and tuple(float(v) for v in data["shape"])
            if shape and len(shape) != 2:
                raise ValueError("shape is not two numbers")
            if data.get("statistics") != list(STATISTICS):
                return cls(shape)
            mean, scale = np.array(data["mean"], np.float64), np.array(data["scale"], np.float64)
            if labels is not None and len(mean) != len(STATISTICS) + labels:
                raise ValueError(f"{len(mean)} means, expected {len(STATISTICS) + labels}")
            whiten = np.zeros((len(mean), len(scale)))
            whiten[np.tril_indices(len(mean))] = data["whiten"]
            found = cls(shape, mean, scale, whiten, float(data["limit"]))
            if not all(np.isfinite(v).all() for v in (shape, mean, scale, whiten, found.limit)) or (scale <= 0).any():
                raise ValueError("numbers that are not finite, or a scale of 0")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f"familiarity in model.json is damaged ({error}); copy the model folder again, or train again"
            ) from error
        return found


def statistics(pixels: np.ndarray) -> np.ndarray:
    """The numbers named in `STATISTICS`, float64, of one picture (H, W, 3) uint8."""
    # All from a thumbnail: how sharp a file is tells where it was found, not what it shows.
    small = np.asarray(Image.fromarray(pixels).resize(THUMBNAIL, Image.Resampling.BOX), np.float32) / 255
    grey = small @ np.float32([0.299, 0.587, 0.114])
    red, green, blue = np.moveaxis(small, -1, 0)
    saturation = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    across, down = np.abs(np.diff(grey, axis=1))[:-1], np.abs(np.diff(grey, axis=0))[:, :-1]
    edges = np.hypot(across, down)
    fine = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    cells = np.minimum(small * 4, 3).astype(np.intp) @ np.array([16, 4, 1])
    shares = np.bincount(cells.ravel(), minlength=64) / cells.size
    shares = shares[shares > 0]
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    return np.array(
        [
            grey.mean(),
            np.log(grey.std() + 0.01),
            saturation.mean(),
            np.log(saturation.std() + 0.01),
            np.log(edges.mean() + 0.003),
            np.log(edges.std() + 0.003),
            np.log((edges < 0.02).mean() + 0.01),
            np.log(np.abs(fine).mean() + 0.003),
            -(shares * np.log2(shares)).sum(),
            np.log(shares.max() + 0.01),
            np.log((across.mean() + 0.003) / (down.mean() + 0.003)),
            *np.quantile(grey, [0.02, 0.98]),
            np.log(border.std(axis=0).mean() + 0.01),
        ],
        dtype=np.float64,
    )


def _gaussian(look: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, scale and whitening (lower triangular) of looks (N, D)."""
    mean, scale = look.mean(axis=0), look.std(axis=0) + 1e-6
    covariance = np.cov(((look - mean) / scale).T)
    shrunk = covariance + SHRINK * np.eye(len(mean))  # the mean variance is 1
    return mean, scale, np.linalg.inv(np.linalg.cholesky(shrunk))


def _distance(look: np.ndarray, mean: np.ndarray, scale: np.ndarray, whiten: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances (N,) of looks (N, D)."""
    return ((((look - mean) / scale) @ whiten.T) ** 2).sum(axis=1)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
