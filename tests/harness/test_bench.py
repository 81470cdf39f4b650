"""The tools of `make bench` work: each measures something, in a second or two; how much is not tested."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import accounts, fill, population, quota, rig, tables
from bench.floor import KINDS, Floor
from bench.relay import Relay
from hybridgrey.greylist.triplets import parse_key
from parts.base import LOOPBACK, free_port
from parts.rbldnsd import Rbldnsd
from parts.redisserver import Redis


def test_load_on_the_daemon():
    """Every kind of client gets its verdict under load, and CPU is counted for workers and store apart."""
    with rig.stage() as stage:
        figures = rig.load(stage.daemon.address, stage.cpus, count=200, seconds=20, concurrency=20)
        assert figures["errors"] == {}
        assert figures["decisions"] == 200
        assert set(figures["answers"]) == {"block 554", "trusted c", "unknown 450"}
        row = stage.measure(rate=200, seconds=1.0)
        assert row["decisions/s"] > 0
        assert row["RCPT p50 ms"] > 0
        assert len(stage.daemon.workers()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_load_on_the_floor(kind):
    """A milter that does nothing takes the same load, and gives the right answers."""
    with Floor(accounts.cores()[0], kind) as floor:
        figures = rig.load(floor.address, accounts.cores(), count=100, seconds=20)
        assert figures["errors"] == {}
        assert set(figures["answers"]) == {"block 554", "trusted c", "unknown 450"}


def test_load_over_tcp():
    """The generator speaks to a milter on an inet socket too."""
    with Rbldnsd({"bl.test": ":127.0.0.2:\n11.0.0.0/8\n"}) as dns, Redis() as store:
        with rig.BenchDaemon(rig.settings(dns.address, store.unix_url)) as daemon:
            figures = rig.load(daemon.address, accounts.cores(), count=50, seconds=20)
        assert figures["errors"] == {}
        assert figures["decisions"] == 50


def test_relay_delays_and_counts(tmp_path):
    """Answers come through the relay, after its delay and under their own ids, and are counted."""
    with rig.lists() as dns, Relay((dns.host, dns.port), (LOOPBACK, free_port()), tmp_path) as relay:
        relay.delay(300)
        query = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\x019\x010\x010\x0211\x02bl\x04test\0\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(relay.here)
            sock.send(query)
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.recv(512)
            sock.settimeout(10)
            assert sock.recv(512)[:2] == b"\x12\x34"
        counts = relay.delay(0)
        assert (counts.queries, counts.answers, counts.lost) == (1, 1, 0)


def test_filled_store_is_the_daemons_own():
    """Triplets written in bulk are triplets to the greylist."""
    with Redis() as store:
        fill.triplets(store.socket, 1000)
        keys = store.keys()
        assert len(keys) == 1000
        parsed = parse_key(keys[0])
        assert parsed is not None
        assert parsed.sender is not None
        with store.client() as client:
            assert int(client.get(keys[0])) < 0
            assert client.ttl(keys[0]) > 0


def test_clients_are_distinct_and_mixed():
    """No address comes twice within a load, and the kinds come in their shares."""
    stream = population.clients()
    some = [next(stream) for _ in range(20_000)]
    assert len({population.address(kind, number) for kind, number in some}) == len(some)
    shares = {kind: sum(one == kind for one, _ in some) / 200 for kind in population.MIX}
    assert all(abs(shares[kind] - share) < 3 for kind, share in population.MIX.items())


def test_tables(tmp_path, capsys):
    """Medians by case, printed as a table and kept as JSON."""
    raw = [{"case": "a", "x": 1}, {"case": "b", "x": 5}, {"case": "a", "x": 3}, {"case": "a", "x": 100}]
    report = tables.Report(tmp_path / "out" / "b.json")
    report.table("T", tables.medians(raw, "case"), raw=raw)
    assert "| a    | 3 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "b.json").read_text())["tables"]["T"]["raw"] == raw


def test_an_unknown_benchmark_is_refused():
    """The program names what it does not know."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_a_share_of_a_cpu(tmp_path):
    """A process held to a share uses no more of a busy CPU, and is let go of again."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            with quota.shares([busy.pid], 0.2) as held:
                if not held:
                    pytest.skip("no control group that limits CPU can be written here")
                group = Path(f"/proc/{busy.pid}/cgroup").read_text()
                assert f"hybridgrey-bench-{busy.pid}" in group
                before, begun = accounts.cpu(busy.pid), time.monotonic()
                time.sleep(1.0)
                assert accounts.cpu(busy.pid) - before < 0.4 * (time.monotonic() - begun)
            assert "hybridgrey-bench" not in Path(f"/proc/{busy.pid}/cgroup").read_text()
        finally:
            busy.kill()


def test_hierarchy_of_control_groups(tmp_path):
    """Version 1 by its mount's options, version 2 by what its root hands on."""
    assert quota.hierarchy("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n") is None
    old = "cgroup /cg/cpuset cgroup rw,cpuset 0 0\ncgroup /cg/cpu cgroup rw,cpu,cpuacct 0 0\n"
    assert quota.hierarchy(old) == Path("/cg/cpu")
    new = f"cgroup2 {tmp_path} cgroup2 rw,nosuid 0 0\n"
    (tmp_path / "cgroup.subtree_control").write_text("memory pids\n")
    assert quota.hierarchy(new) is None
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    assert quota.hierarchy(new) == tmp_path
