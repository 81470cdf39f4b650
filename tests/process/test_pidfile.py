"""The pid file: its lock lives as long as its process, and who dropped privileges can still write it."""

import os
import subprocess
import sys

import pytest

from hybridgrey.process.pidfile import PidFile, PidFileError, Record, read

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


def test_children_do_not_hold_it(tmp_path):
    """A child that outlives its master does not make the file look alive."""
    path = tmp_path / "pid"
    with holder(path, what="fork") as process:
        process.wait()
        assert read(path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another")
@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_dropped_privileges(tmp_path, mode):
    """Who has become another user since still writes it, and takes it away or leaves it empty."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
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
