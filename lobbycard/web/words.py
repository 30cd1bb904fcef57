"""What a page calls its items and labels, and how it writes numbers and names for people."""

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Words:
    """Nouns of a page: what is looked at, and what is said of it."""

    item: str
    items: str
    label: str
    labels: str


RUNTIMES = {"onnx": "ONNX Runtime", "torch": "PyTorch", "fastai": "fastai learner"}
PRECISIONS = {"int8": "fast mode (int8)", "bf16": "fast mode (bf16)"}


def percent(share: float) -> str:
    """`68 %`; shares that are not quite 0 or 1 are not rounded to them."""
    value = 100 * share
    if 0 < value < 1:
        return "<1 %"
    if 99 < value < 100:
        return ">99 %"
    return f"{value:.0f} %"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def spent(milliseconds: float) -> str:
    """`31 ms`, `2.4 s`."""
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def engine(predictor: object) -> str:
    """Runtime and precision in words: `ONNX Runtime, fp32`."""
    runtime, precision = getattr(predictor, "runtime", ""), getattr(predictor, "precision", "fp32")
    return f"{RUNTIMES.get(runtime, runtime)}, {PRECISIONS.get(precision, precision)}"


def text(value: object) -> str:
    """Anything, made harmless for HTML, attributes included; on one line."""
    return escape(" ".join(str(value).split()), quote=True)
