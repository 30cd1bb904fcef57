"""The README's examples, run as they are printed, against a real server."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, holding: str) -> str:
    """The one code block of the README that holds some words."""
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) if holding in b]
    return found


@pytest.fixture(scope="module")
def address(trained, tmp_path_factory):
    """A server as `make app` starts it."""
    from tests.serving import healthy, served, wait_until

    with served(trained.config.out) as process:
        wait_until(lambda: healthy(process.url))
        yield process.url


@pytest.fixture()
def beside_a_poster(drawn, tmp_path, monkeypatch):
    shutil.copy(sorted((drawn / "images").glob("*.jpg"))[0], tmp_path / "poster.jpg")
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_the_curl_example_answers(address, beside_a_poster, trained):
    command = block("sh", "curl").replace("http://127.0.0.1:7860", address)
    run = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=60)
    (result,) = json.loads(run.stdout)["results"]
    assert result["file"] == "poster.jpg" and 1 <= len(result["genres"]) <= 3
    assert set(result["probabilities"]) == set(trained.data.labels)


def test_the_python_example_prints_the_genres(address, beside_a_poster, trained):
    code = block("python", "requests.post").replace("http://127.0.0.1:7860", address)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, "NO_PROXY": "*"}
    )
    assert run.returncode == 0, run.stderr
    named = re.findall(r"'([^']+)'", run.stdout)
    assert run.stdout.startswith("poster.jpg [") and named and set(named) <= set(trained.data.labels)
