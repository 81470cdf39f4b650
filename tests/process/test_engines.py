"""Which engine serves: as configured, and by what is installed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from parts.baredaemon import BareDaemon, children
from parts.base import PartError, wait_until
from parts.daemon import Daemon
from parts.milterpeer import MilterPeer

NO_BINDING = "sys.modules['milter'] = None"
OTHER_MODULE = "sys.modules['milter'] = types.ModuleType('milter')"
POOL_AND_314 = "sys.version_info = (3, 14, 0); worker._has_pool = lambda library: True"
FIT = "worker._has_pool = lambda library: False"

CASES = [
    # engine, what there is, what is chosen, "" for none
    ("auto", FIT, "libmilter"),
    ("auto", NO_BINDING, "native"),
    ("auto", OTHER_MODULE, "native"),
    ("auto", POOL_AND_314, "native"),
    ("libmilter", FIT, "libmilter"),
    ("libmilter", NO_BINDING, ""),
    ("libmilter", POOL_AND_314, ""),
    ("native", FIT, "native"),
    ("native", NO_BINDING, "native"),
    ("native", POOL_AND_314, "native"),
]


@pytest.mark.parametrize(("engine", "there", "chosen"), CASES)
def test_the_engine_that_serves(engine, there, chosen):
    """`auto` is libmilter where it is fit for use, else native; what is asked for by name is not replaced."""
    program = f"""
import sys, types
from hybridgrey.process import engines, worker
{there}
try:
    print(engines.chosen({engine!r}))
except worker.UnfitError:
    print()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == chosen


def test_native_needs_nothing_of_libmilter():
    """No process of a native daemon has loaded the library or its binding, and the log names the engine."""
    with BareDaemon(engine="native", workers=1) as daemon:
        daemon.ask()
        assert daemon.events("ready")[0]["engine"] == "native"
        for pid in (daemon.pid, *children(daemon.pid)):
            assert "milter" not in Path(f"/proc/{pid}/maps").read_text().replace("hybridgrey", "").lower()


@pytest.fixture
def no_binding(tmp_path):
    """What makes a process one that pymilter is not installed for."""
    (tmp_path / "milter.py").write_text("raise ImportError('not installed')\n")
    return {"PYTHONPATH": f"{Path(__file__).parents[1]}:{tmp_path}"}


@pytest.mark.parametrize("listen", ["", "unix"])
def test_a_reload_changes_it(listen, tmp_path):
    """There and back; a session that is open meanwhile has its answer from the worker it began at."""
    with BareDaemon(listen and f"unix:{tmp_path}/s", engine="native", workers=1) as daemon:
        daemon.address = f"{tmp_path}/s" if listen else daemon.address
        for number, engine in enumerate(("libmilter", "native"), 1):
            with MilterPeer(daemon.address) as open_session:
                open_session.connect()
                wait_until(lambda: len(daemon.workers()) == 1, "the worker of the turn before has ended")
                (before,) = daemon.workers()
                daemon.engine = engine
                daemon.configure(workers=1, hostname=f"{engine}.test")
                daemon.send_signal(signal.SIGHUP)
                assert daemon.await_events("reloaded", number)["engine"] == engine
                wait_until(lambda: daemon.ask()[1] == f"{engine}.test", "the new engine serves")  # noqa: B023
                open_session.mail()
                assert int(open_session.rcpt().text.split()[2]) == before


def test_a_reload_to_an_engine_that_is_not_there(no_binding):
    """The old one stays, with the rest of its configuration, and the log says what to install."""
    daemon = BareDaemon(engine="native", workers=1, hostname="old.test")
    daemon.extra_environment = no_binding
    with daemon:
        daemon.engine = "libmilter"
        daemon.configure(workers=1, hostname="new.test")
        daemon.send_signal(signal.SIGHUP)
        reason = daemon.await_events("reload failed, the old configuration stays")["reason"]
        assert reason.startswith("engine: no Python binding of libmilter")
        assert "pip install 'hybridgrey[milter]'" in reason
        assert daemon.ask()[1] == "old.test"


def test_without_pymilter_the_filter_runs(no_binding):
    """The daemon with `auto` serves mail and says by which engine; with `libmilter` it ends with one line."""

    class Without(Daemon):
        def environment(self):
            return {**super().environment(), **no_binding}

    rules = {"store": {"url": "redis://127.0.0.1:1"}, "rule": [{"name": "all", "action": "reject"}]}
    with Without({**rules, "engine": "auto"}) as daemon:
        assert daemon.events("ready")[0]["engine"] == "native"
        with MilterPeer(daemon.address) as peer:
            peer.connect()
            peer.helo()
            peer.mail()
            assert peer.rcpt().code == "554"
    with (
        pytest.raises(PartError, match=r"pip install 'hybridgrey\[milter\]'"),
        Without({**rules, "engine": "libmilter"}),
    ):
        pass
