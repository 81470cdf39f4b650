"""The version before this one, from the history of this repository: its program and its daemon.

    with PreviousDaemon({"store": {"url": redis.url}}) as old: ...

`missing()` says why there is none: a clone without history, or a tree without git.
"""

from __future__ import annotations

import atexit
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from parts.commandline import Done
from parts.daemon import Daemon, Settings

COMMIT = "565d35b56d32a4536d6332c884bcf0061699fd9e"
ROOT = Path(__file__).parent.parent.parent
RECORDED = ROOT / "tests" / "upgrade"
_MAIN = "from hybridgrey.cli import main; main()"


@cache
def missing() -> str:
    """Why that version cannot be run; empty when it can."""
    if not shutil.which("git"):
        return "git is not installed"
    known = subprocess.run(["git", "-C", ROOT, "cat-file", "-e", COMMIT], capture_output=True, check=False)
    return "" if known.returncode == 0 else f"commit {COMMIT[:7]} is not in this clone"


@cache
def tree() -> Path:
    """Its files, in a folder that goes when the tests end."""
    directory = Path(tempfile.mkdtemp(prefix="hg-previous-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    archive = ["git", "-C", str(ROOT), "archive", COMMIT, "milter", "etc"]
    files = subprocess.run(archive, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(files)) as tar:
        tar.extractall(directory, filter="data")
    directory.chmod(0o755)
    return directory


def environment() -> dict[str, str]:
    """Where its modules come before ours."""
    return {**os.environ, "PYTHONPATH": str(tree() / "milter"), "PYTHONDONTWRITEBYTECODE": "1"}


def run(*words: object) -> Done:
    """Run its command."""
    command = [sys.executable, "-c", _MAIN, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=60, check=False, cwd="/"
    )
    return Done(done.returncode, done.stdout, done.stderr)


class PreviousDaemon(Daemon):
    """Its daemon; what runs is checked, for a wrong path would make every test pass."""

    def defaults(self) -> Settings:
        return {key: value for key, value in super().defaults().items() if key != "engine"}

    def command(self) -> list[str | Path]:
        return [sys.executable, "-c", _MAIN, "run", "-c", self.config]

    def environment(self) -> dict[str, str]:
        return environment()

    def start(self) -> None:
        where = [sys.executable, "-c", "import hybridgrey; print(hybridgrey.__file__)"]
        said = subprocess.run(
            where, capture_output=True, text=True, env=environment(), check=True, cwd=self.directory
        )
        assert Path(said.stdout.strip()).is_relative_to(tree()), said.stdout
        super().start()
