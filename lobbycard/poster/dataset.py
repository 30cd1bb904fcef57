"""From a Config to the posters to train on: the table read, balanced, downloaded and split, every loss counted."""

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lobbycard.catalog import neardup, select, split
from lobbycard.catalog.batches import THREADS
from lobbycard.catalog.download import DownloadOptions, coverage, download, format_coverage
from lobbycard.catalog.image import ImageError, load_poster
from lobbycard.catalog.table import MovieTable, read_table
from lobbycard.errors import InputError
from lobbycard.files import sha256
from lobbycard.poster.config import Config
from lobbycard.progress import progress

MIN_GROUPS = 10  # unlike posters a side: cross-fitting deals them out to five folds


@dataclass
class Dataset:
    """Movies whose posters are on disk.

    `frame` has the table's columns and `path`, and once split `is_valid` and `group`; `labels` are the L genres,
    sorted; `about` is what the report and `model.json` say of the data.
    """

    frame: pd.DataFrame
    labels: list[str]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def truth(self) -> np.ndarray:
        """(N, L) bool."""
        return select.label_matrix(self.frame, self.labels)

    @property
    def prior(self) -> np.ndarray:
        """(L,) share of the training movies that have each genre."""
        return self.truth[~self.frame["is_valid"].to_numpy()].mean(axis=0)

    @property
    def digest(self) -> str:
        """Of the movies, their genres and their sides, whatever the order of the rows."""
        rows = sorted(zip(self.frame["item_id"], self.frame["labels"], self.frame["is_valid"], strict=True))
        return hashlib.sha256(repr([(i, sorted(g), bool(v)) for i, g, v in rows]).encode()).hexdigest()

    def side(self, valid: bool) -> pd.DataFrame:
        return self.frame[self.frame["is_valid"] == valid]


def choose_movies(config: Config, say: Callable[[str], None] = print) -> Dataset:
    """Read the table, keep the genres with enough movies, balance them if wanted. Raises InputError."""
    if config.csv is None:
        raise InputError("--csv: expected a movie table such as Kaggle's MovieGenre.csv; none was given")
    table: MovieTable = read_table(config.csv, need_url=config.download)
    say(table.summary())
    about = {}
    if config.split_from is None:
        frame = select.limit(table.frame, config.limit, config.seed) if config.limit else table.frame
        chosen = select.balance(select.keep_common(frame, config.min_count), config.per_genre, config.seed)
    else:
        chosen, about["split"] = _choose_placed(table.frame, config, say)
    before, after = select.label_counts(table.frame), select.label_counts(chosen)
    say(select.counts_table(before, after))
    about |= {
        "source": config.csv.name,
        "drawn": (config.csv.parent / "sample.json").is_file(),  # the embedded sample's table
        "table_sha256": sha256(config.csv),
        "rows_read": table.rows_read,
        "dropped": dict(table.dropped),
        "kept": len(chosen),
        "labels_before": before,
        "labels_after": after,
    }
    return Dataset(chosen, sorted(after), about)


def _choose_placed(
    frame: pd.DataFrame, config: Config, say: Callable[[str], None]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The movies that --split-from places, and what is said of it: its measuring side whole, its training side as chosen."""
    placed = split.read_split(_split_file(config))
    common = select.keep_common(frame, config.min_count)  # counted in the whole table, as for the model it came from
    side = common["item_id"].map(placed.set_index("item_id")["is_valid"].to_dict())
    train, valid = common[side.eq(False)].reset_index(drop=True), common[side.eq(True)]
    if train.empty or valid.empty:
        raise InputError(
            f"--split-from {config.split_from}: of its {len(placed):,} movies {len(train):,} to train on and {len(valid):,} "
            f"to measure on are in {config.csv}; expected some of both: give the table that this split was made from"
        )
    if config.limit:
        train = select.limit(train, config.limit, config.seed)
    chosen = pd.concat([select.balance(train, config.per_genre, config.seed), valid])
    about = {
        "from": config.split_from.name,
        "not_in_split": int(side.isna().sum()),
        "not_in_table": len(placed) - int(side.notna().sum()),
        "not_chosen": int(side.notna().sum()) - len(chosen),
    }
    say(
        f"  sides from {about['from']}: {len(chosen):,} movies; left out: {about['not_in_split']:,} of the table that it does "
        f"not place, {about['not_chosen']:,} to train on by --limit or --per-genre; {about['not_in_table']:,} of its movies "
        "are not in the table"
    )
    return chosen.sort_values("item_id", kind="stable", ignore_index=True), about


def _split_file(config: Config) -> Path:
    """The split.csv that --split-from means. Raises InputError when a folder has none."""
    given = config.split_from
    file = given / "split.csv" if given.is_dir() else given
    if not file.is_file():
        raise InputError(f"--split-from {given}: no split.csv there; expected that file, or a model folder that has it")
    return file


def fetch_posters(data: Dataset, config: Config, say: Callable[[str], None] = print) -> Dataset:
    """The movies whose posters are on disk, after downloading those that are not. Raises InputError when there are none."""
    frame = data.frame
    about = dict(data.about)
    if config.download:
        options = DownloadOptions(connections=config.connections, timeout=config.timeout)
        manifest = download(frame, config.images, options, progress=progress, say=say)
        about["downloads"] = {str(k): int(v) for k, v in manifest["status"].value_counts().items()}
        there = frame["file"].isin(set(manifest.loc[manifest["status"] == "ok", "file"]))
    else:
        status = picture_status([config.images / name for name in frame["file"]])
        there = pd.Series([state == "ok" for state in status], index=frame.index)
        about["downloads"] = dict(Counter(status))
    rows = coverage(frame, set(frame.loc[there, "file"]))
    say(format_coverage(rows))
    about["coverage"] = rows.to_dict("records")
    have = frame[there].reset_index(drop=True)
    if have.empty:
        hint = (
            "see manifest.csv there for why"
            if config.download
            else "give the right --images, or leave out --no-download"
        )
        raise InputError(f"--images {config.images}: none of the {len(frame)} posters is there; {hint}")
    have["path"] = [config.images / name for name in have["file"]]
    kept = select.label_counts(have)
    gone = [label for label in data.labels if kept.get(label, 0) < 2]
    if gone:
        say(f"  left out, fewer than 2 posters each: {', '.join(gone)}")
        have = select.keep_common(have, min_count=2)
    return Dataset(have, sorted(set(data.labels) - set(gone)), about)


def picture_status(paths: list[Path]) -> list[str]:
    """`ok`, `not on disk`, or why `load_poster` refuses the file (`truncated`, `not_image`, `too_large`), for each path.

    Every picture is decoded: one bad file found now costs its row, found while training it would cost the run.
    """

    def status(path: Path) -> str:
        try:
            load_poster(path)
        except ImageError as error:
            return error.status
        except OSError:
            return "not on disk"
        return "ok"

    with progress(len(paths), "checking the posters") as bar, ThreadPoolExecutor(THREADS) as pool:
        found = []
        for state in pool.map(status, paths):
            found.append(state)
            bar.update(1)
    return found


def split_posters(data: Dataset, config: Config, say: Callable[[str], None] = print) -> Dataset:
    """The same movies with their side of the split, and the leak check."""
    paths = [Path(p) for p in data.frame["path"]]
    with progress(len(paths), "looking for near-identical posters") as bar:
        hashes = neardup.perceptual_hashes(paths, load_poster, bar=bar)
    frame = data.frame.copy()
    frame["hash"] = hashes
    frame["group"] = neardup.group_items(frame["item_id"], hashes, also=[frame["url"]])
    frame["is_valid"] = split.split_items(frame, frame["group"], data.labels, config.valid, config.seed)
    report = split.leak_check(frame["group"], frame["is_valid"], hashes)
    return _with_split(Dataset(frame, data.labels, data.about), report.sentence(), config, say)


def resume_split(data: Dataset, saved: Path, config: Config, say: Callable[[str], None] = print) -> Dataset:
    """The split an interrupted run began with, whatever has been downloaded since. Raises InputError if posters are gone."""
    sides = split.read_split(saved)
    frame = data.frame.merge(sides, on="item_id", how="inner", validate="one_to_one")
    if len(frame) < len(sides):
        raise InputError(
            f"--resume: {len(sides) - len(frame)} of the {len(sides)} posters that this run began with are not in "
            f"{config.images} any more; bring them back, or leave --resume out to begin anew"
        )
    report = split.leak_check(frame["group"], frame["is_valid"], frame["hash"].to_numpy())
    return _with_split(Dataset(frame, data.labels, data.about), report.sentence(), config, say)


def given_split(data: Dataset, config: Config, say: Callable[[str], None] = print) -> Dataset:
    """The same movies on the sides that --split-from gives them. Genres that nothing is left to learn from are dropped."""
    placed = split.read_split(_split_file(config))
    frame = data.frame.merge(placed, on="item_id", how="inner", validate="one_to_one")
    here, there = int(frame["is_valid"].sum()), int(placed["is_valid"].sum())
    if here < there:
        say(
            f"  only {here:,} of the {there:,} movies that {config.split_from.name} measures on are here: figures of models "
            "that were measured on all of them do not compare with these"
        )
    to_learn_from = set(select.label_counts(frame[~frame["is_valid"]]))
    gone = [label for label in data.labels if label not in to_learn_from]
    if gone:
        say(f"  left out, no poster to train on: {', '.join(gone)}")
        known = [tuple(label for label in labels if label in to_learn_from) for labels in frame["labels"]]
        frame = frame.assign(labels=pd.Series(known, index=frame.index, dtype=object))
        frame = frame[[bool(labels) for labels in known]].reset_index(drop=True)
    report = split.leak_check(frame["group"], frame["is_valid"], frame["hash"].to_numpy())
    labels = [label for label in data.labels if label in to_learn_from]
    return _with_split(Dataset(frame, labels, data.about), report.sentence(), config, say)


def count_seen(data: Dataset, trained_on: set[str] | None, say: Callable[[str], None] = print) -> Dataset:
    """With `seen_by_start` in `about`: how many of the movies to measure on the model of --start-from was trained on.

    `trained_on` are the ids of those that it was trained on, None if that cannot be known; then the count is None, too.
    """
    seen = None if trained_on is None else int(data.side(True)["item_id"].isin(trained_on).sum())
    if seen:
        say(
            f"  --start-from: {seen:,} of the {len(data.side(True)):,} movies to measure on were trained on by that model, so "
            "the figures will look too good; --split-from with the same folder keeps its sides"
        )
    return Dataset(data.frame, data.labels, data.about | {"seen_by_start": seen})


def _with_split(data: Dataset, sentence: str, config: Config, say: Callable[[str], None]) -> Dataset:
    n_valid = int(data.frame["is_valid"].sum())
    groups = int(data.frame["group"].nunique())
    sides = data.frame.groupby("is_valid")["group"].nunique()
    if sides.get(True, 0) < MIN_GROUPS or sides.get(False, 0) < MIN_GROUPS:
        raise InputError(
            f"{len(data.frame)} posters are too few: {n_valid} to measure on and {len(data.frame) - n_valid} to train on, "
            f"expected {MIN_GROUPS} or more unlike ones on each side; give more movies, a higher --limit, or another --valid"
        )
    say(f"  split: {len(data.frame) - n_valid} to train on, {n_valid} to measure on, {groups} groups. {sentence}")
    about = data.about | {
        "n_train": len(data.frame) - n_valid,
        "n_valid": n_valid,
        "n_groups": groups,
        "leak_check": [sentence],
        "split": data.about.get("split") or {"valid": config.valid, "seed": config.seed},
    }
    return Dataset(data.frame, data.labels, about)
