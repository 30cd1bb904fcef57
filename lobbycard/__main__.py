"""python -m lobbycard: everything but training, from the command line."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lobbycard.cluster import Engine
from lobbycard.errors import InputError
from lobbycard.files import check_destination
from lobbycard.front import front_door
from lobbycard.poster.config import SAMPLE, Config

Runtime = Literal["auto", "onnx", "torch", "fastai"]
Precision = Literal["fp32", "fast"]
Model = Annotated[Path, tyro.conf.arg(help="model folder, or a fastai learner (.pkl)")]
app = tyro.extras.SubcommandApp()


@app.command
def predict(
    inputs: tyro.conf.Positional[tuple[str, ...]],
    /,
    model: Model,
    out: Path | None = None,
    images: Path | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    shift: float = 0.0,
    tta: bool = False,
    runtime: Runtime = "auto",
    precision: Precision = "fp32",
    trust: bool = False,
    engine: Engine = "local",
) -> None:
    """Genres of pictures, folders of pictures, or the posters of a movie table, as CSV.

    A picture that cannot be read is one row with its error, and the run goes on.

    Args:
        inputs: pictures, folders, or movie tables (.csv)
        out: the CSV to write; standard output if not given
        images: where a table's posters lie; the folder images/ beside the table if not given
        top_k: at most this many genres a poster
        threshold: one threshold for all genres, 0 to 1, instead of the model's own
        shift: move all thresholds, in log-odds; above 0 gives fewer genres, below 0 more
        tta: average over three views of each poster, at three times the cost
        runtime: auto takes what was measured to be fastest
        precision: fast computes in int8 (ONNX Runtime) or bf16 (PyTorch)
        trust: --model is a fastai learner (.pkl) without its folder, and the code in it may run
        engine: ray spreads the work over a Ray cluster, that of RAY_ADDRESS or one started here
    """
    from lobbycard.poster.answers import Choice, find_pictures, write_answers
    from lobbycard.poster.predictor import PosterPredictor

    pictures = find_pictures(inputs, images)
    if out is not None:
        check_destination(out, map(Path, inputs))
    predictor = PosterPredictor.load(model, runtime, trust, precision)
    failed = write_answers(predictor, pictures, out, Choice(top_k, threshold, shift), tta, engine)
    if failed:
        print(f"{failed} of {len(pictures)} pictures could not be read: see the error column", file=sys.stderr)
    if failed == len(pictures):
        raise SystemExit(1)


@app.command
def evaluate(
    model: Model,
    csv: Path,
    images: Path,
    json: Path | None = None,
    tta: bool = False,
    runtime: Runtime = "auto",
    precision: Precision = "fp32",
    trust: bool = False,
) -> None:
    """Measure a model folder on any movie table, beside what no skill scores.

    Args:
        csv: movie table in the Kaggle file's columns
        images: folder of its posters, tt<imdbId>.jpg
        json: where to write the numbers
        tta: average over three views of each poster
        runtime: auto takes what was measured to be fastest
        precision: fast computes in int8 (ONNX Runtime) or bf16 (PyTorch)
        trust: --model is a fastai learner (.pkl) without its folder, and the code in it may run
    """
    from lobbycard.poster.evaluation import evaluate_model, write_evaluation
    from lobbycard.poster.predictor import PosterPredictor
    from lobbycard.report.words import metrics_table

    predictor = PosterPredictor.load(model, runtime, trust, precision)
    if json is not None:
        check_destination(json, [csv, *predictor.folder.all_files])
    found = evaluate_model(predictor, csv, images, tta=tta)
    print(f"\n{found['n']} posters\n{metrics_table(found['metrics'], found['baselines'])}")
    if json is not None:
        write_evaluation(found, json)


@app.command
def compare(
    models: tyro.conf.Positional[tuple[Path, ...]],
    /,
    csv: Path,
    images: Path,
    json: Path | None = None,
    tta: bool = False,
    runtime: Runtime = "auto",
    precision: Precision = "fp32",
    trust: bool = False,
) -> None:
    """Tell which model is better, by how much and at which genres, on movies that none of them was trained on.

    Args:
        models: model folders, or fastai learners (.pkl); the others are measured against the first
        csv: movie table in the Kaggle file's columns; movies that a model was trained on are left out
        images: folder of its posters, tt<imdbId>.jpg
        json: where to write the numbers
        tta: average over three views of each poster
        runtime: auto takes what was measured to be fastest
        precision: fast computes in int8 (ONNX Runtime) or bf16 (PyTorch)
        trust: a fastai learner (.pkl) is given without its folder, and the code in it may run
    """
    from lobbycard.poster.comparison import compare_models, open_models
    from lobbycard.poster.evaluation import write_evaluation
    from lobbycard.report.comparison import comparison_text

    predictors = open_models(models, runtime, trust, precision)
    if json is not None:
        check_destination(json, [csv, *(file for one in predictors.values() for file in one.folder.all_files)])
    found = compare_models(predictors, csv, images, tta)
    print(f"\n{comparison_text(found, 'poster', 'genre')}")
    if json is not None:
        write_evaluation(found, json)


@app.command
def download(
    csv: Path,
    images: Path = Config.images,
    connections: int = Config.connections,
    timeout: float = Config.timeout,
    retry_permanent: bool = False,
    engine: Engine = "local",
) -> None:
    """Fetch the posters of a movie table, resumable; manifest.csv tells how each one ended.

    Args:
        csv: movie table in the Kaggle file's columns
        images: folder to put them in
        connections: open connections a host
        timeout: seconds to wait for a host
        retry_permanent: also try again what was missing or refused before
        engine: ray spreads the work over a Ray cluster, whose machines all see --images; connections are those of all together
    """
    from lobbycard.catalog.download import DownloadOptions, coverage, format_coverage
    from lobbycard.catalog.download import download as fetch
    from lobbycard.catalog.table import read_table
    from lobbycard.progress import progress

    table = read_table(csv)
    print(table.summary())
    options = DownloadOptions(connections=connections, timeout=timeout, retry_permanent=retry_permanent)
    settle = None
    if engine == "ray":
        from lobbycard.catalog.spread import settle_on_ray as settle
    manifest = fetch(table.frame, images, options, progress=progress, settle=settle)
    have = set(manifest.loc[manifest["status"] == "ok", "file"])
    print(format_coverage(coverage(table.frame, have)))
    if not have:
        raise SystemExit(1)  # the summary above says why


@app.command
def sample(out: Path = Path("data/sample"), n: int = SAMPLE["limit"], seed: int = Config.seed) -> None:
    """Draw the embedded sample: posters made by code, and their movie table.

    Args:
        out: folder for images/ and MovieGenre.csv
        n: movies
        seed: of everything drawn at random
    """
    from lobbycard.catalog.sample import write_sample

    print(write_sample(out, n=n, seed=seed))


@app.command
def space(
    model: Model,
    out: Path = Path("space"),
    precision: Precision = "fp32",
    examples: tuple[Path, ...] = (),
    title: str = "",
    model_only: bool = False,
    push: str = "",
    private: bool = False,
) -> None:
    """Stage a Hugging Face Space: a folder with page, API, model and nothing else; --push uploads it.

    Args:
        out: the folder to make; a Space staged there before is renewed, anything else is left alone
        precision: fast takes the int8 network, a quarter of the size and quicker
        examples: pictures, or folders of them, that visitors may pick; posters belong to their studios, so by default only a
            model of the drawn sample gets some
        title: of the Space; by default the one it has, or "Poster genres"
        model_only: only put the model and its card into a Space that is staged there already
        push: upload it as this Space, user/name, wait until it runs, and ask it for one prediction
        private: make the Space one that only its owners see
    """
    from lobbycard.web.hub import check_name
    from lobbycard.web.hub import push as upload
    from lobbycard.web.space import Wording, next_steps, stage, stage_model

    def drawn(labels):
        from lobbycard.catalog.sample import draw_poster

        # The sample's own seeds begin with those of its movies, so none of these was trained on
        shown = [("Western",), ("Documentary",), ("Action", "Sci-Fi"), ("Comedy", "Romance")]
        for seed, genres in enumerate(shown, start=900_000_001):
            if set(genres) <= set(labels):
                yield "-".join(genres).lower(), draw_poster(genres, seed)

    if push:
        check_name(push)
    words = Wording(
        title="Poster genres",
        short_description="A film's genres from its poster, with honest odds",
        nouns=("poster", "genres"),
    )
    if model_only:
        if examples or title:
            raise InputError("--model-only leaves examples and title as they are; leave them or --model-only out")
        stage_model(model, out, precision, words, push)
    else:
        stage(model, out, precision, examples, title, words, push, drawn)
    print(next_steps(out, push))
    if push:
        print(upload(out, push, private))


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; user errors are one line and status 2."""
    with front_door():
        app.cli(prog="python -m lobbycard", args=arguments)


if __name__ == "__main__":
    main()
