"""`--split-from`: two models measured on the same movies, on drawn posters with a tiny network."""

import json

import pandas as pd
import pytest

from lobbycard.catalog.split import read_split
from lobbycard.errors import InputError
from lobbycard.poster.config import parse
from lobbycard.poster.trainer import MovieGenreTrainer

from .conftest import TINY

pytestmark = pytest.mark.filterwarnings("ignore")


def placed(drawn, tmp_path, given, said=None, **settings):
    """A trainer that has split."""
    trainer = MovieGenreTrainer(
        csv=settings.pop("csv", drawn / "MovieGenre.csv"), images=drawn / "images", out=tmp_path / "model",
        **{**TINY, "split_from": given, **settings}, say=(said if said is not None else []).append,
    )  # fmt: skip
    trainer.load()
    trainer.download()
    trainer.split()
    return trainer


def sides(frame: pd.DataFrame) -> dict[str, bool]:
    return dict(zip(frame["item_id"], frame["is_valid"], strict=True))


def write(path, rows):
    path.write_text("\n".join(["item_id,side,group,hash", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["", "split.csv"], ids=["model folder", "file"])
def test_another_seed_and_share_get_the_sides_of_the_file(trained, drawn, tmp_path, name):
    trainer = placed(drawn, tmp_path, trained.config.out / name, seed=5, valid=0.5)
    assert sides(trainer.data.frame) == sides(read_split(trained.config.out / "split.csv"))
    assert trainer.data.digest == trained.data.digest
    # In the same order, so that cross-fitting deals out the same folds.
    assert list(trainer.data.frame["item_id"]) == list(trained.data.frame["item_id"])


def test_model_json_says_where_the_sides_came_from(trained, drawn, tmp_path):
    trainer = placed(drawn, tmp_path, trained.config.out, strategy="probe")
    trainer.fit()
    trainer.evaluate()
    trainer.export()
    about = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    theirs = json.loads((trained.config.out / "model.json").read_text(encoding="utf-8"))
    assert about["data"]["split"]["from"] == about["config"]["split_from"] == trained.config.out.name
    assert about["data"]["split"]["sha256"] == theirs["data"]["split"]["sha256"]
    assert str(trained.config.out.parent) not in json.dumps(about)


def test_balancing_leaves_the_measuring_side_whole(trained, drawn, tmp_path):
    whole = sides(read_split(trained.config.out / "split.csv"))
    trainer = placed(drawn, tmp_path, trained.config.out, per_genre=5, limit=100)
    found = sides(trainer.data.frame)
    assert {i for i, valid in found.items() if valid} == {i for i, valid in whole.items() if valid}
    assert sum(not valid for valid in found.values()) < 100
    assert trainer.data.about["split"]["not_chosen"] == len(whole) - len(found)


def test_movies_that_the_file_does_not_place_are_left_out_and_counted(trained, drawn, tmp_path):
    rows = (trained.config.out / "split.csv").read_text(encoding="utf-8").splitlines()[1:]
    given = write(tmp_path / "some.csv", [*rows[20:], "tt9999999,valid,9999,00ff00ff00ff00ff"])
    trainer = placed(drawn, tmp_path, given, said := [])
    assert len(trainer.data.frame) == len(rows) - 20
    counts = trainer.data.about["split"]
    assert counts["not_in_split"] >= 20 and counts["not_in_table"] == 1
    assert any(f"left out: {counts['not_in_split']} of the table that it does not place" in line for line in said)
    assert any("movies that some.csv measures on are here: figures" in line for line in said)


def test_a_genre_without_a_training_movie_is_left_out(trained, drawn, tmp_path):
    frame, genre = trained.data.frame, trained.data.labels[0]
    has = dict(zip(frame["item_id"], [genre in labels for labels in frame["labels"]], strict=True))
    rows = (trained.config.out / "split.csv").read_text(encoding="utf-8").splitlines()[1:]
    given = write(
        tmp_path / "odd.csv", [row.replace(",train,", ",valid,") if has[row.partition(",")[0]] else row for row in rows]
    )
    trainer = placed(drawn, tmp_path, given, said := [])
    assert trainer.data.labels == trained.data.labels[1:]
    assert (trainer.data.prior > 0).all() and trainer.data.truth.any(axis=1).all()
    assert f"  left out, no poster to train on: {genre}" in said


def test_no_movie_of_the_table_is_an_error_in_words(drawn, tmp_path):
    given = write(
        tmp_path / "other.csv", [f"tt99999{i:02d},{'valid' if i % 2 else 'train'},{i},{i:016x}" for i in range(40)]
    )
    with pytest.raises(
        InputError, match=r"other.csv: of its 40 movies 0 to train on and 0 to measure on are in .*MovieGenre.csv"
    ):
        placed(drawn, tmp_path, given)


@pytest.mark.parametrize("what", ["nowhere", "images"])
def test_no_split_there_is_an_error_in_words(drawn, tmp_path, what):
    with pytest.raises(InputError, match="no split.csv there; expected that file, or a model folder that has it"):
        placed(drawn, tmp_path, drawn / what)


def test_too_few_on_a_side_is_an_error(trained, drawn, tmp_path):
    rows = (trained.config.out / "split.csv").read_text(encoding="utf-8").splitlines()[1:]
    few = [row for row in rows if ",valid," in row][:5] + [row for row in rows if ",train," in row]
    with pytest.raises(InputError, match="posters are too few: 5 to measure on"):
        placed(drawn, tmp_path, write(tmp_path / "few.csv", few))


def test_the_flag_is_read(tmp_path):
    assert parse(["--csv", "t.csv", "--split-from", str(tmp_path)]).split_from == tmp_path
