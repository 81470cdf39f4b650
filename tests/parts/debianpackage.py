"""The Debian package, built once from this tree for all tests of a run, and a later version of it."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from parts.base import PartError

ROOT = Path(__file__).parent.parent.parent
MAINTAINER = "Tests & Trials <tests@hybridgrey.org>"
BUILDING = 600.0  # s; wheels come from an index that may be slow
TOOLS = ("dpkg-deb", "dpkg-shlibdeps", "strip", "gcc")


def missing() -> str:
    """Why the package cannot be built here; empty when it can."""
    for tool in TOOLS:
        if not shutil.which(tool):
            return f"{tool} is not installed"
    return ""


@cache
def build() -> Path:
    """The package of this tree, in a folder that goes when the tests end."""
    directory = Path(tempfile.mkdtemp(prefix="hg-package-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    command = [str(ROOT / "contrib/debian/build"), str(directory)]
    environment = {**os.environ, "MAINTAINER": MAINTAINER}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=BUILDING, env=environment, check=False
    )
    if done.returncode != 0:
        raise PartError(f"contrib/debian/build: status {done.returncode}\n{done.stderr[-3000:]}")
    return Path(done.stdout.strip())


@cache
def later(version: str) -> Path:
    """The same package with a later version, which its program tells too, and a changed sample config."""
    package = build()
    tree = package.with_name(f"hybridgrey-{version}")
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", control.read_text()))
    (module,) = tree.glob("usr/lib/hybridgrey/lib/python3*/site-packages/hybridgrey/__init__.py")
    module.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', module.read_text()))
    sample = tree / "etc/hybridgrey/hybridgrey.toml"
    sample.write_text(sample.read_text() + f"\n# as of {version}\n")
    result = package.with_name(f"hybridgrey_{version}_{package.stem.rsplit('_', 1)[1]}.deb")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, result],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(tree)
    return result
