"""Source archive and wheel in clean machines without compiler, node or network: installed, run, removed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import urllib.request
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from hybridgrey import __version__
from install import machines
from install.machines import PATIENCE, serves
from parts import cleanroot, distribution
from parts.base import LOOPBACK, wait_until
from parts.cleanroot import CleanRoot

pytestmark = [
    pytest.mark.skipif(bool(cleanroot.missing()), reason=cleanroot.missing() or "fit"),
    pytest.mark.timeout(900),  # the first one makes the clean machine, and both files
]

OPT = "/opt/hybridgrey"
PROGRAM = f"{OPT}/bin/hybridgrey"
DOC = f"{OPT}/share/doc/hybridgrey"
SOURCE = distribution.ROOT / "milter/hybridgrey"
# The wheel alone, where the daemon needs no pymilter
NATIVE = "wheel", "embedded"


@pytest.fixture(scope="module")
def files():
    """Source archive and wheel."""
    return distribution.build()


def test_what_is_inside(files):
    """Both have each file of the page, its library too, and the version that the program says."""
    archive, wheel = files
    assert archive.name == f"hybridgrey-{__version__}.tar.gz"
    assert wheel.name == f"hybridgrey-{__version__}-py3-none-any.whl"
    code = [
        path for path in SOURCE.rglob("*") if path.suffix in (".py", ".lua", ".js", ".css", ".html", ".svg")
    ]
    wanted = {str(path.relative_to(SOURCE.parent)) for path in code}
    assert "hybridgrey/page/static/vendor/uPlot.iife.min.js" in wanted
    with zipfile.ZipFile(wheel) as opened:
        assert wanted - set(opened.namelist()) == set()
        told = message_from_bytes(opened.read(f"hybridgrey-{__version__}.dist-info/METADATA"))
        assert not [name for name in opened.namelist() if "__pycache__" in name or name.startswith("tests")]
    assert (told["Version"], told["License"]) == (__version__, "GPL-2.0-or-later")
    head = f"hybridgrey-{__version__}"
    with tarfile.open(archive) as opened:
        names = set(opened.getnames())
    assert {f"{head}/milter/{name}" for name in wanted} - names == set()
    for name in ("contrib/debian/build", "contrib/dist/build", "etc/hybridgrey.toml", "LICENSE", "Makefile"):
        assert f"{head}/{name}" in names
    assert not [name for name in names if re.search(r"/(\.venv|\.work|\.git|__pycache__|found)(/|$)", name)]


def test_links_of_the_readme_hold(files, tmp_path):
    """README and guides lie in the wheel as in the tree: each of their links leads somewhere."""
    with zipfile.ZipFile(files[1]) as opened:
        opened.extractall(tmp_path)  # noqa: S202  (our own)
    doc = tmp_path / f"hybridgrey-{__version__}.data/data/share/doc/hybridgrey"
    pages = [doc / "README.md", *sorted((doc / "contrib/guides").glob("*.md"))]
    assert len(pages) > 10
    for page in pages:
        for target in re.findall(r"\]\(([^()\s#]+)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), (page.name, target)


def test_without_the_library_nothing_is_built(tmp_path):
    """A tree for which the page's library was not fetched says so; it makes nothing with a page of tables."""
    script = tmp_path / "contrib/dist/build"
    script.parent.mkdir(parents=True)
    shutil.copy(distribution.ROOT / "contrib/dist/build", script)
    done = subprocess.run([script, tmp_path / "dist"], capture_output=True, text=True)
    assert (done.returncode, list(tmp_path.glob("dist/*"))) == (1, [])
    assert "run contrib/setup/page run" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_are_sound():
    """shellcheck finds nothing in the scripts that set up and build."""
    files = [*distribution.ROOT.glob("contrib/*/*"), distribution.ROOT / ".ci/run"]
    scripts = [
        path for path in files if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
    ]
    assert len(scripts) >= 8
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def put_in(machine: CleanRoot, file: Path, extras: str) -> None:
    """Install as README says, but from a folder; there is nothing to compile with and nobody to ask."""
    for tool in ("gcc", "cc", "node", "npm"):
        assert machine.run("which", tool, check=False).returncode != 0, tool
    machine.path("/tmp/house").mkdir()
    for one in (*distribution.house().iterdir(), file):
        machine.copy(one, f"/tmp/house/{one.name}")
    machine.run("python3", "-m", "venv", OPT)
    command = [f"{OPT}/bin/pip", "install", "-q", "--no-index", "--find-links", "/tmp/house"]
    machine.run(*command, f"/tmp/house/{file.name}[{extras}]")


def start(machine: CleanRoot) -> str:
    """Run the daemon as a user of its own, on the sample configuration; its process id."""
    machine.run("sh", "-c", f"install -D -m 644 {DOC}/etc/* -t /etc/hybridgrey")
    machine.run("useradd", "--system", "--user-group", "--home-dir", "/var/lib/hybridgrey", "hybridgrey")
    machine.run("install", "-d", "-o", "hybridgrey", "/var/lib/hybridgrey")
    return machines.start(machine, "hybridgrey", PROGRAM, "run")


def page(machine: CleanRoot, path: str) -> str:
    """What the daemon serves there."""

    def ask() -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{LOOPBACK}:9893{path}", timeout=PATIENCE) as answer:
            return answer.read().decode()

    return machine.within(ask)


@pytest.mark.parametrize(
    ("kind", "extras"), [("wheel", "milter,embedded"), ("archive", "milter,embedded"), NATIVE]
)
def test_life(files, kind, extras):
    """It installs, serves mail and its page with charts, has its manual, ends, and is removed whole."""
    with CleanRoot("bare") as machine:
        put_in(machine, files[kind == "wheel"], extras)
        assert __version__ in machine.run(PROGRAM, "version").stdout
        assert machine.path(f"{OPT}/share/man/man8/hybridgrey.8").exists()
        pid = start(machine)
        wait_until(lambda: serves(machine), "the daemon serves", PATIENCE)
        engine = "libmilter" if "milter" in extras else "native"
        assert f'"engine":"{engine}"' in machine.path(machines.LOG).read_text()
        assert machine.run("stat", "-c", "%U", f"/proc/{pid}").stdout.strip() == "hybridgrey"
        (library,) = re.findall(r'src="([^"]*uPlot[^"]*\.js)"', page(machine, "/"))
        assert "uPlot" in page(machine, f"/{library.lstrip('/')}")
        assert f"\n{__version__}" in machine.run(PROGRAM, "status", check=False).stdout.replace(" ", "\n")
        machine.run("sh", "-c", f"kill -TERM {pid}")
        wait_until(lambda: not machine.path(f"/proc/{pid}").exists(), "it ends", PATIENCE)
        machine.run(f"{OPT}/bin/pip", "uninstall", "-q", "--yes", "hybridgrey")
        left = machine.run(
            "find", f"{OPT}/bin", f"{OPT}/lib", f"{OPT}/share", "-iname", "*hybridgrey*", check=False
        )
        assert [
            path for path in left.stdout.split("\n") if path.startswith("/") and not path.startswith("/proc")
        ] == []
