"""The house of CONTRIBUTING.md stays in order: which package may import which, and no circles."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import hybridgrey

ROOT = Path(hybridgrey.__file__).parent

LEAVES = {
    "address",
    "breaker",
    "clientaddress",
    "cleaning",
    "envelope",
    "eventloop",
    "folders",
    "logs",
    "logfile",
    "logline",
    "outcome",
}
"""Modules that any package may use; they use each other only."""

MAY_IMPORT = {
    "policy": "",
    "store": "",
    "metrics": "",
    "trouble": "",
    "protocol": "",
    "config": "policy",
    "lists": "policy config trouble metrics",
    "greylist": "store",
    "history": "config store trouble metrics greylist",
    "spf": "policy config trouble metrics lists",
    "content": "policy config trouble metrics lists",
    "hand": "policy config store trouble",
    "filter": "policy config store trouble metrics lists greylist spf content hand protocol",
    "page": "policy store metrics lists history hand",
    "report": "policy history",
    "replay": "policy config greylist",
    "migrate": "policy store greylist",
    "process": (
        "policy store metrics trouble protocol config lists greylist history spf content hand filter page"
    ),
    "cli": (
        "policy store metrics trouble protocol config lists greylist history spf content hand filter page "
        "report replay migrate process"
    ),
}
"""What each package may import, besides the leaves and itself."""

LIBMILTER = {"process.libmilter_engine", "process.worker"}
"""Only these know the C extension of pymilter."""

LINES_MAX = 360
"""A module that is longer wants a cut along a real seam."""

MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def name_of(path: Path) -> str:
    """A module's name below the package, such as ``policy.match``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


@cache
def imports(path: Path) -> list[tuple[str, int]]:
    """The modules that a file imports anywhere in it, each with its line."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            module = node.module or ""
            within = {f"{module}.{alias.name}" for alias in node.names}
            yield from ((name, node.lineno) for name in within if name.removeprefix("hybridgrey.") in NAMES)
            yield module, node.lineno


def ours(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of this package that a file imports, by their names below it."""
    for name, line in imports(path):
        package, _, rest = name.partition(".")
        if package == "hybridgrey" and rest:
            yield rest, line


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_keep_to_the_table(path: Path) -> None:
    """Leaves import leaves; a package imports itself, leaves, and what its row says."""
    home = name_of(path).partition(".")[0]
    assert home in LEAVES or home in MAY_IMPORT, f"{path}: {home} has no row in the table"
    allowed = LEAVES | ({home, *MAY_IMPORT[home].split()} if home in MAY_IMPORT else set())
    for imported, line in ours(path):
        assert imported.partition(".")[0] in allowed, f"{path}:{line}: {home} may not import {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_short(path: Path) -> None:
    """No module is longer than a reader can keep in mind."""
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_MAX, f"{path}: {lines} lines, at most {LINES_MAX}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=name_of)
def test_packages_are_described(path: Path) -> None:
    """The __init__.py of a package is its man page and nothing else; the command line's is its door, too."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    if name_of(path) != "cli":
        assert len(tree.body) == 1, f"{path}:{tree.body[1].lineno}: more than a docstring"


UNLISTED = {"cli"}
"""A command is a module there, and `hybridgrey help` lists them."""


@pytest.mark.parametrize("package", sorted(MAY_IMPORT.keys() - UNLISTED))
def test_packages_name_their_modules(package: str) -> None:
    """The man page of a package leaves no module out."""
    folder = ROOT / package
    told = set(re.findall(r"\w+", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""))
    modules = {path.stem for path in (*folder.glob("*.py"), *folder.glob("*.lua"))} - {"__init__"}
    assert modules <= told, f"{package}/__init__.py does not name {sorted(modules - told)}"


def test_no_circle() -> None:
    """No module imports, over whatever way, itself; imports inside functions count as well."""
    graph = {name_of(path): {name for name, _ in ours(path) if name in NAMES} for path in MODULES}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for imported in sorted(graph[name]):
                visit(imported, (*way, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("command", ["status", "reload", "greylist", "entries"])
def test_commands_start_without_the_filter(command: str) -> None:
    """What only looks at a daemon or its store loads nothing of what judges mail: it takes half the time."""
    paths = {name_of(path): path for path in MODULES}
    loaded, waiting = set[str](), [f"cli.{command}"]
    while waiting:
        name = waiting.pop()
        if name not in loaded:
            loaded.add(name)
            waiting += [imported for imported, _ in ours(paths[name]) if imported in paths]
    assert not {name for name in loaded if name.startswith(("filter.", "spf.", "content."))}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_libmilter_has_few_importers(path: Path) -> None:
    """What works without libmilter does not import its binding."""
    assert ("milter" in dict(imports(path))) == (name_of(path) in LIBMILTER)


def test_no_module_of_ours_shadows_the_extension() -> None:
    """`milter/` is a source root and no package: with an __init__.py it would hide the C extension."""
    assert not (ROOT.parent / "__init__.py").exists()


@pytest.mark.program
def test_the_command_line_works_without_libmilter() -> None:
    """Every command but `run` loads, and the help is shown, where pymilter is not installed."""
    program = """
import sys
sys.modules["milter"] = None
from importlib import import_module
from hybridgrey import cli
for place in cli.COMMANDS.values():
    import_module(place.partition(":")[0])
cli.hybridgrey(["--help"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
