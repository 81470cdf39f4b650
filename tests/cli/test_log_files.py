"""``hybridgrey log`` on log files, on what is piped and on the journal."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import select
import subprocess
from datetime import UTC, datetime

import pytest

from cli.logged import NOW, REJECTED, log, stamp
from parts.commandline import PROGRAM, _environment, run


def line_of(event, moment, **more):
    ts = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"ts": ts, "level": "info", "event": "verdict", **event, **more}) + "\n"


def test_files_packed_or_not(tmp_path):
    """In whatever order they are named, packed in whatever way, by content: one log by time."""
    moments = [NOW - 5000 + 100 * number for number in range(8)]
    texts = [line_of(REJECTED, one) + '{"event":"reload","ts":"2026-01-01T00:00:00Z"}\n' for one in moments]
    packers = [str.encode, lambda t: gzip.compress(t.encode()), lambda t: bz2.compress(t.encode())]
    packers += [lambda t: lzma.compress(t.encode())]
    files = []
    for number, text in enumerate(texts):
        path = tmp_path / f"log.{number}"
        path.write_bytes(packers[number % 4](text))
        files.append(path)
    done = log(tmp_path / "no.toml", *files[4:], *files[:4][::-1])
    assert (done.status, done.error) == (0, "")
    assert [line[:20] for line in done.lines] == [stamp(one) for one in moments]
    assert len(log(tmp_path / "no.toml", "--since", "0s", *files).lines) == 0
    assert len(log(tmp_path / "no.toml", "-n", "3", *files).lines) == 3
    assert len(log(tmp_path / "no.toml", "-", *files[1:], text=texts[0]).lines) == 8


FORMS = [
    line_of(REJECTED, 1767225600.5),
    "Jan  1 00:00:00 mx1 hybridgrey[12]: " + line_of(REJECTED, 1767225600.5),
    json.dumps({"_HOSTNAME": "mx9", "MESSAGE": line_of(REJECTED, 1767225600.5)}) + "\n",
    json.dumps({"_HOSTNAME": "mx9", "MESSAGE": list(line_of(REJECTED, 1767225600.5).encode())}) + "\n",
    line_of({key: value for key, value in REJECTED.items() if key != "reason"}, 1767225600.5),
]


@pytest.mark.parametrize("text", FORMS)
def test_forms_of_lines(tmp_path, text):
    """As the daemon writes them, as syslog passes them on, as journalctl shows them, and of version 0.1."""
    done = log(
        tmp_path / "no.toml", "-", text="junk\n{\n[]\n{}\n" + text + '{"MESSAGE":[300,"x"]}\n{"MESSAGE":{}}\n'
    )
    host = "mx9" if "_HOSTNAME" in text else "-"
    assert done.lines == [
        f"2026-01-01 00:00:00Z {host} rejected   192.0.2.1 (mail.spam.example) from a@spam.example to "
        'Joe@example.net: on zen.spamhaus.org (127.0.0.4, 127.0.0.11), rule "blocklists"'
    ]


@pytest.mark.parametrize("stamp_", ["9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00", "2100-01-01"])
def test_times_that_are_none(tmp_path, stamp_):
    """Hide no other verdict, and are no error."""
    odd = json.dumps(json.loads(FORMS[0]) | {"ts": stamp_}) + "\n"
    done = log(tmp_path / "no.toml", "-", text=odd + FORMS[0] + odd)
    assert len(done.lines) == 1
    assert done.lines[0].startswith("2026-01-01 00:00:00Z ")
    assert (done.status, done.error) == (0, "")
    done = log(tmp_path / "no.toml", "-", text=odd)
    assert (done.status, done.output, done.error.count("\n")) == (1, "", 1)


def test_a_log_for_people(tmp_path):
    """What has no verdict that can be read says why."""
    text = "2026-01-01 00:00:00.000Z info     verdict client=192.0.2.1 rule=local\n" * 3
    done = log(tmp_path / "no.toml", "-", text=text)
    assert done.status == 1
    assert "there is no verdict in JSON in what was read; 3 lines are of [log] format" in done.error
    done = log(tmp_path / "no.toml", "--outcome", "deferred", "-", text=FORMS[0])
    assert "what was read has 1 verdict from 2026-01-01" in done.error
    assert log(tmp_path / "no.toml", tmp_path / "gone").error.endswith("gone: No such file or directory\n")


def test_many_files_are_not_open_at_once(tmp_path):
    """A year of logs needs no more descriptors than one."""
    for number in range(60):
        (tmp_path / f"{number}.gz").write_bytes(
            gzip.compress(line_of(REJECTED, NOW - 9000 + number).encode())
        )
    words = f"ulimit -n 40; exec {PROGRAM} log --utc -c /none {tmp_path}/*.gz"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 60)


def test_what_is_piped_comes_at_once():
    """With `tail -F` before it each line is shown when it comes."""
    words = [PROGRAM, "log", "-c", "/none", "-"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment({})
    ) as process:
        for _ in range(2):
            process.stdin.write(FORMS[0].encode())
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 30)[0]
            assert b"rejected" in os.read(process.stdout.fileno(), 65536)
        process.stdin.close()


JOURNALCTL = """#!/bin/sh
echo "$@" >"${0%/*}/asked"
cat "${0%/*}/journal"
"""


def test_the_journal(tmp_path):
    """It is asked for our unit and the time, in the form that has our lines as they are."""
    (tmp_path / "journalctl").write_text(JOURNALCTL)
    (tmp_path / "journalctl").chmod(0o755)
    (tmp_path / "journal").write_text("-- Boot --\n" + FORMS[0])
    (tmp_path / "hg.toml").write_text('hostname = "mx7.example.org"\n')
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["log", "-c", tmp_path / "hg.toml", "--utc", "--journal", "--since", "2026-01-01T00:00:00Z"]
    done = run(*words, environment=path)
    assert done.output.startswith("2026-01-01 00:00:00Z mx7.example.org rejected ")
    asked = (tmp_path / "asked").read_text().split()
    assert asked == ["--quiet", "--no-pager", "--output=cat", "--unit=hybridgrey", "--since=@1767225600"]
    done = run("log", "-c", "/none", "--journal", environment={"PATH": "/nowhere"})
    assert "is there a systemd on this host?" in done.error
