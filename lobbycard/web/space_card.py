"""README.md of a Space: the front matter that the Hub configures it from, checked, and the model's card below it."""

import re
from pathlib import Path
from typing import Any

from lobbycard.errors import InputError

# Source of the names and values: https://huggingface.co/docs/hub/spaces-config-reference
SDKS = ("gradio", "docker", "static")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
TITLE, DESCRIPTION = 96, 60  # characters; the Hub refuses a longer description
KEPT = (
    "title",
    "emoji",
    "colorFrom",
    "colorTo",
    "license",
    "short_description",
    "pinned",
    "tags",
    "models",
    "datasets",
)
SERVED_TAGS = 5
FOLLOWS = "What follows is the model's own card."

BODY = """
# {title}

Drop a {item} and get its {labels}. Uploads are answered and forgotten: they are neither kept nor sent anywhere.
From a program, with `pip install gradio_client`:

```python
from gradio_client import Client, handle_file

client = Client("{repo_id}")  # a private Space also wants token="hf_..."
print(client.predict(handle_file("{item}.jpg"), api_name="/predict"))
```

or over HTTP:

```sh
curl -F "files=@{item}.jpg" https://{subdomain}.hf.space/api/v1/predict
```

`/docs` there describes every route, `/api/v1/health` says whether the model is awake.

---

{follows} It speaks of the model folder; of that, this Space holds what serving needs, under `model/`:
{files}.
"""


def space_card(values: dict[str, Any], card: str, files: list[str], nouns: tuple[str, str], repo_id: str) -> str:
    """The page as Markdown text.

    Args:
        values: the front matter.
        card: the model's card, without its front matter: that is a model's and no Space's.
        files: names of the model's files in the Space.
        nouns: what an item and its labels are called, such as `poster` and `genres`.
        repo_id: the Space's name on the Hub, if it is known.
    """
    import yaml

    front = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
    repo_id = repo_id or "user/name"
    subdomain = re.sub(r"[^a-z0-9]+", "-", repo_id.lower())
    named = ", ".join(f"`{name}`" for name in files)
    body = BODY.format(
        title=values["title"],
        item=nouns[0],
        labels=nouns[1],
        files=named,
        repo_id=repo_id,
        subdomain=subdomain,
        follows=FOLLOWS,
    )
    return f"---\n{front}---\n{body}\n{card.lstrip()}"


def card_below(body: str) -> str:
    """The model's card that `space_card` put into a page; empty where it is not found."""
    return body.partition(FOLLOWS)[2].partition("\n\n")[2]


def read_card(readme: Path) -> tuple[dict[str, Any], str]:
    """`split_card` of a file.

    Raises:
        InputError: not UTF-8, or the front matter is no YAML mapping.
    """
    try:
        return split_card(readme.read_text(encoding="utf-8"), readme)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{readme}: expected UTF-8, found byte {error.object[error.start]:#04x}; save it as UTF-8"
        ) from error


def split_card(text: str, readme: Path = Path("README.md")) -> tuple[dict[str, Any], str]:
    """Front matter and body of a card, read as huggingface_hub reads it; `readme` names it in errors.

    Raises:
        InputError: the front matter is no YAML mapping.
    """
    import yaml
    from huggingface_hub import RepoCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if not REGEX_YAML_BLOCK.search(text):
        return {}, text
    try:
        card = RepoCard(text, ignore_metadata_errors=True)
        found = yaml.safe_load(REGEX_YAML_BLOCK.search(text).group(2)) or {}  # card.data has keys of its own besides
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{readme}: its front matter, between the two lines '---', is no YAML ({why})") from error
    return found, card.text


def check_card(readme: Path) -> None:
    """See that the Hub will take the front matter: a Space with a bad one ends in "configuration error".

    The Hub's own check needs the network and is asked before an upload; this one is for what can be known without.

    Raises:
        InputError: names the first line that is wrong, and what it should be.
    """
    from huggingface_hub import SpaceCard, metadata_load

    values, body = read_card(readme)
    try:
        card = SpaceCard(readme.read_text(encoding="utf-8"))
        same = metadata_load(readme) == values
    except Exception as error:  # the library raises what its YAML reader and its classes raise
        raise InputError(f"{readme}: huggingface_hub cannot read its front matter ({error})") from error
    if not values or not same or card.data.sdk != values.get("sdk"):
        raise InputError(f"{readme}: expected front matter between two lines '---' at the very top, found none")
    for name, expected in _wrong(values, readme.parent):
        raise InputError(f"{readme}: {name}: expected {expected}, found {values.get(name)!r}")
    if not body.strip():
        raise InputError(f"{readme}: nothing stands below the front matter; expected the model's card")


def check_names(values: dict[str, Any], readme: Path) -> None:
    """See that license, tags, models and datasets, where they are given, are names.

    Raises:
        InputError: names the first that is not, and what it should be.
    """
    for name, expected in _wrong_names(values):
        raise InputError(f"{readme}: {name}: expected {expected}, found {values[name]!r}")


def _wrong(values: dict[str, Any], folder: Path):
    """Keys whose value the Hub refuses or misreads, and what was expected."""
    text = lambda key: values.get(key) if isinstance(values.get(key), str) else ""  # noqa: E731
    if not 0 < len(text("title")) <= TITLE:
        yield "title", f"1 to {TITLE} characters"
    if not text("emoji") or text("emoji").isascii() or len(text("emoji")) > 8:
        yield "emoji", "one emoji"
    for key in ("colorFrom", "colorTo"):
        if values.get(key) not in COLOURS:
            yield key, f"one of {', '.join(COLOURS)}"
    if values.get("sdk") not in SDKS:
        yield "sdk", f"one of {', '.join(SDKS)}"
    if not re.fullmatch(r"\d+\.\d+\.\d+", text("sdk_version")):
        yield "sdk_version", "a version such as '6.31.0', in quotes"
    if not re.fullmatch(r"3\.\d+(\.\d+)?", text("python_version")):
        yield "python_version", "a version such as '3.11', in quotes: without them YAML reads 3.10 as 3.1"
    if not text("app_file") or not (folder / text("app_file")).is_file():
        yield "app_file", "the name of a file beside README.md"
    if len(text("short_description")) > DESCRIPTION:
        yield "short_description", f"at most {DESCRIPTION} characters"
    yield from _wrong_names(values)


def _wrong_names(values: dict[str, Any]):
    found = values.get("license", "none")
    if not isinstance(found, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", found):
        yield "license", "its name on the Hub, in lower case, such as apache-2.0"
    for key in ("tags", "models", "datasets"):
        if not isinstance(values.get(key, []), list) or not all(isinstance(v, str) and v for v in values.get(key, [])):
            yield key, "a list of names"
