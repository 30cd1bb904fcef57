"""The API's document as a page of its own. FastAPI's page loads its scripts from elsewhere; this one needs no internet."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9d5cc, #3b3a38); --soft: light-dark(#f4f1ea, #232220); }
body { margin: 0 auto; max-width: 56rem; padding: 2rem 1.25rem 4rem; background: light-dark(#fffdf8, #181716);
  color: light-dark(#1d1b18, #ece8e0); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.75rem; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1.5rem; font-size: 1.2rem; }
h3 { font-size: 1rem; margin-bottom: .25rem; }
code, pre { font: .875rem/1.5 ui-monospace, Consolas, monospace; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
.verb { background: light-dark(#1d1b18, #ece8e0); color: light-dark(#fffdf8, #181716); border-radius: .3rem;
  padding: .1rem .5rem; font-size: .8rem; }
"""


def docs_page(document: dict[str, Any], address: str) -> str:
    """HTML of an OpenAPI document (with every schema in place, no `$ref`); `address` is where the reader reached us."""
    info = document["info"]
    operations = [
        (verb, path, op) for path, verbs in document["paths"].items() for verb, op in verbs.items() if "responses" in op
    ]
    body = "".join("".join(_operation(verb, path, op, address)) for verb, path, op in operations)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>'
        f"{escape(info['title'])}: API</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main><h1>{escape(info['title'])}</h1>"
        f"<p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="{escape(address)}/openapi.json">openapi.json</a>.</p>{body}</main></body></html>'
    )


def _operation(verb: str, path: str, operation: dict[str, Any], address: str) -> Iterator[str]:
    yield f'<h2><span class="verb">{verb.upper()}</span> <code>{escape(path)}</code></h2>'
    yield f"<p><strong>{escape(operation.get('summary', ''))}.</strong> {_prose(operation.get('description', ''))}</p>"
    send = " -F files=@picture.jpg" if "requestBody" in operation else ""
    yield f"<h3>Try it</h3><pre>{escape(f'curl{send} {address}{path}')}</pre>"
    if send:
        python = (
            "import requests\n\n"
            'with open("picture.jpg", "rb") as file:\n'
            f'    answer = requests.post("{address}{path}", files={{"files": file}}, params={{"top_k": 3}})\n'
            "answer.raise_for_status()\nprint(answer.json())"
        )
        yield f"<pre>{escape(python)}</pre>"
    if parameters := operation.get("parameters"):
        yield "<h3>Parameters, in the address</h3>"
        yield _table(
            ("name", "range", "default", "meaning"),
            [
                (f"<code>{escape(p['name'])}</code>", _range(p["schema"]), _default(p["schema"]), _meaning(p))
                for p in parameters
            ],
        )
    yield "<h3>Answers</h3>"
    yield _table(
        ("status", "meaning"), [(code, _prose(r["description"])) for code, r in sorted(operation["responses"].items())]
    )
    for code, response in operation["responses"].items():
        example = response.get("content", {}).get("application/json", {}).get("example")
        if code == "200" and example is not None:
            yield f"<pre>{escape(json.dumps(example, indent=2, ensure_ascii=False))}</pre>"


def _range(schema: dict[str, Any]) -> str:
    kind = next((s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"), schema)
    if "minimum" in kind:
        return escape(f"{kind['type']}, {kind['minimum']} to {kind['maximum']}")
    return escape(str(kind.get("type", "")))


def _default(schema: dict[str, Any]) -> str:
    return escape(json.dumps(schema["default"])) if schema.get("default") is not None else "none"


def _meaning(parameter: dict[str, Any]) -> str:
    return _prose(parameter.get("description") or parameter["schema"].get("description", ""))


def _prose(text: str) -> str:
    """Escaped, with `code` marked as such."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
