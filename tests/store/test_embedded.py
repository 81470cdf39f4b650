"""The embedded server: real servers of both makes, killed, shared, reused, refused."""

import contextlib
import itertools
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis

from hybridgrey.greylist.triplets import Greylist, State
from hybridgrey.history.layout import Step
from hybridgrey.history.records import Batch, Mark
from hybridgrey.history.writer import Writer
from hybridgrey.store import embedded, machine
from hybridgrey.store.binary import EmbeddedError, bundled_directory, find_binary
from hybridgrey.store.connection import Script, Store
from hybridgrey.store.embedded import MAX_SOCKET_PATH, EmbeddedServer
from parts.base import descriptors, wait_until
from parts.greyterms import GreyTerms
from parts.redisserver import server_binary

BUNDLED = bundled_directory() / "valkey-server"
SET = Script("redis.call('SET', KEYS[1], ARGV[1]) return {1}")
GET = Script("return {tonumber(redis.call('GET', KEYS[1]) or 0)}")
NOBODY = 65534


@pytest.fixture(params=["redis", "valkey"])
def binary(request):
    return Path(server_binary()) if request.param == "redis" else BUNDLED


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def server(directory, binary):
    server = EmbeddedServer(directory, binary=binary)
    yield server
    server.stop()


def write(server, key, value):
    with contextlib.closing(Store.open(server.url, 5.0)) as store:
        store.run(SET, [key], [value])


def read(server, key):
    with contextlib.closing(Store.open(server.url, 5.0)) as store:
        return store.run(GET, [key], [])[0]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def server_pid(server):
    """The process at the socket, whoever started it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.socket_path))
        return int.from_bytes(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)


def test_start_and_stop(server):
    """A started server answers at its socket; a stopped one is gone, and both may be asked twice."""
    assert server.start() == server.socket_path
    assert server.poll() is None
    write(server, b"k", 5)
    assert server.start() == server.socket_path
    assert read(server, b"k") == 5
    pid = server.pid
    server.stop()
    server.stop()
    assert server.poll() is not None
    assert not Path(f"/proc/{pid}").exists()


def test_data_survive_an_orderly_stop(server):
    """What was written just before the stop is there after the next start."""
    server.start()
    write(server, b"k", 6)
    server.stop()
    server.start()
    assert read(server, b"k") == 6


def test_data_survive_kill_9_of_the_server(server):
    """A killed server is noticed, and the next start has its data: what was acknowledged had been written."""
    server.start()
    for number in range(200):
        write(server, b"k%d" % number, number)
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.poll() is not None, "the death is noticed")
    assert server.poll() == -signal.SIGKILL
    server.start()
    assert [read(server, b"k%d" % number) for number in range(200)] == list(range(200))


def test_kill_9_while_writing(server):
    """Every write acknowledged before a kill under load is there afterwards."""
    server.start()
    done = []

    def write_on():
        with contextlib.closing(Store.open(server.url, 5.0)) as store, contextlib.suppress(Exception):
            for number in range(1, 1_000_000):
                store.run(SET, [b"n"], [number])
                done.append(number)

    thread = threading.Thread(target=write_on)
    thread.start()
    wait_until(lambda: len(done) > 500, "writes are under way")
    os.kill(server.pid, signal.SIGKILL)
    thread.join()
    server.start()
    assert read(server, b"n") in (done[-1], done[-1] + 1)


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_truncated_file(server, directory, cut):
    """A file whose last command is cut off is loaded up to there."""
    server.start()
    write(server, b"a", 1)
    write(server, b"b", 2)
    server.stop()
    written = sorted(directory.rglob("*.incr.aof"))[-1]
    os.truncate(written, written.stat().st_size - cut)
    server.start()
    assert (read(server, b"a"), read(server, b"b")) == (1, 0)


def test_change_of_binary(directory):
    """Data written by one make are read by the other, in both directions, after a rewrite too."""
    makes = [BUNDLED, Path(server_binary())]
    for number, make in enumerate([*makes, *makes]):
        server = EmbeddedServer(directory, binary=make)
        server.start()
        try:
            assert read(server, b"k") == number
            write(server, b"k", number + 1)
            rewrite(server)
        finally:
            server.stop()


def rewrite(server):
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        client.bgrewriteaof()
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the file is rewritten")


def test_closed_to_others(server, directory):
    """Directory, socket, data and log are the owner's alone; no TCP port is open."""
    server.start()
    write(server, b"k", 1)
    assert mode(directory) == 0o700
    assert all(mode(path) & 0o077 == 0 for path in directory.rglob("*"))
    inodes = descriptors(server.pid)
    tcp = [
        line.split()[9]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    assert not [inode for inode in tcp if f"socket:[{inode}]" in inodes]


def test_session_of_its_own(server):
    """A signal to the daemon's process group or terminal does not reach the server."""
    server.start()
    assert os.getsid(server.pid) == server.pid
    assert os.getpgid(server.pid) != os.getpgid(0)


MASTER = """
import sys, time
from pathlib import Path
from hybridgrey.store.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.start()
print(server.pid or 0, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def master(directory):
    """Another master process on the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", MASTER, str(directory)], stdout=subprocess.PIPE, text=True
    )
    try:
        process.server_pid = int(process.stdout.readline())
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_server_left_by_a_killed_master(server):
    """After kill -9 of its master the server goes on; the next master takes it over and ends it."""
    with master(server.directory) as other:
        write(server, b"k", 9)
        other.kill()
        other.wait()
        assert server.start() == server.socket_path
        assert server.pid is None
        assert server.poll() is None
        assert read(server, b"k") == 9
        assert server_pid(server) == other.server_pid
        server.stop()
        wait_until(lambda: server.poll() is not None, "the server has ended")
    server.start()
    assert read(server, b"k") == 9


def test_taken_over_server_dies(server):
    """The death of a server that we took over is noticed and repaired like any other."""
    with master(server.directory) as other:
        other.kill()
        other.wait()
        server.start()
        write(server, b"k", 3)
        os.kill(other.server_pid, signal.SIGKILL)
        wait_until(lambda: server.poll() is not None, "the death is noticed")
        server.start()
        assert server.pid is not None
        assert read(server, b"k") == 3


def test_second_daemon_is_a_guest(server):
    """A second daemon uses the first one's server and leaves it running when it stops."""
    with master(server.directory) as other:
        server.start()
        assert server.pid is None
        server.stop()
        assert server_pid(server) == other.server_pid
        assert server.poll() is None
        other.kill()
        other.wait()
        server.start()
        server.stop()


def test_many_starters_one_server(directory):
    """Masters that start at the same moment end up with one server."""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", MASTER, str(directory)], stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(5)
        ]
        for process in processes:
            stack.callback(process.kill)
        pids = [int(process.stdout.readline()) for process in processes]
        assert sorted(pids)[:4] == [0] * 4
        assert server_pid(EmbeddedServer(directory)) == max(pids)
        for process in processes:
            process.kill()
            process.wait()
        last = EmbeddedServer(directory)
        last.start()
        last.stop()
        assert last.poll() is not None


def test_stale_socket_is_replaced(server, directory):
    """A socket that nobody listens at, and a plain file in its place, are replaced."""
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(server.socket_path))
    server.start()
    assert read(server, b"k") == 0
    server.stop()
    server.socket_path.write_text("in the way")
    server.start()
    assert read(server, b"k") == 0


def test_no_second_server_beside_a_lost_socket(server, binary):
    """Without its socket file a live server still keeps a second one away from its data."""
    server.start()
    server.socket_path.unlink()
    second = EmbeddedServer(server.directory, binary=binary, start_timeout=0.5)
    with pytest.raises(EmbeddedError, match=r"holds server\.lock but does not answer"):
        second.start()
    assert server.poll() is None


def test_no_second_server_beside_a_frozen_one(server, binary):
    """A server that hangs is not doubled; the error says what to end."""
    server.start()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        second = EmbeddedServer(server.directory, binary=binary, start_timeout=0.5)
        with pytest.raises(EmbeddedError, match="fuser"):
            second.start()
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_frozen_server_is_stopped(server):
    """stop ends even a server that does not react to SIGTERM."""
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop(timeout=0.3)
    assert not Path(f"/proc/{pid}").exists()


def wrapper(tmp_path, body):
    """A server binary that is a shell script."""
    path = tmp_path / "wrapped-server"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def slow_to_load(tmp_path, directory, binary, count):
    """A directory with `count` keys and a server that takes 0.1 ms and more to load each."""
    server = EmbeddedServer(directory, binary=binary)
    server.start()
    fill = Script("for i = 1, ARGV[1] do redis.call('SET', 'k' .. i, i) end return {1}")
    with contextlib.closing(Store.open(server.url, 5.0)) as store:
        store.run(fill, [], [count])
    server.stop()
    return wrapper(tmp_path, f'exec {binary} "$@" --key-load-delay 100')


def test_loading_is_waited_for(tmp_path, directory, binary):
    """While the server loads its data, start waits and reports; then it serves them."""
    lines = []
    slow = slow_to_load(tmp_path, directory, binary, 8000)
    server = EmbeddedServer(directory, binary=slow, progress=lines.append)
    try:
        server.start()
        assert len(lines) == 1
        assert "loading" in lines[0]
        assert read(server, b"k8000") == 8000
    finally:
        server.stop()


def test_loading_has_an_end(tmp_path, directory, binary):
    """A server that loads longer than it may is an error that says so; the next start finds it further on."""
    slow = slow_to_load(tmp_path, directory, binary, 20_000)
    impatient, patient = (EmbeddedServer(directory, binary=slow, load_timeout=limit) for limit in (0.3, 60))
    try:
        with pytest.raises(EmbeddedError, match="still loading"):
            impatient.start()
        patient.start()
        assert server_pid(patient) == impatient.pid
        assert read(patient, b"k20000") == 20_000
    finally:
        impatient.stop()
    assert patient.poll() is not None


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("echo this server is broken; exit 3", r"status 3; its log says: .*this server is broken"),
        ("exec sleep 60", "did not answer within"),
    ],
)
def test_server_that_does_not_start(tmp_path, directory, body, wanted):
    """A server that exits or never answers is an error with the end of its log, and leaves no process."""
    server = EmbeddedServer(directory, binary=wrapper(tmp_path, body), start_timeout=1.0)
    with pytest.raises(EmbeddedError, match=wanted):
        server.start()
    assert server.poll() is not None
    server.stop()


def test_damaged_data(server, directory):
    """A file damaged in its middle stops the start with the server's own words; nothing is thrown away."""
    server.start()
    write(server, b"a", 1)
    write(server, b"b", 2)
    server.stop()
    written = sorted(directory.rglob("*.incr.aof"))[-1]
    damaged = b"garbage" + written.read_bytes()
    written.write_bytes(damaged)
    with pytest.raises(EmbeddedError, match=r"(?i)bad file format"):
        server.start()
    assert written.read_bytes() == damaged


def test_path_too_long(tmp_path):
    """A directory whose socket path is too long is refused with the limit; one at the limit works."""
    room = MAX_SOCKET_PATH - len(str(tmp_path)) - len("//store.sock")
    with pytest.raises(EmbeddedError, match="shorter directory"):
        EmbeddedServer(tmp_path / ("x" * (room + 1))).start()
    server = EmbeddedServer(tmp_path / ("x" * room))
    server.start()
    server.stop()


@pytest.mark.parametrize("name", ["with space", "quo'te\"s", "ü%41?#", "back\\slash"])
def test_odd_directories(tmp_path, name):
    """Any character of a directory reaches the server, and the URL leads there."""
    server = EmbeddedServer(tmp_path / name)
    server.start()
    try:
        write(server, b"k", 1)
        assert read(server, b"k") == 1
    finally:
        server.stop()


def test_directory_is_a_file(tmp_path):
    """A file in the directory's place is an error."""
    (tmp_path / "state").write_text("")
    with pytest.raises(EmbeddedError, match="Not a directory"):
        EmbeddedServer(tmp_path / "state").start()
    with pytest.raises(EmbeddedError, match="cannot be used"):
        EmbeddedServer(tmp_path / "state" / "below").start()


def test_directory_open_to_all(tmp_path):
    """A directory that everybody may write to is refused."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(EmbeddedError, match="everybody may write"):
        EmbeddedServer(tmp_path / "state").start()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")


def error_as_nobody(directory):
    """What start raises in a process without privileges."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            EmbeddedServer(Path(directory)).start()
        except EmbeddedError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()


@needs_root
@pytest.mark.parametrize("directory", ["/usr", "/no-such-state", "/root/state"])
def test_directory_not_writable(directory):
    """A directory that we may not write to, or make, is an error that says so."""
    text = error_as_nobody(directory)
    assert "cannot be used for the embedded store" in text
    assert "ermission" in text


@needs_root
@pytest.mark.parametrize(
    ("uid", "mode", "said"),
    [
        (NOBODY, 0o700, "not root's; set `user`"),
        (0, 0o775, "others than root"),
        (0, 0o700, "others than root"),
    ],
    ids=["anothers", "open to a group", "in anothers"],
)
def test_root_takes_no_directory_that_another_may_change(tmp_path, uid, mode, said):
    """A server of root's would write wherever a link leads that another has put there."""
    above = tmp_path / "above"
    directory = above / "state"
    directory.mkdir(parents=True)
    directory.chmod(mode)
    os.chown(directory, uid, NOBODY)
    if said.startswith("others") and mode == 0o700:
        os.chown(above, NOBODY, NOBODY)
    with pytest.raises(EmbeddedError, match=said):
        EmbeddedServer(directory).start()
    assert list(directory.iterdir()) == []


def test_binary_search(tmp_path, monkeypatch):
    """valkey-server on PATH comes before redis-server, that before the package's."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == BUNDLED
    for name in ("redis-server", "valkey-server"):
        path = tmp_path / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        assert find_binary() == path


def test_no_binary(tmp_path):
    """Without any server the error names the extra and the system package."""
    code = (
        "import sys\nfrom pathlib import Path\nsys.path = [p for p in sys.path if 'site-packages' not in p]\n"
        f"sys.path.append({str(Path(embedded.__file__).parents[2])!r})\n"
        "from hybridgrey.store.embedded import *\n"
        "try: EmbeddedServer(Path(sys.argv[1])).start()\nexcept EmbeddedError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "hybridgrey[embedded]" in done.stdout
    assert "redis-server" in done.stdout


def test_restart_is_quick_enough_for_the_master(server):
    """A stop and a start of a small store take seconds at most."""
    server.start()
    begin = time.monotonic()
    server.stop()
    server.start()
    assert time.monotonic() - begin < 10


def info(server, section):
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        return client.info(section)


def test_memory_has_a_limit(server):
    """The server is told the machine's allowance, and to let go of what expires first."""
    server.start()
    memory = info(server, "memory")
    assert memory["maxmemory"] == machine.allowance(machine.memory())
    assert memory["maxmemory_policy"] == "volatile-ttl"


def test_a_server_that_was_found_gets_the_limit(server, directory):
    """A server that the version before this one left behind is told the limit when it is taken over."""
    server.start()
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 0)
    EmbeddedServer(directory, binary=server._binary).start()
    memory = info(server, "memory")
    assert (memory["maxmemory"] > 0, memory["maxmemory_policy"]) == (True, "volatile-ttl")


def test_under_pressure_waiting_triplets_go_first(directory, binary):
    """A flood from ever new clients lets no passed triplet, no count and no history by hours go."""
    server = EmbeddedServer(directory, binary=binary, maxmemory=4 * machine.MIB)
    server.start()
    terms = GreyTerms(auto_allow_interval=3600, max_waiting=1000)
    client = redis.Redis(unix_socket_path=str(server.socket_path))
    with contextlib.closing(Store.open(server.url, 5.0)) as store, client:
        grey = Greylist(store, terms)
        known = [(f"198.18.{number}.1", "a@example.com", "b@example.org") for number in range(200)]
        for triplet in known:
            grey.touch(*triplet, 0)
            assert grey.touch(*triplet, 0).state is State.PASSED
        now = int(time.time())
        counts = {(step, now - now % step): {"sessions": 1} for step in (Step.HOUR, Step.DAY)}
        batch = Batch(counts=counts, marks=[Mark(now, "mx", "start")])
        Writer(store, "mx", "test").write(1, batch, now)
        keep = set(client.scan_iter(count=1000))
        assert len(keep) == 3 * len(known) + 5
        numbers = itertools.count()
        while client.info("stats")["evicted_keys"] < 3000:
            for number in itertools.islice(numbers, 2000):
                address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
                assert grey.touch(address, f"s@{number}.example", "b@example.org", 300).state is State.NEW
        assert client.exists(*keep) == len(keep)
        assert {grey.touch(*triplet, 300).state for triplet in known} == {State.KNOWN}
        assert info(server, "memory")["used_memory"] < 4.5 * machine.MIB
    server.stop()
