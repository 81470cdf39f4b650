"""``hybridgrey report``: graphs from the history of a real Redis and from mail logs, in one file."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import threading
import time
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

from hybridgrey.history.layout import Step, key
from hybridgrey.history.records import Batch, Mark
from hybridgrey.history.writer import Writer
from hybridgrey.report import comparison, graphs
from hybridgrey.report.bins import DAY, HOUR
from hybridgrey.report.comparison import ListRejects, Proof
from hybridgrey.report.maillog import ACCEPTED, GREYLISTED, REJECTED, SPAM
from hybridgrey.store.connection import Store
from parts.browser import PHONE
from parts.commandline import in_terminal, run
from parts.redisserver import Redis

NOW = int(time.time()) // HOUR * HOUR
ON = NOW - 10 * DAY  # the moment of the switch
SVG = "{http://www.w3.org/2000/svg}"


class World:
    """A configuration, a store with or without history, and the command."""

    def __init__(self, folder, redis):
        self.folder = folder
        self.redis = redis
        self.config = folder / "hg.toml"
        self.config.write_text(f'[store]\nurl = "{redis.unix_url}"\n')
        self.batches = 0

    def write(self, counts=(), host="mx1.example.org", marks=()):
        """Counts (moment, series, number) as a daemon of that host would have written them."""
        store = Store.open(self.redis.unix_url, 5.0)
        writer = Writer(store, host, f"{host} {os.getpid()} {time.monotonic_ns()}")
        batch = Batch(marks=list(marks))
        for moment, series, number in counts:
            for step in Step:
                row = batch.counts.setdefault((step, int(moment) // step * step), {})
                row[series] = row.get(series, 0) + number
        writer.write(1, batch, NOW)
        store.close()

    def run(self, *words, **options):
        """The finished command."""
        return run("report", "-c", self.config, *words, **options)

    def document(self, *words, name="report.svg"):
        """What --json says of a report that was made."""
        done = self.run("--json", "-o", self.folder / name, *words)
        assert (done.status, done.error) == (0, ""), done
        return json.loads(done.output)


@pytest.fixture(scope="module")
def redis():
    with Redis() as running:
        yield running


@pytest.fixture
def world(tmp_path, redis):
    with redis.client() as client:
        client.flushall()
    return World(tmp_path, redis)


def switched(host="mx1.example.org", factor=1):
    """Ten days of observing, then ten of enforcing: counts by the hour."""
    for hour in range(NOW - 20 * DAY, NOW, HOUR):
        moment = hour + 600
        if hour < ON:
            for what, number in (("accept", 900), ("reject", 1800), ("delay", 900)):
                yield moment, f"outcome:{what}:observed", number * factor
        else:
            for what, number in (("accept", 1080), ("reject", 1800), ("delay", 720), ("tempfail", 36)):
                yield moment, f"outcome:{what}:enforced", number * factor
            yield moment, "list_reject:zen.spamhaus.org:sole", 1200 * factor
            yield moment, "list_reject:zen.spamhaus.org:shared", 500 * factor
            yield moment, "list_reject:bl.mailspike.net:shared", 500 * factor


def rates(document):
    """(before, after) by series, rounded."""
    return {
        name: tuple(None if row[side] is None else round(row[side], 4) for side in ("before", "after"))
        for name, row in document["per_second"].items()
        if row["total"]
    }


def test_history(world):
    """Before and after are told apart by what was carried out; in observe mode all mail was accepted."""
    world.write(switched())
    document = world.document()
    assert document["switched_on"] == pytest.approx(ON, abs=HOUR)
    assert (document["sources"], document["step"]) == (["the store's history"], 3 * HOUR)
    found = rates(document)
    assert found["accepted"] == (pytest.approx(1.0, rel=0.02), pytest.approx(0.3, rel=0.02))
    assert found["rejected"] == (0.0, pytest.approx(0.5, rel=0.02))
    assert found["greylisted"] == (0.0, pytest.approx(0.2, rel=0.02))
    assert found["deferred"] == (0.0, pytest.approx(0.01, rel=0.02))
    assert found["would_reject"][0] == pytest.approx(0.5, rel=0.02)
    assert document["lists"]["zen.spamhaus.org"] == {"sole": 1200 * 240, "shared": 500 * 240}
    assert document["per_second"]["rejected"]["total"] == 1800 * 240


def test_hosts(world):
    """The hosts are added up, or one is chosen; one that has no history is named with those that have."""
    world.write(switched())
    world.write(switched(factor=3), host="mx2.example.org")
    assert rates(world.document())["accepted"][0] == pytest.approx(4.0, rel=0.02)
    assert rates(world.document("--host", "mx2.example.org"))["accepted"][0] == pytest.approx(3.0, rel=0.02)
    done = world.run("-o", world.folder / "x.svg", "--host", "mx3")
    assert done.status == 1
    assert done.error == "hybridgrey: no history of mx3; there is that of: mx1.example.org, mx2.example.org\n"


def test_the_moment_is_the_switch_not_the_first_mail(world):
    """A mark of the change to enforce near the first verdict that was carried out is the moment."""
    mark = Mark(ON - 777, "mx1.example.org", "mode", "enforce")
    other = Mark(ON - 1800, "mx1.example.org", "mode", "observe")
    world.write(switched(), marks=[mark, other])
    assert world.document()["switched_on"] == ON - 777


def test_the_moment_may_be_said(world):
    """--switched-on counts more than what is found; outside of what is drawn it is only told."""
    world.write(switched())
    at = datetime.fromtimestamp(ON + 5 * DAY, UTC)
    document = world.document("--switched-on", at.isoformat())
    assert document["switched_on"] == ON + 5 * DAY
    assert rates(document)["accepted"][0] == pytest.approx((10 + 5 * 0.3) / 15, rel=0.02)
    document = world.document("--since", "3d")
    assert rates(document)["accepted"] == (None, pytest.approx(0.3, rel=0.05))
    assert "It was on in all of this time" in " ".join(document["notes"])
    assert "lies after this time" in " ".join(world.document("--until", "15d")["notes"])


def test_on_from_the_beginning(world):
    """Where it was on from the first verdict, the report says where what was before comes from."""
    world.write([(ON + HOUR, "outcome:accept:enforced", 10)])
    notes = " ".join(world.document()["notes"])
    assert "It was on in all of this time" in notes
    assert "--mail-log" in notes


def test_since_and_until(world):
    """Only what is asked for is drawn, as finely as it is kept."""
    world.write(switched())
    document = world.document("--since", "2d", "--until", "1d")
    assert document["end"] - document["start"] == pytest.approx(DAY, abs=5)
    assert document["step"] == 300
    # A mail in the bin at each end of the day makes one more.
    assert document["per_second"]["rejected"]["total"] in (1800 * 24, 1800 * 25)


def log_line(moment, text):
    """A line of syslog's own form, in this machine's zone."""
    return f"{datetime.fromtimestamp(moment):%b %e %H:%M:%S} mx {text}\n"


TAIL = "; from=<a> to=<b> proto=SMTP helo=<x>"
REJECT = f"postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.1]: 554 5.7.1 no{TAIL}"
OURS = (
    "postfix/smtpd[1]: NOQUEUE: milter-reject: RCPT from x[192.0.2.1]:"
    f" 450 4.2.0 Greylisted, please try again in 300 seconds{TAIL}"
)
SPAM_LINE = "spamd[7]: spamd: identified spam (15.2/5.0) for u:113 in 1.3 seconds, 4321 bytes."


def accepted(moment, number):
    return log_line(moment, f"postfix/smtpd[1]: {number:X}: client=x[192.0.2.1]") + log_line(
        moment, f"postfix/qmgr[1]: {number:X}: from=<a>, size=4, nrcpt=1 (queue active)"
    )


def day_of_log(start, *, on):
    """A day: ten minutes apart a message, spam or a refusal."""
    for number, moment in enumerate(range(start, start + DAY, 600)):
        yield accepted(moment, number + 1)
        if not on:
            yield accepted(moment + 60, number + 1000)
            yield log_line(moment + 70, SPAM_LINE)
        else:
            yield log_line(moment, REJECT)
            yield log_line(moment, OURS)


@pytest.fixture
def logs(world):
    """Three rotated logs, the newest first, as a shell gives them: two days before the switch, one after."""
    made = []
    for back, name in ((1, "mail.log"), (2, "mail.log.1"), (3, "mail.log.2.gz")):
        path = world.folder / name
        text = "".join(day_of_log(NOW - back * DAY, on=back == 1)).encode()
        path.write_bytes(gzip.compress(text, mtime=NOW - (back - 1) * DAY) if name.endswith("gz") else text)
        os.utime(path, (NOW - (back - 1) * DAY,) * 2)
        made += ["--mail-log", path]
    return made


def test_mail_logs_alone(world, logs):
    """From logs alone come all four graphs; our first reply in them is the moment."""
    document = world.document(*logs)
    assert (document["sources"], document["notes"]) == (["mail logs"], [])
    assert document["switched_on"] == pytest.approx(NOW - DAY, abs=60)
    assert document["end"] - document["start"] == pytest.approx(3 * DAY, abs=1200)
    found = rates(document)
    assert found["accepted"] == (pytest.approx(2 / 600, rel=0.05), pytest.approx(1 / 600, rel=0.05))
    assert found["spam"] == (pytest.approx(1 / 600, rel=0.05), 0.0)
    assert found["rejected"] == found["greylisted"] == (0.0, pytest.approx(1 / 600, rel=0.05))
    totals = {name: row["total"] for name, row in document["per_second"].items() if row["total"]}
    assert totals == {"accepted": 144 * 5, "spam": 288, "rejected": 144, "greylisted": 144}


def test_mail_log_before_the_history(world, logs):
    """Logs of the time before and the history after make one graph, and the history gives the moment."""
    world.write((moment, "outcome:reject:enforced", 60) for moment in range(NOW - DAY + 600, NOW, 600))
    # The test runs up to an hour and a suite's length after NOW, in which there is no mail.
    document = world.document(*logs[2:], "--until", f"{max(1, int(time.time()) - NOW)}s")
    assert document["sources"] == ["the store's history", "mail logs"]
    assert document["switched_on"] == NOW - DAY + 600
    found = rates(document)
    assert found["accepted"] == (pytest.approx(2 / 600, rel=0.05), 0.0)
    assert found["rejected"] == (0.0, pytest.approx(0.1, rel=0.05))
    assert any("by recipient" in note for note in document["notes"])


def test_the_filter_is_older_than_the_history(world, logs):
    """Where logs have our replies from their beginning on, the history's beginning is not the moment."""
    world.write((moment, "outcome:reject:enforced", 60) for moment in range(NOW - HOUR, NOW, 600))
    document = world.document(*logs[:2])
    assert document["switched_on"] is None
    assert rates(document)["rejected"] == (None, None)
    assert world.document(*logs)["switched_on"] == pytest.approx(NOW - DAY, abs=60)


def test_since_does_not_move_the_moment(world, logs):
    """The moment lies before what is drawn, and is not its beginning."""
    document = world.document(*logs, "--since", "12h")
    assert document["switched_on"] == pytest.approx(NOW - DAY, abs=60)
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
    months = range(NOW - 700 * DAY, NOW, 20 * DAY)
    text = "".join(log_line(moment, REJECT) for moment in months)
    path.write_text(text)
    document = world.document("--mail-log", path)
    assert document["start"] == pytest.approx(NOW - 700 * DAY, abs=DAY)
    assert document["per_second"]["rejected"]["total"] == 35
    assert any("not known when it was switched on" in note for note in document["notes"])
    done = world.run("-o", world.folder / "x.svg", "--mail-log", "-", text=text)
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    assert "by its name" in done.error


def test_standard_input(world):
    """A log may come through a pipe."""
    text = "".join(day_of_log(NOW - DAY, on=False))
    done = world.run("--json", "-o", world.folder / "x.svg", "--mail-log", "-", text=text)
    assert json.loads(done.output)["per_second"]["accepted"]["total"] == 288


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_packed_logs(world, pack):
    """A packed log is read whatever its name; one cut off is one line."""
    path = world.folder / "mail.log.1"
    path.write_bytes(pack("".join(day_of_log(NOW - DAY, on=False)).encode()))
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
    path.write_text(log_line(NOW - DAY, REJECT.partition(": 5")[0] + ": 450 4.7.1 <b@x>: come back tomorrow"))
    assert world.document("--mail-log", path)["per_second"]["greylisted"]["total"] == 0
    document = world.document("--mail-log", path, "--greylist-text", "Come Back")
    assert document["per_second"]["greylisted"]["total"] == 1
    done = world.run("-o", world.folder / "x.svg", "--greylist-text", "(")
    assert (done.status, "is no regular expression" in done.error) == (2, True)


def test_a_pipe_with_a_name(world):
    """A log may come from the shell's <(zcat ...), which can be read once only."""
    path = world.folder / "pipe"
    os.mkfifo(path)
    text = "".join(day_of_log(NOW - DAY, on=False))
    writer = threading.Thread(target=path.write_text, args=(text,))
    writer.start()
    document = world.document("--mail-log", path)
    writer.join()
    assert document["per_second"]["accepted"]["total"] == 288


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "name the file to write"),
        (["-o", "report.pdf"], 2, "name the file to write"),
        (["-o", "report"], 2, "name the file to write"),
        (["-o", "x.svg", "--since", "1d", "--until", "2d"], 2, "--since must be before --until"),
        (["-o", "x.svg", "--since", "soon"], 2, "write a duration"),
        (["-o", "x.svg"], 1, "nothing to draw"),
        (["-o", "x.svg", "--since", "9000d", "--until", "8000d"], 1, "nothing to draw"),
        (["-o", "x.svg", "--mail-log", "missing"], 1, "missing: No such file or directory"),
        (["-o", "x.svg", "--mail-log", "/"], 1, "/: Is a directory"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_errors(world, words, status, said):
    """What cannot be done is said, with a status of its kind and without a file."""
    done = world.run(*words)
    assert done.status == status
    assert said in done.error
    assert "Traceback" not in done.error
    assert status == 2 or len(done.error.splitlines()) == 1


def test_the_file_that_was_there_stays_when_nothing_can_be_written(world):
    """A folder that is missing is one line; a report that was there is replaced as a whole."""
    world.write(switched())
    done = world.run("-o", world.folder / "missing/report.svg")
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    path = world.folder / "report.svg"
    path.write_text("before")
    os.umask(before := os.umask(0o027))
    world.document()
    assert path.read_text().startswith("<?xml")
    assert path.stat().st_mode & 0o777 == 0o666 & ~before
    assert [p.name for p in world.folder.iterdir() if p.name.startswith(".")] == []


def test_without_matplotlib(world, tmp_path):
    """Where matplotlib is missing one line says what to install; `report observed` does without."""
    block = tmp_path / "block"
    block.mkdir()
    (block / "matplotlib.py").write_text("raise ModuleNotFoundError('none', name='matplotlib')")
    environment = {"PYTHONPATH": str(block)}
    done = world.run("-o", world.folder / "x.svg", environment=environment)
    assert (done.status, len(done.error.splitlines())) == (69, 1)
    assert "install it, or hybridgrey with its extra, hybridgrey[report]" in done.error
    world.write(switched())
    assert run("report", "-c", world.config, "observed", environment=environment).status == 0


def test_without_a_home(world):
    """Where matplotlib may keep nothing it complains of that to nobody."""
    world.write(switched())
    done = world.run("-o", world.folder / "x.svg", environment={"MPLCONFIGDIR": "/proc/none"})
    assert (done.status, done.error) == (0, "")


def test_text(world):
    """What is printed has the means in a table, and in a terminal no trace of the progress stays."""
    world.write(switched())
    done = world.run("-o", world.folder / "report.html")
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert lines[0].startswith(f"{world.folder}/report.html: ")
    (row,) = (line for line in lines if line.startswith("Accepted"))
    assert re.fullmatch(r"Accepted [\d,]+ 1 0\.\d+ 86,\d+ [\d,]+ \N{MINUS SIGN}70%", row), row
    assert "Spam identified later is not shown: that takes mail logs, given with --mail-log." in lines
    (world.folder / "mail.log").write_text("".join(day_of_log(NOW - DAY, on=True)) * 30)
    words = ("--mail-log", world.folder / "mail.log", "-o", world.folder / "report.png")
    done = in_terminal("report", "-c", world.config, *words)
    assert done.status == 0
    assert "reading logs" in done.plain, "the progress, on the way"
    assert "Accepted" in done.plain


def test_svg(world, logs):
    """The SVG is one element with title and description, and needs nothing from elsewhere."""
    world.document(*logs)
    text = (world.folder / "report.svg").read_text()
    root = ET.fromstring(text)  # noqa: S314 (our own)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    named = {element.get("id"): element.text for element in root if element.get("id")}
    assert [named[name] is not None for name in root.get("aria-labelledby").split()] == [True, True]
    assert "switched on at" in named["report-description"]
    links = [value for one in root.iter() for name, value in one.attrib.items() if name.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not any(one.tag in (f"{SVG}style", f"{SVG}script", f"{SVG}image") for one in root.iter())
    assert not any("style" in one.attrib for one in root.iter())


def test_png(world):
    """The PNG is one, large enough for a slide, and has the colours of the graphs."""
    world.write(switched())
    world.document(name="report.png")
    data = (world.folder / "report.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(data[16:20]) == 1600
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(data))
    shades = {
        tuple(round(float(part) * 255) for part in pixel[:3]) for pixel in pixels[::2, ::2].reshape(-1, 4)
    }
    for series in (ACCEPTED, REJECTED, GREYLISTED):
        colour = graphs.COLOURS[series]
        wanted = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
        assert any(max(abs(a - b) for a, b in zip(wanted, shade, strict=True)) < 25 for shade in shades), (
            series
        )


def test_the_same_numbers_give_the_same_file(world, logs):
    """A report that is made again is the same to the byte."""
    world.document(*logs)
    first = (world.folder / "report.svg").read_bytes()
    world.document(*logs)
    assert (world.folder / "report.svg").read_bytes() == first


def test_the_figure():
    """Four graphs from top to bottom, each with its steps, the line at the moment, and the means."""
    counts = [{ACCEPTED: 3600, SPAM: 360}, {ACCEPTED: 7200, SPAM: 720}, {ACCEPTED: 360, REJECTED: 36}]
    bins = [comparison.Bin(number * HOUR, HOUR, one, logged=True) for number, one in enumerate(counts)]
    bins.append(comparison.Bin(3 * HOUR, 0.0, {}))
    made = Proof(0, 4 * HOUR, HOUR, 2 * HOUR, bins, [ListRejects("zen", 3, 4)], ["mail logs"])
    figure = graphs.figure(made)
    *panels, lists = figure.axes
    assert [one.get_title(loc="left") for one in panels] == [graphs.TITLES[name] for name in comparison.SHOWN]
    places = [one.get_position().y0 for one in figure.axes]
    assert places == sorted(places, reverse=True)
    for axes in panels:
        at = [line for line in axes.lines if list(line.get_xdata()) == [2 / 24, 2 / 24]]
        assert len(at) == 1, "one line at the moment"
        assert [text.get_text() for text in axes.texts] == ["switched on 1970-01-01 02:00"]
    steps = panels[0].lines[0].get_ydata()
    assert list(steps[:3]) == [1.0, 2.0, 0.1]
    assert steps[3] != steps[3], "what is not known is a gap"
    assert panels[0].get_title(loc="right") == "1.5 → 0.1 per second   \N{MINUS SIGN}93%"
    assert panels[1].get_title(loc="right") == "0.15 → 0 per second   \N{MINUS SIGN}100%"
    assert panels[2].get_title(loc="right") == "0 → 0.01 per second"
    assert [bar.get_width() for bar in lists.patches] == [3, 4]


def page_of(world, *words):
    world.document(*words, name="report.html")
    return (world.folder / "report.html").read_text()


def test_html_is_self_contained(world, logs):
    """The page's policy allows its own style sheet and nothing else, and the page needs no more."""
    text = page_of(world, *logs)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"<script|<link|<img|<iframe|\son\w+=|\sstyle=|src=|url\((?!#)", text)
    assert set(re.findall(r'https?://[^"\s<]*', text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_html_has_the_numbers(world):
    """All that is drawn stands in tables too."""
    world.write(switched())
    text = page_of(world)
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", text)]
    assert ["zen.spamhaus.org", f"{1700 * 240:,}", f"{1200 * 240:,}", "71%"] in rows
    summary = next(row for row in rows if row[:1] == ["Rejected"])
    assert summary[1:3] == [f"{1800 * 240:,}", "0"]
    whole = [row for row in rows if row and re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", row[0])]
    assert len(whole) in (160, 161)
    assert sum(int(row[2].replace(",", "")) for row in whole if row[2] != graphs.UNKNOWN) == 1800 * 240


def test_html_in_a_browser(world, logs, browser):
    """A real browser shows it light, dark and on a phone without a complaint, and axe-core finds no fault."""
    world.write(switched())
    page_of(world, *logs)
    url = (world.folder / "report.html").as_uri()
    for name, options in (("light", {}), ("dark", {"scheme": "dark"}), ("phone", {"size": PHONE})):
        with browser.visit(url, **options) as visit:
            visit.page.locator("summary").click()
            assert visit.page.locator("svg[role=img]").is_visible()
            assert visit.page.get_by_role("img", name="before and after").count() == 1
            assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert visit.faults() == []
            visit.page.locator("summary").click()
            visit.screenshot(f"report-{name}")
            assert visit.strangers in ([], [url])


def test_hostile_history(world):
    """Names that are markup or a formula, absurd counts and damage are shown as text or passed over."""
    hour = NOW - 2 * HOUR
    labels = [
        "<script>alert(1)</script>",
        "$x^2$ \\frac",
        "a" * 300,
        "\x1b[31m",
        '"onload=x',
        "\N{RIGHT-TO-LEFT OVERRIDE}x",
    ]
    names = [label.replace(":", "%3A").replace("\x1b", "%1B") for label in labels]
    world.write((hour, f"list_reject:{name}:sole", number + 5) for number, name in enumerate(names))
    world.write([(hour, "outcome:accept:enforced", 2**52), (hour, "outcome:reject:enforced", 3)])
    with world.redis.client() as client:
        for one in client.scan_iter("*:hour:*"):
            client.hset(one, "99 outcome:accept:enforced", "nan")
            client.hset(one, b"\xff\xff", b"\xff")
        client.set(key("minute", "mx1.example.org", f"{datetime.fromtimestamp(NOW, UTC):%Y-%m-%dT%H}"), "x")
        client.zadd(key("marks"), {b"{": hour, b"[1]": hour})
    text = page_of(world)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    for name in ("report.svg", "report.png"):
        assert world.document(name=name)["per_second"]["rejected"]["total"] == 3


def observed(world, *words, **options):
    """The finished `report observed`."""
    return run("report", "-c", world.config, "observed", *words, **options)


def test_observed_from_the_store(world):
    """Without a log the store's counts are summed up, of all hosts, with networks and domains."""
    counts = {
        "outcome:accept:observed": 5,
        "outcome:reject:observed": 3,
        "outcome:delay:enforced": 2,
        "outcome:tempfail:enforced": 1,
        "rule:blocklists:reject": 3,
        "rule:the rest:delay": 2,
        "rule:a%3Ab:accept": 5,
        "rule:trial:noted": 4,
        "list:zen.spamhaus.org:listed": 3,
        "list:zen.spamhaus.org:timeout": 1,
        "list:zen.spamhaus.org:error": 1,
        "claimed_by_both": 2,
        "outcome:strange:observed": 9,
        "rule:x": 9,
    }
    moment = NOW - 2 * HOUR
    world.write((moment, series, number) for series, number in counts.items())
    world.write([(moment, "outcome:accept:observed", 10)], host="mx2.example.org")
    world.write([(moment - 30 * DAY, "outcome:accept:observed", 100)])
    store = Store.open(world.redis.unix_url, 5.0)
    day = f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
    tops = {(day, "network/reject"): {"192.0.2.0/24": 3}, (day, "domain/delay"): {"example.org": 2}}
    Writer(store, "mx1.example.org", "tops").write(1, Batch(tops=tops), NOW)
    store.close()
    document = json.loads(observed(world, "--json", "--since", "1d").output)
    assert (document["source"], document["verdicts"], document["enforced"]) == ("history", 21, 3)
    assert document["outcomes"] == {"rejected": 3, "greylisted": 2, "deferred": 1, "accepted": 15}
    assert document["rules"] == {
        "blocklists": {"rejected": 3},
        "the rest": {"greylisted": 2},
        "a:b": {"accepted": 5},
    }
    assert document["noted"] == {"trial": 4}
    assert document["first"] < document["last"]
    assert document["lists"] == {"zen.spamhaus.org": {"listed": 3, "errors": 2}}
    assert document["claimed_by_both"] == {"count": 2, "samples": []}
    assert (document["clients"], document["senders"]) == (
        {"rejected": {"192.0.2.0/24": 3}},
        {"greylisted": {"example.org": 2}},
    )
    assert json.loads(observed(world, "--json").output)["verdicts"] == 121
    lines = [" ".join(line.split()) for line in observed(world, "--since", "1d").output.splitlines()]
    assert "as the store's history has it" in lines[0]
    assert "192.0.2.0/24 3" in lines
    assert "Top sender domains: greylisted" in lines


def test_observed_prefers_a_log(world):
    """What comes through a pipe is read; an empty pipe and a terminal leave the store's history."""
    world.write([(NOW - HOUR, "outcome:accept:observed", 10)])
    event = {"event": "verdict", "ts": "2026-01-31T10:00:00.000Z", "action": "accept"}
    document = json.loads(observed(world, "--json", text=json.dumps(event)).output)
    assert (document["source"], document["verdicts"]) == ("log", 1)
    assert json.loads(observed(world, "--json", text="").output)["verdicts"] == 10
    assert observed(world, "-", text="").status == 1
    done = in_terminal("report", "-c", world.config, "observed")
    assert done.status == 0
    assert "as the store's history has it" in done.plain


def test_observed_without_anything(world):
    """An empty store and one that is down are one line each, with their status."""
    done = observed(world)
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    assert "no verdict is in the store's history" in done.error
    world.config.write_text('[store]\nurl = "redis://127.0.0.1:9/0"\n')
    done = observed(world)
    assert (done.status, len(done.error.splitlines())) == (69, 1)


def test_a_year_of_history(world):
    """A year of two hosts is drawn in days."""
    for host in ("mx1.example.org", "mx2.example.org"):
        world.write(((NOW - day * DAY, "outcome:accept:enforced", 864) for day in range(365)), host=host)
    document = world.document()
    assert document["step"] == DAY
    assert document["per_second"]["accepted"]["total"] == 2 * 365 * 864


def test_memory_is_bounded(world):
    """Half a million lines of log, and one of 50 MB, take less than 250 MiB, matplotlib's own among them."""
    path = world.folder / "mail.log"
    with path.open("w") as file:
        for number in range(125_000):
            file.write(accepted(NOW - 150_000 + number, number))
            file.write(log_line(NOW - 150_000 + number, "postfix/smtpd[1]: disconnect from x[192.0.2.1]") * 2)
        file.write("x" * 50_000_000 + "\n" + log_line(NOW, REJECT))
    done = world.run("--json", "-o", world.folder / "x.svg", "--mail-log", path)
    document = json.loads(done.output)
    assert document["per_second"]["accepted"]["total"] == 125_000
    assert document["per_second"]["rejected"]["total"] == 1
    assert done.memory < 250 * 2**20


def test_garbage_logs(world):
    """Logs of bytes at random, cut archives and archives in archives are one line each at most."""
    noise = world.folder / "noise.log"
    noise.write_bytes(os.urandom(2_000_000))
    done = world.run("-o", world.folder / "x.svg", "--mail-log", noise)
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    cut = world.folder / "cut.gz"
    cut.write_bytes(gzip.compress("".join(day_of_log(NOW - DAY, on=True)).encode())[:-20])
    done = world.run("-o", world.folder / "x.svg", "--mail-log", cut)
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    assert str(cut) in done.error
