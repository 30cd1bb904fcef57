"""The exported ONNX model on other Pythons, in environments that hold what serving needs and no torch."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def find_python(version: str) -> str | None:
    """An interpreter of this minor version on the PATH or under pyenv."""
    # pyenv's own folders first: its shims are on the PATH too, and refuse a version that is not switched on.
    found = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    return next((str(candidate) for candidate in found if candidate), None)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_pain_2_onnx_answers_are_the_same_on_other_pythons_without_torch(trained, tmp_path, version):
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    serving = re.findall(r'"([^"]+)"', re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M).group(1))
    subprocess.run([python, "-m", "venv", tmp_path / "env"], check=True)
    env_python = next(p for p in (tmp_path / "env/bin/python", tmp_path / "env/Scripts/python.exe") if p.exists())
    subprocess.run(
        [env_python, "-m", "pip", "install", "--quiet", "-c", ROOT / "requirements.lock", *serving], check=True
    )
    pictures = [str(p) for p in trained.data.side(True)["path"][:12]]
    answers = {}
    for name, interpreter in (("here", sys.executable), ("there", env_python)):
        out = tmp_path / f"{name}.csv"
        command = [interpreter, "-m", "lobbycard", "predict", "--model", trained.config.out, *pictures, "--out", out]
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        with out.open(encoding="utf-8", newline="") as file:
            answers[name] = list(csv.DictReader(file))
    assert [row["genres"] for row in answers["here"]] == [row["genres"] for row in answers["there"]]
    labels = trained.data.labels
    here, there = (np.array([[float(row[label]) for label in labels] for row in answers[n]]) for n in ("here", "there"))
    assert np.abs(here - there).max() < 1e-3
    check = subprocess.run([env_python, "-c", "import torch"], capture_output=True)
    assert check.returncode != 0
