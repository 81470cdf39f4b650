"""The pid file: its lock lives as long as its process, and who dropped privileges can still write it."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from hybridgrey.process.pidfile import PidFile, PidFileError, Record, read, tell
from parts.base import open_to_all

# Claims the file given, then does what the second argument says.
HOLDER = """
import os, sys
from pathlib import Path
from hybridgrey.process.pidfile import PidFile, Record
path, uid, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
held = PidFile.claim(path, uid)
if uid >= 0:
    os.setuid(uid)
held.write(Record(os.getpid(), problems=("a long one " * 50,)))
held.write(Record(os.getpid(), reloads=7))
print("held", flush=True)
if what == "fork" and os.fork():
    os._exit(0)
sys.stdin.read()
if what == "remove":
    held.remove()
"""


# Locks the file, as who the second argument says, and writes a record of the process that the third says.
LIAR = """
import fcntl, os, struct, sys
from pathlib import Path
from hybridgrey.process.pidfile import PidFile, Record
path, uid, pid, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.setuid(uid)
fd = os.open(path, os.O_RDWR)
PidFile(Path(path), fd).write(Record(pid or os.getpid()))
if kind == "process":
    fcntl.lockf(fd, fcntl.LOCK_EX)
else:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
print("held", flush=True)
sys.stdin.read()
"""


def liar(path, uid, pid, kind="process"):
    """A process that holds the file and says that it is another; 0 is itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", LIAR, path, str(uid), str(pid), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def holder(path, uid=-1, what=""):
    """A process that holds the file until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, str(uid), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.program
def test_held(tmp_path):
    """While its process lives the record is read; afterwards the file is stale."""
    path = tmp_path / "pid"
    assert read(path) is None
    with holder(path) as process:
        assert read(path) == Record(process.pid, reloads=7)
        assert path.read_text().splitlines()[0] == str(process.pid)
        with pytest.raises(PidFileError, match="in use by another daemon"):
            PidFile.claim(path)
        process.kill()
    assert path.exists()
    assert read(path) is None
    with holder(path) as process:
        assert read(path).pid == process.pid


@pytest.mark.program
def test_children_do_not_hold_it(tmp_path):
    """A child that outlives its master does not make the file look alive."""
    path = tmp_path / "pid"
    with holder(path, what="fork") as process:
        process.wait()
        assert read(path) is None


@pytest.mark.program
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another")
@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_dropped_privileges(tmp_path, mode):
    """Who has become another user since still writes it, and takes it away or leaves it empty."""
    open_to_all(tmp_path)
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)
    path = place / "pid"
    with holder(path, 65534, "remove") as process:
        assert read(path).reloads == 7
        assert path.stat().st_uid == 65534
        process.stdin.close()
        process.wait()
    assert path.exists() is (mode == 0o755)
    assert not path.exists() or path.read_text() == ""


@pytest.mark.program
@pytest.mark.parametrize("text", ["", "1\n", "1\n{}\n", "1\n[]\n", "1\n{"])
def test_damaged_record(tmp_path, text):
    """A record that is not whole, as of a daemon that starts, is an error with words."""
    path = tmp_path / "pid"
    with holder(path):
        path.write_text(text)
        with pytest.raises(PidFileError, match="is starting"):
            read(path)


def test_no_link_is_followed(tmp_path):
    """A symbolic link in its place is refused: in a folder of others it could point anywhere."""
    (tmp_path / "pid").symlink_to(tmp_path / "target")
    with pytest.raises(PidFileError):
        PidFile.claim(tmp_path / "pid")
    assert not (tmp_path / "target").exists()


def test_hard_link(tmp_path):
    """Nor is a file of two names: one of them may be a file of root's that would be emptied."""
    (tmp_path / "precious").write_text("1\n")
    (tmp_path / "pid").hardlink_to(tmp_path / "precious")
    with pytest.raises(PidFileError, match="hard link"):
        PidFile.claim(tmp_path / "pid", 1)
    with pytest.raises(PidFileError, match="hard link"):
        read(tmp_path / "pid")
    assert (tmp_path / "precious").read_text() == "1\n"


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_no_file(tmp_path, kind):
    """What is no file is refused, without waiting for anybody."""
    path = tmp_path / "pid"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(PidFileError):
        PidFile.claim(path)
    with pytest.raises(PidFileError, match="no regular file"):
        read(path)


def test_other_content_stays(tmp_path):
    """A file that is no pid file is not emptied, whatever `pid_file` says."""
    (tmp_path / "pid").write_text("root:x:0:0\n")
    with pytest.raises(PidFileError, match="is no pid file"):
        PidFile.claim(tmp_path / "pid")
    assert (tmp_path / "pid").read_text() == "root:x:0:0\n"


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who has something to give")


@needs_root
@pytest.mark.parametrize(("was", "wanted"), [(0, 65534), (65534, 0), (1, 65534)])
def test_file_of_another_is_replaced(tmp_path, was, wanted):
    """A stale file of another's is taken away: neither it nor what was in it becomes the account's."""
    path = tmp_path / "pid"
    path.write_text("123\n")
    os.chown(path, was, 0)
    with path.open() as old:
        held = PidFile.claim(path, wanted)
        assert (path.stat().st_uid, path.read_text()) == (wanted, "")
        assert (os.fstat(old.fileno()).st_uid, old.read()) == (was, "123\n")
    held.remove()
    assert not path.exists()


@pytest.mark.program
def test_starters_at_the_same_moment(tmp_path):
    """However they come, one has the file at the end, and the name stands for what it holds."""
    path = tmp_path / "pid"
    path.write_text("123\n")
    if os.geteuid() == 0:
        os.chown(path, 65534, 0)
    program = (
        "import sys\nfrom pathlib import Path\nfrom hybridgrey.process.pidfile import *\n"
        "sys.stdin.readline()\n"
        "try: held = PidFile.claim(Path(sys.argv[1]))\nexcept PidFileError: print('not', flush=True)\n"
        "else: print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    starters = [subprocess.Popen([sys.executable, "-c", program, path], **pipes) for _ in range(6)]
    for starter in starters:
        starter.stdin.write("go\n")
        starter.stdin.flush()
    said = [starter.stdout.readline() for starter in starters]
    assert sorted(said) == ["held\n"] + ["not\n"] * 5
    with pytest.raises(PidFileError, match="in use"):
        PidFile.claim(path)
    for starter in starters:
        starter.communicate()


@pytest.mark.program
@needs_root
@pytest.mark.parametrize("kind", ["process", "nobody that can be named"])
def test_holder_must_be_who_is_named(tmp_path, kind):
    """The account holds the file with a process of its own and names another one: that is not believed."""
    path = tmp_path / "pid"
    path.touch()
    path.chmod(0o666)
    open_to_all(tmp_path)
    for pid in (1, os.getpid()):
        with liar(path, 65534, pid, kind) as process:
            with pytest.raises(PidFileError, match=f"names process {pid}, but its holder is .*: not trusted"):
                read(path)
            with pytest.raises(ProcessLookupError):
                tell(path, pid, signal.SIGUSR1)
            process.stdin.close()


@pytest.mark.program
@needs_root
@pytest.mark.parametrize(
    ("owner", "runs", "signalled"), [(65534, 65534, True), (0, 0, True), (65534, 0, False)]
)
def test_signal_with_the_rights_of_the_owner(tmp_path, owner, runs, signalled):
    """A process that the file's owner may not signal is not signalled for him, though it holds the file."""
    path = tmp_path / "pid"
    path.touch()
    os.chown(path, owner, owner)
    open_to_all(tmp_path)
    with liar(path, runs, 0) as process:
        assert read(path).pid == process.pid
        if signalled:
            tell(path, process.pid, signal.SIGTERM)
            assert process.wait() == -signal.SIGTERM
        else:
            with pytest.raises(PermissionError):
                tell(path, process.pid, signal.SIGTERM)
            assert process.poll() is None
            process.stdin.close()


@pytest.mark.program
def test_without_descriptors_of_processes(tmp_path, monkeypatch):
    """An old kernel, or another system, has none; the number does then."""

    def missing(_pid):
        raise OSError(errno.ENOSYS, "no such call")

    monkeypatch.setattr(os, "pidfd_open", missing, raising=False)
    path = tmp_path / "pid"
    with holder(path) as process:
        tell(path, process.pid, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


@pytest.mark.program
@pytest.mark.parametrize("fields", ['"pid": "1"', '"pid": 1, "problems": [3]', '"pid": 1, "config": 4'])
def test_record_of_other_types(tmp_path, fields):
    """A record that the account has made up is an error with words."""
    path = tmp_path / "pid"
    with holder(path):
        path.write_text("1\n{" + fields + "}\n")
        with pytest.raises(PidFileError):
            read(path)
