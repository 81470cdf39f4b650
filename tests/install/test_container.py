"""The Containerfile, without a container engine: its form is checked, and what it runs is run.

The build stage runs over this machine's files in a mount namespace of its own, the other one in a clean
machine. What is not done: the base image is not fetched, and nothing is installed with apt-get; that what
would be is there is checked instead.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from install import machines
from install.machines import PATIENCE, serves
from parts import cleanroot
from parts.base import wait_until
from parts.cleanroot import CleanRoot

ROOT = Path(__file__).parents[2]
FILE = ROOT / "contrib" / "container" / "Containerfile"
KNOWN = {"FROM", "RUN", "COPY", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
OPT = "/opt/hybridgrey"
# Over /opt lies an empty folder: the environment is made where the image has it, and comes out as a tar.
BUILD = """\
set -e
mount -t tmpfs build /opt
mkdir -p /opt/.src
export HOME=/opt
unset PIP_FIND_LINKS
{commands}
tar -C / -cf {result} opt/hybridgrey
"""


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction, its continuation lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments without options."""
        return [word for word in shlex.split(self.text) if not word.startswith("--")]


def stages() -> list[list[Step]]:
    """The instructions of each stage."""
    text = re.sub(r"(?m)^#.*\n", "", FILE.read_text()).replace("\\\n", " ")
    steps = [Step(*line.split(None, 1)) for line in text.splitlines() if line.strip()]
    result: list[list[Step]] = []
    for step in steps:
        if step.name == "FROM":
            result.append([])
        result[-1].append(step)
    return result


def commands(stage: list[Step]) -> list[str]:
    """What a stage runs, one command each."""
    return [
        re.sub(r"\s+", " ", one).strip()
        for step in stage
        if step.name == "RUN"
        for one in step.text.split("&&")
    ]


def wanted(stage: list[Step]) -> list[str]:
    """The Debian packages that a stage installs."""
    installs = [one for one in commands(stage) if one.startswith("apt-get install")]
    return [word for one in installs for word in one.split()[2:] if not word.startswith("-")]


def last(name: str) -> Step:
    """An instruction of the image itself that stands there once."""
    (step,) = (step for step in stages()[-1] if step.name == name)
    return step


def test_form():
    """Known instructions; base images with a tag; files that exist; package lists not kept in the image."""
    for stage in stages():
        assert {step.name for step in stage} <= KNOWN
        assert re.fullmatch(r"\S+/debian:[a-z]+-slim( AS \w+)?", stage[0].text)
        for step in stage:
            if step.name == "COPY" and "--from" not in step.text:
                *sources, target = step.words
                assert [source for source in sources if not (ROOT / source).exists()] == []
                assert target.endswith("/") or len(sources) == 1
        assert all("--no-install-recommends" in one for one in commands(stage) if "apt-get install" in one)
    assert "rm -rf /var/lib/apt/lists/*" in commands(stages()[-1])


def test_image_is_not_root_and_takes_signals():
    """The program is PID 1 itself, without a shell that would keep SIGTERM from it, and never root."""
    assert last("USER").text == "hybridgrey"
    assert json.loads(last("ENTRYPOINT").text) == [f"{OPT}/bin/hybridgrey"]
    assert json.loads(last("CMD").text) == ["run"]
    assert last("VOLUME").text == "/var/lib/hybridgrey"
    assert last("STOPSIGNAL").text == "SIGTERM"
    names = [step.name for step in stages()[-1]]
    assert "RUN" not in names[names.index("USER") :], "nothing is left to be done as root"


def build(folder: Path) -> Path:
    """Run the build stage's commands; a tar of what the image takes from it."""
    first = stages()[0]
    source = folder / "src"
    for step in first:
        if step.name == "COPY":
            *sources, target = step.words
            place = source / Path(target).relative_to("/src")
            for one in sources:
                if (ROOT / one).is_dir():
                    shutil.copytree(
                        ROOT / one, place, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
                    )
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / one, place)
    runs = [one.replace("/src", str(source)) for one in commands(first) if not one.startswith("apt-get")]
    # Debian's own, which may not be the first on this machine's path
    runs = [re.sub(r"^python3 ", "/usr/bin/python3 ", one) for one in runs]
    result = folder / "opt.tar"
    script = BUILD.format(commands="\n".join(runs), result=result)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return result


def put_together(machine: CleanRoot) -> None:
    """Do in the machine what the image's stage says, what comes from elsewhere apart."""
    for step in stages()[-1]:
        if step.name == "COPY" and "--from" not in step.text:
            *sources, target = step.words
            machine.path(target).mkdir(parents=True, exist_ok=True)
            for source in sources:
                machine.copy(ROOT / source, target)
        elif step.name == "RUN":
            for one in commands([step]):
                if not one.startswith("apt-get"):
                    machine.run("sh", "-c", one)


def start(machine: CleanRoot) -> str:
    """Run the image's program as its user; the process id."""
    words = [*json.loads(last("ENTRYPOINT").text), *json.loads(last("CMD").text)]
    return machines.start(machine, last("USER").text, *words)


@pytest.mark.skipif(bool(cleanroot.missing()), reason=cleanroot.missing() or "fit")
@pytest.mark.timeout(900)
def test_what_the_image_would_run(tmp_path):
    """Built, put together and started as the image would be, it serves as its user and ends at SIGTERM."""
    for package in wanted(stages()[0]):
        command = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
        if subprocess.run(command, capture_output=True, text=True, check=False).stdout != "installed":
            pytest.skip(f"{package} is not installed")
    archive = build(tmp_path)
    with CleanRoot("bare") as machine:
        for package in wanted(stages()[-1]):
            machine.run("dpkg", "-s", package)
        machine.copy(archive, "/tmp/opt.tar")
        machine.run("tar", "-C", "/", "-xf", "/tmp/opt.tar")
        put_together(machine)
        port, pid = int(last("EXPOSE").text), start(machine)
        wait_until(lambda: serves(machine, port), "the daemon serves", PATIENCE)
        assert machine.run("stat", "-c", "%U", f"/proc/{pid}").stdout.strip() == "hybridgrey"
        check = json.loads(last("HEALTHCHECK").text.partition(" CMD ")[2])
        wait_until(
            lambda: machine.run(*check, check=False).returncode == 0, "it says that it is well", PATIENCE
        )
        machine.run("sh", "-c", f"kill -TERM {pid}")
        wait_until(lambda: not serves(machine, port), "it has ended", PATIENCE)
