"""The command ``hybridgrey check-config``, as a program of its own."""

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

import hybridgrey
from hybridgrey import cli
from hybridgrey.config import load
from parts.forked import run

SAMPLE = Path(__file__).parents[2] / "etc" / "hybridgrey.toml"
PROGRAM = [sys.executable, "-c", "from hybridgrey.cli import main; main()"]

BAD = """
workers = "many"
[store]
url = "redis://:hunter2@host:port"
[[rule]]
name = "lists"
dns = ["zen.spamhaus.org=127.0.0.[4..1]"]
action = "reject"
"""
WARNED = '[store]\nurl = "redis://:hunter2@127.0.0.1"\nkey_secret = "sesame"\n[zones.unused]\n'


@pytest.fixture
def write(tmp_path):
    """A function that writes a config file and gives its path."""

    def write(text):
        path = tmp_path / "hg.toml"
        path.write_text(text)
        return path

    return write


def test_good_file_is_printed_in_full():
    """The effective configuration of a good file is TOML on stdout, with every default; the status is 0."""
    done = run("check-config", "--show", "-c", SAMPLE)
    assert (done.returncode, done.stderr) == (0, "")
    assert tomllib.loads(done.stdout) == load.default().shown


def test_good_file_is_ok():
    """One line says so, and which file was looked at."""
    done = run("check-config", "-c", SAMPLE)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ok: {SAMPLE}\n", "")


def test_printed_configuration_means_the_same(write, tmp_path):
    """What is printed can be used as a config file."""
    source = write('workers = 3\n[greylist]\ndelay = "90s"\n[zones.z]\nhealth = "off"\n')
    printed = run("check-config", "--show", "-c", source).stdout
    (tmp_path / "again.toml").write_text(printed)
    again = load.load(tmp_path / "again.toml")
    first = load.load(source)
    assert again.model_copy(
        update={"path": None, "files": (), "sources": {}, "warnings": ()}
    ) == first.model_copy(update={"path": None, "files": (), "sources": {}, "warnings": ()})


def test_bad_file_has_all_errors_on_stderr(write):
    """Errors come one a line on stderr, nothing on stdout, and the status is 78."""
    path = write(BAD)
    done = run("check-config", "-c", path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines() == [
        f"{path}: line 2: workers: must be a whole number, without quotes",
        f"{path}: line 4: store.url: the port must be a number from 1 to 65535",
        f'{path}: line 7: rule "lists": dns[1]: a range runs backwards at '
        '"zen.spamhaus.org=127.0.0.[>4..1<]"',
    ]


def test_json_has_errors_and_warnings(write):
    """With --json all of it is one JSON object on stdout, for good and bad files."""
    path = write(BAD)
    done = run("check-config", "--json", "-c", path)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (78, "")
    assert (report["ok"], len(report["errors"]), report["warnings"], report["config"]) == (False, 3, [], None)
    path.write_text(WARNED)
    done = run("check-config", "--json", "-c", path)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (report["ok"], report["errors"]) == (True, [])
    assert report["warnings"] == [f"{path}: line 4: zones.unused: no rule asks this list"]
    assert report["config"]["store"]["url"] == "redis://:********@127.0.0.1"


@pytest.mark.parametrize("text", [BAD, WARNED])
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_secrets_are_in_no_output(write, text, option):
    """Neither a valid nor a bad password is printed anywhere."""
    done = run("check-config", "-c", write(text), *option)
    output = done.stdout + done.stderr
    assert output
    assert "hunter2" not in output
    assert "sesame" not in output


def test_warnings_are_on_stderr(write):
    """A file with warnings only can be used: status 0, the warnings on stderr."""
    path = write(WARNED)
    done = run("check-config", "-c", path)
    assert (done.returncode, done.stderr) == (
        0,
        f"warning: {path}: line 4: zones.unused: no rule asks this list\n",
    )


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["check-config"], cli.DEFAULT_CONFIG),
        (["check-config", "-c", "a.toml"], "a.toml"),
        (["check-config", "--config", "a.toml"], "a.toml"),
        (["-c", "b.toml", "check-config"], "b.toml"),
        (["-c", "b.toml", "check-config", "-c", "a.toml"], "a.toml"),
    ],
)
def test_config_option_may_stand_anywhere(tmp_path, args, named):
    """-c stands before the command or after it, where it counts more; the default file is in /etc."""
    if named == cli.DEFAULT_CONFIG and cli.DEFAULT_CONFIG.exists():
        pytest.skip("this machine has a configuration")
    done = run(*args, cwd=tmp_path)
    hint = "name another file with -c FILE, or in HYBRIDGREY_CONFIG\n" if named == cli.DEFAULT_CONFIG else ""
    assert (done.returncode, done.stderr) == (78, f"{tmp_path / named}: does not exist\n{hint}")


@pytest.mark.program
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_unreadable_file_is_an_error_of_the_configuration():
    """A config file that may not be read gives one line and status 78, as any other bad configuration."""
    # Loaded as root, for the modules may lie where nobody else can read
    code = (
        "import os; from hybridgrey.cli import check_config, main;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); main()"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        path = Path(folder, "hg.toml")
        path.touch(mode=0o600)
        args = [sys.executable, "-c", code, "check-config", "-c", str(path)]
        done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (78, f"{path}: cannot be read: Permission denied\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_files_that_the_user_cannot_read_are_warnings():
    """As root each file that `user` may not read is named, be it for its mode or for the folder above."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base.chmod(0o711)
        (base / "closed").mkdir(mode=0o700)
        for name, mode in (("closed/a", 0o644), ("b", 0o600), ("c", 0o644)):
            (base / name).write_text("192.0.2.1\n")
            (base / name).chmod(mode)
        path = base / "hg.toml"
        path.write_text(
            'user = "nobody"\n[[rule]]\naction = "accept"\nclients = ["file:closed/a", "!file:b", "file:c"]\n'
        )
        path.chmod(0o600)
        done = run("check-config", "--json", "-c", path)
        warnings = json.loads(done.stdout)["warnings"]
        path.chmod(0o644)
        fewer = run("check-config", "-c", path)
    meant = [
        f"nobody cannot read {file}: a reload will fail" for file in (path, base / "closed/a", base / "b")
    ]
    assert (done.returncode, [text for text in warnings if "reload" in text]) == (0, meant)
    assert [line for line in fewer.stderr.splitlines() if "reload" in line] == [
        f"warning: {text}" for text in meant[1:]
    ]


@pytest.mark.program
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_program_that_the_user_cannot_read_is_a_warning():
    """Installed where only root may read, such as a virtual environment in /root, it would fail later on."""
    with tempfile.TemporaryDirectory() as folder:  # mode 0700
        shutil.copytree(Path(hybridgrey.__file__).parent, Path(folder, "hybridgrey"))
        path = Path(folder, "hg.toml")
        path.write_text('user = "nobody"\n[[rule]]\naction = "accept"\n')
        code = "from hybridgrey.cli import main; main()"
        args = [sys.executable, "-c", code, "check-config", "--json", "-c", str(path)]
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(args, capture_output=True, text=True, env=environment, check=True)
    file = Path(folder, "hybridgrey/process/privileges.py")
    meant = (
        f"nobody cannot read {file}, which the program needs when it runs: install it where nobody may read"
    )
    assert meant in json.loads(done.stdout)["warnings"]


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "\0", "a" * 100_000 + " = 1", "'\ud800' = 1", ""])
def test_no_file_gives_a_traceback(tmp_path, text):
    """Whatever stands in the file, the status is 0 or 78 and stderr has short lines."""
    path = tmp_path / "hg.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    done = run("check-config", "-c", path)
    assert done.returncode == (78 if text else 0)
    assert "Traceback" not in done.stderr
    assert all(len(line) < 1000 for line in done.stderr.splitlines())


@pytest.mark.program
def test_path_that_is_no_text_is_printed(tmp_path):
    """A file name in no encoding is shown escaped."""
    done = subprocess.run(
        [*PROGRAM, "check-config", "-c", os.fsencode(tmp_path) + b"/a\xff"], capture_output=True, check=False
    )
    assert done.returncode == 78
    assert done.stderr.endswith(b"/a\\xff: does not exist\n")


@pytest.mark.parametrize(
    ("args", "status"), [(["--version"], 0), (["--help"], 0), ([], 2), (["nonsense"], 2), (["version"], 0)]
)
def test_group_answers(args, status):
    """Help and version end with 0, wrong usage with 2."""
    done = run(*args)
    assert done.returncode == status
    if args in (["--version"], ["version"]):
        assert done.stdout == f"hybridgrey, version {hybridgrey.__version__}\n"
    else:
        assert "check-config" in done.stdout + done.stderr or args == ["nonsense"]


def test_file_without_option():
    """A file that is named without -c is refused with a word about how to name it."""
    done = run("check-config", "new.toml")
    assert done.returncode == 2
    assert "(new.toml); the file is named with -c FILE" in done.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["stauts"], "status"),
        (["chek"], "check-config"),
        (["checkconfig"], "check-config"),
        (["help", "greylst"], "greylist"),
        (["greylist", "lst"], "list"),
        (["import", "postfx"], "postfix"),
        (["reprot"], "report"),
        (["xyzzy"], ""),
        (["start"], ""),
        (["restart"], ""),
    ],
)
def test_misspelt_commands(words, meant):
    """The command that was meant is named; the status is that of wrong usage."""
    done = run(*words)
    assert done.returncode == 2
    assert (f"Did you mean '{meant}'?" in done.stderr) == bool(meant)
    assert ("Did you mean" in done.stderr) == bool(meant)


@pytest.mark.parametrize("words", [["explain"], ["greylist", "list"], ["import", "postgrey"], []])
def test_help_is_that_of_the_option(words):
    """`help COMMAND` prints what `COMMAND --help` does."""
    assert run("help", *words).stdout == run(*words, "--help").stdout != ""


def test_environment_names_a_config(tmp_path, write):
    """HYBRIDGREY_CONFIG stands for the default; -c is stronger, wherever it stands."""
    path = write("workers = 3\n")
    environment = {**os.environ, "HYBRIDGREY_CONFIG": str(path)}
    assert run("check-config", env=environment).stdout == f"ok: {path}\n"
    for args in (["check-config", "-c", "other.toml"], ["-c", "other.toml", "check-config"]):
        done = run(*args, env=environment, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (78, f"{tmp_path}/other.toml: does not exist\n")


@pytest.mark.program
def test_check_needs_no_libmilter():
    """Checking a config loads neither libmilter nor a client of anything: it runs anywhere, and fast."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['milter', 'Milter', 'redis', 'dns', 'structlog']));"
        "from hybridgrey.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "check-config", "-c", SAMPLE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.program
def test_colours_are_for_terminals(write):
    """On a terminal errors are coloured; in a pipe they are plain (the tests above)."""
    ours, theirs = pty.openpty()
    args = [*PROGRAM, "check-config", "-c", str(write("x = 1"))]
    done = subprocess.run(args, stderr=theirs, stdout=subprocess.DEVNULL, check=False)
    os.close(theirs)
    output = os.read(ours, 10_000)
    os.close(ours)
    assert done.returncode == 78
    assert b"\x1b[31m" in output


def test_every_command_can_be_imported():
    """Each place in COMMANDS has a command of that name."""
    group = cli.hybridgrey
    context = group.make_context("hybridgrey", ["check-config"])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name


@pytest.mark.program
@pytest.mark.parametrize(
    ("streams", "status", "said"),
    [
        ("<&-", 0, ""),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", os.EX_IOERR, "hybridgrey: cannot print: No space left on device\n"),
        ("2>/dev/full", 0, ""),
    ],
)
def test_streams_that_are_closed_or_full(streams, status, said):
    """A command ends in order without a stream that it was not given, and says so of one that is full."""
    words = map(str, [*PROGRAM, "check-config", "-c", SAMPLE])
    shell = ["sh", "-c", f'exec "$@" {streams}', "sh", *words]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, said)
