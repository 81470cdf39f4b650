"""``hybridgrey zones`` as a process, on lists that are well and lists that are not."""

import json

import pytest

from hybridgrey.metrics.series import NO_LIST_WORKS
from parts.base import LOOPBACK, free_port
from parts.commandline import in_terminal, run
from parts.daemon import toml
from parts.fakedns import FakeDns

KEYED = "0123456789abcdef0123456789.zen.dq.spamhaus.net"


@pytest.fixture
def dns():
    with FakeDns() as part:
        part.zone("good.test")
        part.zone("list.dnswl.org")
        part.zone("hostkarma.junkemailfilter.com", everything="127.0.0.2")
        part.zone("world.test", everything="127.0.0.2")
        part.zone("refused.test", rcode="REFUSED")
        part.zone("parked.test", everything="91.195.240.117")
        part.zone("nothing.test", test_points=False)
        part.zone("silent.test", silent=True)
        part.zone(KEYED)
        yield part


@pytest.fixture
def write(tmp_path):
    """A function that writes a config that asks these lists and gives its path."""

    def write(nameserver, *lists, **changed):
        path = tmp_path / "hg.toml"
        rules = [{"name": "lists", "dns": list(lists), "action": "reject"}] if lists else []
        rules.append({"name": "rest", "action": "greylist"})
        settings = {"dns": {"nameservers": [nameserver]}, "rule": rules, **changed}
        path.write_text(toml(settings))
        return path

    return write


@pytest.mark.parametrize(
    ("name", "state", "reason", "status"),
    [
        ("good.test", "healthy", "", 0),
        ("list.dnswl.org", "healthy", "", 0),
        ("hostkarma.junkemailfilter.com", "healthy", "", 0),
        ("world.test", "suspended", "lists the test address 127.0.0.1", 1),
        ("refused.test", "suspended", "REFUSED", 1),
        ("parked.test", "suspended", "outside 127.0.0.0/8", 1),
        ("nothing.test", "warning", "does not list its test address", 0),
    ],
)
def test_states(write, dns, name, state, reason, status):
    """Each kind of list gets its state and the reason; the status is 1 when one is suspended."""
    done = run("zones", "-c", write(dns.address, "good.test", name), "--json")
    last = json.loads(done.output)["lists"][-1]
    assert (last["list"], last["state"], done.status, done.error) == (name, state, status, "")
    assert reason in last["reason"]


def test_silent_list(write, dns):
    """A list that does not answer is silent, which is no suspension."""
    done = run("zones", "-c", write(dns.address, "good.test", "silent.test"), "--json")
    assert [one["state"] for one in json.loads(done.output)["lists"]] == ["healthy", "silent"]
    assert done.status == 0


def test_text(write, dns):
    """Piped, there is one line a list, with what is known of it and without its key."""
    lists = ("good.test", "list.dnswl.org", "hostkarma.junkemailfilter.com", KEYED)
    done = run("zones", "-c", write(dns.address, *lists, zones={"good.test": {"health": "off"}}))
    assert (done.status, done.error, len(done.lines)) == (0, "", 6)
    assert done.lines[0] == "4 lists: 3 healthy, 1 unchecked"
    rows = [line.split(None, 2) for line in done.lines[1:]]
    assert [row[:2] for row in rows] == [
        ["LIST", "STATE"],
        ["good.test", "unchecked"],
        ["list.dnswl.org", "healthy"],
        ["hostkarma.junkemailfilter.com", "healthy"],
        ["zen.spamhaus.org", "healthy"],
    ]
    assert "no test points" in rows[1][2]
    assert "error codes 127.0.0.255" in rows[2][2]
    assert "unlisted test point none" in rows[3][2]
    assert KEYED[:26] not in done.output


def test_terminal(write, dns):
    """On a terminal states have colours and a bar shows progress; with NO_COLOR there are no colours."""
    path = write(dns.address, "good.test", "world.test")
    done = in_terminal("zones", "-c", path)
    assert done.status == 1
    assert "\x1b[32mhealthy" in done.output
    assert "\x1b[31msuspended" in done.output
    assert "asking the lists" in done.plain
    plain = in_terminal("zones", "-c", path, environment={"NO_COLOR": "1"})
    assert "\x1b[3" not in plain.output


def test_nameserver_down(write):
    """When no list answers at all, the first line says so, and one names the nameserver; the status is 1."""
    where = f"{LOOPBACK}:{free_port()}"
    done = run("zones", "-c", write(where, "good.test"))
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    assert done.lines[0] == f"warning: {NO_LIST_WORKS}"
    assert f"asked through {where}: check [dns] nameservers" in done.error


def test_no_list_works(write, dns):
    """A resolver that knows no list is what small hosts have most often: said first, and the status is 1."""
    done = run("zones", "-c", write(dns.address, "nowhere.test", "elsewhere.test"))
    assert (done.status, done.lines[0]) == (1, f"warning: {NO_LIST_WORKS}")
    assert json.loads(run("zones", "--json", "-c", write(dns.address, "nowhere.test")).output)[
        "no_list_works"
    ]
    mixed = run("zones", "-c", write(dns.address, "nowhere.test", "good.test"))
    assert (mixed.status, mixed.lines[0]) == (0, "2 lists: 1 healthy, 1 warning")


def test_public_resolver(write):
    """A public resolver is warned of, here without asking it: no rule has a list."""
    done = run("zones", "-c", write("9.9.9.9"))
    assert (done.status, done.output) == (0, "no rule asks a list\n")
    assert "9.9.9.9 is a public resolver" in done.error
