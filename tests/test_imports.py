"""The house of DESIGN section 9 stays in order: imports go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hybridgrey

ROOT = Path(hybridgrey.__file__).parent

# Bottom first.  A module may import those of its own storey or below, `FREE` anywhere.
STOREYS = (
    ("address", "pattern", "durations", "textfile", "backoff"),
    ("dotted", "wildcard", "match", "policy", "places", "store_url"),
    ("settings", "problems", "ruleset", "advice", "config"),
    (
        "takeover",
        "maincf",
        "addressset",
        "cidrtable",
        "indexedtable",
        "accessmap",
        "policyservices",
        "restrictions",
        "replymaps",
        "postfix",
        "namepattern",
        "whitelists",
        "rulesfile",
        "observed",
    ),
    ("bins", "logtime", "greytexts", "sendmaillog", "maillog", "proof", "graphs", "svgfile", "reportpage"),
    (
        "question",
        "reasons",
        "zones",
        "cache",
        "recall",
        "tcp",
        "upstream",
        "lookup",
        "health",
        "bounceforms",
        "normalise",
        "endpoints",
        "link",
        "plain",
        "breaker",
        "store",
        "embedded",
        "greylist",
        "entries",
        "history",
        "restore",
        "peerfiles",
    ),
    ("screen", "way", "lookback"),
    (
        "events",
        "session",
        "counts",
        "descriptors",
        "pool",
        "listener",
        "notify",
        "privileges",
        "loop",
        "children",
        "keeper",
        "exposition",
        "ledger",
        "chronicle",
        "chronicler",
        "spans",
        "verdicts",
        "pagefiles",
        "web",
        "pagedata",
    ),
    ("worker",),
    ("generation", "pace", "pidfile", "restart_only", "storewatch", "troubles"),
    ("master",),
    ("daemon",),
    ("assembly",),
    ("explanation", "liveness"),
    ("cli",),
)
FREE = (
    "cleaning",
    "logfile",
    "logs",
    "reports",
    "collector",
    "metrics",
    "meter",
    "series",
    "timeline",
    "ring",
    "journal",
)
"""Leaves that any module may use; they use each other only."""

LIBMILTER = {"session", "worker"}


def imports(path: Path) -> dict[str, int]:
    """The modules that a file imports anywhere in it, each with a line number."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute here"
            found[node.module or ""] = node.lineno
            if node.module == "hybridgrey":
                found |= {f"hybridgrey.{alias.name}": node.lineno for alias in node.names}
    return found


def storey(name: str) -> int:
    """The number of the storey that a module is on."""
    return next((number for number, names in enumerate(STOREYS) if name in names), -1)


def ours(path: Path) -> dict[str, int]:
    """The modules of this package that a file imports, by their first name."""
    names = {}
    for module, line in imports(path).items():
        package, _, rest = module.partition(".")
        first = rest.partition(".")[0]
        if package == "hybridgrey" and first and not first.startswith("_"):
            names[first] = line
    return names


MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    """No module imports one from a storey above its own; leaves import leaves only."""
    name = name_of(path)
    for imported, line in ours(path).items():
        if name in FREE:
            assert imported in FREE, f"{path.name}:{line}: a leaf imports {imported}"
        elif imported not in FREE:
            assert 0 <= storey(imported) <= storey(name), (
                f"{path.name}:{line}: imports {imported}, above it or of no storey"
            )


def test_every_module_has_its_place():
    """A new module must be given a storey, so that its direction is thought about."""
    known = {name for names in STOREYS for name in names} | set(FREE)
    assert {name_of(path) for path in MODULES} <= known


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libmilter_has_two_importers(path):
    """Only the session and the worker know the C extension."""
    assert ("milter" in imports(path)) == (name_of(path) in LIBMILTER)


def test_no_module_of_ours_shadows_the_extension():
    """`milter/` is a source root and no package: with an __init__.py it would hide the C extension."""
    assert not (ROOT.parent / "__init__.py").exists()


def test_the_command_line_works_without_libmilter():
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
