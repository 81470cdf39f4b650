"""Source archive and wheel of this tree, made once, and a folder with all that they need from the index."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from parts.base import PartError

ROOT = Path(__file__).parent.parent.parent
PYTHON = "/usr/bin/python3"  # the clean machine's, which has the same release of Debian
BUILDING = 400.0  # s; from an index that may be slow
# What may be compiled where it is installed: all else must come as wheels.
COMPILED = "pymilter"


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hg-dist-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=BUILDING, check=False)
    if done.returncode != 0:
        raise PartError(f"{words[0]}: status {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


@cache
def build() -> tuple[Path, Path]:
    """The source archive and the wheel."""
    paths = [Path(line) for line in _run(ROOT / "contrib/dist/build", _folder() / "dist").splitlines()]
    (archive,) = [path for path in paths if path.name.endswith(".tar.gz")]
    (wheel,) = [path for path in paths if path.suffix == ".whl"]
    return archive, wheel


@cache
def compiled() -> Path:
    """The source of what may be compiled."""
    pip = (PYTHON, "-m", "pip", "-qq", "--disable-pip-version-check")
    folder = _folder() / "compiled"
    _run(
        *pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", COMPILED, "-d", folder, COMPILED
    )
    (source,) = folder.iterdir()
    return source


def tree(to: Path) -> None:
    """Copy what a clone has, and the libraries of the page if they are fetched."""
    for line in _run("git", "-C", ROOT, "ls-files", "-z").split("\0"):
        if line and (ROOT / line).is_file():
            (to / line).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / line, to / line)
    vendor = "milter/hybridgrey/page/static/vendor"
    if (ROOT / vendor).exists():
        shutil.copytree(ROOT / vendor, to / vendor, dirs_exist_ok=True)


@cache
def house() -> Path:
    """A folder with everything that installs both without an index; PartError when more needs a compiler."""
    folder = _folder() / "house"
    _run(PYTHON, "-m", "venv", _folder() / "builder")
    pip = (_folder() / "builder/bin/python", "-m", "pip", "-qq", "--disable-pip-version-check")
    only = ("--only-binary", ":all:", "--no-binary", COMPILED)
    wanted = (f"{build()[1]}[milter,embedded]", "setuptools", "wheel")
    _run(*pip, "download", *only, "--dest", folder, *wanted)
    for source in folder.glob("*.tar.gz"):
        # Anew, for a cached build may be linked for another Python
        _run(*pip, "wheel", "--use-pep517", "--no-cache-dir", "--no-deps", "--wheel-dir", folder, source)
        source.unlink()
    shutil.copy(build()[0], folder)
    return folder
