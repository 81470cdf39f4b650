"""``hybridgrey run`` and what it decides before anything is forked."""

from __future__ import annotations

import os
import pwd
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hybridgrey.config import load
from hybridgrey.config.restart_only import keep
from hybridgrey.process import privileges
from parts import forked
from parts.base import free_port

CORE = '[metrics]\nlisten = ""\n[store]\nurl = "redis://127.0.0.1:1"\n'


def run(path: Path, text: str | None) -> tuple[int, str]:
    """Run the command with a config, or none, that does not let it start; its status and standard error."""
    file = path / "hybridgrey.toml"
    if text is not None:
        file.write_text(text)
    done = forked.run("run", "-c", file)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_all_errors_of_the_config_one_a_line(tmp_path):
    """A bad config ends the start with status 78 and every error, each on a line of its own."""
    status, text = run(tmp_path, 'colour = "red"\nmode = "maybe"\nworkers = -1\n' + CORE)
    assert status == os.EX_CONFIG
    assert [key for key in ("colour", "mode", "workers") if f": {key}: " in text] == [
        "colour",
        "mode",
        "workers",
    ]
    assert len(text.splitlines()) == 3


def test_missing_config_file(tmp_path):
    """A config file that is not there is an error of the config."""
    status, text = run(tmp_path, None)
    assert status == os.EX_CONFIG
    assert text == f"{tmp_path}/hybridgrey.toml: does not exist\n"


@pytest.mark.parametrize(
    ("listen", "status", "text"),
    [
        ("inet:{busy}@127.0.0.1", os.EX_UNAVAILABLE, "address already in use"),
        ("inet:{free}@192.0.2.1", os.EX_CONFIG, "cannot assign requested address"),
        ("unix:{folder}/missing/too/s", os.EX_CONFIG, "no such file or directory"),
        ("unix:{folder}/hybridgrey.toml", os.EX_CONFIG, "not a socket"),
    ],
)
def test_socket_that_cannot_be_had(listen, status, text, tmp_path):
    """One line says why the socket cannot be opened, without a traceback."""
    with socket.create_server(("127.0.0.1", free_port())) as busy:
        where = listen.format(busy=busy.getsockname()[1], free=free_port(), folder=tmp_path)
        got, said = run(tmp_path, f'listen = "{where}"\n{CORE}')
    assert (got, len(said.splitlines())) == (status, 1), said
    assert said.startswith(
        f"hybridgrey: cannot listen on {where.removeprefix('unix:') if 'toml' in where else where}"
    )
    assert text in said


def test_embedded_store_that_cannot_be_had(tmp_path):
    """A state directory that is a file ends the start in one line, and the socket is gone again."""
    (tmp_path / "state").write_text("")
    path = tmp_path / "s"
    text = f'listen = "unix:{path}"\n[store]\nurl = "embedded:{tmp_path}/state"\n'
    status, said = run(tmp_path, text)
    assert status in (os.EX_UNAVAILABLE, os.EX_NOPERM)
    assert "state" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not path.exists()


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("", "", ()),
        ("", 'hostname = "mx.example.org"', ()),
        ("", 'listen = "inet:1@127.0.0.1"\nuser = "nobody"', ("listen", "user")),
        ("", 'socket_mode = "0660"\nsocket_group = "mail"', ("socket_mode", "socket_group")),
        ('store.url = "redis://a"', 'store.url = "redis://b"', ()),
        ('store.url = "redis://a"', 'store.url = "embedded:/b"', ("store.url",)),
        ('store.url = "embedded:/a"', 'store.url = "redis://b"', ("store.url",)),
        ('store.url = "embedded:/a"', 'store.url = "embedded:/b"\nstore.timeout = "1s"', ("store.url",)),
    ],
)
def test_what_a_reload_cannot_change(old, new, kept, tmp_path):
    """What needs a restart keeps its old value and is named; all else is new."""
    loaded = []
    for name, text in (("old", old), ("new", new)):
        (tmp_path / name).write_text(text + "\n")
        loaded.append(load.load(tmp_path / name))
    result, names = keep(*loaded)
    assert names == kept
    assert (result.listen, result.user) == (loaded[0].listen, loaded[0].user)
    assert result.hostname == loaded[1].hostname
    assert result.store.timeout == loaded[1].store.timeout
    source = loaded[0 if "store.url" in kept else 1]
    assert result.store.url == source.store.url


def test_no_user_is_no_change():
    """Without `user` the process stays who it is."""
    assert privileges.account("") is None
    privileges.drop(None)


def test_own_user_is_no_change():
    """To become whom one is needs no privilege."""
    privileges.drop(privileges.account(pwd.getpwuid(os.geteuid()).pw_name))


@pytest.mark.program
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody who is not")
def test_only_root_can_become_another():
    """Who is not root is told so, not ignored."""
    program = """
import os
from hybridgrey.process import privileges
privileges.drop(privileges.account("nobody"))
assert os.getuid() == os.geteuid() != 0
try:
    privileges.drop(privileges.account("root"))
except privileges.PrivilegeError as error:
    print(error.status, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{os.EX_NOPERM} user: only root can change to 'root'\n"


def test_file_limit_is_raised():
    """The soft limit of open files becomes the hard one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert privileges.raise_file_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
