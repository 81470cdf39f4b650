"""What mail logs say, packed, piped, long or no logs at all."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import threading
import time

import pytest

from cli.report.world import REJECT, accepted, day_of_log, log_line, rates
from hybridgrey.report.bins import DAY, HOUR
from parts.commandline import measured


def test_mail_logs_alone(world, logs):
    """From logs alone come all four graphs; our first reply in them is the moment."""
    document = world.document(*logs)
    assert (document["sources"], document["notes"]) == (["mail logs"], [])
    assert document["switched_on"] == pytest.approx(world.now - DAY, abs=60)
    assert document["end"] - document["start"] == pytest.approx(3 * DAY, abs=1200)
    found = rates(document)
    assert found["accepted"] == (pytest.approx(2 / 600, rel=0.05), pytest.approx(1 / 600, rel=0.05))
    assert found["spam"] == (pytest.approx(1 / 600, rel=0.05), 0.0)
    assert found["rejected"] == found["greylisted"] == (0.0, pytest.approx(1 / 600, rel=0.05))
    totals = {name: row["total"] for name, row in document["per_second"].items() if row["total"]}
    assert totals == {"accepted": 144 * 5, "spam": 288, "rejected": 144, "greylisted": 144}


def test_mail_log_before_the_history(world, logs):
    """Logs of the time before and the history after make one graph, and the history gives the moment."""
    world.write(
        (moment, "outcome:reject:enforced", 60) for moment in range(world.now - DAY + 600, world.now, 600)
    )
    # It is up to an hour since then, in which there is no mail.
    document = world.document(*logs[2:], "--until", f"{max(1, int(time.time()) - world.now)}s")
    assert document["sources"] == ["the store's history", "mail logs"]
    assert document["switched_on"] == world.now - DAY + 600
    found = rates(document)
    assert found["accepted"] == (pytest.approx(2 / 600, rel=0.05), 0.0)
    assert found["rejected"] == (0.0, pytest.approx(0.1, rel=0.05))
    assert any("by recipient" in note for note in document["notes"])


def test_the_filter_is_older_than_the_history(world, logs):
    """Where logs have our replies from their beginning on, the history's beginning is not the moment."""
    world.write((moment, "outcome:reject:enforced", 60) for moment in range(world.now - HOUR, world.now, 600))
    document = world.document(*logs[:2])
    assert document["switched_on"] is None
    assert rates(document)["rejected"] == (None, None)
    assert world.document(*logs)["switched_on"] == pytest.approx(world.now - DAY, abs=60)


def test_since_does_not_move_the_moment(world, logs):
    """The moment lies before what is drawn, and is not its beginning."""
    document = world.document(*logs, "--since", "12h")
    assert document["switched_on"] == pytest.approx(world.now - DAY, abs=60)
    assert document["per_second"]["accepted"]["total"] < 100


def test_logs_outlive_the_store(world, logs, redis):
    """With the store down logs are drawn with a warning; without logs it is one line and status 69."""
    world.config.write_text('[store]\nurl = "redis://:secret@127.0.0.1:9/0"\n')
    done = world.run("-o", world.folder / "report.png", *logs)
    assert (done.status, len(done.error.splitlines())) == (0, 1)
    assert done.error.startswith("warning: only the mail logs are drawn; store redis://")
    done = world.run("-o", world.folder / "no.png")
    assert (done.status, len(done.error.splitlines())) == (69, 1)
    assert not (world.folder / "no.png").exists()
    assert "secret" not in done.error


def test_a_log_of_two_years(world):
    """A log without years that was never rotated is read from its right beginning; a pipe cannot be."""
    path = world.folder / "mail.log"
    months = range(world.now - 700 * DAY, world.now, 20 * DAY)
    text = "".join(log_line(moment, REJECT) for moment in months)
    path.write_text(text)
    document = world.document("--mail-log", path)
    assert document["start"] == pytest.approx(world.now - 700 * DAY, abs=DAY)
    assert document["per_second"]["rejected"]["total"] == 35
    assert any("not known when it was switched on" in note for note in document["notes"])
    done = world.run("-o", world.folder / "x.svg", "--mail-log", "-", text=text)
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    assert "by its name" in done.error


def test_standard_input(world):
    """A log may come through a pipe."""
    text = "".join(day_of_log(world.now - DAY, on=False))
    done = world.run("--json", "-o", world.folder / "x.svg", "--mail-log", "-", text=text)
    assert json.loads(done.output)["per_second"]["accepted"]["total"] == 288


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_packed_logs(world, pack):
    """A packed log is read whatever its name; one cut off is one line."""
    path = world.folder / "mail.log.1"
    path.write_bytes(pack("".join(day_of_log(world.now - DAY, on=False)).encode()))
    assert world.document("--mail-log", path)["per_second"]["accepted"]["total"] == 288
    path.write_bytes(path.read_bytes()[:-20])
    done = world.run("-o", world.folder / "x.svg", "--mail-log", path)
    assert (done.status, len(done.error.splitlines())) == (1, 1), done.error
    assert str(path) in done.error


CAUSES = [
    # what is in the log, further words, what is said of it
    (b"", [], "the mail logs are empty"),
    (
        b"Nov 18 11:07:00 mx sshd[1]: hello\n" * 9,
        [],
        "none of the 9 lines of the mail logs is one of Postfix",
    ),
    (b"postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.1]: 550 no\n", [], "no time that can be read"),
    (
        b"2999-01-01T00:00:00Z mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.1]: 550 no\n",
        [],
        "future",
    ),
    (b"2026-01-05T00:00:00Z mx postfix/qmgr[1]: 3A: from=<a>, size=1, nrcpt=1 (queue active)\n", [], "own"),
    (
        b"2026-01-05T00:00:00Z mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.1]: 550 no\n",
        ["--until", "2026-01-02T00:00"],
        "of 2026-01-05T00:00 to 2026-01-05T00:01 (UTC)",
    ),
    (b"\x28\xb5\x2f\xfd.....", [], "pipe it in with zstdcat"),
]


@pytest.mark.parametrize(("content", "words", "said"), CAUSES)
def test_the_cause_is_named(world, content, words, said):
    """Where nothing is recognised in a log the message says why."""
    path = world.folder / "mail.log"
    path.write_bytes(content)
    done = world.run("-o", world.folder / "x.svg", "--mail-log", path, *words)
    assert (done.status, len(done.error.splitlines())) == (1, 1), done.error
    assert said in done.error


def test_greylisting_texts_of_ones_own(world):
    """--greylist-text has more refusals counted as greylisting; one that is no expression is an error."""
    path = world.folder / "mail.log"
    path.write_text(
        log_line(world.now - DAY, REJECT.partition(": 5")[0] + ": 450 4.7.1 <b@x>: come back tomorrow")
    )
    assert world.document("--mail-log", path)["per_second"]["greylisted"]["total"] == 0
    document = world.document("--mail-log", path, "--greylist-text", "Come Back")
    assert document["per_second"]["greylisted"]["total"] == 1
    done = world.run("-o", world.folder / "x.svg", "--greylist-text", "(")
    assert (done.status, "is no regular expression" in done.error) == (2, True)


def test_a_pipe_with_a_name(world):
    """A log may come from the shell's <(zcat ...), which can be read once only."""
    path = world.folder / "pipe"
    os.mkfifo(path)
    text = "".join(day_of_log(world.now - DAY, on=False))
    writer = threading.Thread(target=path.write_text, args=(text,))
    writer.start()
    document = world.document("--mail-log", path)
    writer.join()
    assert document["per_second"]["accepted"]["total"] == 288


def test_memory_is_bounded(world):
    """Half a million lines of log, and one of 50 MB, take less than 250 MiB, matplotlib's own among them."""
    path = world.folder / "mail.log"
    with path.open("w") as file:
        for number in range(125_000):
            file.write(accepted(world.now - 150_000 + number, number))
            file.write(
                log_line(world.now - 150_000 + number, "postfix/smtpd[1]: disconnect from x[192.0.2.1]") * 2
            )
        file.write("x" * 50_000_000 + "\n" + log_line(world.now, REJECT))
    words = ("--json", "-o", world.folder / "x.svg", "--mail-log", path)
    done, memory = measured("report", "-c", world.config, *words)
    document = json.loads(done.output)
    assert document["per_second"]["accepted"]["total"] == 125_000
    assert document["per_second"]["rejected"]["total"] == 1
    assert memory < 250 * 2**20


def test_garbage_logs(world):
    """Logs of bytes at random, cut archives and archives in archives are one line each at most."""
    noise = world.folder / "noise.log"
    noise.write_bytes(os.urandom(2_000_000))
    done = world.run("-o", world.folder / "x.svg", "--mail-log", noise)
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    cut = world.folder / "cut.gz"
    cut.write_bytes(gzip.compress("".join(day_of_log(world.now - DAY, on=True)).encode())[:-20])
    done = world.run("-o", world.folder / "x.svg", "--mail-log", cut)
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    assert str(cut) in done.error
