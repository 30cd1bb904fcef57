"""The picture on the page, with a map over it for each label; everything inside the HTML, nothing in files."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from lobbycard.web.words import Words, text

SHOWN = 640  # pixels of the longer side: sharp in its frame on most screens, some 60 kB
FIRST = 5  # labels that can be chosen at once; the others stand behind a fold
LAYER = 480  # of a map's picture; there is one a label


def data_uri(picture: Image.Image, side: int = SHOWN, quality: int = 82) -> str:
    """The picture as WebP inside an address, at most `side` pixels high and wide."""
    picture = picture.convert("RGB")
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def picture_html(picture: Image.Image, name: str, words: Words) -> str:
    """The picture in its frame."""
    return (
        f'<figure class="card" style="--ratio:{_ratio(picture.size)}"><img src="{data_uri(picture)}" '
        f'alt="The {text(words.item)} that was read: {text(name)}"></figure>'
    )


def maps_html(layers: Sequence[tuple[str, Image.Image, str]], words: Words, shape: tuple[int, int]) -> str:
    """Pictures to lay over the one in the frame, and the choice between them.

    Args:
        layers: (label, picture with its map drawn in, what has to be said of it or ""), the most probable label first. The
            first is shown at once; where something has to be said of it, that alone.
        shape: width and height of the picture in the frame.
    """
    # The first choice shows nothing; CSS pairs the n-th choice with the n-th layer, so no script is needed.
    shown = 1 if layers and not layers[0][2] else 0
    names = ["off", *(label for label, _, _ in layers)]
    choices = [_choice(name, n, n == shown) for n, name in enumerate(names)]
    first, rest = "".join(choices[: FIRST + 1]), "".join(choices[FIRST + 1 :])
    more = f'<details><summary>Other {text(words.labels)}</summary><div class="choices">{rest}</div></details>'
    pictures = "".join(
        f'<img class="layer n{n}" src="{data_uri(picture, LAYER, 60)}" alt="" loading="lazy">'
        for n, (_, picture, _) in enumerate(layers, 1)
    )
    captions = "".join(
        f'<p class="caption n{n}">{text(caption)}</p>' for n, (*_, caption) in enumerate(layers, 1) if caption
    )
    if not shown and layers:
        name, _, caption = layers[0]
        captions += f'<p class="caption n0">{text(name)}: {text(caption[:1].lower() + caption[1:])}</p>'
    pairs = ",".join(f".maps:has(input.n{n}:checked) .n{n}:is(.layer,.caption)" for n in range(len(layers) + 1))
    return (
        f'<div class="maps" style="--ratio:{_ratio(shape)}"><style>{pairs}{{display:block}}</style>'
        f'<div class="layers">{pictures}</div>'
        f"<fieldset><legend>Where it looked, by {text(words.label)}</legend>"
        f'<div class="choices">{first}</div>{more if rest else ""}'
        f'</fieldset>{captions}<p class="legend"><i class="for"></i>spoke for the {text(words.label)}'
        '<i class="against"></i>spoke against it</p></div>'
    )


def working_html(message: str) -> str:
    """In place of the maps while they are made, or why there are none."""
    return f'<div class="maps"><p class="wait">{text(message)}</p></div>'


def _ratio(size: tuple[int, int]) -> str:
    """Width for a height of one, for CSS; of very long pictures not below what can be seen."""
    return f"{max(size[0] / size[1], 0.05):.4f}"


def _choice(name: str, n: int, checked: bool) -> str:
    return (
        f'<label><input type="radio" name="map" class="n{n}"{" checked" if checked else ""}>'
        f"<span>{text(name)}</span></label>"
    )


# A click on one of the buttons is an event with the button's number.
EXAMPLES_JS = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-index]')
  if (button) trigger('click', {index: Number(button.dataset.index)})
})"""


def examples_html(examples: Sequence[tuple[str, Image.Image]], words: Words) -> str:
    """Buttons with pictures of (name, picture) to try."""
    buttons = "".join(
        f'<li><button type="button" data-index="{n}"><img src="{data_uri(picture, 200, 75)}" '
        f'alt="{text(words.item.capitalize())} {n + 1}: {text(name)}"></button></li>'
        for n, (name, picture) in enumerate(examples)
    )
    return f'<div class="examples"><p>Or try one of these</p><ul>{buttons}</ul></div>' if buttons else ""
