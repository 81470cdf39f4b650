"""The man pages: they say what the program has, and every example in them works."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from hybridgrey.cli import hybridgrey
from hybridgrey.config import load, mistakes
from hybridgrey.config.rules import RuleTable
from hybridgrey.config.settings import Settings, Zone
from hybridgrey.policy.judge import Action
from parts import examples
from parts.examples import World

MAN = Path(__file__).parents[2] / "contrib" / "man"
GENERATOR = MAN / "generate.py"
OPTIONS = MAN / "hybridgrey.toml.5"


def plain(roff):
    """A line of roff as it is read."""
    return roff.replace("\\&", "").replace("\\-", "-").replace("\\e", "\\")


def displays(page):
    """The displayed examples of a page, as text."""
    found = re.findall(r"^\.nf\n\.RS\n(.*?)\n\.RE\n\.fi$", page, re.DOTALL | re.MULTILINE)
    return [plain(text) for text in found]


def test_commands_are_those_of_the_program():
    """hybridgrey(8) is what the program's own help gives; `make man` renews it."""
    made = subprocess.run([sys.executable, str(GENERATOR)], capture_output=True, text=True, check=True).stdout
    assert (MAN / "hybridgrey.8").read_text() == made, "run `make man`"


@pytest.mark.parametrize("name", ["hybridgrey.8", "hybridgrey.toml.5"])
def test_pages_are_sound(name):
    """mandoc finds nothing wrong with a page, but that it has no date."""
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", str(MAN / name)], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


def documented():
    """The sections of hybridgrey.toml(5): their keys, each with its default, None where none is shown."""
    sections = {}
    for chunk in OPTIONS.read_text().split("\n.SS ")[1:]:
        title, _, text = chunk.partition("\n")
        keys = re.findall(r"^\.TP\n\\fB(\w+)\\fR(?: = (.*))?$", text, re.MULTILINE)
        sections[title] = {k: tomllib.loads(f"v = {plain(v)}")["v"] if v else None for k, v in keys}
    return sections


def existing():
    """The same as the code has it."""
    sections = {"Top level": {}}
    for name, field in Settings.model_fields.items():
        section = mistakes.section_of(name)
        if section:
            sections[f"[{name}]"] = {k: f.default for k, f in section.model_fields.items()}
        elif name != "zones":
            sections["Top level"][name] = field.default
    sections['[zones."NAME"]'] = {k: f.default for k, f in Zone.model_fields.items()}
    sections["[[rule]]"] = dict.fromkeys(RuleTable.model_fields)
    return sections


def test_options_are_those_of_the_program():
    """hybridgrey.toml(5) has every key of the configuration with its default, and no other."""
    assert documented() == existing()


def test_actions_are_those_of_the_program():
    """Each action is named in hybridgrey.toml(5)."""
    text = re.search(r"\\fBaction\\fR\n(.*)", OPTIONS.read_text())[1]
    assert all(action.value in text for action in Action)


def test_examples_of_the_configuration_load(tmp_path):
    """Each example of hybridgrey.toml(5) is a configuration."""
    examples = displays(OPTIONS.read_text())
    assert len(examples) >= 3
    for n, text in enumerate(examples):
        path = tmp_path / f"{n}.toml"
        path.write_text(text)
        assert load.load(path).rules


def command_lines():
    """Every example of hybridgrey(8)."""
    return [line for text in displays((MAN / "hybridgrey.8").read_text()) for line in text.splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder that stands for the root, with a running daemon and all that the examples name."""
    with examples.running() as daemon:
        yield World(tmp_path_factory.mktemp("root"), daemon)


# These may end with 1, a negative result: a client not let in, nothing found, a list that is not well.
NEGATIVE = (
    "explain --exit-code",
    "greylist show",
    "greylist forget",
    "hybridgrey entries",
    "hybridgrey correspondents",
    "report observed --since 2d",
    "hybridgrey zones",
    "hybridgrey pools",
    "hybridgrey status",
    "hybridgrey log",
)
LINES = command_lines() if (MAN / "hybridgrey.8").exists() else []


def test_there_are_examples():
    """Examples of all commands are there to be tried."""
    assert len(LINES) > 20


def all_commands():
    """Every command that help shows, by the words that call it."""
    specification = importlib.util.spec_from_file_location("generate", GENERATOR)
    generate = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(generate)
    return {" ".join(path): (generate, command) for path, command in generate.commands(hybridgrey)}


@pytest.mark.parametrize("name", all_commands())
def test_each_command_has_examples(name):
    """A command shows how it is called, and each of its examples calls it."""
    generate, command = all_commands()[name]
    examples = generate.parts(command)[1]
    assert examples, f"hybridgrey {name} --help has no Examples:"
    assert [line for line in examples if not re.search(rf"\bhybridgrey (-c \S+ )?{name}\b", line)] == []
    assert set(examples) <= set(LINES), "run `make man`"


@pytest.mark.parametrize("name", all_commands())
def test_each_command_and_option_is_explained(name):
    """Help has a first line for the list of commands, and a word on every option."""
    _, command = all_commands()[name]
    assert command.get_short_help_str()
    silent = [one.name for one in command.params if isinstance(one, click.Option) and not one.help]
    assert silent == []


@pytest.mark.parametrize("name", [*all_commands(), ""])
def test_completion_knows_each_command(name):
    """The shell is offered each command, and each group its own; with the options of a command."""
    *group, last = name.split() or [""]
    words = ["hybridgrey", *group, last]
    shell = BashComplete(hybridgrey, {}, "hybridgrey", "_HYBRIDGREY_COMPLETE")
    offered = {one.value for one in shell.get_completions(words[1:-1], last)}
    wanted = {last} if name else {path.split()[0] for path in all_commands()}
    assert wanted <= offered


@pytest.mark.parametrize("line", LINES)
def test_example(world, line):
    """An example of hybridgrey(8) ends well, without a traceback."""
    if line.startswith("hybridgrey run"):
        assert world.daemon.running  # the fixture started it so
        return
    done = world.run(line)
    assert "Traceback" not in done.stderr
    negative = any(words in line for words in NEGATIVE)
    assert done.returncode in ((0, 1) if negative else (0,)), (line, done.stdout[-300:], done.stderr[-1000:])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell):
    """The completion script of each shell is printed, and names the program's own variable."""
    done = subprocess.run(
        [sys.executable, "-c", "from hybridgrey.cli import main; main()", "completion", shell],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"_HYBRIDGREY_COMPLETE={shell}_complete" in done.stdout


def test_bash_completes():
    """bash, with the script read, completes a command's name."""
    folder = Path(sys.executable).parent
    text = (
        "source <(hybridgrey completion bash); COMP_WORDS=(hybridgrey che); COMP_CWORD=1;"
        ' _hybridgrey_completion hybridgrey; echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "check-config\n", done.stderr
