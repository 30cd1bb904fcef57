"""Front door 2: a page where one drops a poster and understands the answer, with a REST API beside it.

python app_gradio.py                             # the model that was trained here last, at http://127.0.0.1:7860
python app_gradio.py --model models/poster-genres --share
python app_gradio.py --help
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lobbycard.catalog.image import ImageError, Source
from lobbycard.errors import InputError
from lobbycard.front import front_door
from lobbycard.poster.answers import Choice
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.web.address import check_environment
from lobbycard.web.opening import Loading, credentials, find_examples, newest_model, only_precision, readable
from lobbycard.web.service import Answer, Limits, Service
from lobbycard.web.words import Words

if TYPE_CHECKING:
    import gradio

HERE = Path(__file__).resolve().parent
WORDS = Words("poster", "posters", "genre", "genres")
TITLE = "Lobbycard: what kind of film is this?"
MANY = 200  # posters at once
QUEUE = 128  # events that wait before the next visitor is told to come again
# Events at work at once, over all visitors. Measured with 16 clients on 2 busy cores: 9.1 posters a second at 1, 10.0 at 4
# and at 8, 9.6 at 16, 9.1 at 32; half of the answers came within 1.6 s at 1 and 1.3 s at 8.
CONCURRENCY = 8
REMEMBERED = 600  # seconds that the sliders can decide anew about a poster, from a thumbnail in memory
LIMITS = (
    "It sees the poster alone: not the title as text, the plot, the cast or the year.",
    "Any picture gets an answer. For one that is no film poster, the answer means nothing.",
    "It suggests; a person decides. It says nothing about a film's quality or whom it suits.",
)
KNOWS = "This model has only seen posters drawn by code. What it says of a real poster means nothing."
DRAWN = "It was trained on posters drawn by code: a demonstration, of no use on real posters."


class GradioPredictor(Service):
    """A model ready to answer page, API and code alike: a model folder, or a fastai learner (`.pkl`)."""

    item_noun = WORDS.item

    def __init__(
        self,
        model: Path | str,
        runtime: str = "auto",
        precision: str = "fp32",
        trust: bool = False,
        limits: Limits | None = None,
    ):
        """Load it.

        Args:
            runtime: `auto`, `onnx`, `torch` or `fastai`.
            precision: `fp32`, or `fast` for int8 or bf16, whichever the runtime has.
            trust: a learner without its model folder may run the code in it.

        Raises:
            InputError: no model there, or it cannot run here.
        """
        super().__init__(PosterPredictor.load(model, runtime, trust, precision), limits)

    def predict_proba(self, images: Iterable[Source], tta: bool = False) -> np.ndarray:
        """Probabilities, (N, L) float32, one row an image. Raises ImageError at the first that cannot be read."""
        return self.predictor.predict_proba(images, tta)

    def predict(
        self,
        image: Source,
        top_k: int | None = None,
        threshold: float | None = None,
        shift: float = 0.0,
        tta: bool = False,
    ) -> Answer:
        """The genres of one poster. Raises ImageError, or InputError for a choice that means nothing."""
        [reading] = self.read([image], tta)
        if reading.error:
            raise ImageError(reading.status, reading.error)
        return self.answer(reading, Choice(top_k, threshold, shift))


def build_demo(predictor: GradioPredictor, examples: Sequence[Path] = ()) -> "gradio.Blocks":
    """The page. Nothing is loaded and nothing read but the `examples`, where there are any."""
    import gradio as gr

    from lobbycard.poster.explain import heat_maps, overlay, verdict
    from lobbycard.web import stage
    from lobbycard.web.about import about_html, views_words
    from lobbycard.web.bars import problem_html
    from lobbycard.web.page import Page, Visit, choice_of
    from lobbycard.web.uploads import KEEP, Blocks
    from lobbycard.web.words import engine

    page = Page(predictor, WORDS, (heat_maps, overlay, verdict))
    about, n = predictor.predictor.folder.about, len(predictor.labels)
    drawn = bool((about.get("data") or {}).get("drawn"))
    shown_examples = readable(examples)
    examples = [path for path, _ in shown_examples]
    html = partial(gr.HTML, apply_default_css=False)
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    chosen = lambda *controls: choice_of(*controls, n)  # noqa: E731

    def read(visit: Visit, dropped: Any, tta: bool, *controls):
        """A poster came in. The drop zone is emptied for the next one: its file is gone, and the page shows its own copy."""
        if dropped is None:
            return [gr.skip()] * 6
        [upload] = demo.uploads(dropped)
        try:
            shown = page.read(visit, upload.take(), upload.name, chosen(*controls), tta)
        except InputError as error:
            visit.reading, shown = None, ("", "", problem_html(str(error)))
        return visit, visit.reading is not None, None, *shown

    def read_example(visit: Visit, tta: bool, *controls_and_click):
        *controls, click = controls_and_click
        if not isinstance(click, int) or not 0 <= click < len(examples):
            raise gr.Error(f"expected an example from 0 to {len(examples) - 1}", print_exception=False)
        shown = page.read(visit, examples[click], examples[click].name, chosen(*controls), tta)
        return visit, visit.reading is not None, *shown

    def picked(event: gr.EventData) -> int:
        return event.index

    # The page knows whether it shows an answer, also when the visit has been forgotten here. Returning the visit starts its
    # time anew.
    def decide(visit: Visit, answered: bool, *controls):
        return visit, page.decide(visit, chosen(*controls)) if visit.reading or answered else gr.skip()

    def look_again(visit: Visit, answered: bool, tta: bool, *controls):
        return visit, page.look_again(visit, chosen(*controls), tta) if visit.reading or answered else gr.skip()

    def maps(visit: Visit):
        html = page.maps(visit)
        return gr.skip() if html is None else html

    def read_many(dropped: Any, tta: bool, *controls):
        uploads = demo.uploads(dropped)
        if len(uploads) > MANY:
            for upload in uploads:
                upload.take()
            yield None, problem_html(f"{len(uploads)} posters, at most {MANY} at once; send them in parts"), ""
            return
        for progress, gallery in page.many(uploads, chosen(*controls), tta):
            demo.keep_waiting(dropped)
            yield gr.skip() if gallery is None else None, progress, gr.skip() if gallery is None else gallery

    def predict(
        image: Any,
        top_k: float | None = None,
        threshold: float | None = None,
        shift: float = 0.0,
        tta: bool = False,
    ) -> dict:
        """Genres of one poster, for programs."""
        if image is None:
            raise gr.Error("no picture came; give one with handle_file('poster.jpg')", print_exception=False)
        [upload] = demo.uploads(image)
        try:
            choice = Choice(None if top_k is None else int(top_k), threshold, shift or 0.0)
            return page.result(upload.take(), upload.name, choice, bool(tta))
        except (InputError, TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    with Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, KEEP)) as demo:
        visit = gr.State(Visit(), time_to_live=REMEMBERED)
        answered = gr.Checkbox(False, visible=False)
        html(MARQUEE, elem_id="marquee")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("One poster"), gr.Row(elem_id="one"):
                with gr.Column(elem_id="stage", min_width=280):
                    with gr.Column(elem_id="frame"):
                        picture, layers = html(elem_id="picture"), html(elem_id="maps")
                    drop = gr.Image(
                        label="Poster",
                        show_label=False,
                        sources=["upload", "webcam", "clipboard"],
                        placeholder="# Drop a poster here\nor tap to choose one. Pasting works too.",
                        elem_id="drop",
                        buttons=[],
                    )
                with gr.Column(elem_id="program", min_width=280):
                    answer = html(WELCOME, elem_id="answer")
                    html(f"<p>{KNOWS}</p>", elem_id="knows", visible=drawn)
                    with gr.Accordion("Adjust the answer", open=False, elem_id="controls"):
                        shift = gr.Slider(
                            -3, 3, 0, step=0.1, label="Bolder or stricter",
                            info="Left: more genres, right: fewer. Moves every genre's own threshold, in log-odds.",
                        )  # fmt: skip
                        top_k = gr.Slider(1, n, n, step=1, label="At most this many genres")
                        alike = gr.Checkbox(False, label="One threshold for all genres", info=ALIKE)
                        threshold = gr.Slider(0, 1, 0.5, step=0.01, label="That threshold", visible=False)
                        tta = gr.Checkbox(
                            False,
                            label="Look three times",
                            info=f"As it is, mirrored, and cropped: {views_words(about.get('modes') or {}, WORDS)}.",
                        )
                    pick = html(
                        stage.examples_html([(path.stem, picture) for path, picture in shown_examples], WORDS),
                        js_on_load=stage.EXAMPLES_JS,
                        elem_id="examples",
                        visible=bool(examples),
                    )
            with gr.Tab("Many posters"):
                html(f'<p class="lead">Up to {MANY} at once. One that cannot be read does not stop the rest.</p>')
                drops = gr.File(label="Posters", file_count="multiple", elem_id="drops", height=170)
                progress, gallery = html(elem_id="progress"), html(elem_id="gallery")
            with gr.Tab("About this model"):
                limits = (DRAWN, *LIMITS) if drawn else LIMITS
                html(about_html(about, WORDS, limits, engine(predictor.predictor)), elem_id="about")
        html(FOOTER, js_on_load=FOOTER_JS, elem_id="footer")

        controls = [top_k, alike, threshold, shift]
        shown = [picture, layers, answer]
        came = drop.input(
            read, [visit, drop, tta, *controls], [visit, answered, drop, *shown], api_visibility="private",
            show_progress="minimal", show_progress_on=answer, trigger_mode="multiple", preprocess=False,
        )  # fmt: skip
        clicked = gr.Number(visible=False, precision=0)
        went = pick.click(picked, None, clicked, trigger_mode="multiple", **quiet).then(
            read_example, [visit, tta, *controls, clicked], [visit, answered, *shown], trigger_mode="multiple", **quiet
        )
        for event in (came, went):
            # The page itself lets few wait: in the queue, maps would stand in the way of answers.
            event.then(maps, visit, layers, concurrency_limit=None, trigger_mode="multiple", **quiet)
        # One listener for all: with one each, the answer to an earlier move might come after that to a later one.
        moved = [control.input for control in (shift, top_k, threshold, alike)]
        gr.on(moved, decide, [visit, answered, *controls], [visit, answer], trigger_mode="always_last", **quiet)
        alike.input(lambda on: gr.Slider(visible=bool(on)), alike, threshold, **quiet)
        tta.input(look_again, [visit, answered, tta, *controls], [visit, answer], **quiet)
        demo.unload(demo.forget)
        drops.upload(
            read_many,
            [drops, tta, *controls],
            [drops, progress, gallery],
            concurrency_limit=4,
            preprocess=False,
            **quiet,
        )

        with gr.Column(visible=False):
            image = gr.Image(label="image")
            numbers = [gr.Number(label="top_k"), gr.Number(label="threshold"), gr.Number(0.0, label="shift")]
            views, found = gr.Checkbox(False, label="tta"), gr.JSON(label="answer")
            gr.Button().click(predict, [image, *numbers, views], found, api_name="predict", preprocess=False)
    demo.queue(max_size=QUEUE, default_concurrency_limit=CONCURRENCY)
    return demo


ALIKE = "In place of each genre's own; the slider for bolder or stricter then does nothing."
MARQUEE = """<header class="foyer"><div class="bulbs" aria-hidden="true"></div><div class="sign">
<p class="kicker">Lobbycard</p><h1>What kind of film is this?</h1>
<p>Show it a movie poster. It says which genres the poster promises, how sure it is, and where it looked.</p>
</div><div class="bulbs" aria-hidden="true"></div></header>"""
WELCOME = """<section class="answer welcome" aria-label="Answer"><p class="kicker">Coming soon</p>
<h2 class="verdict">Your poster here</h2>
<ol><li>Drop a poster, paste one, take its picture, or pick an example.</li>
<li>Read its genres: each bar shows how sure the model is, and the mark how sure it must be.</li>
<li>Choose a genre under the poster to see what spoke for it.</li></ol></section>"""
FOOTER = """<footer><p>Uploads are not kept: a file is deleted seconds after it was read, and a thumbnail stays in memory for the
controls, until the page is closed or ten minutes after it was last used.</p>
<p>For programs: <a href="docs">the API</a>.</p></footer>"""
# Gradio knows its address behind a proxy; a relative link would miss it where the page's has no slash at the end.
FOOTER_JS = """element.querySelector('a').href = `${(window.gradio_config?.root ?? '').replace(/[/]$/, '')}/docs`"""
NO_MODEL = (
    "no model here, neither beside the app nor in models/; make one with: make train "
    "(or python train_model.py), or name one with --model DIR"
)


@dataclass(frozen=True)
class Flags:
    """A page where one drops a poster and gets its genres, with a REST API beside it.

    Args:
        model: model folder, or a fastai learner (.pkl); the one beside this file or the newest in models/, if not given
        runtime: auto takes what is quickest on this machine
        precision: fast computes in int8 or bf16, at nearly the same quality; auto is fp32 where the model has it
        trust: --model is a fastai learner (.pkl) without its folder, and the code in it may run
        share: also make a public link, through gradio's servers
        host: address to listen on; 127.0.0.1 (this machine alone) if not given, or GRADIO_SERVER_NAME
        port: 7860 or the next that is free if not given, or GRADIO_SERVER_PORT
        auth: user:password to ask visitors for; better given in the environment, as LOBBYCARD_AUTH
        root_path: path (/lobby) or address under which a proxy shows this page
    """

    model: Path | None = None
    runtime: Literal["auto", "onnx", "torch", "fastai"] = "auto"
    precision: Literal["auto", "fp32", "fast"] = "auto"
    trust: bool = False
    share: bool = False
    host: str | None = None
    port: int | None = None
    auth: str | None = None
    root_path: str = ""


def main(arguments: list[str] | None = None) -> None:
    """Find a model, load it while Gradio is imported, and serve until told to stop."""
    import tyro

    with front_door():
        flags = tyro.cli(Flags, args=arguments, prog="python app_gradio.py")
        auth = credentials(flags.auth or os.environ.get("LOBBYCARD_AUTH"))
        model = flags.model or find_model()
        precision = only_precision(model) if flags.precision == "auto" else flags.precision
        loading = Loading(lambda: GradioPredictor(model, flags.runtime, precision, flags.trust))
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        check_environment()
        from lobbycard.web.look import look
        from lobbycard.web.server import serve
        from lobbycard.web.uploads import private_folder

        predictor = loading.result()
        with private_folder():
            serve(
                build_demo(predictor, find_examples(model, predictor.predictor.folder.about, HERE)),
                predictor,
                look=look(),
                item_noun=WORDS.item,
                label_noun=WORDS.label,
                host=flags.host or ("0.0.0.0" if os.environ.get("SPACE_ID") else None),
                port=flags.port,
                share=flags.share,
                auth=auth,
                root_path=flags.root_path,
            )


def find_model(here: Path = HERE) -> Path:
    """The model folder that the environment names, lies beside this file (a Space), or was trained here last.

    Raises:
        InputError: there is none.
    """
    if (found := newest_model(here)) is None:
        raise InputError(NO_MODEL)
    return found


if __name__ == "__main__":
    main()
