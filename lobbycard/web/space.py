"""A Space, staged: everything that the Hugging Face Hub, or any machine with Python, needs to run the page, in one folder."""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lobbycard import __version__
from lobbycard.errors import InputError
from lobbycard.files import sha256, write_text
from lobbycard.poster.artifact import INT8, MANIFEST, ONNX, ModelFolder, open_model
from lobbycard.web.closure import own_modules, pinned, serving_requirements
from lobbycard.web.space_card import KEPT, SERVED_TAGS, check_card, space_card, split_card

ROOT = Path(__file__).resolve().parents[2]  # a checkout, or where pip put the package
APP, MARKER, README, REQUIREMENTS = "app_gradio.py", "lobbycard-space.json", "README.md", "requirements.txt"
DOCKERFILE = "Dockerfile"
MODEL, EXAMPLES = "model", "examples"
SPACE_VERSION = 1
MOST_EXAMPLES, EXAMPLE_HEIGHT = 8, 900  # pixels
AIM = 120_000_000  # bytes of a staged folder; above, uploads and cold starts get slow
DRAWN = {  # seed: labels; the sample's own seeds begin with those of its movies, so none of these was trained on
    900_000_001: ("Western",),
    900_000_002: ("Documentary",),
    900_000_003: ("Action", "Sci-Fi"),
    900_000_004: ("Comedy", "Romance"),
}
LEFT_BY_RUNS = ("__pycache__", ".gradio", "*.pyi")  # gradio writes type stubs beside components

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
) -> Path:
    """Make or renew a staged Space: all of it, or nothing.

    An older one's title, colours and other words in its front matter are kept, as are files that were not staged.

    Args:
        out: the folder to make; it may be a Space staged before, and nothing else.
        precision: `fast` takes the int8 network instead of the fp32 one.
        examples: pictures, or folders of them. Where none are given, a model trained on drawn items gets drawn ones; others
            belong to somebody, so there are none.
        repo_id: what the Space will be called on the Hub, for the examples in its card.

    Raises:
        InputError: no such model or precision, something else is at `out`, or the installed packages do not go together.
    """
    folder, wording = _usable(model, precision), wording or Wording()
    if not (ROOT / APP).is_file():
        raise InputError(f"{ROOT / APP}: not there; stage a Space from a checkout of lobbycard, or install it again")
    lines = pinned(serving_requirements(ROOT))
    pictures = _pictures(examples)
    with _renewed(out) as (staged, before):
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
        elif folder.about["data"].get("drawn"):
            _draw_examples(folder.labels, staged / EXAMPLES)
        _put_model(folder, precision, staged / MODEL)
        values = _front_matter(folder, wording, before, title)
        _write_card(staged, values, folder, wording, repo_id)
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
    with _renewed(out, keep=True) as (staged, before):
        shutil.rmtree(staged / MODEL, ignore_errors=True)
        _put_model(folder, precision, staged / MODEL)
        _write_card(staged, before, folder, wording or Wording(), repo_id)
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


def read_marker(out: Path) -> dict[str, Any] | None:
    """What a staged Space says of itself, `files` (name -> sha256) among it; None where there is none."""
    try:
        about = json.loads((out / MARKER).read_text(encoding="utf-8"))
        return about if about["space_version"] == SPACE_VERSION and isinstance(about["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sizes(out: Path) -> dict[str, int]:
    """Bytes of a staged Space: by first part of the name, and in `total`."""
    found: dict[str, int] = {}
    for name in [*read_marker(out)["files"], MARKER]:
        top = PurePosixPath(name).parts[0]
        found[top] = found.get(top, 0) + (out / name).stat().st_size
    return found | {"total": sum(found.values())}


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


def _front_matter(folder: ModelFolder, wording: Wording, before: dict[str, Any], title: str) -> dict[str, Any]:
    """What stood there before, in the words that are its owner's, over what the model and this package say."""
    card = folder.path / README
    model, _ = split_card(card.read_text(encoding="utf-8")) if card.is_file() else ({}, "")
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


def _write_card(staged: Path, values: dict[str, Any], folder: ModelFolder, wording: Wording, repo_id: str) -> None:
    card = folder.path / README
    text = card.read_text(encoding="utf-8") if card.is_file() else "The model came without a card.\n"
    files = sorted(file.name for file in (staged / MODEL).iterdir())
    write_text(staged / README, space_card(values, text, files, wording.nouns, repo_id))
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


@contextmanager
def _renewed(out: Path, keep: bool = False) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder that takes `out`'s place when the block ends well, and the front matter of the README.md that stood there.

    Args:
        keep: start from what was staged before.
    """
    out = out.absolute()
    about = read_marker(out)
    if about is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"--out {out}: holds something else than a staged Space, and is left alone; give an empty folder or a new name"
        )
    before: dict[str, Any] = {}
    if about and (out / README).is_file():
        before, _ = split_card((out / README).read_text(encoding="utf-8"))
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside `out`, so that moving in is a rename
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name[:40]}-") as aside:
        staged, old = Path(aside) / "new", Path(aside) / "old"
        staged.mkdir()
        if keep:
            for name in about["files"]:
                if (out / name).is_file():
                    (staged / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(out / name, staged / name)
        yield staged, before
        for name in _added(out, about):
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            if (out / name).is_dir() and not (out / name).is_symlink():
                shutil.copytree(out / name, staged / name, symlinks=True)
            else:
                shutil.copy2(out / name, staged / name, follow_symlinks=False)
        if out.exists():
            out.replace(old)
        try:
            staged.replace(out)
        except BaseException:
            if old.exists():
                old.replace(out)
            raise


def _added(out: Path, about: dict[str, Any] | None, below: Path = Path()) -> Iterator[Path]:
    """What somebody put into a staged Space, relative to it: files, and whole folders; not what running it leaves there."""
    if about is None:
        return
    staged = [PurePosixPath(name) for name in [*about["files"], MARKER]]
    for entry in sorted((out / below).iterdir()):
        name = below / entry.name
        if any(map(entry.match, LEFT_BY_RUNS)) or PurePosixPath(name) in staged:
            continue
        if any(PurePosixPath(name) in file.parents for file in staged):
            yield from _added(out, about, name)
        else:
            yield name


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


def _draw_examples(labels: Sequence[str], to: Path) -> None:
    """Pictures like those that the drawn sample's model was trained on, named after what they show."""
    from lobbycard.catalog.sample import draw_poster

    to.mkdir(parents=True)
    for seed, shown in DRAWN.items():
        if set(shown) <= set(labels):
            draw_poster(shown, seed).save(to / f"{'-'.join(shown)}.jpg".lower(), quality=88)
