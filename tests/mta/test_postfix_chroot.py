"""A chrooted smtpd, as Debian has it, and a unix socket: paths, modes, groups."""

from __future__ import annotations

import grp
import os
import pwd
import tomllib
from pathlib import Path

import pytest

from mta.talk import opened, rcpt
from parts.base import wait_until
from parts.daemon import Daemon
from parts.postfix import Postfix

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

CONTRIB = Path(__file__).parents[2] / "contrib/postfix"
SOCKET = "hybridgrey/milter.sock"
SENDER = "a@y.example"
GREY = "450 4.2.0 Greylisted, please try again in"
CHROOTED, FREE = "n - y - - smtpd", "n - n - - smtpd"


def settings(redis, mta, **more):
    """contrib's lines for a queue folder that is not /var/spool/postfix, a store and a rule."""
    text = (CONTRIB / "hybridgrey.toml.socket").read_text()
    rules = [{"name": "rest", "action": "greylist"}]
    head = tomllib.loads(text.replace("/var/spool/postfix", str(mta.queue)))
    return {**head, "store": {"url": redis.url}, "rule": rules, **more}


def socket_folder(mta, user, mode=0o750):
    """What contrib's `install -d` makes."""
    folder = mta.queue / "hybridgrey"
    folder.mkdir(mode=mode)
    folder.chmod(mode)
    os.chown(folder, pwd.getpwnam(user).pw_uid, grp.getgrnam("postfix").gr_gid)
    return folder


class Chroot(Postfix):
    """smtpd with contrib's lines, chrooted or not, in a queue folder that has the socket's."""

    def __init__(self, front=CHROOTED):
        super().__init__(front=front, more=(CONTRIB / "main.cf.socket").read_text())

    def _configure(self, settings):
        # contrib's lines set the filter.
        del settings["smtpd_milters"]
        super()._configure(settings)


@pytest.mark.parametrize("front", [CHROOTED, FREE], ids=["chrooted", "free"])
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_the_snippets_as_they_stand(redis, front, user):
    """One relative path reaches the socket from inside the chroot and from outside; postfix's group may."""
    with Chroot(front) as mta:
        socket_folder(mta, user)
        own = settings(redis, mta, user="" if user == "root" else user)
        with Daemon(own, unix=mta.queue / SOCKET):
            status = (mta.queue / SOCKET).stat()
            assert status.st_mode & 0o777 == 0o660
            assert status.st_gid == grp.getgrnam("postfix").gr_gid
            person = f"{user}-{front == CHROOTED}@x.example"
            assert rcpt(mta, "192.0.2.1", SENDER, person).startswith(GREY)


@pytest.mark.parametrize(
    ("own", "mode"),
    [({"socket_mode": "0600"}, 0o750), ({"socket_group": "nogroup"}, 0o750), ({}, 0o700)],
    ids=["mode", "group", "folder"],
)
def test_without_permission_postfix_says_so(redis, own, mode):
    """A socket or folder that user postfix may not use: mail passes, and the log says why."""
    with Chroot() as mta:
        socket_folder(mta, "root", mode)
        with Daemon(settings(redis, mta, **own), unix=mta.queue / SOCKET):
            assert rcpt(mta, "192.0.2.1", SENDER, "b@x.example")[:3] == "250"
            told = "connect to Milter service unix:hybridgrey/milter.sock: Permission denied"
            wait_until(lambda: told in mta.log_text(), told)


def test_a_path_outside_the_chroot_is_not_found(redis):
    """The absolute path of the socket as the host sees it leads nowhere from inside."""
    own = {"store": {"url": redis.url}, "rule": [{"name": "rest", "action": "greylist"}]}
    with Daemon(own, unix=True) as daemon, Postfix(daemon.spec, front=CHROOTED) as mta:
        assert rcpt(mta, "192.0.2.1", SENDER, "b@x.example")[:3] == "250"
        told = f"connect to Milter service {daemon.spec}: No such file or directory"
        wait_until(lambda: told in mta.log_text(), told)


def test_the_socket_outlives_a_restart(redis):
    """A daemon that was killed leaves its socket; the next one takes its place, for the same smtpd."""
    with Chroot() as mta:
        socket_folder(mta, "nobody")
        daemon = Daemon(settings(redis, mta, user="nobody"), unix=mta.queue / SOCKET)
        with daemon:
            assert rcpt(mta, "192.0.2.1", SENDER, "one@x.example").startswith(GREY)
            daemon.kill()
            wait_until(lambda: rcpt(mta, "192.0.2.1", SENDER, "two@x.example")[:3] == "250", "workers gone")
            daemon.start()
            with opened(mta, "192.0.2.1") as client:
                client.mail(SENDER)
                assert str(client.rcpt("three@x.example")).startswith(GREY)
