"""One worker with each engine: what it serves, how it drains, what it survives."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hybridgrey.process import worker
from parts.baredaemon import BareDaemon, alive, answer, children
from parts.base import accepts, free_port, has_ipv6, wait_until
from parts.daemon import Daemon
from parts.milterpeer import MilterPeer


@pytest.fixture(params=["libmilter", "native"])
def engine(request):
    return request.param


@pytest.mark.parametrize("family", ["inet", "inet6", "unix"])
def test_serves_every_family(family, tmp_path, engine):
    """Workers take connections from our socket in each family that libmilter knows."""
    if family == "inet6" and not has_ipv6():
        pytest.skip("no IPv6 here")
    port = free_port()
    addresses = {"inet": ("127.0.0.1", port), "inet6": ("::1", port), "unix": str(tmp_path / "s")}
    listens = {"inet": f"inet:{port}@127.0.0.1", "inet6": f"inet6:{port}@::1", "unix": f"unix:{tmp_path}/s"}
    with BareDaemon(listens[family], engine=engine) as daemon:
        daemon.address = addresses[family]
        assert daemon.ask()[0] in daemon.workers()
        assert daemon.stop() == 0


def test_all_workers_take_connections(tmp_path, engine):
    """Sessions that stay open are spread over the workers: none is left idle."""
    with BareDaemon(f"unix:{tmp_path}/s", workers=2, engine=engine) as daemon:
        daemon.address = f"{tmp_path}/s"
        peers = [MilterPeer(daemon.address) for _ in range(60)]
        served = {answer(peer)[0] for peer in peers}
        for peer in peers:
            peer.quit()
        assert served == daemon.workers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_of_libmilter_cut_no_session(number, engine):
    """TERM, INT and HUP, which stop libmilter at once: a worker and its sessions do not even notice."""
    with BareDaemon(workers=1, engine=engine) as daemon, MilterPeer(daemon.address) as peer:
        (worker,) = daemon.workers()
        peer.connect()
        for _ in range(20):
            os.kill(worker, number)
        time.sleep(0.3)
        peer.mail()
        assert f" {worker} " in peer.rcpt().text
        assert daemon.ask()[0] == worker


def test_session_in_flight_ends_in_its_own_time(engine):
    """A draining worker takes no new session and serves the open one to its end, idle times included."""
    with BareDaemon(workers=1, engine=engine) as daemon, MilterPeer(daemon.address) as peer:
        (worker,) = daemon.workers()
        peer.connect()
        daemon.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(daemon.address), "no connections are taken any more", 3)
        time.sleep(1.0)
        peer.mail()
        assert f" {worker} " in peer.rcpt().text
        assert daemon.running
        peer.quit()
        assert daemon.process.wait(10) == 0
        assert not daemon.events("worker leaves sessions behind")


def test_connection_without_a_word_is_waited_for(engine):
    """A connection that was accepted but has not negotiated yet counts as a session."""
    with BareDaemon(workers=1, engine=engine) as daemon:
        # Unknown to the session's own count: libmilter calls it at the first command only
        with socket.create_connection(daemon.address, 5):
            time.sleep(0.3)
            daemon.send_signal(signal.SIGTERM)
            time.sleep(1.0)
            assert daemon.running
        assert daemon.process.wait(10) == 0


def test_deadline_ends_the_wait(engine):
    """After `drain_timeout` a session that does not end is left behind, and the log says how many."""
    with (
        BareDaemon(workers=1, drain_timeout="1s", engine=engine) as daemon,
        MilterPeer(daemon.address) as peer,
    ):
        answer(peer)
        assert daemon.stop() == 0
        assert daemon.events("worker leaves sessions behind")[0]["sessions"] >= 1


def test_second_term_hurries(engine):
    """Whoever sends TERM twice does not want to wait for sessions."""
    with (
        BareDaemon(workers=2, drain_timeout="60s", engine=engine) as daemon,
        MilterPeer(daemon.address) as peer,
    ):
        peer.connect()
        daemon.send_signal(signal.SIGTERM)
        daemon.await_events("ending")
        assert daemon.stop(timeout=10) == 0


def test_workers_end_when_the_master_is_killed(engine):
    """Nobody serves on without a master; a session in flight still comes to its end, and a start succeeds."""
    with BareDaemon(workers=2, engine=engine) as daemon:
        family = children(daemon.pid)
        with MilterPeer(daemon.address) as peer:
            peer.connect()
            daemon.kill()
            wait_until(lambda: sum(map(alive, family)) == 1, "all but the worker with a session are gone")
            peer.mail()
            assert alive(int(peer.rcpt().text.split()[2]))
            peer.quit()
        wait_until(lambda: not any(map(alive, family)), "the last worker is gone")
        daemon.log.unlink()
        daemon.start()
        assert daemon.ask()[0] in daemon.workers()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no CPU affinity here")
@pytest.mark.parametrize(("pin", "most"), [(True, 1), (False, len(os.sched_getaffinity(0)))])
def test_workers_are_bound_to_a_cpu_each(pin, most, engine):
    """With `pin_workers` each worker has one CPU, and they are not all on the same."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU only")
    with BareDaemon(workers=2, pin_workers=pin, engine=engine) as daemon:
        bound = [os.sched_getaffinity(pid) for pid in daemon.workers()]
        assert [len(cpus) for cpus in bound] == [most, most]
        assert pin == (bound[0] != bound[1])


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        ("sys.modules['milter'] = None", "pip install 'hybridgrey\\[milter\\]'"),
        ("sys.modules['milter'] = types.ModuleType('milter')", "is not pymilter's"),
    ],
)
def test_unfit_libmilter_is_refused(prepare, text):
    """Without a binding that works one line says what to install."""
    done = checked(prepare)
    assert done.returncode == os.EX_UNAVAILABLE, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert re.search(text, done.stdout)


def test_python_314_is_refused_with_the_pool_only():
    """Python 3.14 crashes with the pool of workers that Debian builds libmilter with, and runs without it."""
    done = checked("sys.version_info = (3, 14, 0)")
    if "mi_pool_controller_init" in done.stderr:
        assert done.returncode == os.EX_UNAVAILABLE
        assert "Python 3.11 to 3.13" in done.stdout
    else:
        assert (done.returncode, done.stdout) == (0, "")


def checked(prepare: str) -> subprocess.CompletedProcess[str]:
    """What the check of libmilter says in such an interpreter; on stderr, whether libmilter has a pool."""
    program = f"""
import sys, types
{prepare}
from hybridgrey.process import worker
try:
    worker.check()
except worker.UnfitError as error:
    print(error)
    status = {os.EX_UNAVAILABLE}
else:
    status = 0
libraries = [line.split()[-1] for line in open("/proc/self/maps") if "libmilter" in line]
if libraries and b"mi_pool_controller_init" in open(libraries[0], "rb").read():
    print("mi_pool_controller_init", file=sys.stderr)
sys.exit(status)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "pthread_setattr_default_np"), reason="no GNU C library")
def test_threads_are_started_with_small_stacks():
    """What libmilter starts in a worker has a stack of a megabyte, of which glibc keeps many at hand."""
    child = os.fork()
    if not child:
        worker._frugal_threads()
        attributes, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
        library = ctypes.CDLL(None)
        library.pthread_getattr_default_np(attributes)
        library.pthread_attr_getstacksize(attributes, ctypes.byref(size))
        os._exit(size.value != 1 << 20)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise a priority")
@pytest.mark.parametrize(("given", "wanted", "found"), [(0, -10, -10), (0, 0, 0), (3, -10, 3), (-2, 5, -2)])
def test_priority(given, wanted, found, engine):
    """A worker does not queue with the MTA's processes; what somebody has set stays; the keeper has time."""

    class Niced(Daemon):
        def command(self):
            return ["nice", "-n", str(given - os.getpriority(os.PRIO_PROCESS, 0)), *super().command()]

    store = {"url": "redis://127.0.0.1:1"}
    with Niced({"workers": 1, "nice": wanted, "engine": engine, "store": store}) as daemon:
        names = {Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in children(daemon.pid)}
        assert os.getpriority(os.PRIO_PROCESS, names["hg-worker"]) == found
        assert os.getpriority(os.PRIO_PROCESS, names["hg-keeper"]) == max(found, 0)
