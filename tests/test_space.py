"""A Space: staged whole or not at all, complete, checked before it goes up, and told in sentences when the Hub refuses."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from lobbycard.__main__ import main
from lobbycard.errors import InputError
from lobbycard.poster.artifact import INT8, open_model
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.web import hub as hub_module
from lobbycard.web.closure import own_modules, pinned, serving_requirements
from lobbycard.web.hub import push
from lobbycard.web.space import Wording, stage, stage_model
from lobbycard.web.space_card import check_card, split_card
from lobbycard.web.space_folder import MARKER, read_marker, sizes
from tests.fake_hub import Hub, Repo, fake_hub

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "fastai", "timm", "sklearn", "scipy", "matplotlib", "onnx")
WORDS = Wording("Poster genres", short_description="A film's genres from its poster", nouns=("poster", "genres"))


@pytest.fixture(scope="module")
def model(trained, drawn):
    return trained.config.out


@pytest.fixture(scope="module")
def picture(drawn):
    return next(path for path in sorted((drawn / "images").glob("*.jpg")))


@pytest.fixture(scope="module")
def made(model, picture, tmp_path_factory):
    """One staged Space, not to be changed."""
    return stage(model, tmp_path_factory.mktemp("spaces") / "space", examples=[picture], wording=WORDS)


@pytest.fixture()
def space(made, tmp_path):
    """One that may be changed."""
    return Path(shutil.copytree(made, tmp_path / "space"))


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# What is staged


def test_a_staged_space_is_complete_sealed_and_without_pickle(made, model):
    there = files(made)
    assert {"README.md", "requirements.txt", "app_gradio.py", ".gitattributes", "LICENSE", "Dockerfile", MARKER} < set(
        there
    )
    assert not [name for name in there if name.endswith((".pkl", ".pth", ".safetensors", ".csv", ".pyc"))]
    assert sorted(name for name in there if name.startswith("model/")) == ["model/model.json", "model/model.onnx"]
    assert len([name for name in there if name.startswith("examples/")]) == 1
    assert read_marker(made)["files"] == {name: digest for name, digest in there.items() if name != MARKER}
    staged, original = open_model(made / "model"), open_model(model)
    assert staged.about["files"] == {"model.onnx": original.about["files"]["model.onnx"]}
    assert staged.file("model.onnx").read_bytes() == original.file("model.onnx").read_bytes()
    assert staged.about | {"files": 0} == original.about | {"files": 0}
    assert "*.onnx filter=lfs diff=lfs merge=lfs -text" in (made / ".gitattributes").read_text()
    assert sizes(made)["total"] == sum(path.stat().st_size for path in made.rglob("*") if path.is_file())


def test_nothing_staged_tells_of_the_disk_it_was_made_on(made, model):
    home = str(model.parent.parent)
    texts = [p.read_text(encoding="utf-8") for p in made.rglob("*") if p.suffix in (".json", ".md", ".txt", ".py")]
    assert not [text for text in texts if home in text]


def test_a_fast_space_has_the_int8_network_alone(model, picture, tmp_path):
    if INT8 in open_model(model).about["files"]:
        staged = stage(model, tmp_path / "fast", "fast")
        assert sorted(p.name for p in (staged / "model").iterdir()) == [INT8, "model.json"]
        assert PosterPredictor.load(staged / "model", precision="fast").predict_proba([picture]).shape[0] == 1
    without = tmp_path / "without"
    shutil.copytree(model, without)
    about = json.loads((without / "model.json").read_text(encoding="utf-8"))
    about["files"].pop(INT8, None)
    about.pop("modes", None)
    (without / "model.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(InputError, match=r"--precision fast: .* has no model\.int8\.onnx .* use fp32"):
        stage(without, tmp_path / "none", "fast")
    assert not (tmp_path / "none").exists()


def test_examples_are_saved_anew_and_none_are_taken_from_others_by_default(model, picture, tmp_path):
    from PIL import Image

    tall = Image.new("RGB", (2000, 3000), "navy")
    exif = tall.getexif()
    exif[0x010E] = "taken at home"
    tall.save(tmp_path / "Amélie (2001).png", exif=exif)
    staged = stage(model, tmp_path / "s", examples=[tmp_path / "Amélie (2001).png", picture])
    assert sorted(p.name for p in (staged / "examples").iterdir()) == ["Amélie-2001.jpg", picture.name]
    with Image.open(staged / "examples" / "Amélie-2001.jpg") as saved:
        assert saved.size == (600, 900) and not dict(saved.getexif())
    assert not (stage(model, tmp_path / "bare") / "examples").exists()
    with pytest.raises(InputError, match="at most 8 pictures, got 9; name those you want"):
        stage(model, tmp_path / "many", examples=[picture] * 9)


def test_a_model_of_drawn_posters_gets_drawn_examples(model, tmp_path):
    copy = Path(shutil.copytree(model, tmp_path / "m"))
    about = json.loads((copy / "model.json").read_text(encoding="utf-8"))
    about["data"]["drawn"] = True
    (copy / "model.json").write_text(json.dumps(about), encoding="utf-8")
    main(["space", "--model", str(copy), "--out", str(tmp_path / "s")])
    staged = tmp_path / "s"
    names = sorted(p.stem for p in (staged / "examples").iterdir())
    assert names and set("-".join(names).replace("sci-fi", "scifi").split("-")) <= {
        label.lower().replace("-", "") for label in open_model(copy).labels
    }


# What serving needs


def test_pain_11_every_package_is_pinned_as_tested_and_gradio_agrees_with_sdk_version(made):
    lines = [line for line in (made / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    wanted = {Requirement(line).name: Requirement(line) for line in lines}
    assert {"gradio", "onnxruntime", "numpy", "pillow", "fastapi", "starlette", "huggingface-hub"} < set(wanted)
    assert not set(HEAVY) & set(wanted) and "scikit-learn" not in wanted
    from importlib.metadata import version

    exact = {name: str(r.specifier) for name, r in wanted.items() if str(r.specifier).startswith("==")}
    assert all(spec == f"=={version(name)}" for name, spec in exact.items())
    assert len(wanted) - len(exact) <= 2  # those that the Space's builder wants otherwise
    values, _ = split_card((made / "README.md").read_text(encoding="utf-8"))
    assert exact["gradio"] == f"=={values['sdk_version']}"


def test_pain_11_a_pin_that_the_spaces_builder_would_refuse_is_a_range():
    from importlib.metadata import requires, version

    lines = pinned(serving_requirements(ROOT))
    extras = [Requirement(r) for r in requires("gradio") if re.search(r"extra == '(mcp|oauth)'", r)]
    assert extras
    for extra in extras:
        name = extra.name.lower()
        if name in lines and version(name) not in extra.specifier:
            assert "==" not in lines[name] and all(str(part) in lines[name] for part in extra.specifier)


def test_pain_11_versions_that_contradict_each_other_are_told_before_the_hub_would():
    with pytest.raises(InputError, match=r"numpy .* is installed, but lobbycard needs numpy<1: a Space made from this"):
        pinned(["numpy<1"])
    with pytest.raises(InputError, match="nosuchpackage, which lobbycard needs, is not installed here"):
        pinned(["nosuchpackage"])


def test_the_staged_modules_are_those_that_can_be_imported_there(space):
    """Each is imported in a process that knows the staged folder and, of packages, only those in requirements.txt."""
    modules = [
        path.relative_to(space).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for path in space.rglob("*.py")
    ]
    assert "lobbycard.poster.trainer" not in modules and "lobbycard.poster.learner_file" not in modules
    assert {"app_gradio", "lobbycard.web.service", "lobbycard.poster.predictor"} < set(modules)
    code = f"""
import importlib, importlib.abc, sys
class No(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, No())
for name in {modules!r}:
    importlib.import_module(name)
import lobbycard, app_gradio
print(lobbycard.__file__, app_gradio.__file__)
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=space, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert all(str(space) in place for place in run.stdout.split())


def test_modules_are_found_through_every_kind_of_import(tmp_path):
    package = tmp_path / "lobbycard"
    texts = {
        "__init__": "",
        "a": "from lobbycard import b\nimport nowhere_else",
        "b": "def f():\n    from . import c",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nowhere_else\nPAGE = 'look.css'",
        "d": "import lobbycard.b",
        "e": "from lobbycard.a import x",
    }
    package.mkdir()
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    (package / "look.css").write_text("")
    (package / "unnamed.css").write_text("")
    front = tmp_path / "front.py"
    front.write_text("import lobbycard.d\ndef g():\n    import lobbycard.a, lobbycard.e")
    found = [path.as_posix() for path in own_modules(front, tmp_path, ["numpy"])]
    assert found == [f"lobbycard/{name}" for name in ("__init__.py", "b.py", "c.py", "d.py", "look.css")]
    front.write_text("import lobbycard.a")
    with pytest.raises(InputError, match="front.py needs nowhere_else, which serving does not install"):
        own_modules(front, tmp_path, ["numpy"])


# Front matter


def test_pain_12_the_front_matter_is_a_spaces_and_passes_the_hubs_own_reader(made, model):
    values, body = split_card((made / "README.md").read_text(encoding="utf-8"))
    assert values["sdk"] == "gradio" and values["app_file"] == "app_gradio.py"
    assert values["python_version"] == "{}.{}".format(*sys.version_info)
    assert isinstance(values["python_version"], str) and isinstance(values["sdk_version"], str)
    assert not {"model-index", "library_name", "pipeline_tag"} & set(values)  # of a model, not of a Space
    own, card = split_card((model / "README.md").read_text(encoding="utf-8"))
    assert own["library_name"] and card.strip() in body and body.count("\n---\n") == 1
    check_card(made / "README.md")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sdk": "gradoi"}, "sdk: expected one of gradio, docker, static, found 'gradoi'"),
        ({"sdk_version": 6.31}, "sdk_version: expected a version such as '6.31.0', in quotes, found 6.31"),
        ({"python_version": 3.1}, "python_version: .* without them YAML reads 3.10 as 3.1, found 3.1"),
        ({"colorFrom": "mauve"}, "colorFrom: expected one of red, yellow, green, blue, indigo, purple, pink, gray"),
        ({"app_file": "app.py"}, "app_file: expected the name of a file beside README.md, found 'app.py'"),
        ({"short_description": "x" * 61}, "short_description: expected at most 60 characters"),
        ({"emoji": ":)"}, "emoji: expected one emoji, found"),
        ({"title": ""}, "title: expected 1 to 96 characters"),
        ({"tags": "posters"}, "tags: expected a list of names, found 'posters'"),
        ({"license": "Apache 2.0"}, "license: expected its name on the Hub"),
    ],
)
def test_pain_12_a_front_matter_that_the_hub_would_refuse_is_told_before_any_upload(space, change, words):
    values, body = split_card((space / "README.md").read_text(encoding="utf-8"))
    (space / "README.md").write_text(f"---\n{yaml.safe_dump(values | change)}---\n{body}", encoding="utf-8")
    with pytest.raises(InputError, match=words):
        check_card(space / "README.md")


@pytest.mark.parametrize("text", ["# no front matter\n", "---\n: [\n---\n# x\n", "---\n- a\n---\n# x\n"])
def test_pain_12_a_card_without_readable_front_matter_is_told(space, text):
    (space / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="front matter"):
        check_card(space / "README.md")


# Staging again


def test_anything_else_than_a_staged_space_is_left_alone(model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="holds something else than a staged Space, and is left alone"):
        stage(model, tmp_path / "mine")
    assert files(tmp_path / "mine").keys() == {"thesis.txt"}
    with pytest.raises(InputError, match="no staged Space is here; leave out --model-only"):
        stage_model(model, tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="holds something else"):
        stage(model, tmp_path / "file")


def test_a_staging_that_fails_leaves_the_old_space_as_it_was(space, model, tmp_path):
    before = files(space)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>")
    with pytest.raises(InputError, match="not a picture but a web page"):
        stage(model, space, examples=[bad])
    assert files(space) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jpg", "space"]


def test_staging_again_keeps_the_owners_words_and_files_and_drops_what_is_stale(space, model, picture):
    readme = space / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("colorFrom: red", "colorFrom: blue"), encoding="utf-8")
    (space / ".git" / "refs" / "tags").mkdir(parents=True)
    (space / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (space / "examples" / "mine.txt").write_text("x")
    (space / "lobbycard" / "__pycache__").mkdir()
    (space / "lobbycard" / "__pycache__" / "x.pyc").write_text("x")
    stage(model, space, title="Posters, read")
    values, _ = split_card(readme.read_text(encoding="utf-8"))
    assert values["colorFrom"] == "blue" and values["title"] == "Posters, read"
    assert (space / ".git" / "refs" / "tags").is_dir() and (space / ".git" / "HEAD").is_file()
    assert (space / "examples" / "mine.txt").is_file() and not (space / "examples" / picture.name).exists()
    assert not (space / "lobbycard" / "__pycache__").exists()
    assert ".git/HEAD" not in read_marker(space)["files"]


def test_pain_13_the_model_alone_can_be_updated(space, model, tmp_path):
    other = Path(shutil.copytree(model, tmp_path / "other"))
    about = json.loads((other / "model.json").read_text(encoding="utf-8"))
    about["thresholds"] = dict.fromkeys(about["thresholds"], 0.25)
    (other / "model.json").write_text(json.dumps(about), encoding="utf-8")
    (other / "README.md").write_text("---\nlicense: mit\n---\n\n# another\n", encoding="utf-8")
    before = files(space)
    stage_model(other, space, wording=WORDS)
    after = files(space)
    assert {name for name in before if before[name] != after[name]} == {"README.md", "model/model.json", MARKER}
    assert set(before) == set(after) and open_model(space / "model").thresholds[0] == 0.25
    assert "# another" in (space / "README.md").read_text(encoding="utf-8")
    marker = json.loads((space / MARKER).read_text(encoding="utf-8"))
    (space / MARKER).write_text(json.dumps(marker | {"model_format": 0}), encoding="utf-8")
    with pytest.raises(InputError, match="its app reads models of format 0, .* leave out --model-only"):
        stage_model(other, space)


# A Space that comes from elsewhere, and what else may be given


def remark(space: Path, **changes) -> None:
    """Change what the marker says."""
    marker = json.loads((space / MARKER).read_text(encoding="utf-8"))
    (space / MARKER).write_text(json.dumps(marker | changes), encoding="utf-8")


def either(model: Path, out: Path, told: str) -> None:
    """Both ways to renew a Space refuse, in one sentence."""
    for renew in (stage, stage_model):
        with pytest.raises(InputError, match=told):
            renew(model, out)


@pytest.mark.parametrize(
    "name", ["../../victim.txt", "a/../../victim.txt", "/etc/hostname", "C:/x", "..\\x", "", ".", "a//b"]
)
def test_a_name_in_the_marker_never_leads_out_of_the_space(space, model, tmp_path, name):
    victim = tmp_path.parent / "victim.txt"
    victim.write_text("mine")
    marked = read_marker(space)["files"]
    remark(space, files=marked | {name: "0"})
    either(model, space, "expected names of files in this folder, found .* stage into a new folder")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("link", ["examples", "examples/x.jpg", "README.md"])
def test_a_link_in_the_place_of_a_staged_file_or_folder_is_not_followed(space, model, tmp_path, link):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x.jpg").write_text("secret")
    if link == "examples":
        shutil.rmtree(space / "examples")
    (space / link).unlink(missing_ok=True)
    (space / link).symlink_to(secret if link == "examples" else secret / "x.jpg")
    remark(space, files=read_marker(space)["files"] | {"examples/x.jpg": "0"})
    either(model, space, f"{link}: a link, where a staged Space has a file or folder of its own; remove it")
    assert not [path for path in space.rglob("*") if path.is_file() and not path.is_symlink()
                and path.read_bytes() == b"secret"]  # fmt: skip


def test_a_file_that_was_not_staged_never_takes_the_place_of_one_that_is(space, model):
    marked = read_marker(space)["files"]
    (space / "app_gradio.py").write_text("print('mine')")
    remark(space, files={name: digest for name, digest in marked.items() if name != "app_gradio.py"})
    with pytest.raises(InputError, match=r"app_gradio\.py: was not staged before, and now something of this name is"):
        stage(model, space)
    assert (space / "app_gradio.py").read_text() == "print('mine')"


def test_a_marker_without_its_contents_and_a_card_that_is_gone_are_sentences(space, model):
    (space / "README.md").unlink()
    with pytest.raises(InputError, match=r"README\.md: expected the front matter .* leave out --model-only"):
        stage_model(model, space)
    (space / MARKER).write_text('{"space_version": 1, "files": {}}')
    either(model, space, "expected an object 'files' and a number 'model_format'")


@pytest.mark.parametrize("out", [".", "new/..", "..", "/"])
def test_the_folder_one_is_in_and_those_above_are_refused(model, tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="is the folder you are in, or one above it|holds something else"):
        stage(model, Path(out))
    assert Path.cwd() == tmp_path / "here" and not list(tmp_path.glob(".*"))


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_place_where_nothing_can_be_made_is_a_sentence(model):
    with pytest.raises(InputError, match=r"--out /proc/x: cannot be written \(.*\); choose another place"):
        stage(model, Path("/proc/x"))


def test_a_link_to_a_space_stays_one_and_the_space_behind_it_is_renewed(space, model, tmp_path):
    link, loose = tmp_path / "link", tmp_path / "loose"
    link.symlink_to(space)
    stage(model, link, title="Behind the link")
    assert link.is_symlink() and "title: Behind the link" in (space / "README.md").read_text(encoding="utf-8")
    loose.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="loose: a link that leads nowhere; remove it"):
        stage(model, loose)
    assert loose.is_symlink()


def test_the_model_of_a_space_keeps_its_card(space, model, tmp_path):
    _, card = split_card((model / "README.md").read_text(encoding="utf-8"))
    for out, renew in ((space, stage), (space, stage_model), (tmp_path / "other", stage)):
        renew(space / "model", out)
        text = (out / "README.md").read_text(encoding="utf-8")
        assert text.count(card.strip()) == 1 and "came without a card" not in text
    readme = space / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").split("What follows")[0], encoding="utf-8")
    either(space / "model", space, "is not in it any more; give the folder that was trained")


@pytest.mark.parametrize("title", ["   ", "\udcff", "a\nb", "x" * 97])
def test_a_title_that_nobody_can_read_is_refused(model, tmp_path, title):
    with pytest.raises(InputError, match="--title .*: expected 1 to 96 characters that can be read, on one line"):
        stage(model, tmp_path / "s", title=title)
    assert not (tmp_path / "s").exists()


def test_cards_that_cannot_be_read_are_sentences_that_name_the_file(space, model, tmp_path):
    copy = Path(shutil.copytree(model, tmp_path / "m"))
    for text, told in (
        (b"---\nlicense: 5\n---\n# x\n", "license: expected its name on the Hub, .* found 5"),
        (b"---\ntags: 5\n---\n# x\n", "tags: expected a list of names, found 5"),
        (b"# Am\xe9lie\n", "expected UTF-8, found byte 0xe9; save it as UTF-8"),
    ):
        (copy / "README.md").write_bytes(text)
        either(copy, space, re.escape(str(copy / "README.md")) + f": {told}")
    (copy / "README.md").write_bytes(b"---\ntags: null\nlicense:\n---\n# x\n")
    values, _ = split_card((stage(copy, tmp_path / "s") / "README.md").read_text(encoding="utf-8"))
    assert values["tags"] == [] and values["license"] == "apache-2.0"
    (space / "README.md").write_bytes(b"# Am\xe9lie\n")
    either(model, space, re.escape(str(space / "README.md")) + ": expected UTF-8")


def test_an_error_names_the_space_and_no_folder_that_is_gone(space, model):
    readme = space / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("colorFrom: red", "colorFrom: mauve"), encoding="utf-8")
    either(model, space, f"^{re.escape(str(readme))}: colorFrom: expected one of")


def test_a_bad_name_is_told_before_anything_is_staged(model, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["space", "--model", str(model), "--out", str(tmp_path / "s"), "--push", "bad"])
    assert end.value.code == 2 and "error: --push bad: expected user/name" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_what_is_asked_of_a_pushed_space_is_something_staged(space, tmp_path):
    (space / "examples" / "0.jpg").write_text("mine, and not staged")
    assert hub_module._question(space, tmp_path).name != "0.jpg"
    shutil.rmtree(space / "examples")
    remark(space, files={})
    from PIL import Image

    with Image.open(hub_module._question(space, tmp_path)) as asked:
        assert asked.mode == "RGB"


def test_what_the_dockerfile_copies_is_staged(made):
    text = (made / "Dockerfile").read_text(encoding="utf-8")
    assert "ARG PYTHON={}.{}\n".format(*sys.version_info) in text
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for word in line.split()]
    assert "requirements.txt" in copied and all(list(made.glob(word)) for word in copied)
    assert "-r requirements.txt" in text and re.search(r"^USER (?!root)", text, re.M)
    assert "/api/v1/health" in text and "EXPOSE 7860" in text


def test_flags_that_the_deployment_page_names_exist():
    page = (ROOT / "deploy_to_huggingface.md").read_text(encoding="utf-8")
    known = {"--rm", "--no-edit", "--repo-type"}  # docker's, git's and hf's
    for command in (["-m", "lobbycard", "space"], ["app_gradio.py"]):
        run = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True)
        known |= set(re.findall(r"--[a-z][a-z-]+", run.stdout))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page))
    assert {"--model", "--push", "--model-only", "--private", "--share"} <= named <= known
    stages = set(re.findall(r"in stage ([A-Z_]+)", page))
    assert stages and stages <= {*hub_module.ENDS, *hub_module.STARTING}
    assert "LOBBYCARD_AUTH" in page and hub_module.AUTH in page


# The Hub


@pytest.fixture()
def the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(hub_module, "POLL", 0.02)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with fake_hub(Hub()) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        files_at = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files_at)
        yield hub


def refused(space: Path, repo_id: str = "jane/posters", **options) -> str:
    with pytest.raises(InputError) as told:
        push(space, repo_id, say=lambda _: None, **options)
    return str(told.value)


def test_no_token_a_wrong_one_and_one_that_may_only_read_are_sentences(made, the_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the token is not valid (wrong, expired or revoked); make another one at https://" in refused(made)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert "the token of jane may only read; make one of type Write" in refused(made)
    monkeypatch.delenv("HF_TOKEN")
    assert "no Hugging Face token here: make one of type Write at" in refused(made)
    assert not any(line.startswith("POST") for line in the_hub.asked) and not the_hub.repos


@pytest.mark.parametrize("name", ["posters", "jane/", "jane/my posters", "a/b/c", "jane/--x", ""])
def test_a_bad_name_is_told_before_anybody_is_asked(made, the_hub, name):
    assert refused(made, name).startswith(f"--push {name}: expected user/name")
    assert not the_hub.asked


def test_a_name_that_is_not_ours_and_one_that_is_taken_are_sentences(made, the_hub):
    told = refused(made, "netflix/posters")
    assert "the token may not write to netflix; the token belongs to jane, studio" in told
    the_hub.repos["jane/other"] = Repo({"README.md": b"", "app.py": b"mine"}, "docker")
    told = refused(made, "jane/other")
    assert "exists and was not made by lobbycard (docker, 2 files); nothing was changed" in told
    assert the_hub.repos["jane/other"].files == {"README.md": b"", "app.py": b"mine"}


def test_the_hubs_refusals_are_sentences(made, the_hub):
    for piece, status, words, told in (
        (
            "repos/create",
            402,
            "Subscription required",
            "asks for a subscription or credit first",
        ),
        ("repos/create", 429, "slow down", "too many requests; wait some minutes"),
        ("repos/create", 400, "bad name", "the Hub refuses (400: "),
        ("whoami", 500, "oops", "the Hub has trouble (500)"),
    ):
        the_hub.refuse = {piece: (status, words)}
        found = refused(made)
        assert told in found and (status in (429, 500) or words in found)


def test_pain_12_the_hubs_own_verdict_on_the_front_matter_is_told(space, the_hub, monkeypatch):
    readme = space / "README.md"
    readme.write_text(
        readme.read_text(encoding="utf-8").replace("colorFrom: red", "colorFrom: mauve"), encoding="utf-8"
    )
    monkeypatch.setattr("lobbycard.web.space_card.COLOURS", ("mauve", "yellow"))  # as if the Hub had changed its mind
    assert 'the Hub refuses it: "colorFrom" must be one of [red, yellow]' in refused(space)
    assert not the_hub.repos


def test_no_network_is_a_sentence(made, the_hub, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        told = refused(made)
    assert "cannot be reached" in told and "check the internet connection" in told


def test_a_push_brings_exactly_what_was_staged_and_deletes_only_what_it_once_brought(space, the_hub):
    said = []
    with pytest.raises(InputError, match=r"runs but gave no answer .* look at .*\?logs=container"):
        push(space, "jane/posters", private=True, say=said.append)  # nobody listens at the Space's address
    repo = the_hub.repos["jane/posters"]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in repo.files.items()} == files(space)
    assert repo.private and repo.sdk == "gradio" and the_hub.stored
    assert [line.strip() for line in said[-3:]] == ["BUILDING", "APP_STARTING", "RUNNING"]
    repo.files["examples/added on the Hub.txt"] = b"mine"
    repo.files["old [1].txt"] = repo.files["old 1.txt"] = b"stale"
    marker = json.loads(repo.files[MARKER])
    marker["files"]["old [1].txt"] = "0"
    repo.files[MARKER] = json.dumps(marker).encode()
    (space / ".env").write_text("SECRET=1")
    with pytest.raises(InputError, match="gave no answer"):
        push(space, "jane/posters", say=said.append)
    assert "old [1].txt" not in repo.files and ".env" not in repo.files
    assert "old 1.txt" in repo.files and "examples/added on the Hub.txt" in repo.files


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (["BUILDING", "BUILD_ERROR"], r"in stage BUILD_ERROR: its packages could not be installed.*\?logs=build"),
        (["RUNTIME_ERROR"], r"in stage RUNTIME_ERROR: the app ended with an error.*\?logs=container"),
        (["CONFIG_ERROR"], "in stage CONFIG_ERROR: the Hub cannot use the front matter"),
        (["PAUSED"], "in stage PAUSED: it is paused, so it was updated but not started; restart it in .*/settings"),
        (["SLEEPING"], "in stage SLEEPING: it sleeps and wakes with its first visitor"),
        (["SOMETHING_NEW"], "in stage SOMETHING_NEW: see http"),
    ],
)
def test_a_space_that_does_not_come_up_is_told_with_where_to_look(made, the_hub, stages, words):
    the_hub.stages, the_hub.message = stages, "exit code 137"
    told = refused(made)
    assert re.search(words, told) and told.endswith("(exit code 137)")


def test_the_version_before_is_not_taken_for_the_new_one(made, the_hub, monkeypatch):
    the_hub.late, the_hub.stages, said = 2, ["BUILDING", "BUILD_ERROR"], []
    with pytest.raises(InputError, match="BUILD_ERROR"):
        push(made, "jane/posters", say=said.append)
    assert [line.strip() for line in said[-3:]] == ["RUNNING the version before", "BUILDING", "BUILD_ERROR"]
    the_hub.stages = ["BUILDING"]
    monkeypatch.setattr(hub_module, "PATIENCE", 0.1)
    assert "still in stage BUILDING after" in refused(made)


def test_the_command_tells_what_it_staged_and_a_refusal_in_one_line(model, tmp_path):
    command = [sys.executable, "-m", "lobbycard", "space", "--model", str(model), "--out", str(tmp_path / "s")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and re.search(r"staged .*: \d+\.\d MB", run.stdout) and "app_gradio.py" in run.stdout
    environment = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = subprocess.run([*command, "--model-only", "--push", "jane/posters"], cwd=ROOT, capture_output=True, text=True,
                           env=environment)  # fmt: skip
    assert again.returncode == 2 and again.stderr.count("\n") == 1
    assert again.stderr.startswith("error: no Hugging Face token here: make one of type Write")


# The proof


@contextmanager
def running(python: Path | str, folder: Path, log: Path):
    """The app of a staged folder, as its own process; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LOBBYCARD_MODEL", "LOBBYCARD_AUTH")}
    environment |= {"GRADIO_SERVER_PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen([str(python), "app_gradio.py"], cwd=folder, env=environment, stdout=out, stderr=out)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            assert process.poll() is None and time.monotonic() < until, log.read_text(encoding="utf-8")
            try:
                with urllib.request.urlopen(f"{address}/api/v1/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def by_client(address: str, picture: Path) -> dict:
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False, analytics_enabled=False)
    try:
        return client.predict(handle_file(picture), api_name="/predict")
    finally:
        client.close()


def by_rest(address: str, picture: Path) -> dict:
    import httpx

    answer = httpx.post(f"{address}/api/v1/predict", files={"files": (picture.name, picture.read_bytes())}, timeout=60)
    return answer.raise_for_status().json()["results"][0]


def genres(answer: dict) -> list[str]:
    return [genre["name"] for genre in answer["genres"]]


@pytest.mark.slow
def test_pain_9_10_11_13_a_staged_space_answers_from_a_clean_environment_of_its_requirements_alone(
    model, drawn, the_hub, tmp_path, capfd
):
    """LOBBYCARD_MODEL_FOLDER names another model folder than the tests' own tiny one."""
    import venv

    if named := os.environ.get("LOBBYCARD_MODEL_FOLDER"):
        model = Path(named)
    pictures = sorted((drawn / "images").glob("*.jpg"))[:3]
    folder = stage(model, tmp_path / "space", examples=pictures)
    home = tmp_path / "clean"
    venv.create(home, with_pip=True)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-r", str(folder / "requirements.txt")], check=True, timeout=900)
    subprocess.run([str(python), "-m", "pip", "check"], check=True)
    gone = f"import importlib.util as u; print([n for n in {HEAVY!r} if u.find_spec(n)])"
    assert subprocess.run([str(python), "-c", gone], capture_output=True, text=True, check=True).stdout.strip() == "[]"

    # What a Space's builder adds, in one go with the requirements
    from importlib.metadata import version

    extras = [f"gradio[oauth,mcp]=={version('gradio')}", "spaces", "uvicorn>=0.14.0", "websockets>=10.4"]
    subprocess.run([*install, "--dry-run", "-r", str(folder / "requirements.txt"), *extras], check=True, timeout=600)

    predictor = PosterPredictor.load(model)
    with running(python, folder, tmp_path / "log.txt") as address:
        for example in sorted((folder / "examples").iterdir()):
            row = predictor.predict_proba([example])[0]
            for answer in (by_client(address, example), by_rest(address, example)):
                assert answer["probabilities"] == pytest.approx(
                    dict(zip(predictor.labels, row.tolist(), strict=True)), abs=1e-3
                )
                passed = {
                    label for label, p, t in zip(predictor.labels, row, predictor.thresholds, strict=True) if p >= t
                }
                assert set(genres(answer)) == (passed or {predictor.labels[row.argmax()]})
        # And the whole of --push, against a server that plays the Hub and names this process as the running Space
        the_hub.host = address
        told = push(folder, "jane/posters", say=lambda _: None)
        assert told.startswith(f"{pictures[0].name}: ") and "'genres'" in told
    bytes_of = lambda place: sum(p.lstat().st_size for p in place.rglob("*") if p.is_file() and not p.is_symlink())  # noqa: E731
    environment, staged = bytes_of(home), sizes(folder)["total"]
    with capfd.disabled():
        print(f"\nclean environment {environment / 1e6:.0f} MB, staged folder {staged / 1e6:.1f} MB")
    assert environment < 500e6 and staged < 120e6


@pytest.mark.slow
def test_a_fast_space_starts_with_the_int8_network(model, drawn, tmp_path):
    if INT8 not in open_model(model).about["files"]:
        pytest.skip("this model's int8 network was refused when it was made")
    folder = stage(model, tmp_path / "space", "fast")
    with running(sys.executable, folder, tmp_path / "log.txt") as address:
        answer = by_client(address, next((drawn / "images").glob("*.jpg")))
    assert answer["precision"] == "int8" and answer["genres"]
