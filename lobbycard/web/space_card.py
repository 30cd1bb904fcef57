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

What follows is the model's own card. It speaks of the model folder; of that, this Space holds what serving needs, under `model/`:
{files}.
"""


def space_card(values: dict[str, Any], model_card: str, files: list[str], nouns: tuple[str, str], repo_id: str) -> str:
    """The page as Markdown text.

    Args:
        values: the front matter.
        model_card: the model's README.md; its own front matter, which is a model's and no Space's, is left out.
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
        title=values["title"], item=nouns[0], labels=nouns[1], files=named, repo_id=repo_id, subdomain=subdomain
    )
    _, card = split_card(model_card)
    return f"---\n{front}---\n{body}\n{card.lstrip()}"


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a card, read as huggingface_hub reads it.

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
    except (ValueError, TypeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"README.md: its front matter, between the two lines '---', is no YAML ({why})") from error
    return found, card.text


def check_card(readme: Path) -> None:
    """See that the Hub will take the front matter: a Space with a bad one ends in "configuration error".

    The Hub's own check needs the network and is asked before an upload; this one is for what can be known without.

    Raises:
        InputError: names the first line that is wrong, and what it should be.
    """
    from huggingface_hub import SpaceCard, metadata_load

    values, body = split_card(readme.read_text(encoding="utf-8"))
    try:
        card = SpaceCard(readme.read_text(encoding="utf-8"))
        loaded = metadata_load(readme)
    except Exception as error:  # the library raises what its YAML reader and its classes raise
        raise InputError(f"{readme}: huggingface_hub cannot read its front matter ({error})") from error
    if not values or loaded != values or card.data.sdk != values.get("sdk"):
        raise InputError(f"{readme}: expected front matter between two lines '---' at the very top, found none")
    for name, expected in _wrong(values, readme.parent):
        raise InputError(f"{readme}: {name}: expected {expected}, found {values.get(name)!r}")
    if not body.strip():
        raise InputError(f"{readme}: nothing stands below the front matter; expected the model's card")


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
    if "license" in values and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text("license")):
        yield "license", "its name on the Hub, in lower case, such as apache-2.0"
    for key in ("tags", "models", "datasets"):
        if not isinstance(values.get(key, []), list) or not all(isinstance(v, str) and v for v in values.get(key, [])):
            yield key, "a list of names"
