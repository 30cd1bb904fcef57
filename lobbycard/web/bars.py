"""An answer in HTML: the labels given, each label's bar with its own threshold, in words for those who see no bars."""

from collections.abc import Sequence

from lobbycard.web.service import Answer
from lobbycard.web.words import Words, listed, percent, text

HEADLINE = 4  # labels named in the headline; the bars have all


def answer_html(answer: Answer, words: Words, note: str = "") -> str:
    """Given labels first and large, the rest under "all"; `note` is the small print (time, runtime)."""
    given = answer.labels
    rest = sorted(
        (label for label in answer.probabilities if label not in given), key=lambda x: -answer.probabilities[x]
    )
    parts = [f'<p class="announce" hidden>{text(spoken(answer, words))}</p>']
    parts.append(f'<p class="kicker">{"Best guess" if answer.guess else "Now showing"}</p>')
    parts.append(f'<h2 class="verdict">{text(_headline(given))}</h2>')
    if answer.unlike:
        parts.append(f'<p class="hint">This does not look like a {text(words.item)}: {text(answer.unlike)}.</p>')
    if answer.guess:
        parts.append(
            f'<p class="hint">No {text(words.label)} reached its threshold. This is the most probable one, '
            "so take it as a guess.</p>"
        )
    parts.append(_list(answer, given, "given", f"{words.labels} given"))
    if rest:
        parts.append(
            f'<details class="all"><summary>All {len(answer.probabilities)} {text(words.labels)}</summary>'
            f"{_list(answer, rest, 'rest', f'other {words.labels}')}</details>"
        )
    parts.append(
        f'<p class="key"><i class="tick-key" aria-hidden="true"></i>the probability that a {text(words.label)} '
        "must reach to be given</p>"
    )
    if note:
        parts.append(f'<p class="note">{text(note)}</p>')
    return f'<section class="answer" aria-label="Answer">{"".join(parts)}</section>'


def spoken(answer: Answer, words: Words) -> str:
    """The answer in one sentence."""
    said = listed([f"{label} {percent(answer.probabilities[label])}" for label in answer.labels])
    unlike = f" This does not look like a {words.item}: {answer.unlike}." if answer.unlike else ""
    return f"{'Best guess, below its threshold' if answer.guess else words.labels.capitalize()}: {said}.{unlike}"


def problem_html(error: str, heading: str = "That did not work", begins_with: str = "") -> str:
    """What went wrong, in place of an answer; a name that it `begins_with` stays as its owner wrote it."""
    if not (begins_with and error.startswith(begins_with)):
        error = error[:1].upper() + error[1:]
    return (
        f'<section class="answer problem" role="alert"><p class="kicker">{text(heading)}</p>'
        f"<p>{text(error)}</p></section>"
    )


def _headline(given: Sequence[str]) -> str:
    more = len(given) - HEADLINE
    return listed([*given[:HEADLINE], f"{more} more"] if more > 1 else list(given))


def _list(answer: Answer, labels: Sequence[str], kind: str, name: str) -> str:
    rows = "".join(_bar(label, answer.probabilities[label], answer.thresholds[label]) for label in labels)
    return f'<ul class="bars {kind}" aria-label="{text(name)}">{rows}</ul>'


def _bar(label: str, probability: float, threshold: float) -> str:
    return (
        f'<li><span class="name">{text(label)}</span>'
        f'<span class="track" aria-hidden="true"><span class="fill" style="width:{100 * probability:.1f}%"></span>'
        f'<span class="tick" style="left:{100 * threshold:.1f}%"></span></span>'
        f'<span class="value">{percent(probability)}</span>'
        f'<span class="aside">, needs {percent(threshold)}</span></li>'
    )
