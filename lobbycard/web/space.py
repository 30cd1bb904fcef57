"""A Space, staged: everything that the Hugging Face Hub, or any machine with Python, needs to run the page, in one folder."""

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lobbycard import __version__
from lobbycard.errors import InputError
from lobbycard.files import sha256, write_text
from lobbycard.poster.artifact import INT8, MANIFEST, ONNX, ModelFolder, open_model
from lobbycard.web.closure import own_modules, pinned, serving_requirements
from lobbycard.web.space_card import (
    KEPT,
    SERVED_TAGS,
    TITLE,
    card_below,
    check_card,
    check_names,
    read_card,
    space_card,
)
from lobbycard.web.space_folder import MARKER, README, SPACE_VERSION, read_marker, renewed, sizes

if TYPE_CHECKING:
    from PIL.Image import Image

ROOT = Path(__file__).resolve().parents[2]  # a checkout, or where pip put the package
APP, REQUIREMENTS, DOCKERFILE = "app_gradio.py", "requirements.txt", "Dockerfile"
MODEL, EXAMPLES = "model", "examples"
MOST_EXAMPLES, EXAMPLE_HEIGHT = 8, 900  # pixels
AIM = 120_000_000  # bytes of a staged folder; above, uploads and cold starts get slow

# The Hub takes binary files only through LFS or Xet. Source: https://huggingface.co/docs/hub/repositories-getting-started
ATTRIBUTES = "".join(
    f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in ("onnx", "jpg", "jpeg", "png", "webp")
)


@dataclass(frozen=True)
class Wording:
    """What a Space says of itself until its owner says it better; `nouns` are an item and its labels."""

    title: str = "lobbycard"
    emoji: str = "🎬"
    colors: tuple[str, str] = ("red", "yellow")
    short_description: str = "Names labels of a picture, and says how sure it is"
    nouns: tuple[str, str] = ("picture", "labels")


def stage(
    model: Path,
    out: Path,
    precision: Literal["fp32", "fast"] = "fp32",
    examples: Sequence[Path] = (),
    title: str = "",
    wording: Wording | None = None,
    repo_id: str = "",
    draw: Callable[[Sequence[str]], Iterable[tuple[str, "Image"]]] | None = None,
) -> Path:
    """Make or renew a staged Space: all of it, or nothing.

    An older one's title, colours and other words in its front matter are kept, as are files that were not staged.

    Args:
        out: the folder to make; it may be a Space staged before, or a link to one, and nothing else.
        precision: `fast` takes the int8 network instead of the fp32 one.
        examples: pictures, or folders of them. Where none are given, a model trained on drawn items gets drawn ones; others
            belong to somebody, so there are none.
        repo_id: what the Space will be called on the Hub, for the examples in its card.
        draw: from a model's labels to the names and pictures of drawn examples.

    Raises:
        InputError: no such model or precision, something else is at `out`, or the installed packages do not go together.
    """
    _check_title(title)
    folder, wording = _usable(model, precision), wording or Wording()
    card = _model_card(folder)
    if not (ROOT / APP).is_file():
        raise InputError(f"{ROOT / APP}: not there; stage a Space from a checkout of lobbycard, or install it again")
    lines = pinned(serving_requirements(ROOT))
    pictures = _pictures(examples)
    with renewed(out) as (staged, before):
        for name in [Path(APP), *own_modules(ROOT / APP, ROOT, lines), Path("LICENSE")]:
            if (ROOT / name).is_file():
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, staged / name)
        write_text(staged / REQUIREMENTS, _requirements(lines))
        if (ROOT / DOCKERFILE).is_file():
            text = (ROOT / DOCKERFILE).read_text(encoding="utf-8")
            write_text(staged / DOCKERFILE, re.sub(r"(?m)^ARG PYTHON=.*$", f"ARG PYTHON={_python()}", text))
        write_text(staged / ".gitattributes", ATTRIBUTES)
        if pictures:
            _save_examples(pictures, staged / EXAMPLES)
        elif draw and folder.about["data"].get("drawn"):
            (staged / EXAMPLES).mkdir()
            for name, picture in draw(folder.labels):
                picture.save(staged / EXAMPLES / f"{name}.jpg", quality=88)
        _put_model(folder, precision, staged / MODEL)
        values = _front_matter(card[0], wording, before, title)
        _write_card(staged, values, card[1], wording, repo_id)
        _mark(staged, precision)
    return out


def stage_model(
    model: Path,
    out: Path,
    precision: Literal["fp32", "fast"] = "fp32",
    wording: Wording | None = None,
    repo_id: str = "",
) -> Path:
    """Put another model into a staged Space, and its card; app, examples and packages stay as they were tested.

    Raises:
        InputError: no staged Space at `out`, or its app is too old or too new for the model.
    """
    folder, about = _usable(model, precision), read_marker(out)
    if about is None:
        raise InputError(f"{out}: no staged Space is here; leave out --model-only, then all of it is staged")
    if about["model_format"] != folder.about["format_version"]:
        raise InputError(
            f"{out}: its app reads models of format {about['model_format']}, {model} has format "
            f"{folder.about['format_version']}; leave out --model-only, then the app is renewed too"
        )
    _, card = _model_card(folder)
    with renewed(out, keep=True) as (staged, before):
        if not isinstance(before.get("title"), str):
            raise InputError(
                f"{out / README}: expected the front matter of a staged Space, found no title in it; leave out --model-only, "
                "then all of it is staged"
            )
        shutil.rmtree(staged / MODEL, ignore_errors=True)
        _put_model(folder, precision, staged / MODEL)
        _write_card(staged, before, card, wording or Wording(), repo_id)
        _mark(staged, precision)
    return out


def next_steps(out: Path, repo_id: str = "") -> str:
    """How large a staged Space is, and what to do with it."""
    found = sizes(out)
    parts = ", ".join(
        f"{name} {size / 1e6:.1f} MB" for name, size in sorted(found.items()) if size >= 50_000 and name != "total"
    )
    large = " (large: --precision fast stages the int8 network)" if found["total"] > AIM else ""
    lines = [f"staged {out}: {found['total'] / 1e6:.1f} MB{large}; {parts}"]
    if not repo_id:
        lines += [
            f"  try it here:  cd {out} && python {APP}",
            "  put it up:    the same command again with --push user/name   (deploy_to_huggingface.md tells each step)",
        ]
    return "\n".join(lines)


def _usable(model: Path, precision: str) -> ModelFolder:
    folder = open_model(model)
    if precision == "fast" and INT8 not in folder.about["files"]:
        refused = folder.about.get("modes", {}).get("int8", {}).get("refused", "it was made before there were any")
        raise InputError(f"--precision fast: {model} has no {INT8} ({refused}); train it again, or use fp32")
    folder.file(_network(precision))
    return folder


def _network(precision: str) -> str:
    return INT8 if precision == "fast" else ONNX


def _put_model(folder: ModelFolder, precision: str, to: Path) -> None:
    """The network and `model.json`, which lists what is there."""
    name = _network(precision)
    to.mkdir(parents=True)
    shutil.copyfile(folder.file(name), to / name)
    about = folder.about | {"files": {name: folder.about["files"][name]}}
    write_text(to / MANIFEST, json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    open_model(to).file(name)


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def _requirements(lines: dict[str, str]) -> str:
    head = (
        f"# Everything that serving needs, in the versions tested with lobbycard {__version__} on Python {_python()}.\n"
    )
    return head + "".join(f"{line}\n" for line in lines.values())


def _check_title(title: str) -> None:
    control = any(unicodedata.category(char) in ("Cc", "Cs") for char in title)
    if title and (not title.strip() or len(title) > TITLE or control):
        raise InputError(f"--title {title[:TITLE]!r}: expected 1 to {TITLE} characters that can be read, on one line")


def _model_card(folder: ModelFolder) -> tuple[dict[str, Any], str]:
    """License and tags of the model, and its card; of a model that lies in a staged Space these are in that one's README.md."""
    card, place = folder.path / README, folder.path.resolve()
    if card.is_file():
        values, text = read_card(card)
    elif place.name == MODEL and (place.parent / README).is_file() and read_marker(place.parent):
        card = place.parent / README
        values, text = read_card(card)
        text = card_below(text)
        if not text.strip():
            raise InputError(
                f"{card}: the card of {folder.path} is not in it any more; give the folder that was trained"
            )
    else:
        values, text = {}, "The model came without a card.\n"
    values = {key: values[key] for key in ("license", "tags") if values.get(key) is not None}
    check_names(values, card)
    return values, text


def _front_matter(model: dict[str, Any], wording: Wording, before: dict[str, Any], title: str) -> dict[str, Any]:
    """What stood there before, in the words that are its owner's, over what the model and this package say."""
    values = {
        "title": wording.title,
        "emoji": wording.emoji,
        "colorFrom": wording.colors[0],
        "colorTo": wording.colors[1],
        "sdk": "gradio",
        "sdk_version": metadata.version("gradio"),
        "python_version": _python(),
        "app_file": APP,
        "pinned": False,
        "license": model.get("license", "apache-2.0"),
        "short_description": wording.short_description,
        "suggested_hardware": "cpu-basic",
        "tags": [tag for tag in model.get("tags", []) if tag not in ("fastai", "safetensors")][:SERVED_TAGS],
    }
    return before | values | {key: before[key] for key in KEPT if key in before} | ({"title": title} if title else {})


def _write_card(staged: Path, values: dict[str, Any], card: str, wording: Wording, repo_id: str) -> None:
    files = sorted(file.name for file in (staged / MODEL).iterdir())
    write_text(staged / README, space_card(values, card, files, wording.nouns, repo_id))
    check_card(staged / README)


def _mark(staged: Path, precision: str) -> None:
    """Written last: a folder without it is no staged Space."""
    about = {
        "space_version": SPACE_VERSION,
        "lobbycard": __version__,
        "model_format": open_model(staged / MODEL).about["format_version"],
        "precision": precision,
        "files": {
            file.relative_to(staged).as_posix(): sha256(file)
            for file in sorted(staged.rglob("*"))
            if file.is_file() and file != staged / MARKER
        },
    }
    write_text(staged / MARKER, json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def _pictures(examples: Sequence[Path]) -> list[Path]:
    from lobbycard.poster.answers import find_pictures

    if not examples:
        return []
    found = find_pictures([str(path) for path in examples])
    if len(found) > MOST_EXAMPLES:
        raise InputError(f"--examples: at most {MOST_EXAMPLES} pictures, got {len(found)}; name those you want")
    return found


def _save_examples(pictures: Sequence[Path], to: Path) -> None:
    """As JPEG, at most `EXAMPLE_HEIGHT` high, without what cameras and editors write beside the picture."""
    from lobbycard.catalog.image import load_poster

    to.mkdir(parents=True)
    for source in pictures:
        picture = load_poster(source)
        picture.thumbnail((EXAMPLE_HEIGHT, EXAMPLE_HEIGHT))
        name = re.sub(r"[^\w-]+", "-", source.stem).strip("-")[:60] or "picture"
        while (to / f"{name}.jpg").exists():
            name += "-"
        picture.save(to / f"{name}.jpg", quality=88)
