"""README.md of a model folder: the model card, with the front matter that the Hugging Face Hub reads."""

from pathlib import Path
from typing import Any

from lobbycard.files import write_text
from lobbycard.report import growth, words
from lobbycard.report.document import render
from lobbycard.report.doubts import SHEET
from lobbycard.report.findings import BASELINE_NAMES, METRIC_NAMES, Findings
from lobbycard.report.page import label_rows, metric_rows

HUB_METRICS = {"mAP": "mean_average_precision", "macro_f1": "f1", "micro_f1": "f1", "samples_f1": "f1"}


def write_card(
    findings: Findings,
    path: Path | str,
    license: str = "apache-2.0",
    pipeline_tag: str = "image-classification",
    folder: str = "",
) -> None:
    """Write the model card to `path`, whole or not at all.

    Args:
        license: of the weights, by its name on the Hub. It does not cover items that the report shows.
        pipeline_tag: the Hub's name of the task.
        folder: the model folder's final name, where it is not yet the one of `path`.
    """
    path = Path(path)
    write_text(path, card(findings, license, pipeline_tag, folder or path.absolute().parent.name))


def card(findings: Findings, license: str, pipeline_tag: str, folder: str) -> str:
    """The card as Markdown text; `folder` is the model folder's name, for its command lines."""
    body = render(
        "card.md.j2",
        f=findings,
        d=findings.known_data,
        license=license,
        folder=folder,
        is_image=pipeline_tag.startswith("image"),
        baseline_names=BASELINE_NAMES,
        verdict=[*words.verdict(findings), *growth.in_brief_of(findings)],
        limits=words.limits(findings),
        metrics=metric_rows(findings),
        labels=label_rows(findings),
        dropped=dict(findings.data.get("dropped") or {}),
        sheet_name=SHEET,
        cell=cell,
    )
    return front_matter(findings, license, pipeline_tag) + body


def front_matter(findings: Findings, license: str, pipeline_tag: str) -> str:
    """The YAML between the two rules.

    Source: https://huggingface.co/docs/hub/model-cards, with the results as the Hub's `model-index`.
    """
    import yaml

    values: dict[str, Any] = {
        "license": license,
        # "fastai" would make the Hub offer a snippet that unpickles; the folder's own runtime is onnxruntime
        "library_name": "onnx",
        "pipeline_tag": pipeline_tag,
        "tags": [
            "lobbycard",
            str(findings.task),
            "multi-label-classification",
            "onnx",
            "fastai",
            "safetensors",
        ],
    }
    results = [
        {"type": HUB_METRICS[name], "name": f"{title} (validation)", "value": round(float(value), 4)}
        for name, title in METRIC_NAMES.items()
        if words.exists(value := words.value_of(findings.metrics, name))
    ]
    if results:
        dataset = {
            "type": str(findings.task),
            "name": f"validation side, {len(findings.item_ids)} {findings.item_nouns}",
        }
        task = {"type": pipeline_tag, "name": "multi-label classification"}
        result = {"task": task, "dataset": dataset, "metrics": results}
        values["model-index"] = [{"name": str(findings.name), "results": [result]}]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)}---\n"


def cell(text: object) -> str:
    """Text from users inside Markdown: no mark-up, no new column, no new line."""
    plain = " ".join(str(text).split())
    for character in "\\`*_[]|<>#":
        plain = plain.replace(character, "\\" + character)
    return plain
