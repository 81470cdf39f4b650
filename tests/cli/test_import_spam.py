"""``hybridgrey import spam``: logs of Postfix, verdicts in a real store, counts in the history."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import time

import pytest

from hybridgrey.history import chunks, layout
from hybridgrey.history.chunkwriter import ChunkWriter
from hybridgrey.history.layout import Step
from hybridgrey.history.reader import Reader
from hybridgrey.history.records import Batch
from hybridgrey.history.writer import Writer
from hybridgrey.metrics.ring import packed
from hybridgrey.store.connection import Store
from parts.forked import run
from parts.redisserver import Redis

NOW = int(time.time()) // 180 * 180 - 1800  # none of its messages is in two minutes
ONE, TWO = "mx1.test", "mx2.test"


@pytest.fixture(scope="module")
def redis():
    with Redis() as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(redis):
    with redis.client() as client:
        client.flushall()


@pytest.fixture
def config(tmp_path, redis):
    path = tmp_path / "hybridgrey.toml"
    path.write_text(f'[store]\nurl = "{redis.unix_url}"\n')
    return path


def record(number, reason="pool", t=NOW, mx=ONE, **more):
    return {
        "t": t + number,
        "mx": mx,
        "client": "192.0.2.1",
        "sender": f"a{number}@x.example",
        "recipient": "bob@example.net",
        "action": "accept",
        "outcome": "accepted",
        "reason": reason,
    } | more


def keep(redis, *records):
    """Write the records of hosts to the store, as their daemons do."""
    store = Store.open(redis.unix_url, 5.0)
    for mx in dict.fromkeys(one["mx"] for one in records):
        made = chunks.cut([packed(one) for one in records if one["mx"] == mx])
        while made:
            made = made[ChunkWriter(store, mx, 7 * 86400).write(made, time.time())[0] :]
        Writer(store, mx, f"kept {mx}").write(1, Batch(counts={(Step.MINUTE, NOW): {"x": 1}}), time.time())
    store.close()


def lines(number, *, spam=False, t=NOW, mx="mx1", client="192.0.2.1", to="bob@example.net"):
    """A message's lines in a log; `spam`: amavis says so."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t + number)) + f".5+00:00 {mx} "
    qid = f"4Q{mx.partition('.')[0]}{number}"
    said = [
        f"postfix/smtpd[1]: {qid}: client=mail.x.example[{client}]",
        f"postfix/cleanup[1]: {qid}: message-id=<m{number}@x.example>",
        f"postfix/qmgr[1]: {qid}: from=<a{number}@x.example>, size=70, nrcpt=1 (queue active)",
    ]
    if spam:
        said.append(
            f"amavis[1]: (1-1) Passed SPAM {{X}}, [{client}]:4 [{client}] <a{number}@x.example> -> <{to}>, "
            f"Queue-ID: {qid}, Hits: 9, size: 70, 9 ms"
        )
    said += [
        f"postfix/lmtp[1]: {qid}: to=<{to}>, relay=x[x], delay=1, delays=0/0/0, dsn=2.0.0, status=sent (ok)",
        f"postfix/qmgr[1]: {qid}: removed",
    ]
    return "".join(f"{stamp}{one}\n" for one in said)


def told(config, *files, text="", more=()):
    """What the command has counted: all, spam, both for the first time."""
    done = run("import", "spam", "--json", "-c", config, *more, *files, input=text)
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    return found["told"], found["spam"], found["told_first"], found["spam_first"]


def history(redis, *hosts, step=Step.MINUTE):
    """The counts of the history, with their moments summed up."""
    reader = Reader.open(redis.unix_url, 5.0)
    counts = reader.counts(NOW - 86400, time.time(), step, hosts or None)
    reader.close()
    return {
        name.removeprefix("later:"): sum(steps.values())
        for name, steps in counts.items()
        if name.startswith("later:")
    }


def test_counted_once(config, redis, tmp_path):
    """By reason and step, and not again: the same log, a grown one, and one that was turned over."""
    keep(redis, record(1), record(2), record(3, "domain"), record(4, "known"), record(5, "expected"))
    log = tmp_path / "mail.log"
    log.write_text(lines(1, spam=True) + lines(2))
    assert told(config, log) == (2, 1, 2, 1)
    wanted = {"pool:told:log": 2, "pool:spam:log": 1}
    assert [history(redis, step=step) for step in Step] == [wanted] * 3
    assert told(config, log) == (2, 1, 0, 0)
    log.write_text(log.read_text() + lines(3, spam=True) + lines(4, spam=True))
    assert told(config, log) == (3, 2, 1, 1)
    log.rename(tmp_path / "mail.log.1")
    log.write_text(lines(5))
    assert told(config, log) == (1, 0, 1, 0)
    assert told(config, log, tmp_path / "mail.log.1") == (4, 2, 0, 0)
    wanted |= {"domain:told:log": 1, "domain:spam:log": 1, "expected:told:log": 1}
    assert [history(redis, step=step) for step in Step] == [wanted] * 3


def test_spam_that_is_told_of_later(config, redis, tmp_path):
    """Of a message that was told of without a word, another log may say that it was spam; once."""
    keep(redis, record(1))
    first, second = tmp_path / "one", tmp_path / "two"
    first.write_text(lines(1))
    second.write_text(lines(1, spam=True))
    assert told(config, first) == (1, 0, 1, 0)
    assert told(config, second) == (1, 1, 0, 1)
    assert told(config, first) == (1, 0, 0, 0)
    assert history(redis) == {"pool:told:log": 1, "pool:spam:log": 1}


def test_two_hosts(config, redis, tmp_path):
    """Each reads its own log, or both one of both: each verdict counts once, on the host that gave it."""
    keep(redis, record(1), record(2, mx=TWO), record(3, mx=TWO))
    one, two, both = (tmp_path / name for name in ("one", "two", "both"))
    one.write_text(lines(1, spam=True))
    two.write_text(lines(2, spam=True, mx="mx2") + lines(3, mx="mx2"))
    both.write_text(one.read_text() + two.read_text())
    assert told(config, one) == (1, 1, 1, 1)
    assert told(config, both) == (3, 2, 2, 1)
    assert told(config, two) == (2, 1, 0, 0)
    assert history(redis, ONE) == {"pool:told:log": 1, "pool:spam:log": 1}
    assert history(redis, TWO) == {"pool:told:log": 2, "pool:spam:log": 1}
    assert history(redis) == {"pool:told:log": 3, "pool:spam:log": 2}


def read_until(redis):
    reader = Reader.open(redis.unix_url, 5.0)
    try:
        return reader.logs_read()
    finally:
        reader.close()


def test_up_to_when(config, redis, tmp_path):
    """Each host has the end of the newest log that tells of it, or names it; never an older one."""
    keep(redis, record(1), record(2, mx=TWO))
    log = tmp_path / "mail.log"
    log.write_text(lines(1, mx="front"))
    told(config, log)
    assert read_until(redis) == {ONE: NOW + 1}
    log.write_text(lines(90, mx="mx2") + lines(91, mx="mx1.test"))
    told(config, log)
    assert read_until(redis) == {ONE: NOW + 91, TWO: NOW + 91}
    log.write_text(lines(1))
    told(config, log)
    assert read_until(redis)[ONE] == NOW + 91


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "x", "1e9", "0x10", "", "9" * 11, "9" * 400])
def test_damage_of_up_to_when(config, redis, tmp_path, value):
    """What is no moment, or is yet to come, does not stay for ever."""
    keep(redis, record(1))
    with redis.client() as client:
        client.hset(layout.key("logs"), ONE, value)
    assert told(config, "-", text=lines(1)) == (1, 0, 1, 0)
    assert read_until(redis) == {ONE: NOW + 1}


ODD = [1e300, -1e300, 2**63, True, None, "x", [], {}, "a" * 900, "\u2028", "\0"]


def test_damaged_records(config, redis):
    """Records of other types, and beyond all bounds, are passed over; the sound ones count."""
    odd = [
        record(1, **{name: value}) for name in ("client", "sender", "recipient", "outcome") for value in ODD
    ]
    keep(redis, *odd, *(record(1, reason=value) for value in ODD[:8]), record(1), record(2))
    assert told(config, "-", text=lines(1, spam=True) + lines(2)) == (2, 1, 2, 1)


def test_damaged_counts(config, redis):
    """Keys of other types and counts that are none do not stop it."""
    keep(redis, record(1))
    assert told(config, "-", text=lines(1, spam=True)) == (1, 1, 1, 1)
    with redis.client() as client:
        for key in client.keys(b"*later*"):
            client.set(key, "x")
        for key in client.keys(b"*"):
            if client.type(key) == b"hash":
                for field in client.hkeys(key):
                    client.hset(key, field, "nan" if b"later" in field else client.hget(key, field))
    assert told(config, "-", text=lines(1, spam=True)) == (1, 1, 1, 1)
    assert history(redis) == {"pool:told:log": 1, "pool:spam:log": 1}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_packed(config, redis, tmp_path, pack):
    """Plain, gz, bz2, xz, and standard input."""
    keep(redis, record(1), record(2))
    log = tmp_path / "log"
    log.write_bytes(pack(lines(1, spam=True).encode()))
    assert told(config, log, "-", text=lines(2)) == (2, 1, 2, 1)


def test_logs_of_their_own(config, redis, tmp_path):
    """What rspamd and Dovecot have in files beside Postfix's is of the same messages."""
    keep(redis, record(1), record(2))
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW + 1))
    (tmp_path / "rspamd.log").write_text(
        f"{stamp} #5(rspamd_proxy) <8a>; proxy; rspamd_task_write_log: id: <m1@x.example>, qid: <4Qmx11>, "
        "ip: 192.0.2.1, from: <a1@x.example>, (default: F (add header): [8.50/15.00] [X(1.0){}]), len: 7\n"
    )
    stamp = time.strftime("%b %d %H:%M:%S", time.localtime(NOW + 2))
    (tmp_path / "dovecot.log").write_text(
        f"{stamp} lmtp(bob@example.net)<1><s>: Info: sieve: msgid=<m2@x.example>: "
        "stored mail into mailbox 'Junk'\n"
    )
    (tmp_path / "mail.log").write_text(lines(1) + lines(2))
    assert told(config, *sorted(tmp_path.glob("*.log"))) == (2, 2, 2, 2)


def test_dry_run(config, redis, tmp_path):
    """It says what would be, and changes nothing."""
    keep(redis, record(1))
    log = tmp_path / "log"
    log.write_text(lines(1, spam=True))
    with redis.client() as client:
        before = {key: client.ttl(key) > 0 for key in client.scan_iter()}
        assert told(config, log, more=["--dry-run"]) == (1, 1, 1, 1)
        assert {key: client.ttl(key) > 0 for key in client.scan_iter()} == before
    assert told(config, log) == (1, 1, 1, 1)
    assert told(config, log, more=["--dry-run"]) == (1, 1, 0, 0)


def test_what_it_leaves_goes(config, redis, tmp_path):
    """Nothing that it writes stays for ever, or has an address in it; of an odd type is made anew."""
    keep(redis, record(1))
    log = tmp_path / "log"
    log.write_text(lines(1, spam=True))
    with redis.client() as client:
        before = set(client.scan_iter())
        told(config, log)
        new = set(client.scan_iter()) - before
        assert sorted(key.split(b":")[3] for key in new) == [b"day", b"hour", b"later", b"later", b"logs"]
        assert all(client.ttl(key) > 0 for key in new)
        assert all(key.startswith(b"hg1:history:{history}:") and b"x.example" not in key for key in new)
        marks = [key for key in new if b":later:" in key]
        assert {client.object("encoding", key) for key in marks} == {b"intset"}
        for key in new:
            client.delete(key)
            client.rpush(key, "odd")
    assert told(config, log) == (1, 1, 1, 1)
    assert history(redis) == {"pool:told:log": 2, "pool:spam:log": 2}


UNKEPT = [
    ('key_secret = "0123456789abcdef0123"\n', "with [store] key_secret no verdict is in the store"),
    ('[metrics]\nkeep_verdicts = "0"\n', '[metrics] keep_verdicts is "0"'),
    ("[metrics]\nhistory = false\n", "[metrics] history is off"),
]


@pytest.mark.parametrize(("more", "why"), UNKEPT)
def test_without_verdicts(config, tmp_path, more, why):
    """Where the store has none it says so, and what would tell."""
    config.write_text(config.read_text() + more)
    done = run("import", "spam", "-c", config, tmp_path / "log")
    assert done.returncode == 1
    assert why in done.stderr
    assert "[content]" in done.stderr


HINTS = [
    ("", "no message came in by these logs"),
    (lines(9), "tell of no recipient that was let in early"),
    (lines(1), "nothing in these logs calls a message spam"),
    (lines(1, spam=True), ""),
]


@pytest.mark.parametrize(("text", "hint"), HINTS)
def test_in_words(config, redis, text, hint):
    """Who gets nothing, or no spam, learns what may be the reason."""
    keep(redis, record(1))
    done = run("import", "spam", "-c", config, "-", input=text)
    assert done.returncode == 0
    assert (hint in done.stderr) if hint else not done.stderr
    assert "recipients let in early, of whom these logs tell" in done.stdout


def test_hostile_logs(config, redis):
    """Lines of any kind are passed over, and none makes spam of another's message."""
    keep(redis, record(1))
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW + 1)) + "+00:00 mx1 "
    forged = "(1-1) Passed SPAM {X}, [192.0.2.1]:4 [192.0.2.1] <a1@x.example> -> <b@c>, Queue-ID: 4Qmx11, "
    noise = [
        f"{stamp}postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.9]: 450; helo=<amavis[1]: {forged}>",
        f"{stamp}postfix/cleanup[1]: 4Z: message-id=<amavis[1]: {forged}>",
        f"{stamp}postfix/smtpd[1]: 4Z: client=x[192.0.2.9]\0\ufffd\u202e",
        f"{stamp}amavis[1]: {forged.replace('192.0.2.1]', '192.0.2.9]')}",
        f"{stamp}amavis[1]: (1-1) Passed CLEAN {{X}}, [192.0.2.9]:4 <{forged}> -> <b@c>, Queue-ID: 4Z, ",
        stamp + "amavis[1]: " + "(" * 5000,
        "x" * 200_000,
        '{"log": 7}',
    ]
    text = lines(1).splitlines(keepends=True)
    done = run("import", "spam", "--json", "-c", config, "-", input="\n".join([*noise, "", *text, *noise]))
    assert (done.returncode, done.stderr) == (0, "")
    assert (json.loads(done.stdout)["told"], json.loads(done.stdout)["spam"]) == (1, 0)


def test_older_than_the_verdicts(config, redis):
    """Messages from before verdicts are kept are none to look for."""
    keep(redis, record(1))
    assert told(config, "-", text=lines(1, t=NOW - 30 * 86400, spam=True) + lines(1)) == (1, 0, 1, 0)
