"""Commands that look at a running daemon, where its configuration file is broken."""

import json
import os
import pwd
import socket
import stat
from pathlib import Path

import pytest

from parts.base import LOOPBACK, free_port, wait_until
from parts.commandline import run
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.redisserver import Redis

FRIEND = "192.0.2.1"
NOBODY = 65534
COPY = "hg.in-effect"
NO_MORE = 'listen = "inet:\nworkers = many\n'


def settings(server, dns):
    return {
        "store": {"url": server.unix_url},
        "dns": {"nameservers": [dns.address]},
        "metrics": {"listen": f"{LOOPBACK}:{free_port()}", "password": "correct horse"},
        "pid_file": "hg.pid",
        "rule": [
            {"name": "friends", "clients": ["file:friends"], "action": "accept"},
            {"name": "blocked", "dns": ["bl.test"], "action": "reject"},
            {"name": "rest", "action": "greylist"},
        ],
    }


@pytest.fixture(scope="module")
def world():
    with Redis() as server, FakeDns() as dns:
        dns.zone("bl.test", listed={"127.0.0.2": "127.0.0.2"})
        yield server, dns


@pytest.fixture
def daemon(world):
    with Daemon(settings(*world), files={"friends": f"{FRIEND}\n"}) as part:
        part.copy = part.directory / COPY
        yield part


def break_config(daemon):
    """A typo in the last line."""
    daemon.config.write_text(daemon.config.read_text() + "\n[greylist\n")
    return len(daemon.config.read_text().splitlines())


def all_commands(daemon):
    yield "status", 0
    yield "status --json", 0
    yield "zones --json", 0
    yield f"explain --json {FRIEND}", 0
    yield "greylist list --json", 0
    yield "entries", 1
    yield "expect --list", 0
    yield "log --json", 1
    yield "greylist show 203.0.113.5", 1
    yield "greylist forget --client 203.0.113.5", 1
    yield "report observed --json", 1
    yield f"report -o {daemon.directory}/report.svg --json", 1


def test_every_command_works(daemon):
    """Each says on stderr that the file is broken, and where, and stdout is what it is else."""
    commands = list(all_commands(daemon))
    before = [run(*words.split(), "-c", daemon.config) for words, _ in commands]
    line = break_config(daemon)
    for (words, status), good in zip(commands, before, strict=True):
        done = run(*words.split(), "-c", daemon.config)
        assert (done.status, good.status) == (status, status), (words, done.error, good.error)
        first, *rest = done.error.splitlines()
        assert first.startswith(f"warning: {daemon.config}: line {line}, column 10: not valid TOML"), words
        assert first.endswith("; this is by the configuration in effect"), words
        assert rest == good.error.splitlines(), words
        if "--json" in words and status == 0:
            assert json.loads(done.output or "{}").keys() == json.loads(good.output or "{}").keys()


@pytest.mark.parametrize("words", ["reload", "check-config", "run", "import"])
def test_what_is_about_the_file_itself(daemon, words):
    """These work with the file as it is, or not at all."""
    break_config(daemon)
    dump = daemon.directory / "dump"
    dump.write_text("192.0.2.1\ta@example.org\tb@example.net\t1\n")
    more = ("milter-greylist", dump) if words == "import" else ()
    assert run(words, *more, "-c", daemon.config).status == 78


def test_file_of_entries_is_broken(daemon):
    """The entries that the daemon has read count, and the mistake in the file of them is named."""
    (daemon.directory / "friends").write_text("192.0.2.1\n192.0.2.300\nx y z\n")
    done = run("explain", "--json", FRIEND, "-c", daemon.config)
    assert done.status == 0
    assert json.loads(done.output)["rule"] == "friends"
    assert "file:friends: line 2" in done.error
    assert "(and 1 more)" in done.error


def test_other_hosts_with_the_password_in_effect(daemon):
    """`status --url` has the password from what is in effect."""
    break_config(daemon)
    url = f"http://{daemon.settings['metrics']['listen']}"
    done = run("status", "--url", url, "-c", daemon.config)
    assert (done.status, done.error) == (0, "")


def test_what_is_in_effect_follows_reloads(daemon):
    """A good reload changes it, a bad one does not, and with the daemon it ends."""
    (daemon.directory / "friends").write_text("192.0.2.2\n")
    assert run("reload", "-c", daemon.config).status == 0
    good = daemon.copy.read_bytes()
    daemon.config.write_text(NO_MORE + daemon.config.read_text())
    daemon.reload()
    assert daemon.events("bad configuration")
    assert daemon.copy.read_bytes() == good
    rules = [
        json.loads(run("explain", "--json", one, "-c", daemon.config).output)["rule"]
        for one in (FRIEND, "192.0.2.2")
    ]
    assert rules == ["rest", "friends"]
    daemon.stop()
    assert not daemon.copy.exists()
    done = run("explain", FRIEND, "-c", daemon.config)
    assert (done.status, done.output) == (78, "")
    assert "in effect" not in done.error


def test_copy_is_for_the_account_only(daemon):
    """It holds secrets; nothing else is left in the folder."""
    assert stat.S_IMODE(daemon.copy.stat().st_mode) == 0o600
    assert "correct horse" in daemon.copy.read_text()
    assert not daemon.copy.with_name(f"{COPY}.new").exists()


def test_copy_of_a_start_that_was_killed(daemon, world):
    """Nobody is told what was in effect once; the next start replaces it, and what was half written."""
    family = daemon.processes()
    daemon.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), "the end of the children")
    text = daemon.config.read_text()
    break_config(daemon)
    assert run("explain", FRIEND, "-c", daemon.config).status == 78
    daemon.copy.with_name(f"{COPY}.new").write_text("half")
    daemon.copy.write_text("old")
    daemon.config.write_text(text)
    daemon.start()
    break_config(daemon)
    assert run("explain", FRIEND, "-c", daemon.config).status == 0
    assert not daemon.copy.with_name(f"{COPY}.new").exists()


def link(copy):
    copy.rename(copy.with_name("away"))
    copy.symlink_to("away")


def second_name(copy):
    os.link(copy, copy.with_name("twice"))


def stranger(copy):
    os.chown(copy, 65534, 65534)


def pipe(copy):
    copy.unlink()
    os.mkfifo(copy)


def damage(copy):
    copy.write_text("{")


def gone(copy):
    copy.unlink()


def everybody(copy):
    copy.parent.chmod(0o1777)


TRICKS = {
    link: "Too many levels of symbolic links",
    second_name: "has another name",
    stranger: "belongs neither to root nor",
    pipe: "is no regular file",
    damage: "is no copy of a configuration",
    gone: "No such file",
    everybody: "everybody may write",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who gives a file away")
@pytest.mark.parametrize("trick", TRICKS, ids=lambda one: one.__name__)
def test_what_the_daemon_has_not_made(daemon, trick):
    """It is not used; the status is 78, and the last line says why."""
    break_config(daemon)
    trick(daemon.copy)
    done = run("status", "-c", daemon.config)
    assert (done.status, done.output) == (78, "")
    assert "not valid TOML" in done.error
    assert TRICKS[trick] in done.error.splitlines()[-1]


def test_other_daemon_of_the_same_place(daemon):
    """A broken file whose daemon's place is that of another file's daemon gets nothing of that one."""
    other = daemon.directory / "other.toml"
    other.write_text(daemon.config.read_text() + "\n[greylist\n")
    assert run("status", "-c", other).status == 78


def test_no_right_to_the_folder(world):
    """Where the copy cannot be written the daemon serves all the same, and says so in one line of debug."""
    daemon = Daemon({**settings(*world), "log": {"level": "debug"}}, files={"friends": f"{FRIEND}\n"})
    (daemon.directory / COPY).mkdir()
    with daemon:
        (line,) = daemon.events("no copy of the configuration")
        assert (line["level"], line["reason"]) == ("debug", "Is a directory")


@pytest.mark.parametrize("kind", ["embedded", "unix"])
def test_default_places(world, kind):
    """Without `pid_file` the copy is found beside the embedded store or the unix socket, by a broken file."""
    server, _ = world
    part = Daemon({}, unix=kind == "unix")
    url = f"embedded:{part.directory}/state" if kind == "embedded" else server.unix_url
    part.configure({"store": {"url": url}, "rule": [{"name": "rest", "action": "greylist"}]})
    with part:
        break_config(part)
        done = run("greylist", "list", "-c", part.config)
        assert (done.status, "configuration in effect" in done.error) == (0, True), done.error


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whom an account could lead astray")
@pytest.mark.parametrize("words", ["greylist list", "entries", "log", "report observed", "expect --list"])
def test_root_goes_where_the_account_may(daemon, words):
    """A copy that an account has written leads root to no socket that is not the account's to reach."""
    place = daemon.directory / "root.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        place.chmod(0o600)
        server.listen()
        server.setblocking(False)
        url = daemon.settings["store"]["url"]
        daemon.copy.write_text(daemon.copy.read_text().replace(url, f"unix://{place}"))
        break_config(daemon)
        done = run(*words.split(), "-c", daemon.config)
        assert done.status == 69, "root's own copy is believed"
        server.accept()[0].close()
        for one in (daemon.copy.parent, daemon.copy):
            os.chown(one, NOBODY, NOBODY)
        done = run(*words.split(), "-c", daemon.config)
        assert (done.status, done.output) == (69, "")
        assert f"by the configuration in effect, as {pwd.getpwuid(NOBODY).pw_name}, whose it is" in done.error
        assert "Permission denied" in done.error
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_who_says_it_stays_known(daemon, world):
    """An entry by hand is that of the admin, though it is made as the account."""
    server, _ = world
    Path(server.unix_url.removeprefix("unix://")).parent.chmod(0o755)
    Path(server.unix_url.removeprefix("unix://")).chmod(0o777)
    for one in (daemon.copy.parent, daemon.copy):
        os.chown(one, NOBODY, NOBODY)
    break_config(daemon)
    assert run("block", "203.0.113.9", "-c", daemon.config, environment={"SUDO_USER": "alice"}).status == 0
    (entry,) = run("entries", "--json", "-c", daemon.config).lines
    assert json.loads(entry)["who"] == "alice"
