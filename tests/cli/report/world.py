"""A store with a history, mail logs, and the command."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime

from hybridgrey.history.layout import Step
from hybridgrey.history.records import Batch
from hybridgrey.history.writer import Writer
from hybridgrey.report.bins import DAY, HOUR
from hybridgrey.store.connection import Store
from parts.commandline import run

SVG = "{http://www.w3.org/2000/svg}"


class World:
    """A configuration, a store with or without history, and the command.

    `now` is the beginning of this hour, `on` the moment of the switch.
    """

    def __init__(self, folder, redis):
        self.folder = folder
        self.redis = redis
        self.config = folder / "hg.toml"
        self.config.write_text(f'[store]\nurl = "{redis.unix_url}"\n')
        self.now = int(time.time()) // HOUR * HOUR
        self.on = self.now - 10 * DAY

    def write(self, counts=(), host="mx1.example.org", marks=()):
        """Counts (moment, series, number) as a daemon of that host would have written them."""
        store = Store.open(self.redis.unix_url, 5.0)
        writer = Writer(store, host, f"{host} {os.getpid()} {time.monotonic_ns()}")
        batch = Batch(marks=list(marks))
        for moment, series, number in counts:
            for step in Step:
                row = batch.counts.setdefault((step, int(moment) // step * step), {})
                row[series] = row.get(series, 0) + number
        writer.write(1, batch, self.now)
        store.close()

    def run(self, *words, **options):
        """The finished command."""
        return run("report", "-c", self.config, *words, **options)

    def document(self, *words, name="report.svg"):
        """What --json says of a report that was made."""
        done = self.run("--json", "-o", self.folder / name, *words)
        assert (done.status, done.error) == (0, ""), done
        return json.loads(done.output)

    def switched(self, factor=1):
        """Ten days of observing, then ten of enforcing: counts by the hour."""
        for hour in range(self.now - 20 * DAY, self.now, HOUR):
            moment = hour + 600
            if hour < self.on:
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
