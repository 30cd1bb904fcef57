import hashlib
import http.client
import os
import subprocess
import sys
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
import requests
from PIL import Image

from lobbycard.catalog.drawing.poster import poster_title
from lobbycard.catalog.sample import (
    SAMPLE_COLUMNS,
    SAMPLE_LABELS,
    draw_poster,
    sample_movies,
    serve,
    write_sample,
)
from lobbycard.errors import InputError


def labels_of(genre):
    return tuple(name.strip() for name in genre.split("|")) if genre not in ("", "N/A") else ()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    write_sample(folder, n=450, seed=5)
    return folder


@pytest.fixture(scope="module")
def table(written):
    return pd.read_csv(written / "MovieGenre.csv", encoding="latin-1", keep_default_na=False)


def test_columns_are_those_of_the_kaggle_file_and_the_file_is_latin_1(written, table):
    assert tuple(table.columns) == SAMPLE_COLUMNS
    assert len(table) == 450
    raw = (written / "MovieGenre.csv").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    assert any(not title.isascii() for title in table["Title"])


def test_the_file_holds_the_table(table):
    made = sample_movies(450, seed=5)
    for column in SAMPLE_COLUMNS:
        read = pd.to_numeric(table[column]) if column == "IMDB Score" else table[column]
        pd.testing.assert_series_equal(read, made[column], check_dtype=False)


def counted(genres):
    counts = dict.fromkeys(SAMPLE_LABELS, 0)
    for genre in genres:
        for label in labels_of(genre):
            counts[label] += 1
    return counts


def test_every_label_has_50_movies_whose_poster_can_be_had(written, table):
    there = [bool(path) and (written / path).exists() for path in table["Poster"]]
    counts = counted(table[there].drop_duplicates("imdbId")["Genre"])
    assert min(counts.values()) >= 50, counts


@pytest.mark.parametrize("n", [450, 1200])
@pytest.mark.parametrize("seed", [0, 1])
def test_frequencies_are_as_uneven_as_real_ones(n, seed):
    counts = counted(sample_movies(n, seed)["Genre"])
    first, second = sorted(counts, key=counts.get, reverse=True)[:2]
    assert (first, second) == ("Drama", "Comedy")
    assert counts["Drama"] > 2 * counts["Western"]
    assert 0.3 < counts["Drama"] / n < 0.4


def test_labels_mix_as_real_ones_do():
    sets = [labels_of(genre) for genre in sample_movies(1200)["Genre"]]
    sizes = np.bincount([len(labels) for labels in sets])
    assert len(sizes) == 4
    assert sizes[2] > 400 and sizes[3] > 50
    together = sum("Comedy" in labels and "Romance" in labels for labels in sets)
    apart = sum("Documentary" in labels and "Romance" in labels for labels in sets)
    assert together > 60
    assert apart == 0


def test_the_table_has_each_of_the_faults_a_real_one_has(written, table):
    dead = [path for path in table["Poster"] if path and not (written / path).exists()]
    genres = table["Genre"]
    assert (genres == "").sum() == 2
    assert (genres == "N/A").sum() == 1
    assert (table["Poster"] == "").sum() == 2
    assert table["imdbId"].duplicated().sum() == 3
    assert (genres != genres.str.strip()).sum() == 7
    assert (table["IMDB Score"] == "").sum() == 15
    assert len(dead) == 4


def test_a_short_table_has_no_faults():
    movies = sample_movies(24)
    assert len(movies) == 24
    assert movies["imdbId"].is_unique
    assert movies["Genre"].map(labels_of).map(bool).all()
    assert (movies["Poster"] != "").all()


@pytest.mark.parametrize("n", [1, 2, 29, 30, 50, 201])
def test_any_number_of_rows_can_be_had(n):
    assert len(sample_movies(n, seed=2)) == n


@pytest.mark.parametrize("n", [0, -3])
def test_no_movies_is_an_error_that_says_what_to_give(n):
    with pytest.raises(InputError, match=f"at least 1 movie, {n} asked for. Give n=1 or more"):
        sample_movies(n)


def test_seed_decides():
    pd.testing.assert_frame_equal(sample_movies(100, seed=1), sample_movies(100, seed=1))
    assert not sample_movies(100, seed=1).equals(sample_movies(100, seed=2))


def test_a_poster_is_the_same_in_another_process_and_whatever_the_order_of_its_labels():
    here = draw_poster(["Comedy", "Romance"], 12)
    assert here.mode == "RGB" and here.size == (182, 268)
    assert draw_poster(("Romance", "Comedy"), 12).tobytes() == here.tobytes()
    assert draw_poster(["Comedy", "Romance"], 13).tobytes() != here.tobytes()
    program = (
        "import hashlib; from lobbycard.catalog.sample import draw_poster;"
        "draw_poster(['Horror'], 3);"
        "print(hashlib.sha256(draw_poster(['Romance', 'Comedy'], 12).tobytes()).hexdigest())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parents[1])}
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env).stdout
    assert there.strip() == hashlib.sha256(here.tobytes()).hexdigest()


@pytest.mark.parametrize("labels", [[], ["Drama", "Mime"]])
def test_a_label_nobody_can_draw_is_an_error_that_names_the_others(labels):
    with pytest.raises(InputError, match="one or more of Action, Animation, .*; got .*Give some of these"):
        draw_poster(labels, 1)


@pytest.mark.parametrize("label", SAMPLE_LABELS)
def test_every_label_draws_for_many_seeds_and_at_any_size(label):
    for seed in range(8):
        picture = draw_poster([label], seed, size=(91, 134))
        assert picture.size == (91, 134)
        assert np.asarray(picture).std() > 8


def test_labels_show_in_the_picture_but_not_by_a_flat_colour():
    """Half the posters of each label teach a nearest-mean classifier on 8 x 12 thumbnails, the others test it."""

    def thumbnail(label, seed):
        return np.asarray(draw_poster([label], seed).resize((8, 12), Image.Resampling.BOX), dtype=float).ravel()

    seeds = range(24)
    art = np.array([[thumbnail(label, seed) for seed in seeds] for label in SAMPLE_LABELS])
    centres = art[:, :12].mean(axis=1)
    gaps = ((art[:, 12:, None, :] - centres) ** 2).sum(axis=-1)
    share = (gaps.argmin(axis=-1) == np.arange(len(SAMPLE_LABELS))[:, None]).mean()
    assert share > 0.4  # of ten labels, so chance is 0.1
    assert share < 0.95  # a poster must be looked at, not only averaged
    spread = art.std(axis=1).mean(axis=1)
    assert spread.min() > 15, dict(zip(SAMPLE_LABELS, spread.round(), strict=True))


def test_labels_of_a_mixed_movie_both_leave_marks():
    """With one label swapped for another, and the seed kept, the picture changes in more than its grain."""
    for seed in range(5):
        both = np.asarray(draw_poster(["Horror", "Romance"], seed), dtype=float)
        one = np.asarray(draw_poster(["Horror"], seed), dtype=float)
        other = np.asarray(draw_poster(["Romance"], seed), dtype=float)
        assert np.abs(both - one).mean() > 10
        assert np.abs(both - other).mean() > 10


def test_only_the_intended_posters_are_near_duplicates(written, table):
    rows = table[table["Poster"] != ""].drop_duplicates("imdbId")
    rows = rows[[(written / path).exists() for path in rows["Poster"]]]
    bits = np.array([imagehash.phash(Image.open(written / path)).hash.ravel() for path in rows["Poster"]])
    near = (bits[:, None] != bits).sum(axis=2) <= 4
    pairs = np.argwhere(np.triu(near, k=1))
    labels, titles = rows["Genre"].map(labels_of).to_numpy(), rows["Title"].to_numpy()
    intended = [(a, b) for a, b in pairs if titles[a] == titles[b]]
    assert len(intended) == 9
    assert all(labels[a] == labels[b] for a, b in intended)
    assert len(pairs) - len(intended) <= 2
    first, second = intended[0]
    one, two = (written / rows["Poster"].iloc[k] for k in (first, second))
    assert one.read_bytes() != two.read_bytes()


def test_posters_are_kept_when_they_are_whole_and_drawn_anew_when_asked_for_others(tmp_path):
    csv = write_sample(tmp_path, n=6, seed=1)
    pictures = sorted((tmp_path / "images").glob("*.jpg"))
    before = {path.name: path.read_bytes() for path in pictures}
    assert [path.name for path in pictures] == [f"tt{k:07d}.jpg" for k in range(1, 7)]
    marked = pictures[0]
    marked.write_bytes(b"kept")
    pictures[1].unlink()  # as if a run had been killed before it
    write_sample(tmp_path, n=6, seed=1, base_url="http://127.0.0.1:9/")
    assert marked.read_bytes() == b"kept"
    assert pictures[1].read_bytes() == before[pictures[1].name]
    assert pd.read_csv(csv, encoding="latin-1")["Poster"][0] == "http://127.0.0.1:9/images/tt0000001.jpg"
    write_sample(tmp_path, n=4, seed=2)
    after = {path.name: path.read_bytes() for path in (tmp_path / "images").glob("*.jpg")}
    assert sorted(after) == [f"tt{k:07d}.jpg" for k in range(1, 5)]
    assert all(after[name] != before[name] for name in after)


def test_a_folder_of_other_pictures_is_left_alone(tmp_path):
    (tmp_path / "images").mkdir()
    mine = tmp_path / "images" / "tt0111161.jpg"
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match="wants an empty folder, or one it wrote itself; .*Name another folder"):
        write_sample(tmp_path, n=3)
    assert mine.read_bytes() == b"mine"


def test_the_server_gives_the_bytes_and_404_for_dead_links(tmp_path):
    with serve(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        csv = write_sample(tmp_path, n=100, seed=4, base_url=url)
        links = pd.read_csv(csv, encoding="latin-1")["Poster"].dropna()
        assert links.str.startswith(f"{url}/images/tt").all()
        dead = []
        with requests.Session() as session:
            for link in links:
                path = tmp_path / "images" / link.rsplit("/", 1)[1]
                answer = session.get(link, timeout=10)
                if answer.status_code == 404:
                    dead.append(link)
                    continue
                assert answer.headers["Content-Type"] == "image/jpeg"
                assert answer.content == path.read_bytes()
        assert len(dead) == 1
    with pytest.raises(requests.ConnectionError):
        requests.get(links.iloc[0], timeout=10)


def test_the_server_keeps_a_connection_open(tmp_path):
    write_sample(tmp_path, n=2)
    with serve(tmp_path) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        connection.request("GET", "/images/tt0000001.jpg")
        connection.getresponse().read()
        used = connection.sock.getsockname()
        connection.request("GET", "/images/tt0000002.jpg")
        assert connection.getresponse().read() == (tmp_path / "images" / "tt0000002.jpg").read_bytes()
        assert connection.sock.getsockname() == used
        connection.close()


def test_titles_fit_latin_1_and_some_need_it():
    titles = [poster_title(seed) for seed in range(400)]
    assert 3 < sum(not title.isascii() for title in titles) < 40
    assert all(title.encode("latin-1") for title in titles)
