"""The log file that follows its name."""

from __future__ import annotations

import json
import os

import pytest

from hybridgrey import logfile, logs
from hybridgrey.logfile import LogFile
from hybridgrey.logs import FdWriter
from parts import commandline


@pytest.fixture
def descriptor():
    """A descriptor that may be put to use, as standard error is in the daemon."""
    number = os.open(os.devnull, os.O_WRONLY)
    yield number
    os.close(number)


@pytest.fixture
def eager(monkeypatch):
    """Look before each line."""
    monkeypatch.setattr(logfile, "LOOK", 0.0)


def write(log: LogFile, *lines: str) -> None:
    """Write lines as the loggers do."""
    following = log.following(lambda line: os.write(log.fileno(), line) and None)
    for line in lines:
        following(line.encode())


def test_goes_on_in_the_new_file(tmp_path, descriptor, eager):
    """Renamed and made anew, removed, or renamed with nothing in its place: lines go where the name is."""
    path = tmp_path / "log"
    log = LogFile(path, descriptor)
    write(log, "1\n")
    path.rename(tmp_path / "log.1")
    path.touch()
    write(log, "2\n")
    path.unlink()
    write(log, "3\n")
    path.rename(tmp_path / "log.2")
    write(log, "4\n", "5\n")
    texts = [(tmp_path / name).read_text() for name in ("log.1", "log.2", "log")]
    assert texts == ["1\n", "3\n", "4\n5\n"]


def test_appends_and_keeps_others_out(tmp_path, descriptor):
    """What is there stays; a new file is for its owner and group only."""
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        write(LogFile(path, descriptor), "1\n")
    finally:
        os.umask(before)
    write(LogFile(path, descriptor), "2\n")
    assert (path.read_text(), oct(path.stat().st_mode & 0o777)) == ("1\n2\n", "0o640")


def test_file_that_cannot_be_made_again(tmp_path, descriptor, eager):
    """The old file goes on, and has one line that says why; when it can be made again the log moves there."""
    folder = tmp_path / "logs"
    folder.mkdir()
    log = LogFile(folder / "log", descriptor)
    folder.rename(tmp_path / "old")
    write(log, "1\n", "2\n")
    folder.mkdir()
    write(log, "3\n")
    complaint, *rest = (tmp_path / "old" / "log").read_text().splitlines()
    assert complaint == (
        f"hybridgrey: cannot log to the new {folder}/log: No such file or directory; the old file is used"
    )
    assert (rest, (folder / "log").read_text()) == (["1", "2"], "3\n")


def test_a_named_pipe_stops_nobody(tmp_path, descriptor, eager):
    """Without a reader, or with one that stands still, a named pipe in the file's place costs lines only."""
    path = tmp_path / "log"
    log = LogFile(path, descriptor)
    path.rename(tmp_path / "log.1")
    os.mkfifo(path)
    write(log, "1\n")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    following = log.following(FdWriter(log.fileno()).write)
    for _ in range(100):
        following(b"2" * 4000 + b"\n")
    following(b"3\n")
    assert os.read(reader, 5) == b"22222"
    os.close(reader)
    complaint, *rest = (tmp_path / "log.1").read_text().splitlines()
    assert (complaint.endswith("No such device or address; the old file is used"), rest) == (True, ["1"])


def test_loggers_follow(tmp_path, descriptor, eager, monkeypatch):
    """What `logs` writes goes to the new file, too: to standard error is what it is told."""
    path = tmp_path / "log"
    monkeypatch.setattr("sys.stderr", LogFile(path, descriptor))
    logs.configure("info", "auto")
    logs.get().info("first")
    path.rename(tmp_path / "log.1")
    logs.get().info("second")
    assert json.loads((tmp_path / "log.1").read_text())["event"] == "first"
    assert json.loads(path.read_text())["event"] == "second"


@pytest.mark.parametrize(
    ("place", "status", "reason"),
    [("missing/log", os.EX_UNAVAILABLE, "No such file or directory"), ("", 2, "is a directory")],
)
def test_place_that_cannot_be_had(place, status, reason, tmp_path):
    """A log file that cannot be opened ends the start in one line, before anything else is done."""
    config = tmp_path / "hybridgrey.toml"
    config.write_text('[store]\nurl = "redis://127.0.0.1:1"\n[metrics]\nlisten = ""\n')
    done = commandline.run("run", "-c", config, "--log-file", tmp_path / place)
    assert (done.status, reason in done.error.splitlines()[-1]) == (status, True), done.error


def test_a_pipe_without_a_reader_cannot_be_had(tmp_path):
    """It is told instead of waited for."""
    config, pipe = tmp_path / "hybridgrey.toml", tmp_path / "log"
    config.write_text('[store]\nurl = "redis://127.0.0.1:1"\n[metrics]\nlisten = ""\n')
    os.mkfifo(pipe)
    done = commandline.run("run", "-c", config, "--log-file", pipe)
    assert (done.status, "No such device or address" in done.error) == (os.EX_UNAVAILABLE, True), done.error


def test_why_it_does_not_start_is_told_to_the_starter(tmp_path):
    """With a log file, too, a failing start is told on standard error."""
    config = tmp_path / "hybridgrey.toml"
    config.write_text('listen = "inet:1@192.0.2.1"\n[store]\nurl = "redis://127.0.0.1:1"\n')
    done = commandline.run("run", "-c", config, "--log-file", tmp_path / "log")
    assert done.status == os.EX_CONFIG
    assert done.error == "hybridgrey: cannot listen on inet:1@192.0.2.1: cannot assign requested address\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
@pytest.mark.parametrize("kind", ["link", "hard link", "folder above"])
def test_root_in_the_folder_of_others(tmp_path, descriptor, kind):
    """Root writes to no link that somebody else may have put there; to one that root has made, it does."""
    folder, precious = tmp_path / "logs", tmp_path / "precious" / "log"
    folder.mkdir()
    precious.parent.mkdir()
    precious.touch()
    path = folder / "log"
    match kind:
        case "link":
            path.symlink_to(precious)
        case "hard link":
            path.hardlink_to(precious)
        case _:
            (folder / "below").symlink_to(precious.parent)
            path = folder / "below" / "log"
    write(LogFile(path, descriptor), "1\n")
    assert precious.read_text() == "1\n"
    os.chown(folder, 65534, 65534)
    with pytest.raises(OSError, match="link"):
        LogFile(path, descriptor)
    assert precious.read_text() == "1\n"
    write(LogFile(folder / "fresh", descriptor), "2\n")
    write(LogFile(folder / "fresh", descriptor), "3\n")
    assert (folder / "fresh").read_text() == "2\n3\n"
