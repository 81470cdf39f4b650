"""What only the operator may know stays out of logs, replies, pages and process lists; modes of files."""

from __future__ import annotations

import stat
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from parts.base import LOOPBACK, accepts, free_port, wait_until
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

PASSWORD, LIST_KEY, KEY_SECRET = "hunter22secret", "0123456789abcdefghijklmnop", "folded-in-hmac-secret"
SECRETS = (PASSWORD, LIST_KEY, KEY_SECRET)
ZONE = f"{LIST_KEY}.zen.dq.spamhaus.net"


def command_lines(daemon):
    """What `ps` shows of the daemon and its children."""
    pids = [daemon.pid, *daemon.processes()]
    return b"".join(Path(f"/proc/{pid}/{what}").read_bytes() for pid in pids for what in ("cmdline", "comm"))


def page(port, path):
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=10) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def rcpt(daemon, client):
    with MilterPeer(daemon.address) as peer:
        peer.connect("unknown", client)
        peer.helo()
        peer.mail()
        return peer.rcpt().text


@pytest.mark.parametrize("world", ["whole", "broken"])
def test_secrets_are_shown_nowhere(world):
    """Neither when all is well nor when store and lists fail does a secret leave the daemon."""
    port = free_port()
    with FakeDns() as dns, Redis(user="grey", password=PASSWORD) as redis:
        dns.zone(ZONE, listed={"192.0.2.99": "127.0.0.2"}, text=f"see {LOOPBACK}, {ZONE}")
        if world == "broken":
            dns.zone(ZONE, rcode="SERVFAIL")
            redis.stop()
        settings = {
            "store": {"url": redis.url, "key_secret": KEY_SECRET},
            "dns": {"nameservers": [dns.address]},
            "metrics": {"listen": f"{LOOPBACK}:{port}"},
            "rule": [
                {"name": "bl", "dns": [ZONE], "action": "reject"},
                {"name": "the rest", "action": "greylist"},
            ],
        }
        with Daemon(settings) as daemon:
            replies = "".join(rcpt(daemon, f"192.0.2.{last}") for last in (99, 99, 1, 2, 3, 4))
            wait_until(lambda: len(daemon.events("verdict")) == 6, "verdicts")
            wait_until(lambda: accepts((LOOPBACK, port)), "metrics")
            shown = page(port, "/metrics") + page(port, "/healthz") + command_lines(daemon)
            text = replies + daemon.log_text() + shown.decode()
            assert "zen.spamhaus.org" in text
            assert ("554" in replies) == (world == "whole")
            assert not [secret for secret in SECRETS if secret in text]


def test_modes_of_what_the_daemon_makes():
    """The store's folder and what is in it is the daemon's own; the socket has the configured mode."""
    rules = [{"name": "the rest", "action": "greylist"}]
    daemon = Daemon({"socket_mode": "0660", "rule": rules}, unix=True)
    state = daemon.directory / "state"
    daemon.configure({**daemon.settings, "store": {"url": f"embedded:{state}"}})
    with daemon:
        assert stat.S_IMODE(Path(daemon.address).stat().st_mode) == 0o660
        # Who may look into the folder may know the daemon's process id.
        for path in (state, *(path for path in state.rglob("*") if path.suffix != ".pid")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
