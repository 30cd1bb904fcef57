"""The embedded sample: a movie table and its posters, made by code, and a server on loopback to fetch them from.

It stands in for the Kaggle file where no data is at hand, so it has that file's columns, encoding and,
in small measure, its faults.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread

import pandas as pd
from PIL import Image

from lobbycard.catalog.drawing.poster import DRAWING_VERSION, POSTER_SIZE, draw_poster, poster_title
from lobbycard.catalog.drawing.shapes import MOTIFS
from lobbycard.errors import InputError
from lobbycard.files import atomic_path, write_text

__all__ = ["SAMPLE_COLUMNS", "SAMPLE_LABELS", "draw_poster", "sample_movies", "serve", "write_sample"]

SAMPLE_COLUMNS = ("imdbId", "Imdb Link", "Title", "IMDB Score", "Genre", "Poster")
SAMPLE_LABELS = tuple(sorted(MOTIFS))
SAMPLE_MOVIES = 1200

# Shares, adding up to 1030. Drama and Comedy lead as in the Kaggle file; what is rarest there, Western, is thickened
# until every label has 50 usable movies in a table of 450.
_COMBINATIONS = {
    "Drama": 40,
    "Drama|Romance": 60,
    "Comedy|Drama": 50,
    "Comedy|Drama|Romance": 40,
    "Drama|Thriller": 25,
    "Comedy": 30,
    "Comedy|Romance": 40,
    "Animation|Comedy": 65,
    "Animation": 30,
    "Action|Animation": 25,
    "Animation|Sci-Fi": 20,
    "Action": 20,
    "Action|Thriller": 30,
    "Action|Sci-Fi": 30,
    "Action|Sci-Fi|Thriller": 20,
    "Action|Drama": 25,
    "Action|Comedy": 15,
    "Horror": 35,
    "Horror|Thriller": 45,
    "Horror|Sci-Fi": 25,
    "Drama|Horror|Thriller": 20,
    "Comedy|Horror": 15,
    "Sci-Fi": 20,
    "Drama|Sci-Fi": 25,
    "Documentary": 85,
    "Comedy|Documentary": 15,
    "Documentary|Drama": 40,
    "Western": 45,
    "Drama|Western": 45,
    "Action|Western": 30,
    "Comedy|Western": 10,
    "Romance|Western": 10,
}

# The faults of the table: one row in so many. A table too short for one of them goes without.
_RARITY = {
    "no genre": 200,
    "no poster": 200,
    "genre N/A": 300,
    "dead link": 100,
    "near-duplicate": 50,
    "repeated id": 150,
    "spaces": 60,
    "no score": 30,
}


@dataclass(frozen=True)
class _Movie:
    number: int
    labels: tuple[str, ...]
    art: int  # seed of the poster; a near-duplicate has its original's
    title: str
    score: float
    fault: str = ""


def _cast(n: int, seed: int) -> list[_Movie]:
    if n < 1:
        raise InputError(
            f"The sample needs at least 1 movie, {n} asked for. Give n=1 or more; {SAMPLE_MOVIES} is usual."
        )
    rng = random.Random(f"sample {seed}")
    total = sum(_COMBINATIONS.values())
    steps, passed = [], 0
    for names, share in _COMBINATIONS.items():
        # Rounding the running total, not each share: the shares hold to within one movie and add up to n.
        passed += share
        steps += [tuple(names.split("|"))] * (round(n * passed / total) - len(steps))
    rng.shuffle(steps)
    movies = []
    for number, labels in enumerate(steps, start=1):
        art = seed * 10_000_019 + number
        title = f"{poster_title(art)} ({rng.randint(1931, 2016)})"
        movies.append(_Movie(number, labels, art, title, round(min(9.3, max(1.8, rng.gauss(6.4, 1.1))), 1)))

    places = rng.sample(range(1, n), n - 1)
    for fault, rarity in _RARITY.items():
        for _ in range(n // rarity):
            place = places.pop()
            if fault == "near-duplicate":
                first = movies[places.pop()]
                again = replace(movies[place], labels=first.labels, art=first.art, title=first.title, fault=fault)
                movies[place] = again
            elif fault == "repeated id":
                movies[place] = replace(movies[places.pop()], fault=fault)
            else:
                movies[place] = replace(movies[place], fault=fault)
    return movies


def sample_movies(n: int = SAMPLE_MOVIES, seed: int = 0) -> pd.DataFrame:
    """The sample's movie table, faults and all.

    Parameters
    ----------
    n
        Rows. From 450 on every label has at least 50 movies whose poster can be had.
    seed
        Another seed gives other movies, the labels mixed in the same shares.

    Returns
    -------
    `SAMPLE_COLUMNS`; text is "" where it is missing. `Poster` is the picture's path below the sample's folder.

    Raises
    ------
    InputError
        If n is below 1.
    """
    rows = []
    for movie in _cast(n, seed):
        genre = "|".join(movie.labels)
        genre = {"no genre": "", "genre N/A": "N/A", "spaces": f" {genre.replace('|', ' | ')} "}.get(movie.fault, genre)
        rows.append(
            (
                movie.number,
                f"http://www.imdb.com/title/tt{movie.number}",
                movie.title,
                float("nan") if movie.fault == "no score" else movie.score,
                genre,
                "" if movie.fault == "no poster" else f"images/{_file_name(movie)}",
            )
        )
    return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))


def write_sample(folder: Path, n: int = SAMPLE_MOVIES, seed: int = 0, base_url: str = "") -> Path:
    """Draw the sample into a folder: `images/tt*.jpg` and `MovieGenre.csv`, in Latin-1 as Kaggle's.

    Posters drawn before, by the same version of the drawing, are kept; the table is always written anew.

    Parameters
    ----------
    base_url
        What the table's Poster paths begin with, e.g. what `serve` yields; "" leaves them relative.

    Returns
    -------
    Path of the table.

    Raises
    ------
    InputError
        If n is below 1, or the folder holds posters that are not a sample's.
    """
    folder = Path(folder)
    movies = _cast(n, seed)
    images, stamp_path = folder / "images", folder / "sample.json"
    stamp = {"n": n, "seed": seed, "drawing": DRAWING_VERSION}
    images.mkdir(parents=True, exist_ok=True)
    if not stamp_path.exists():
        if any(images.iterdir()) or (folder / "MovieGenre.csv").exists():
            raise InputError(
                f"The sample wants an empty folder, or one it wrote itself; {images} holds other files. "
                "Name another folder."
            )
    elif _stamp_in(stamp_path) != stamp:
        for old in images.glob("tt*.jpg"):
            old.unlink()
    # Each picture is written whole or not at all, so those standing under this stamp can be trusted.
    write_text(stamp_path, json.dumps(stamp))
    for movie in movies:
        path = images / _file_name(movie)
        if movie.fault not in ("dead link", "no poster") and not path.exists():
            with atomic_path(path) as part:
                part.write_bytes(_encode_poster(movie))
    table = sample_movies(n, seed)
    if base_url:
        table["Poster"] = [f"{base_url.rstrip('/')}/{path}" if path else "" for path in table["Poster"]]
    csv = folder / "MovieGenre.csv"
    with atomic_path(csv) as part:
        table.to_csv(part, index=False, lineterminator="\n", encoding="latin-1")
    return csv


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on this machine alone, on a free port.

    Yields
    ------
    The address, "http://127.0.0.1:<port>", without a slash at the end.
    """
    with _Server(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # the default, 5, makes a downloader's first burst of connections wait a second


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as the real hosts' do
    timeout = 30
    # Head and body in one packet: sent apart, the second waits 40 ms for the first one's receipt.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass


def _stamp_in(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is damaged ({error}); delete the folder {path.parent}, the sample is drawn again"
        ) from error


def _file_name(movie):
    return f"tt{movie.number:07d}.jpg"


def _encode_poster(movie):
    rng = random.Random(f"print {movie.number} {movie.art}")
    picture = draw_poster(movie.labels, movie.art)
    if movie.fault == "near-duplicate":
        smaller = [round(side * rng.uniform(0.8, 0.95)) for side in POSTER_SIZE]
        picture = picture.resize(smaller, Image.Resampling.BICUBIC)
    data = BytesIO()
    picture.save(data, "JPEG", quality=rng.randint(62, 93))
    return data.getvalue()
