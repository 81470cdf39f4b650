"""The listening socket: what is opened, what is refused, what is left alone."""

from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hybridgrey.config.sockets import Address
from hybridgrey.process.listener import ListenError, inherited, open_listener
from parts.base import free_port, has_ipv6, open_to_all

OWNER = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(0)
print("listening", flush=True)
time.sleep(60)
"""


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to anybody")


def unix(path: Path) -> Address:
    return Address("unix", path=path)


@pytest.mark.parametrize(
    ("family", "host"), [("inet", "127.0.0.1"), ("inet", ""), ("inet6", "::1"), ("inet6", "")]
)
def test_inet_socket_accepts_and_hands_on_its_options(family, host):
    """A connection to an inet socket has TCP_NODELAY without anybody setting it there."""
    if family == "inet6" and not has_ipv6():
        pytest.skip("no IPv6 here")
    port = free_port("::1" if family == "inet6" else "127.0.0.1")
    listener = open_listener(Address(family, host, port))
    assert not listener.socket.getblocking()
    assert not os.get_inheritable(listener.socket.fileno())
    assert str(listener).startswith(f"{family}:{port}@")
    with socket.create_connection(("::1" if family == "inet6" else "127.0.0.1", port), 5):
        listener.socket.setblocking(True)
        accepted, _peer = listener.socket.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()
    listener.close()


def test_ipv6_wildcard_serves_ipv4():
    """``inet6:PORT`` takes connections over IPv4 too, whatever the system's default."""
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    port = free_port()
    listener = open_listener(Address("inet6", "", port))
    with socket.create_connection(("127.0.0.1", port), 5):
        pass
    listener.close()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_unix_socket_has_its_mode_whatever_the_umask(tmp_path, mode):
    """The mode of a unix socket is the configured one, and the umask is left as it was."""
    before = os.umask(0o027)
    try:
        listener = open_listener(unix(tmp_path / "s"), mode=mode)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    listener.close()


@needs_root
def test_unix_socket_has_its_group(tmp_path):
    """The group of a unix socket is the configured one."""
    group = grp.getgrnam("mail")
    listener = open_listener(unix(tmp_path / "s"), group="mail")
    assert (tmp_path / "s").stat().st_gid == group.gr_gid
    listener.close()


@needs_root
@pytest.mark.parametrize("group", ["", "mail"])
def test_group_of_a_folder_that_hands_on_its_own(tmp_path, group):
    """In a setgid folder the socket has the folder's group, unless another is configured."""
    os.chown(tmp_path, 65534, 12345)
    tmp_path.chmod(0o2750)
    listener = open_listener(unix(tmp_path / "s"), group=group, mode=0o660)
    found = (tmp_path / "s").stat()
    assert found.st_gid == (grp.getgrnam("mail").gr_gid if group else 12345)
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o660)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert listener.remove()
    assert list(tmp_path.iterdir()) == []
    listener.close()


@needs_root
def test_only_a_folder_that_is_made_here_gets_an_owner(tmp_path):
    """The account gets the folder that root makes for it, never one that was there."""
    (tmp_path / "there").mkdir()
    for name, uid in (("there", 0), ("new", 65534)):
        open_listener(unix(tmp_path / name / "s"), owner=65534).close()
        assert (tmp_path / name).stat().st_uid == uid


@needs_root
def test_root_follows_no_link_of_the_account(tmp_path):
    """Not on the way to the socket, and not at its end: the socket that was opened stays where it is."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "run").mkdir(parents=True)
    elsewhere.mkdir()
    os.chown(home, 65534, 65534)
    listener = open_listener(unix(home / "run" / "s"))
    (home / "run").rename(home / "moved")
    (home / "run").symlink_to(elsewhere)
    (elsewhere / "s").touch()
    with pytest.raises(ListenError, match="root follows no link") as caught:
        open_listener(unix(home / "run" / "t"))
    assert caught.value.status == os.EX_NOPERM
    assert not listener.remove()
    assert [path.name for path in elsewhere.iterdir()] == ["s"]
    listener.close()


@needs_root
def test_folder_of_roots_in_the_place_of_the_private_one(tmp_path, monkeypatch):
    """Another folder that only root can reach into is not taken for the one just made, nor cleared."""
    (tmp_path / "roots").mkdir(0o700)
    (tmp_path / "roots" / "precious").touch()

    def mkdir(name, _mode, dir_fd):
        (tmp_path / "roots").rename(tmp_path / name)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(ListenError, match="somebody exchanges folders"):
        open_listener(unix(tmp_path / "s"))
    assert [path.name for path in tmp_path.rglob("precious")] == ["precious"]


@needs_root
def test_without_rights_and_from_anywhere(tmp_path):
    """An account opens and removes its socket, be the working directory one that it may not enter."""
    open_to_all(tmp_path)
    shut, own = tmp_path / "shut", tmp_path / "own"
    for folder in (shut, own):
        folder.mkdir(0o700)
    os.chown(own, 65534, 65534)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.chdir(shut)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            listener = open_listener(unix(own / "s"), mode=0o600)
            mode = stat.S_IMODE((own / "s").stat().st_mode)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(own / "s"))
            os.write(writer, f"{listener} {mode:o} {listener.remove()} {os.listdir(own)}".encode())  # noqa: PTH208
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as told:
        assert told.read() == f"unix:{own}/s 600 True []"


def test_missing_folder_is_made_if_it_is_the_last(tmp_path):
    """/run/hybridgrey is made when /run is there; a longer path that is missing is an error."""
    listener = open_listener(unix(tmp_path / "run" / "s"))
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    listener.close()
    with pytest.raises(ListenError, match="no such file") as caught:
        open_listener(unix(tmp_path / "a" / "b" / "s"))
    assert caught.value.status == os.EX_CONFIG


def test_stale_socket_is_replaced(tmp_path):
    """A socket that nobody listens on any more is replaced."""
    path = tmp_path / "s"
    open_listener(unix(path)).close()
    assert path.is_socket()
    listener = open_listener(unix(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


@pytest.mark.program
@pytest.mark.parametrize("full", [False, True])
def test_live_socket_is_an_error_that_names_its_owner(tmp_path, full):
    """A socket that somebody listens on stays his, even when his backlog is full."""
    path = tmp_path / "s"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, path], stdout=subprocess.PIPE)
    waiting = socket.socket(socket.AF_UNIX)
    try:
        assert owner.stdout
        owner.stdout.readline()
        if full:
            waiting.connect(str(path))
        with pytest.raises(ListenError, match="in use") as caught:
            open_listener(unix(path))
        assert full or f"python (pid {owner.pid})" in str(caught.value).replace("python3", "python")
        assert caught.value.status == os.EX_UNAVAILABLE
        assert path.is_socket()
    finally:
        waiting.close()
        owner.kill()
        owner.communicate()


def test_file_is_never_removed(tmp_path):
    """What is not a socket stays, and is an error of the config."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="not a socket") as caught:
        open_listener(unix(path))
    assert caught.value.status == os.EX_CONFIG
    assert path.read_text() == "data"


def test_symbolic_link_is_no_socket(tmp_path):
    """A link to a socket is not followed, so that nobody else's socket goes."""
    open_listener(unix(tmp_path / "s")).close()
    (tmp_path / "link").symlink_to(tmp_path / "s")
    with pytest.raises(ListenError, match="not a socket"):
        open_listener(unix(tmp_path / "link"))
    assert (tmp_path / "s").is_socket()


def test_only_our_own_file_is_removed(tmp_path):
    """At its end a daemon leaves the socket of its successor alone."""
    path = tmp_path / "s"
    first = open_listener(unix(path))
    first.close()
    second = open_listener(unix(path))
    assert first.remove()
    assert path.is_socket()
    second.close()
    assert second.remove()
    assert not path.exists()
    assert second.remove()


@pytest.mark.parametrize(
    ("address", "text", "status"),
    [
        (Address("inet", "192.0.2.1", 8893), "cannot assign requested address", os.EX_CONFIG),
        (Address("inet", "no.such.host.invalid", 8893), "no.such.host.invalid", os.EX_CONFIG),
    ],
)
def test_address_that_is_not_ours(address, text, status):
    """An address of another machine, or none, is an error of the config in one line."""
    with pytest.raises(ListenError, match=text) as caught:
        open_listener(address)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)


def test_port_in_use():
    """A port that is taken is no error of the config."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ListenError, match="in use") as caught:
        open_listener(Address("inet", "127.0.0.1", port))
    assert caught.value.status == os.EX_UNAVAILABLE


def test_unknown_group(tmp_path):
    """An unknown group is an error of the config, and no socket is left behind."""
    with pytest.raises(ListenError, match="socket_group") as caught:
        open_listener(unix(tmp_path / "s"), group="no-such-group")
    assert caught.value.status == os.EX_CONFIG
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}],
)
def test_sockets_of_others_are_not_taken(environ):
    """Without LISTEN_FDS for this very process nothing is inherited, and no child sees the variables."""
    assert inherited(environ) is None
    assert not environ


def test_two_passed_sockets_are_an_error():
    """One socket is served; two would leave one without an answer."""
    with pytest.raises(ListenError, match="2 sockets"):
        inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
