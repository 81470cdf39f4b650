"""Crashes, restarts and reloads while mail comes in: nobody but a killed worker's sessions notices."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mta.talk import opened, plain, rcpt
from parts import engines
from parts.baredaemon import title
from parts.base import descriptors, wait_until
from parts.daemon import Daemon
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

# With this, a milter that cannot be reached is seen by the client as 451.
STRICT = {"milter_default_action": "tempfail"}
SENDER = "a@y.example"


def settings(url, text="4.2.0 Old {seconds}", **more):
    return {
        "store": {"url": url},
        "greylist": {"delay": "1m", "auto_allow_after": 0, "text": text},
        "rule": [{"name": "the rest", "action": "greylist"}],
        **more,
    }


class Load:
    """Clients that keep coming while the `with` block runs; `answers` counts the first words they got."""

    def __init__(self, mta, clients=3):
        self.answers = collections.Counter()
        self._mta = mta
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=(n,)) for n in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        wait_until(lambda: sum(self.answers.values()) > 10, "the load runs")
        return self

    def __exit__(self, *_error):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _come(self, number):
        while not self._end.is_set():
            answer = rcpt(self._mta, f"192.0.2.{number + 1}", SENDER, f"load{number}@x.example")
            self.answers[" ".join(answer.split()[:3])] += 1

    def goes_on(self):
        """Wait for twenty more answers."""
        now = sum(self.answers.values())
        wait_until(lambda: sum(self.answers.values()) > now + 20, "more answers")


def test_reloads_under_load():
    """A good config comes into force and a bad one does not, and every recipient is judged meanwhile."""
    with Redis() as redis:
        good = settings(redis.unix_url, "4.2.0 New {seconds}")
        with (
            Daemon(settings(redis.unix_url)) as daemon,
            Postfix(daemon.spec, STRICT) as mta,
            Load(mta) as load,
        ):
            for turn in range(3):
                daemon.configure({**good, "no_such_key": turn})
                daemon.reload()
                load.goes_on()
            assert set(load.answers) == {"450 4.2.0 Old"}
            daemon.configure(good)
            daemon.reload()
            load.goes_on()
            late = rcpt(mta, "192.0.2.77", SENDER, "late@x.example")
            assert late == "450 4.2.0 New 60"
        assert set(load.answers) == {"450 4.2.0 Old", "450 4.2.0 New"}


def test_the_engine_changes_under_load(engine):
    """By reloads to the other engine and back: all are judged, sessions that are open meanwhile too."""
    with Redis() as redis:
        with (
            Daemon(settings(redis.unix_url), unix=True) as daemon,
            Postfix(daemon.spec, STRICT) as mta,
            Load(mta) as load,
            contextlib.ExitStack() as stack,
        ):
            first = daemon.events("ready")[0]["engine"]
            for turn, wanted in enumerate((engines.other(first), first)):
                held = [stack.enter_context(opened(mta, f"198.51.100.{turn}{n}")) for n in range(4)]
                for client in held[:2]:
                    client.mail(SENDER)
                daemon.configure({**settings(redis.unix_url), "engine": wanted})
                daemon.reload()
                assert daemon.events("reloaded")[-1]["engine"] == wanted
                load.goes_on()
                for client in held[2:]:
                    client.mail(SENDER)
                answers = {plain(client.rcpt(f"held{turn}{n}@x.example")) for n, client in enumerate(held)}
                assert answers == {"450 4.2.0 Old 60"}
                for client in held:
                    client.quit()
            load.goes_on()
        assert set(load.answers) == {"450 4.2.0 Old"}


def test_a_bad_config_is_told():
    """Each problem of a refused config is in the log, with its key; the old one stays in force."""
    with Redis() as redis, Daemon(settings(redis.unix_url)) as daemon:
        daemon.configure({**settings(redis.unix_url), "no_such_key": 1, "workers": "many"})
        daemon.reload()
        told = " ".join(str(one) for one in daemon.events("bad configuration"))
        assert "no_such_key" in told
        assert "workers" in told
        assert daemon.running


def sockets(pid):
    """How many sockets a process has open."""
    return sum(link.startswith("socket:") for link in descriptors(pid))


def test_a_killed_worker_costs_only_its_own_sessions():
    """Sessions of the killed worker get the MTA's default action, all others an answer, new ones too."""
    with Redis() as redis:
        config = settings(redis.unix_url)
        with Daemon(config) as daemon, Postfix(daemon.spec, STRICT) as mta, contextlib.ExitStack() as stack:
            # The keeper's sockets come and go, and none is a session.
            workers = {pid for pid in daemon.processes() if "hg-worker" in title(pid)}
            before = {pid: sockets(pid) for pid in workers}
            clients = [stack.enter_context(opened(mta, f"192.0.2.{n}")) for n in range(1, 13)]
            for client in clients:
                assert client.mail(SENDER).code == 250
            wait_until(lambda: sum(sockets(pid) - before[pid] for pid in before) >= 12, "sessions at workers")
            held = {pid: sockets(pid) - count for pid, count in before.items()}
            victim = max(held, key=lambda pid: held[pid])
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in daemon.processes(), "the worker is gone")
            answers = [plain(client.rcpt(f"kill{n}@x.example")) for n, client in enumerate(clients)]
            lost = [answer for answer in answers if not answer.startswith("450 4.2.0 Old")]
            assert len(lost) == held[victim]
            assert all(answer.startswith("451 4.7.1") for answer in lost)
            for n in range(8):
                assert rcpt(mta, "192.0.2.1", SENDER, f"new{n}@x.example").startswith("450 4.2.0 Old")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_triplets_outlive_a_restart(how, tmp_path):
    """With the embedded store a first attempt before a restart, or a crash of all, counts after it.

    So it does with the other engine: nothing in the store is an engine's.
    """
    config = {
        **settings(f"embedded:{tmp_path}/store"),
        "greylist": {"delay": "1s", "auto_allow_after": 0},
    }
    tmp_path.chmod(0o755)
    with Daemon(config) as daemon, Postfix(daemon.spec, STRICT) as mta:
        assert rcpt(mta, "192.0.2.1", SENDER, "restart@x.example")[:3] == "450"
        time.sleep(1.2)  # the append-only file is synced once a second
        children = daemon.processes()
        getattr(daemon, how)()
        wait_until(
            lambda: not any(is_worker(pid) for pid in children), "the workers end when their master has ended"
        )
        assert rcpt(mta, "192.0.2.1", SENDER, "meanwhile@x.example").startswith("451 4.7.1")
        other = engines.other(daemon.events("ready")[0]["engine"])
        daemon.log.write_text("")
        daemon.configure({**config, "engine": other})
        daemon.start()
        assert daemon.events("ready")[0]["engine"] == other
        assert rcpt(mta, "192.0.2.1", SENDER, "restart@x.example").startswith("250 ")


def is_worker(pid):
    """Whether a process lives and is one of ours, not the store's."""
    try:
        return "hybridgrey" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ending_waits_for_sessions_in_flight():
    """SIGTERM lets an open session have its answer, takes no new one, and ends with status 0."""
    with Redis() as redis, Daemon(settings(redis.unix_url, drain_timeout="10s")) as daemon:
        with Postfix(daemon.spec, STRICT) as mta, opened(mta, "192.0.2.1") as client:
            client.mail(SENDER)
            daemon.send_signal(signal.SIGTERM)
            daemon.await_events("ending")
            time.sleep(0.5)
            assert plain(client.rcpt("flight@x.example")) == "450 4.2.0 Old 60"
            client.quit()
        assert daemon.stop() == 0
