"""Parts of the row are cut off or die, and a botnet falls on it; the mail goes on meanwhile."""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
import sys
from collections import Counter

import pytest

from field.post import greylisted, introduce, letter, wait_out
from parts import spamrun
from parts.base import wait_until
from parts.mxrow import LISTED, MX_HOSTS, NETWORKS

pytestmark = pytest.mark.mta
STORE_DOWN = "451 4.3.0"


def state(row, mx, one):
    """What the greylist of a host said last of a letter."""
    return row.mx[mx].daemon.verdict(one.recipient)["state"]


def shares(row, mx, known):
    """Whether a host greylists and knows whom it should; each of its workers comes back by itself.

    Until then it does as on_failure says, so that with `accept` no known sender is put off at any time.
    """
    new = letter().by(row, mx)
    for one in known:
        answer = one.by(row, mx)
        assert answer.startswith("250") or (mx == "mx3" and answer.startswith(STORE_DOWN)), answer
    return new.startswith("450") and all(state(row, mx, one) == "known" for one in known)


def told(row, mx):
    """How often a host has logged that its store fails, and that it works again."""
    daemon = row.mx[mx].daemon
    return len(daemon.events("store failing")), len(daemon.events("store recovered"))


@pytest.fixture
def whole(row):
    """The row, mended again after the test."""
    yield row
    for mx in row.mx.values():
        for segment in ("front", "back"):
            mx.host.heal(segment)
    for name, store in row.stores.items():
        if not store.running:
            row.net.hosts[name].run(store.start)


def test_hosts_cut_off_from_redis_do_as_on_failure_says(whole):
    """mx2 (accept) and mx3 (tempfail) lose their cable to Redis; lists still count; then all is well."""
    row = whole
    known, waiting = letter(), letter()
    introduce(row, [known])
    before = {mx: told(row, mx) for mx in ("mx2", "mx3")}
    for mx in before:
        row.mx[mx].host.cut("back")
    first = waiting.by(row, "mx1")
    for _ in range(5):
        assert letter().by(row, "mx2").startswith("250")
        assert letter().by(row, "mx3").startswith(STORE_DOWN)
    for mx, (failing, recovered) in before.items():
        assert letter("botnet").by(row, mx).startswith("554 5.7.1")
        assert letter("bank").by(row, mx).startswith("250")
        wait_until(lambda mx=mx, end=(failing + 1, recovered): told(row, mx) == end, f"{mx} tells it")
    assert known.by(row, "mx2").startswith("250")
    # mx1 is whole, and its row goes on without the others.
    assert known.by(row, "mx1").startswith("250")
    greylisted(letter().by(row, "mx1"))
    for mx, (failing, recovered) in before.items():
        row.mx[mx].host.heal("back")
        wait_until(lambda mx=mx: shares(row, mx, [known]), f"{mx} shares the greylist again", 60)
        wait_until(lambda mx=mx, end=(failing + 1, recovered + 1): told(row, mx) == end, f"{mx} tells it")
    wait_out([first])
    assert waiting.by(row, "mx3").startswith("250")
    assert state(row, "mx3", waiting) == "passed"


def test_the_primary_dies_and_passed_triplets_stay_known(whole):
    """Redis is killed, the sentinels choose the replica, all hosts follow; nobody known is put off."""
    row = whole
    known = [letter(version=version) for version in (4, 6, 4, 6)]
    introduce(row, known)
    dead = row.primary()
    with row.stores[dead].client() as primary:
        assert primary.execute_command("WAIT", 1, 10_000) == 1  # what has passed is at the replica
    row.stores[dead].kill()
    rounds = 0
    while row.primary() == dead:
        for mx, one in itertools.product(("mx1", "mx2"), known):
            assert one.by(row, mx).startswith("250")
        rounds += 1
    assert rounds > 0
    for mx in MX_HOSTS:
        wait_until(lambda mx=mx: shares(row, mx, known), f"{mx} has followed", 60)
    new = letter("elsewhere")
    wait_out([new.by(row, "mx3")])
    assert new.by(row, "mx1").startswith("250")
    assert state(row, "mx1", new) == "passed"
    # The dead one comes back and takes itself for the primary, until the sentinels tell it.
    row.net.hosts[dead].run(row.stores[dead].start)
    for mx in MX_HOSTS:
        assert shares(row, mx, [*known, new])
    assert row.primary() != dead


def spam(row, version, count):
    """A spam run against all hosts, begun; of the botnet's addresses the lower half is listed."""
    targets = [mx.host.address(version) for mx in row.mx.values()]
    words = [
        sys.executable,
        spamrun.__file__,
        "--network",
        NETWORKS["botnet"].of(version),
        "--count",
        str(count),
        *targets,
    ]
    return row.popen("botnet", words)


def listed(version, count):
    """How many clients of a spam run are on the blocklist."""
    network, block = NETWORKS["botnet"].of(version), ipaddress.ip_network(LISTED[version])
    addresses = [spamrun.address(network, number, count) for number in range(count)]
    return sum(ipaddress.ip_address(address) in block for address in addresses)


@pytest.mark.parametrize(("version", "count"), [(4, 2400), (6, 600)])
def test_a_spam_run_gets_nowhere_and_holds_up_nobody(row, version, count):
    """Thousands of addresses, half of them listed: none is let in, and all other mail goes its way meanwhile.

    The counts of all hosts together are what the clients have seen.
    """
    known = [letter(version=version) for _ in range(4)]
    introduce(row, known)
    before = row.counted("verdicts", "rule", "action")
    sent = Counter()
    pairs = itertools.cycle(itertools.product(MX_HOSTS, known))
    with spam(row, version, count) as run:
        new = letter("elsewhere", version=version)
        first = new.by(row, "mx1")
        while run.poll() is None or sent["known"] < 12:
            mx, one = next(pairs)
            assert one.by(row, mx).startswith("250"), mx
            assert letter("bank", version=version).by(row, mx).startswith("250"), mx
            sent["known"] += 1
        wait_out([first])
        assert new.by(row, "mx2").startswith("250")
        outcome = json.loads(run.stdout.read())
    assert outcome["let_in"] == []
    codes = Counter()
    for answer, number in outcome["answers"].items():
        codes[answer.split()[1]] += number
    assert set(codes) == {"450", "554"}, outcome
    assert sum(codes.values()) == count
    assert codes["554"] == listed(version, count)
    for one in known:
        row.sink.wait(one.recipient, sent["known"] // 12)
    wanted = {
        ("blocklists", "reject"): codes["554"],
        ("allowlists", "accept"): sent["known"],
        ("the rest", "greylist"): codes["450"] + sent["known"] + 2,
    }
    counted = row.counted("verdicts", "rule", "action") - before
    assert {key: counted[key] for key in wanted} == wanted


def test_counts_of_all_hosts_are_what_clients_saw(row):
    """Mail of all kinds to all hosts: what Prometheus adds up is what clients were told, and so is status."""
    dice = random.Random(7)
    known = [letter(version=version) for version in (4, 6)]
    introduce(row, known)
    settled(row)
    before = row.counted("outcomes", "rule", "outcome")
    seen: Counter[tuple[str, ...]] = Counter()
    for _ in range(60):
        version, mx = dice.choice((4, 6)), dice.choice(list(MX_HOSTS))
        strangers = [letter(network, version=version) for network in ("office", "bank", "botnet")]
        one = dice.choice([*strangers, *known])
        answer = one.by(row, mx)
        rule = {"bank": "allowlists", "botnet": "blocklists"}.get(one.network, "the rest")
        seen[rule, {"2": "accept", "4": "delay", "5": "reject"}[answer[0]]] += 1
        # The backup host passes on what it takes, and is judged itself where it does.
        seen["manual", "accept"] += mx == "mx3" and answer.startswith("2")
    assert set(seen) == {
        ("allowlists", "accept"),
        ("blocklists", "reject"),
        ("manual", "accept"),
        ("the rest", "accept"),
        ("the rest", "delay"),
    }
    settled(row)
    assert row.counted("outcomes", "rule", "outcome") - before == seen
    status = row.status()
    assert {one["state"] for one in status["hosts"]} == {"ok"}
    verdicts = {(one["rule"], one["action"]): one["count"] for one in status["verdicts"]}
    assert +Counter(verdicts) == +row.counted("verdicts", "rule", "action")
    answers = {(one["list"], kind): one[kind] for one in status["lists"] for kind in ("listed", "unlisted")}
    assert {key: row.counted("list_answers", "list", "result")[key] for key in answers} == answers


def settled(row):
    """Wait until the backup host has passed on all it took."""
    wait_until(lambda: not list(row.mx["mx3"].mta.queue.glob("qf*")), "mx3's queue is empty", 60)
