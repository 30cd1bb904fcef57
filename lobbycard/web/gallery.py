"""Many pictures at once, in HTML: cards, a table, and the CSV inside a link, so that no file lies about for it."""

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from lobbycard.files import harmless
from lobbycard.web.service import Answer
from lobbycard.web.stage import data_uri
from lobbycard.web.words import Words, percent, text

THUMBNAIL = 220  # pixels of the longer side
LABELS_SHOWN = 4  # on a card; the table and the CSV have all


@dataclass(frozen=True)
class Row:
    """One picture: its owner's name for it, and an answer with a thumbnail's address, or an error."""

    name: str
    answer: Answer | None = None
    thumbnail: str = ""
    error: str = ""


def csv_text(rows: Sequence[Row], labels: Sequence[str], words: Words) -> str:
    """The columns of `python -m lobbycard predict`: image, the labels given, error, one probability a label."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", words.labels, "error", *labels])
    for row in rows:
        if row.answer is None:
            writer.writerow([harmless(row.name), "", harmless(row.error), *[""] * len(labels)])
        else:
            numbers = (f"{row.answer.probabilities[label]:.6f}" for label in labels)
            given = "|".join(label for label in labels if label in row.answer.labels)
            writer.writerow([harmless(row.name), given, "", *numbers])
    return out.getvalue()


def gallery_html(rows: Sequence[Row], labels: Sequence[str], words: Words, note: str = "") -> str:
    """Cards, the link to the CSV, and the same as a table."""
    failed = sum(row.answer is None for row in rows)
    said = (
        f"{f'{len(rows) - failed} of ' * bool(failed)}{len(rows)} {words.items if len(rows) != 1 else words.item} read"
    )
    file = base64.b64encode(csv_text(rows, labels, words).encode()).decode()
    return (
        f'<section class="many"><p class="announce" hidden>{text(said)}</p><div class="bar"><p>{text(said)}. '
        f'<span class="soft">{text(note)}</span></p><a class="download" download="{text(words.labels)}.csv" '
        f'href="data:text/csv;charset=utf-8;base64,{file}">Download CSV</a></div>'
        f'<ol class="cards">{"".join(_card(row) for row in rows)}</ol>'
        f"<details><summary>As a table</summary>{_table(rows, words)}</details></section>"
    )


def progress_html(done: int, total: int, words: Words) -> str:
    """How far it is."""
    said = f"{done} of {total} {words.items} read"
    return (
        f'<div class="progress"><progress max="{total}" value="{done}" aria-label="{text(said)}"></progress>'
        f"<span>{text(said)}</span></div>"
    )


def thumbnail(row_picture: object) -> str:
    """The address of a small copy of a Pillow image."""
    return data_uri(row_picture, THUMBNAIL, 72)


def _card(row: Row) -> str:
    if row.answer is None:
        return (
            f'<li class="bad"><div class="frame" aria-hidden="true">?</div>'
            f'<p class="file">{text(row.name)}</p><p class="why">{text(row.error.removeprefix(f"{row.name}: "))}</p></li>'
        )
    given = row.answer.labels[:LABELS_SHOWN]
    more = len(row.answer.labels) - len(given)
    chips = "".join(f"<span>{text(label)} <b>{percent(row.answer.probabilities[label])}</b></span>" for label in given)
    chips += f"<span>{more} more</span>" if more else ""
    guess = '<p class="why">best guess</p>' if row.answer.guess else ""
    unlike = f'<p class="why">{text(row.answer.unlike)}</p>' if row.answer.unlike else ""
    return (
        f'<li><div class="frame"><img src="{row.thumbnail}" alt="" loading="lazy"></div><p class="file">{text(row.name)}</p>'
        f'<p class="chips">{chips}</p>{guess}{unlike}</li>'
    )


def _given(answer: Answer) -> str:
    return ", ".join(answer.labels) + " (best guess)" * answer.guess


def _table(rows: Sequence[Row], words: Words) -> str:
    body = "".join(
        f'<tr><th scope="row">{text(row.name)}</th>'
        f"<td>{text(_given(row.answer) if row.answer else '')}</td><td>{text(row.error)}</td></tr>"
        for row in rows
    )
    heads = "".join(f'<th scope="col">{text(head)}</th>' for head in ("Image", words.labels.capitalize(), "Error"))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="As a table"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
