"""Which engine serves: as configured, and by what is installed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from parts.baredaemon import BareDaemon, children

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


def test_a_change_needs_a_restart():
    """A reload keeps the engine, and says so."""
    with BareDaemon(engine="native", workers=1) as daemon:
        daemon.engine = "libmilter"
        daemon.configure(workers=1, hostname="new.test")
        daemon.send_signal(signal.SIGHUP)
        assert daemon.await_events("change needs a restart, the old value stays")["key"] == "engine"
        assert daemon.await_events("reloaded")["engine"] == "native"
