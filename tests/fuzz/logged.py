"""Mail logs."""

from __future__ import annotations

import re

from hybridgrey.report import maillog
from hybridgrey.report.logtime import OLDEST, TOLERANCE, Clock


def mail_log(data: bytes) -> None:
    """Each line counts once at most, at a time that can be, and what is kept of it is bounded."""
    reader = maillog.MailLogReader([re.compile(rb"Greylisted, please try again in \d+ seconds")])
    lines = data.splitlines(keepends=True)
    clock = Clock(LOGGED)
    if excess := reader.read(lines, clock):
        assert reader.tally.lines == 0
        reader.read(lines, Clock(LOGGED, excess))
        return
    tally = reader.tally
    assert tally.lines == len(lines)
    found = [item for series in maillog.SERIES for item in tally.bins.counts(series).items()]
    assert sum(number for _, number in found) == tally.counted <= len(lines)
    assert all(LOGGED - OLDEST - 86400 <= moment <= LOGGED + TOLERANCE for moment, _ in found)


LOGGED = 1_795_000_020.0  # 2026-11-18
MAIL_LOG = (
    b"Nov 18 10:00:00 mx postfix/smtpd[1]: 3A: client=x[192.0.2.1]\n"
    b"Nov 18 10:00:01 mx postfix/qmgr[2]: 3A: from=<a@b>, size=4, nrcpt=1 (queue active)\n"
    b"Jan  1 00:00:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[::1]: 450 4.2.0 <b@x>: Greylisted\n",
    b"2026-11-18T10:00:00.5+01:00 mx postfix/smtpd[1]: NOQUEUE: milter-reject: RCPT from x[::1]: 450 4.2.0 "
    b"Greylisted, please try again in 300 seconds; from=<a> to=<b> proto=SMTP helo=<x>\n",
    b"<22>1 2026-11-18T10:00:00Z mx postfix/cleanup 3 - - 3A: reject: header Subject: x from y: 5.7.1 no\n",
    b"Nov 18 10:00:00 mx spamd[7]: spamd: identified spam (1/5) for u\n"
    b"Nov 18 10:00:00 mx spamd[7]: result: Y 1\n",
    b"Nov 18 10:00:00 mx amavis[7]: (7-1) Passed SPAM {x}\n",
)
