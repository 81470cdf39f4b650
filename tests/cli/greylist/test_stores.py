"""``hybridgrey greylist`` on stores of each kind, down, large, and interrupted."""

import itertools
import json
import signal
import subprocess
from pathlib import Path

from cli.greylist.mails import fill, listed
from hybridgrey.store.embedded import EmbeddedServer
from parts.base import LOOPBACK, descriptors, free_port, wait_until
from parts.commandline import PROGRAM, measured, run
from parts.redisserver import Redis


def test_store_down(write):
    """A store that is down is one line that names it, without its password; the status is 69."""
    done = run("greylist", "list", "-c", write(f"redis://:hunter2@{LOOPBACK}:{free_port()}/0"))
    assert (done.status, done.output, len(done.error.splitlines())) == (69, "", 1)
    assert done.error.startswith(f"hybridgrey: store redis://:********@{LOOPBACK}:")
    assert "hunter2" not in done.error


def test_embedded_store(write, tmp_path):
    """The embedded store is reached through its socket; when it does not run, a line says what to do."""
    state = tmp_path / "state"
    config = write(f"embedded:{state}")
    done = run("greylist", "list", "-c", config)
    assert (done.status, len(done.error.splitlines())) == (69, 1)
    assert f"{state}/store.sock: No such file or directory; it runs with the daemon" in done.error
    server = EmbeddedServer(state)
    server.start()
    try:
        fill(server.url)
        assert len(listed(config)) == 7
    finally:
        server.stop()


def test_tls_and_password(write):
    """rediss:// with a user and password is looked through."""
    with Redis(tls=True, user="grey", password="hunter2") as part:
        url = f"{part.tls_url}?ssl_ca_certs={part.ca}"
        fill(url)
        config = write(url)
        assert len(listed(config)) == 7
        assert run("greylist", "forget", "-c", config, "--all", "--yes").output == "forgot 7 entries\n"


def test_cluster(write):
    """All primaries of a cluster are looked through and changed."""

    class Node(Redis):
        def command(self):
            return [*super().command(), "--cluster-enabled", "yes", "--cluster-announce-ip", LOOPBACK]

    with Node() as one, Node() as two:
        for node, slots in ((one, range(8192)), (two, range(8192, 16384))):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", 1 + (node is two))
        with one.client() as client:
            client.execute_command("CLUSTER", "MEET", LOOPBACK, two.port)
        wait_until(lambda: all(_is_up(node) for node in (one, two)), "the cluster is up", 40)
        url = f"cluster://{LOOPBACK}:{one.port}"
        fill(url)
        config = write(url)
        assert len(listed(config)) == 7
        assert all(node.keys() for node in (one, two)), "each has some"
        assert run("greylist", "pass", "-c", config, "203.0.112.0/23", "--yes").status == 0
        assert len(listed(config, "--state", "allowed")) == 2
        assert run("greylist", "forget", "-c", config, "--all", "--yes").output == "forgot 9 entries\n"
        assert listed(config) == []


def _is_up(node):
    with node.client() as client:
        nodes = client.execute_command("CLUSTER INFO")
    return "cluster_state:ok" in str(nodes) or "'cluster_state': 'ok'" in str(nodes)


def test_sentinel(write):
    """The primary that sentinels name is looked through."""

    class Sentinel(Redis):
        def command(self):
            (self.directory / "sentinel.conf").write_text(
                f"port {self.port}\nbind {LOOPBACK}\nunixsocket {self.socket}\ndir {self.directory}\n"
                f"sentinel monitor main {LOOPBACK} {self.watched} 1\n"
            )
            return [super().command()[0], self.directory / "sentinel.conf", "--sentinel"]

    with Redis() as primary:
        sentinel = Sentinel()
        sentinel.watched = primary.port
        with sentinel:
            url = f"sentinel://{LOOPBACK}:{sentinel.port}/main/0"
            fill(url)
            assert len(listed(write(url))) == 7


def test_ctrl_c(write):
    """Ctrl-C ends a command that waits, without a traceback; the status is 1."""
    with Redis() as part:
        path = write(part.unix_url, store={"timeout": "30s"})
        part.freeze()
        try:
            process = subprocess.Popen(
                [PROGRAM, "greylist", "list", "-c", path],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            wait_until(lambda: _waits_for_a_socket(process.pid), "it waits for the store")
            process.send_signal(signal.SIGINT)
            output, error = process.communicate(timeout=30)
        finally:
            part.thaw()
    assert (process.returncode, output, error) == (1, "", "\nAborted!\n")


def _waits_for_a_socket(pid):
    asleep = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S"
    return asleep and any(link.startswith("socket:") for link in descriptors(pid))


def test_many_entries_in_little_memory(server, write):
    """200,000 entries are listed, filtered and forgotten in order, in hardly more memory than one takes."""
    with server.client() as client:
        client.flushall()
        for start in range(0, 200_000, 20_000):
            client.eval(
                """for i = ARGV[1], ARGV[1] + 19999 do
                     local net = string.format('10.%d.%d.0/24', math.floor(i / 256) % 256, i % 256)
                     local key = 'hg1:{' .. net .. '}:sender' .. i .. '@example.org:b@example.net'
                     redis.call('SET', key, -1700000000, 'EX', 3600)
                   end""",
                0,
                start,
            )
    config = write(server.unix_url)
    few = measured("greylist", "list", "-c", config, "--limit", "1")[1]
    done, memory = measured("greylist", "list", "-c", config, "--json")
    assert (done.status, len(done.lines)) == (0, 200_000)
    places = [tuple(map(int, json.loads(line)["network"].split("/")[0].split("."))) for line in done.lines]
    assert places == sorted(places)
    assert memory < 100 * 2**20
    assert memory < few + 10 * 2**20
    assert len(listed(config, "--client", "10.1.0.0/16", "--from", "sender3*")) == len(
        [i for i in range(200_000) if i // 256 % 256 == 1 and str(i).startswith("3")]
    )
    # A reader that wants the first line only ends the command without a word.
    command = f"{PROGRAM} greylist list -c {config} | head -1"
    first = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (first.stdout.count("\n"), first.stderr) == (1, "")
    done, memory = measured("greylist", "forget", "-c", config, "--all", "--yes")
    assert (done.output, memory < few + 10 * 2**20) == ("forgot 200,000 entries\n", True)
    with server.client() as client:
        assert list(itertools.islice(client.scan_iter(), 1)) == []
