"""The repository's own promises: import rules, ranges listed once, a lock without addresses, documents that are true."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def modules_after(code: str) -> set[str]:
    run = subprocess.run([sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], cwd=ROOT, capture_output=True,
                         text=True, check=True)  # fmt: skip
    return {name.split(".")[0] for name in run.stdout.split()}


def test_importing_lobbycard_costs_nothing():
    loaded = modules_after("import lobbycard")
    assert not loaded & {"numpy", "PIL", "pandas", "torch", "fastai", "sklearn", "onnxruntime", "requests"}


def test_serving_with_onnx_imports_neither_torch_nor_scikit_learn_nor_pandas(trained):
    picture = trained.data.side(True)["path"].iloc[0]
    loaded = modules_after(
        f"from lobbycard.__main__ import main; main(['predict', '--model', {str(trained.config.out)!r}, {str(picture)!r}])"
    )
    assert "onnxruntime" in loaded
    assert not loaded & {
        "torch",
        "torchvision",
        "fastai",
        "timm",
        "sklearn",
        "scipy",
        "pandas",
        "matplotlib",
        "requests",
    }


def test_import_rules_hold():
    run = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout


def ranges(text: str) -> set[str]:
    return {re.sub(r"\s", "", line) for line in text.splitlines() if line.strip() and not line.startswith("#")}


def canonical(requirement: str) -> str:
    """A requirement's name as package indexes compare it, without extras and versions."""
    return re.sub("[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def test_requirements_are_pyprojects():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    base = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M).group(1)
    train = re.search(r"^train = \[(.*?)^\]", text, re.S | re.M).group(1)
    serve = re.search(r"^serve = \[(.*?)^\]", text, re.S | re.M).group(1)
    expected = set(re.findall(r'"([^"]+)"', base + train + serve))
    assert ranges((ROOT / "requirements.txt").read_text(encoding="utf-8")) == expected


def test_the_lock_has_versions_for_every_requirement_and_no_address():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock and "--" not in lock
    pinned = {canonical(line.split("==")[0]) for line in lock.splitlines() if "==" in line}
    wanted = {canonical(r) for r in ranges((ROOT / "requirements.txt").read_text(encoding="utf-8"))}
    assert wanted <= pinned and "torch==2.13" not in lock


def test_the_readme_starts_with_what_a_newcomer_needs():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:30]
    head = "\n".join(lines)
    assert "make train" in head and "make test" in head and re.search(r"!\[.+\]\((docs/\S+)\)", head)
    picture = re.search(r"!\[.+\]\((docs/\S+)\)", head).group(1)
    assert (ROOT / picture).is_file()


def test_flags_named_in_the_readme_exist():
    from lobbycard.poster.config import Config, flag

    known = {flag(name) for name in Config.__dataclass_fields__} | {"--no-download", "--help"}
    known |= {"--nproc-per-node"}  # torchrun's
    commands = [["-m", "lobbycard", name] for name in ("predict", "evaluate", "download", "sample", "space")]
    for command in (*commands, ["app_gradio.py"], ["benchmarks/bench_quality.py"]):
        run = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        known |= set(re.findall(r"--[a-z][a-z-]+", run.stdout))
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = (
        re.findall(r"```\w*\n(.*?)```", page, re.S)
        + re.findall(r"^    .*$", page, re.M)
        + re.findall(r"`[^`\n]+`", page)
    )
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(blocks)))
    assert {"--csv", "--resume", "--model"} <= named <= known


def test_a_fresh_clone_has_the_folders_and_nothing_of_them_but_their_pages():
    listed = subprocess.run(
        ["git", "ls-files", "data", "models", ".gitignore"], cwd=ROOT, capture_output=True, text=True
    )
    assert set(listed.stdout.split()) == {"data/README.md", "models/README.md", ".gitignore"}


@pytest.mark.parametrize(
    "name", ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "docs/design.md", "docs/log.md", "environment.yml"]
)
def test_the_documents_are_there(name):
    assert len((ROOT / name).read_text(encoding="utf-8")) > 200


def test_where_skips_are_not_allowed_a_missing_tool_fails_and_an_honest_skip_stays(tmp_path):
    bodies = {
        "browser": 'pytest.skip("no chromium here", allow_module_level=True)',
        "package": 'pytest.importorskip("no_such_package_at_all")',
        "curl": '@pytest.mark.skipif(True, reason="no curl here")\ndef test(): ...',
        "python": 'def test(): pytest.skip("no Python 3.10 on this machine")',
        "system": 'def test(): pytest.skip("Windows has no such files")',
        "expected": "@pytest.mark.xfail\ndef test(): assert False",
    }
    shutil.copy(ROOT / "tests/conftest.py", tmp_path)
    for name, body in bodies.items():
        (tmp_path / f"test_{name}.py").write_text(f"import pytest\n{body}\n", encoding="utf-8")
    failed = {}
    for flag in ("", "1"):
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-rfE", "--continue-on-collection-errors", "--rootdir", tmp_path, tmp_path],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "LOBBYCARD_NO_SKIPS": flag},
        )  # fmt: skip
        failed[flag] = set(re.findall(r"^(?:FAILED|ERROR) test_(\w+)\.py", run.stdout, re.M)), run.returncode
    assert failed == {"": (set(), 0), "1": ({"browser", "package", "curl"}, 1)}
