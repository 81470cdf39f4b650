"""``hybridgrey explain`` as a process, on real lists and a real store."""

import contextlib
import json

import pytest

from hybridgrey.greylist.triplets import Greylist
from hybridgrey.metrics.series import NO_LIST_WORKS
from hybridgrey.store.connection import Store
from parts.base import LOOPBACK, free_port
from parts.commandline import in_terminal, run
from parts.daemon import Daemon, toml
from parts.fakedns import FakeDns
from parts.greyterms import GreyTerms
from parts.milterpeer import MilterPeer
from parts.rbldnsd import Rbldnsd, ip4set, ip6trie
from parts.redisserver import Redis
from parts.spamd import ScriptedSpamd

RULES = [
    {"name": "authenticated", "authenticated": True, "action": "accept"},
    {"name": "friends", "clients": ["192.0.2.16/28", "!192.0.2.20", ".friend.example"], "action": "accept"},
    {"name": "liars", "helo": ["mx.test"], "action": "tempfail", "text": "4.7.1 That is my name"},
    {"name": "role", "recipients": ["postmaster@"], "senders": ["!.spam.example"], "action": "accept"},
    {"name": "trial", "dns": ["trial.test"], "action": "none"},
    {"name": "blocked", "dns": ["bl.test=127.0.0.[2..11]*2", "bl2.test", "wl.test*-2"], "threshold": 2,
     "action": "reject"},
    {"name": "good", "dns": ["wl.test"], "action": "accept"},
    {"name": "rest", "action": "greylist", "delay": "90s"},
]  # fmt: skip


@pytest.fixture(scope="module")
def dns():
    zones = {
        "bl.test": [
            ip4set("192.0.2.1", "192.0.2.3", value="127.0.0.4", text="See https://bl.test/$"),
            ip6trie("2001:db8::1/128"),
        ],
        "bl2.test": ip4set("192.0.2.1", "192.0.2.2"),
        "wl.test": ip4set("192.0.2.3", "192.0.2.4"),
        "trial.test": ip4set("192.0.2.4"),
    }
    with Rbldnsd(zones) as part:
        yield part


@pytest.fixture
def settings(server, dns):
    with server.client() as client:
        client.flushall()
    return {
        "store": {"url": server.unix_url},
        "dns": {"nameservers": [dns.address]},
        "rule": RULES,
    }


@pytest.fixture
def write(settings, tmp_path):
    """A function that writes the config, with some of it changed, and gives its path."""

    def write(**changed):
        path = tmp_path / "hg.toml"
        path.write_text(toml(settings | changed))
        return path

    return write


def explained(path, *words):
    """What `explain --json` says."""
    done = run("explain", "-c", path, "--json", *words)
    assert (done.status, done.error) == (0, "")
    return json.loads(done.output)


@pytest.mark.parametrize(
    ("words", "rule", "reply"),
    [
        (["192.0.2.1"], "blocked",
         "554 5.7.1 Service unavailable; client [192.0.2.1] blocked using bl.test; See https://bl.test/192.0.2.1"),
        (["192.0.2.2"], "rest", "450 4.2.0 Greylisted, please try again in 90 seconds"),
        (["192.0.2.3"], "good", ""),
        (["192.0.2.4"], "good", ""),
        (["192.0.2.17"], "friends", ""),
        (["192.0.2.20"], "rest", "450 4.2.0 Greylisted, please try again in 90 seconds"),
        (["198.51.100.1", "--host", "mail.friend.example"], "friends", ""),
        (["198.51.100.1", "--host", "friend.example.test"], "rest",
         "450 4.2.0 Greylisted, please try again in 90 seconds"),
        (["192.0.2.1", "--authenticated"], "authenticated", ""),
        (["192.0.2.1", "--helo", "mx.test"], "liars", "451 4.7.1 That is my name"),
        (["192.0.2.1", "--to", "postmaster@example.net", "--from", "a@example.org"], "role", ""),
        (["192.0.2.1", "--to", "postmaster@example.net", "--from", "a@mx.spam.example"], "blocked",
         "554 5.7.1 Service unavailable; client [192.0.2.1] blocked using bl.test; See https://bl.test/192.0.2.1"),
        (["::ffff:192.0.2.17"], "friends", ""),
        (["64:ff9b::192.0.2.17"], "friends", ""),
        (["64:ff9b::192.0.2.4"], "good", ""),
        (["64:ff9b::192.0.2.1"], "blocked",
         "554 5.7.1 Service unavailable; client [192.0.2.1] blocked using bl.test; See https://bl.test/192.0.2.1"),
        (["2002:c000:201::1"], "blocked",
         "554 5.7.1 Service unavailable; client [192.0.2.1] blocked using bl.test; See https://bl.test/192.0.2.1"),
        (["2002:c000:204::1"], "rest", "450 4.2.0 Greylisted, please try again in 90 seconds"),
        (["2001:db8::1"], "blocked",
         "554 5.7.1 Service unavailable; client [2001:db8::1] blocked using bl.test"),
    ],
)  # fmt: skip
def test_verdicts(write, words, rule, reply):
    """The rule that decides and the words that the client gets."""
    found = explained(write(), *words)
    assert (found["rule"], found["reply"], found["passes"]) == (rule, reply, not reply)


@pytest.mark.parametrize("client", ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.17", "198.51.100.1"])
def test_agrees_with_the_daemon(settings, client):
    """What is explained is what the daemon then does, with the same words."""
    with Daemon(settings) as daemon:
        found = explained(daemon.config, client, "--from", "a@example.org", "--to", "b@example.net")
        with MilterPeer(daemon.address) as peer:
            peer.connect("unknown", client)
            peer.helo("client.test")
            peer.mail("<a@example.org>")
            reply = peer.rcpt("<b@example.net>")
        assert found["passes"] == reply.passes
        assert found["reply"] == reply.text
        if not reply.passes:
            assert daemon.verdict("b@example.net")["rule"] == found["rule"]


def test_way(write):
    """Each rule says which of its conditions hold, by which entry, and what its lists count."""
    steps = {one["rule"]: one for one in explained(write(), "192.0.2.4", "--helo", "a.test")["steps"]}
    assert {name: one["outcome"] for name, one in steps.items()} == {
        "authenticated": "no match",
        "friends": "no match",
        "liars": "no match",
        "role": "no match",
        "trial": "noted",
        "blocked": "no match",
        "good": "matches",
        "rest": "not reached",
    }
    assert [one["weight"] for one in steps["blocked"]["votes"]] == [0, 0, -2]
    friends = {one["rule"]: one for one in explained(write(), "192.0.2.20")["steps"]}["friends"]
    assert friends["conditions"] == [{"name": "clients", "holds": False, "because": "!192.0.2.20/32"}]


def test_lists(write):
    """Each list shows its codes, its time and its words."""
    lists = {one["label"]: one for one in explained(write(), "192.0.2.3")["lists"]}
    assert lists["bl.test"].pop("seconds") > 0
    assert lists["bl.test"] == {
        "label": "bl.test",
        "codes": ["127.0.0.4"],
        "error": "",
        "text": "See https://bl.test/192.0.2.3",
    }
    assert (lists["bl2.test"]["codes"], lists["wl.test"]["codes"]) == ([], ["127.0.0.2"])


def test_greylist_states(write, server):
    """A triplet's state, age and remaining delay are shown, and looking changes nothing."""
    path = write()
    who = ["198.51.100.1", "--from", "a@example.org", "--to", "b@example.net"]

    def state():
        return explained(path, *who)["greylist"]["state"]

    assert (state(), server.keys()) == ("new", [])
    with contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
        greylist = Greylist(store, GreyTerms())
        triplet = ("198.51.100.1", "a@example.org", "b@example.net")
        greylist.touch(*triplet, 90)
        found = explained(path, *who)
        assert found["greylist"]["state"] == "early"
        assert 0 < found["greylist"]["seconds_left"] <= 90
        assert f"in {found['greylist']['seconds_left']} seconds" in found["reply"]
        keys = server.keys()
        greylist.touch(*triplet, 0)
        assert state() == "known"
        assert set(keys) < set(server.keys())
        with server.client() as client:
            client.set("hg1:{198.51.100.0/24}", 5)
        assert explained(path, "198.51.100.9")["greylist"]["state"] == "network"


@pytest.mark.parametrize(
    ("client", "status"), [("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.3", 0), ("192.0.2.17", 0)]
)
def test_exit_code(write, client, status):
    """With --exit-code the status tells whether mail is let in now; without, it is 0."""
    assert run("explain", "-c", write(), client, "--exit-code").status == status
    assert run("explain", "-c", write(), client).status == 0


def test_text(write):
    """Piped, it is plain text in sections."""
    done = run("explain", "-c", write(), "192.0.2.1")
    assert done.error == ""
    assert done.lines[0] == '192.0.2.1: reject, rule "blocked"'
    assert done.lines[1].startswith("client gets: 554 5.7.1")
    assert "\x1b" not in done.output
    (line,) = [line for line in done.lines if line.startswith("blocked")]
    assert line.split() == [
        *("blocked", "reject", "matches", "dns:", "bl.test=127.0.0.[2..11]*2", "+", "bl2.test", "=", "3"),
        *("of", "2"),
    ]


def test_terminal(write):
    """On a terminal there are colours and drawn tables."""
    done = in_terminal("explain", "-c", write(), "192.0.2.1")
    assert done.status == 0
    assert "\x1b[31mreject" in done.output
    assert "──" in done.output


def test_observe_mode(write):
    """In observe mode one line says that the client is let in, and what it would get; the status follows."""
    done = run("explain", "-c", write(mode="observe"), "192.0.2.1", "--exit-code")
    assert done.status == 0
    (line,) = [line for line in done.lines if "let in" in line]
    assert line.startswith('client gets: let in, for mode is "observe"; would get: 554 5.7.1')
    assert "client gets: let in" in run("explain", "-c", write(mode="observe"), "192.0.2.17").lines


FRIEND, NAME = "203.0.113.1", "mx.friend.example"
NAMES = {
    "confirmed": (lambda dns: dns.pointer(FRIEND, NAME), NAME, "forward-confirmed"),
    "forged": (lambda dns: dns.pointer(FRIEND, NAME, forged=True), "", "no name that leads back"),
    "no pointer": (lambda _dns: None, "", "it has none"),
    "several": (
        lambda dns: (
            dns.record("1.113.0.203.in-addr.arpa", "PTR", "other.example.", "mx.friend.example."),
            dns.record("mx.friend.example", "A", FRIEND),
        ),
        "mx.friend.example",
        "forward-confirmed; one of 2, an MTA looks at one only",
    ),
    "hostile": (
        lambda dns: dns.record("1.113.0.203.in-addr.arpa", "PTR", "\\027[31m\\010.friend.example."),
        "",
        "its name is no host name",
    ),
    "only numbers": (lambda dns: dns.pointer(FRIEND, "203.0.113.1"), "", "its name is no host name"),
}  # fmt: skip


@pytest.mark.parametrize(("records", "name", "finding"), NAMES.values(), ids=NAMES)
def test_name_is_looked_up(write, records, name, finding):
    """Where a rule has names the client's name counts if it leads back, and it is said what was found."""
    rules = [{"name": "friends", "clients": [".friend.example"], "action": "accept"}, RULES[-1]]
    with FakeDns() as dns:
        records(dns)
        path = write(dns={"nameservers": [dns.address]}, rule=rules)
        found = explained(path, FRIEND)
        assert found["host_name"]["name"] == name
        assert found["host_name"]["finding"].startswith(finding)
        assert found["rule"] == ("friends" if name else "rest")
        text = run("explain", "-c", path, FRIEND)
        assert text.error == ""
        assert f"host name: {f'{name}, ' if name else ''}{finding}" in text.output
        assert "\x1b" not in text.output


def test_name_of_an_ipv6_client(write):
    """Its name is confirmed by AAAA; a mapped address is IPv4."""
    rules = [{"name": "friends", "clients": ["mx.friend.example"], "action": "accept"}, RULES[-1]]
    with FakeDns() as dns:
        dns.pointer("2001:db8::7", "mx.friend.example")
        dns.pointer(FRIEND, "mx.friend.example")
        path = write(dns={"nameservers": [dns.address]}, rule=rules)
        for client in ("2001:db8::7", f"::ffff:{FRIEND}"):
            assert explained(path, client)["rule"] == "friends"
        dns.forget()
        found = explained(path, FRIEND, "--host", "Other.example.")
        assert found["host_name"] == {"name": "other.example", "finding": "as given"}
        assert dns.queries == []


def test_name_is_not_looked_up(write):
    """Where no rule has a name nobody is asked, and that is said."""
    with FakeDns() as dns:
        path = write(dns={"nameservers": [dns.address]}, rule=[RULES[-1]])
        assert "host name: not looked up: no rule wants one" in run("explain", "-c", path, FRIEND).lines
        assert dns.queries == []


def test_nameservers_that_do_not_say(write, dns):
    """That they refuse is said, and is not taken for a client without a name."""
    assert explained(write(), FRIEND)["host_name"]["finding"] == "not known: the nameservers do not say"


def test_what_does_not_help(write):
    """Of a client that a rule refuses it says that neither a pass nor a rule further down helps."""
    rules = [RULES[5], {"name": "manual", "clients": ["192.0.2.0/24"], "action": "accept"}, RULES[-1]]
    done = run("explain", "-c", write(rule=rules), "192.0.2.1")
    (note,) = [line for line in done.lines if line.startswith("note: ")]
    assert note.startswith('note: rule "blocked" refuses it before the greylist is asked')
    assert 'nor does rule "manual", which stands below' in note
    assert explained(write(rule=rules), "192.0.2.1")["too_late"] == ["manual"]
    others = [RULES[5], {"name": "manual", "clients": ["198.51.100.0/24"], "action": "accept"}, RULES[-1]]
    assert explained(write(rule=others), "192.0.2.1")["too_late"] == []
    assert "note: " not in run("explain", "-c", write(rule=rules), "192.0.2.4").output


@pytest.mark.parametrize("on_failure", ["accept", "tempfail"])
def test_store_down(write, on_failure):
    """With the store down the rest is explained, and one line says what is wrong."""
    path = write(store={"url": f"redis://:hunter2@{LOOPBACK}:{free_port()}", "on_failure": on_failure})
    done = run("explain", "-c", path, "198.51.100.1")
    assert (done.status, len(done.error.splitlines())) == (0, 1)
    assert done.error.startswith("warning: store redis://:********@")
    assert done.lines[1] == "client gets: " + (
        "let in" if on_failure == "accept" else "451 4.3.0 Temporary failure, please try again later"
    )
    assert "bl2.test" in done.output


def test_nameserver_down(write, tmp_path):
    """With the nameserver down the rules are explained, and one line says what is wrong."""
    where = f"{LOOPBACK}:{free_port()}"
    done = run("explain", "-c", write(dns={"nameservers": [where], "timeout": "300ms"}), "192.0.2.1")
    assert (done.status, len(done.error.splitlines())) == (0, 1)
    assert done.error.startswith(f"warning: no list has answered through {where}")
    assert done.lines[0] == f"warning: {NO_LIST_WORKS}"
    assert 'greylist, rule "rest"' in done.lines[1]


def test_suspended_list(write):
    """A list that lists the world has no vote, here as in the daemon, and the reason is shown."""
    with FakeDns() as fake:
        fake.zone("bl.test", everything="127.0.0.2")
        for name in ("bl2.test", "wl.test", "trial.test"):
            fake.zone(name)
        found = explained(write(dns={"nameservers": [fake.address]}), "192.0.2.1")
    assert found["rule"] == "rest"
    assert "lists the test address 127.0.0.1" in found["lists"][1]["error"]


def test_hostile_text_is_data(write):
    """What a list or an option says reaches the terminal in printable form only."""
    with FakeDns() as fake:
        for name in ("bl.test", "bl2.test", "wl.test", "trial.test"):
            fake.zone(
                name, listed={"192.0.2.1": "127.0.0.2"} if name == "bl.test" else {}, text="\x1b[31mred"
            )
        done = run(
            "explain", "-c", write(dns={"nameservers": [fake.address]}), "192.0.2.1", "--from", "a\x1b@b"
        )
    assert (done.status, "\x1b" in done.output) == (0, False)
    assert "red" in done.output


@pytest.mark.parametrize("client", ["nonsense", "192.0.2.0/24", ""])
def test_no_address(write, client):
    """What is no address is wrong usage."""
    assert run("explain", "-c", write(), client).status == 2


def test_spf_is_asked_for_a_sender_that_is_given(tmp_path):
    """It says the result and what it proves, and which rule and key go by it; nothing is changed."""
    with Redis() as redis, FakeDns() as dns:
        dns.record("b.example", "TXT", '"v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all"')
        path = tmp_path / "hg.toml"
        path.write_text(
            f'[store]\nurl = "{redis.unix_url}"\n[dns]\nnameservers = ["{dns.address}"]\n'
            '[[rule]]\nname = "friends"\ncorrespondent = true\naction = "accept"\n'
            '[[rule]]\nname = "the rest"\naction = "greylist"\n'
        )
        words = ("explain", "-c", path, "192.0.2.1", "--to", "c@d.example")
        done = run(*words)
        assert not any(line.startswith("SPF") for line in done.lines)
        assert dns.queries == []
        done = run(*words, "--from", "a@b.example")
        assert "SPF: pass, proves b.example" in done.lines
        assert "correspondent: no (never written to)" in done.output
        done = run(*words[:3], "203.0.113.1", "--from", "a@b.example")
        assert "SPF: fail, proves nobody" in done.lines
        assert redis.keys() == []


@pytest.mark.parametrize(
    ("answer", "message", "score", "error", "reply"),
    [
        (7.5, True, 7.5, "", "554 5.7.1 Access denied"),
        (4.5, True, 4.5, "", "450 4.2.0 Greylisted, please try again in 300 seconds"),
        (1.5, True, 1.5, "", ""),
        (b"?", True, None, "no answer of spamd's", "450 4.2.0 Greylisted, please try again in 300 seconds"),
        (1.5, False, None, "", "450 4.2.0 Greylisted, please try again in 300 seconds"),
    ],
)
def test_score(write, tmp_path, answer, message, score, error, reply):
    """A message is scanned, and judged by its score; without one the score is said to decide."""
    rules = [
        {"name": "friends", "clients": ["192.0.2.16/28"], "action": "accept"},
        {"name": "spam", "score": ">=7", "action": "reject"},
        {"name": "grey", "score": ">=4", "action": "greylist"},
    ]
    file = tmp_path / "message"
    file.write_bytes(b"Subject: x\n\nHello.\n")
    words = ["192.0.2.1", *(["--message", str(file)] if message else [])]
    with ScriptedSpamd(answer) as scanner:
        path = write(content={"scanner": scanner.spec}, rule=rules)
        found = explained(path, *words)
        assert (found["score"], found["scan_error"], found["reply"]) == (score, error, reply)
        assert found["pending"] is True
        text = run("explain", "-c", path, *words).output
        wanted = (
            f"score: {score}, in " if score else f"score: unknown: {error}" if error else "score: decides at"
        )
        assert wanted in text
        assert explained(path, "192.0.2.17", *words[1:])["pending"] is False
        assert len(scanner.requests) == 2 * message
    if message:
        assert scanner.requests[0].endswith(b"\r\nSubject: x\r\n\r\nHello.\r\n")
