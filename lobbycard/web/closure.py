"""What a copy of the app needs to run elsewhere: the exact versions of its packages, and the modules of this one."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from lobbycard.errors import InputError

PACKAGE = "lobbycard"
# A Space's machine, whatever this one is.
# Source: https://huggingface.co/docs/hub/spaces-overview#hardware-resources
SPACE_MACHINE = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}
# A Gradio Space's builder installs gradio with these extras, in one go with requirements.txt: a pin that they do not
# allow would be a build error. Source: build logs of Spaces
SPACE_EXTRAS = ("oauth", "mcp")


def serving_requirements(root: Path) -> list[str]:
    """What serving asks for, as ranges: the package's own dependencies and its extra `serve`.

    Args:
        root: folder that may hold the checkout's `pyproject.toml`; without one the installed package is asked.
    """
    page = root / "pyproject.toml"
    if page.is_file():
        import tomlkit  # gradio brings it along, and Python 3.10 has none of its own

        project = tomlkit.parse(page.read_text(encoding="utf-8")).unwrap()["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    wanted = map(Requirement, metadata.requires(PACKAGE) or [])
    return [str(r).split(";")[0].strip() for r in wanted if r.marker is None or r.marker.evaluate({"extra": "serve"})]


def pinned(requirements: Iterable[str]) -> dict[str, str]:
    """Every package that a Space needs for these requirements: name -> its line in `requirements.txt`.

    The versions are those installed here, that is those tested here. Three kinds of line are no exact pins: a package that
    only Linux needs and that is not installed here, one whose version the Space's builder would refuse (a range), and one
    that such a package pins itself (no line).

    Raises:
        InputError: something is not installed, or the installed versions contradict each other.
    """
    found, ranges = _walk(map(Requirement, requirements))
    forced = _forced(found)
    followers = {
        canonicalize_name(r.name)
        for name in forced
        for r in _needs(name, frozenset())
        if any(part.operator == "==" for part in r.specifier)
    }
    lines = {}
    for name, version in sorted(found.items()):
        if name in forced:
            lines[name] = f"{name}{ranges[name] & forced[name]}"
        elif version is None:
            lines[name] = f"{name}{ranges[name]}"
        elif name not in followers:
            lines[name] = f"{name}=={version.public}"
    return lines


def _walk(wanted: Iterable[Requirement]) -> tuple[dict[str, Version | None], dict[str, SpecifierSet]]:
    """Every package reached: its installed version, and the range that all who ask for it leave."""
    found: dict[str, Version | None] = {}
    ranges: dict[str, SpecifierSet] = defaultdict(SpecifierSet)
    queue, seen = [(r, PACKAGE) for r in wanted], set()
    while queue:
        requirement, asker = queue.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        ranges[name] &= requirement.specifier
        try:
            version = found[name] = Version(metadata.version(name))
        except metadata.PackageNotFoundError:
            if asker == PACKAGE or sys.platform == "linux":
                raise InputError(
                    f"{requirement.name}, which {asker} needs, is not installed here; a Space is staged from what is "
                    "installed and tested: pip install 'lobbycard[serve]'"
                ) from None
            found[name] = None
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            raise InputError(
                f"{name} {version} is installed, but {asker} needs {requirement}: a Space made from this would not "
                f"build; pip install '{requirement}'"
            )
        if (name, extras) not in seen:
            seen.add((name, extras))
            queue += [(r, name) for r in _needs(name, extras)]
    return found, ranges


def _needs(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What an installed package asks for on a Space's machine."""
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        environments = ({**default_environment(), **SPACE_MACHINE, "extra": extra} for extra in ("", *extras))
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield requirement


def _forced(found: dict[str, Version | None]) -> dict[str, SpecifierSet]:
    """Ranges that the Space's builder brings along and that the versions found are not in."""
    if "gradio" not in found:
        return {}
    asked = ((canonicalize_name(r.name), r.specifier) for r in _needs("gradio", frozenset(SPACE_EXTRAS)))
    return {name: allowed for name, allowed in asked if found.get(name) and found[name] not in allowed}


def own_modules(front: Path, root: Path, packages: Iterable[str]) -> list[Path]:
    """Files of lobbycard that `front` reaches through imports, wherever in the code they stand, relative to `root`.

    A module that cannot be imported with these packages, since it or what it imports at its top needs another one, is left
    out: it would fail there anyway. Files that are no code, lie beside a module and are named in it, come along.

    Args:
        front: the script that is started.
        packages: names of the distributions that will be there.
    """
    have = {canonicalize_name(name) for name in packages}
    there = {
        top
        for top, owners in metadata.packages_distributions().items()
        if have & {canonicalize_name(owner) for owner in owners}
    }
    graph = _Graph(root, there | set(sys.stdlib_module_names) | {PACKAGE})
    if lacking := graph.lacks(front):
        raise InputError(
            f"{front.name} needs {', '.join(sorted(lacking))}, which serving does not install; import it where it is used, "
            "or add it to the extra `serve`"
        )
    reached, queue = set(), [front]
    while queue:
        file = queue.pop()
        if file not in reached and not graph.lacks(file):
            reached.add(file)
            queue += graph.imports(file)
    reached.remove(front)
    return sorted(file.relative_to(root) for file in {*reached, *_named_beside(reached)})


def _named_beside(modules: Iterable[Path]) -> Iterator[Path]:
    """Files that are no code, in a module's folder and named in its text: styles, scripts, templates."""
    for module in modules:
        text = module.read_text(encoding="utf-8")
        for entry in module.parent.iterdir():
            if entry.is_file() and not entry.suffix.startswith(".py") and entry.name in text:
                yield entry


class _Graph:
    """Which module imports which."""

    def __init__(self, root: Path, there: set[str]):
        self._root, self._there = root, there
        self._read: dict[Path, tuple[set[str], list[Path], list[Path]]] = {}

    def lacks(self, file: Path) -> set[str]:
        """Foreign modules that importing a file needs, by itself or by what it imports, and that will not be there."""
        lacking, seen, queue = set(), set(), [file]
        while queue:
            if (file := queue.pop()) not in seen:
                seen.add(file)
                foreign, own, _ = self._parsed(file)
                lacking |= foreign - self._there
                queue += own
        return lacking

    def imports(self, file: Path) -> list[Path]:
        """Own files imported anywhere in a file."""
        return self._parsed(file)[2]

    def _parsed(self, file: Path) -> tuple[set[str], list[Path], list[Path]]:
        """First parts of the names imported at the top, own files imported there, and own files imported anywhere."""
        if file not in self._read:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            top = [name for node in _at_top(tree.body) for name in self._names(node, file)]
            every = [name for node in ast.walk(tree) for name in self._names(node, file)]
            self._read[file] = {name.split(".")[0] for name in top}, self._files(top), self._files(every)
        return self._read[file]

    def _names(self, node: ast.AST, file: Path) -> list[str]:
        """Full names that a statement imports; of `from a import b` both `a` and `a.b`."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if not isinstance(node, ast.ImportFrom):
            return []
        base = node.module or ""
        if node.level:
            package = file.relative_to(self._root).parent.parts
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]

    def _files(self, names: Iterable[str]) -> list[Path]:
        """Own files that importing these names runs: the modules, and the `__init__.py` of every package above them."""
        files = []
        for parts in (name.split(".") for name in names):
            if parts[0] == PACKAGE:
                path = self._root.joinpath(*parts)
                above = [self._root.joinpath(*parts[: n + 1]) / "__init__.py" for n in range(len(parts))]
                files += [f for f in (path.with_suffix(".py"), *above) if f.is_file()]
        return files


def _at_top(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import and must work: none of `if TYPE_CHECKING`, none of `try … except ImportError`."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _at_top(node.orelse)
        elif isinstance(node, (ast.If, ast.With, ast.ClassDef)):
            yield from _at_top([*node.body, *getattr(node, "orelse", [])])
        elif not isinstance(node, ast.Try):
            yield node
