"""``hybridgrey greylist`` as a process, on real servers."""

import contextlib
import itertools
import json
import signal
import subprocess
from pathlib import Path

import pytest

from hybridgrey.greylist.triplets import Greylist, parse_note
from hybridgrey.store.connection import Store
from hybridgrey.store.embedded import EmbeddedServer
from parts.base import LOOPBACK, free_port, wait_until
from parts.commandline import PROGRAM, in_terminal, run
from parts.daemon import toml
from parts.greyterms import GreyTerms
from parts.redisserver import Redis

LIFETIME = GreyTerms().lifetime
MAILS = (
    ("192.0.2.1", "a@example.org", "b@example.net", True),
    ("192.0.2.9", "c@example.org", "b@example.net", False),
    ("198.51.100.7", "", "postmaster@example.net", False),
    ("2001:db8::1", "list-return-4711-b=example.net@lists.example", "b@example.net", True),
    ("192.0.2.1", "odd :{}%\n\x1b[31m*@example.org", "b@example.net", False),
)


@pytest.fixture(scope="module")
def server():
    with Redis() as part:
        yield part


@pytest.fixture
def write(tmp_path):
    """A function that writes a config for a store and gives its path."""

    def write(url, **settings):
        path = tmp_path / "hg.toml"
        path.write_text(toml({"store": {"url": url, **settings.pop("store", {})}, **settings}))
        return path

    return write


@pytest.fixture
def config(server, write):
    """The config of an empty store that has then seen MAILS."""
    with server.client() as client:
        client.flushall()
    fill(server.unix_url)
    return write(server.unix_url)


def fill(url, secret="", after=5):
    """Greet the store with MAILS."""
    with contextlib.closing(Store.open(url, 5.0)) as store:
        greylist = Greylist(store, GreyTerms(auto_allow_after=after), key_secret=secret)
        for client, sender, recipient, passes in MAILS:
            greylist.touch(client, sender, recipient, 0)
            if passes:
                greylist.touch(client, sender, recipient, 0)


def peek(url, client, sender, recipient, secret=""):
    """What the next mail would meet."""
    with contextlib.closing(Store.open(url, 5.0)) as store:
        greylist = Greylist(store, GreyTerms(), key_secret=secret)
        return greylist.peek(client, sender, recipient, 300).state


def listed(config, *words):
    """The entries that `list --json` prints with these options."""
    done = run("greylist", "list", "-c", config, "--json", *words)
    assert (done.status, done.error) == (0, "")
    return [json.loads(line) for line in done.lines]


@pytest.mark.parametrize(
    ("words", "triplets", "networks"),
    [
        ([], 5, 2),
        (["--client", "192.0.2.77"], 3, 1),
        (["--client", "192.0.2.0/24"], 3, 1),
        (["--client", "192.0.0.0/16"], 3, 1),
        (["--client", "0.0.0.0/0"], 4, 1),
        (["--client", "::ffff:192.0.2.1"], 3, 1),
        (["--client", "64:ff9b::192.0.2.1"], 3, 1),
        (["--client", "64:ff9b::192.0.2.0/120"], 3, 1),
        (["--client", "2002:c000:201::25"], 3, 1),
        (["--client", "64:ff9b::127.0.0.1"], 0, 0),
        (["--client", "2001:db8::/32"], 1, 1),
        (["--client", "192.0.*"], 3, 1),
        (["--from", "A@EXAMPLE.org"], 1, 0),
        (["--from", ""], 1, 0),
        (["--from", "list-return-9999-z=example.com@lists.example"], 1, 0),
        (["--from", "*@example.org"], 3, 0),
        (["--from", "?@example.org", "--to", "b@example.net"], 2, 0),
        (["--to", "postmaster@example.net"], 1, 0),
        (["--client", "192.0.2.1", "--from", "a@example.org", "--to", "b@example.net"], 1, 0),
        (["--state", "waiting"], 3, 0),
        (["--state", "passed"], 2, 0),
        (["--state", "counting"], 0, 2),
        (["--state", "allowed"], 0, 0),
        (["*example.org"], 3, 0),
        (["2001:*"], 1, 1),
        (["nothing"], 0, 0),
        (["192.0.2.7"], 3, 1),
        (["192.0.2.0/24"], 3, 1),
        (["192.0.2"], 3, 1),
        (["192.0.2."], 3, 1),
        (["192.0"], 3, 1),
        (["192."], 3, 1),
        (["192"], 0, 0),
        (["192.0.200"], 0, 0),
        (["2001:db8"], 1, 1),
        (["2001:DB8:"], 1, 1),
        (["64:ff9b::192.0.2.1"], 3, 1),
        (["--client", "192.0.2"], 3, 1),
        (["192.0.2", "--from", "a@example.org"], 1, 0),
        (["192.0.2.7", "--state", "waiting"], 2, 0),
    ],
)
def test_filters(config, words, triplets, networks):
    """Each filter finds what it says and nothing else, in clear text."""
    found = listed(config, *words)
    assert sum("sender" in one for one in found) == triplets
    assert sum("passed" in one for one in found) == networks


def test_fields(config):
    """An entry has its state, its parts, its age and its expiry."""
    (one,) = listed(config, "--from", "a@example.org")
    assert one.pop("age") in range(20)
    assert LIFETIME - 20 < one.pop("expires") <= LIFETIME
    assert one == {
        "state": "passed",
        "network": "192.0.2.0/24",
        "sender": "a@example.org",
        "recipient": "b@example.net",
    }


def test_order(config, server):
    """By network as numbers, IPv4 first, each before its triplets; then by sender and recipient."""
    with server.client() as client:
        for network in ("9.0.0.0/24", "10.0.0.0/24", "2001:db9::/64", "unix"):
            client.set(f"hg1:{{{network}}}:a@b.example:c@d.example", -1700000000)
    found = [(one["network"], one.get("sender"), one.get("recipient")) for one in listed(config)]
    networks = list(dict.fromkeys(network for network, *_ in found))
    assert networks == [
        *("9.0.0.0/24", "10.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24"),
        *("2001:db8::/64", "2001:db9::/64", "unix"),
    ]
    inside = [rest for network, *rest in found if network == "192.0.2.0/24"]
    assert inside[0] == [None, None]
    assert inside[1:] == sorted(inside[1:])
    assert [(one["network"], one.get("sender")) for one in listed(config, "--limit", "3")] == [
        (network, sender) for network, sender, _ in found[:3]
    ]


def test_text_is_plain_and_one_line_an_entry(config):
    """Piped, an entry is one line without colours, whatever its sender wrote."""
    done = run("greylist", "list", "-c", config)
    assert (done.status, done.error, len(done.lines)) == (0, "", 8)
    assert done.lines[0].split() == ["STATE", "NETWORK", "AGE", "EXPIRES", "SENDER", "RECIPIENT"]
    assert "\x1b" not in done.output
    at = {word: done.lines[0].index(word) for word in ("NETWORK", "SENDER", "RECIPIENT")}
    triplets = [line for line in done.lines if "b@example.net" in line and "a@example.org" in line]
    assert triplets
    for line in triplets:
        assert line.index("192.0.2.0/24") == at["NETWORK"]
        assert line.index("a@example.org") == at["SENDER"]
        assert line.index("b@example.net") == at["RECIPIENT"]


def test_terminal(config):
    """On a terminal states have colours, unless NO_COLOR is set, and a last line counts."""
    assert "\x1b[32mpassed" in in_terminal("greylist", "list", "-c", config).output
    done = in_terminal("greylist", "list", "-c", config, environment={"NO_COLOR": "1"})
    assert "\x1b[3" not in done.output
    assert done.lines[-1] == "7 entries"


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["192.0.2.200"], 4),
        (["192.0.2"], 4),
        (["192.0.2.1", "--from", "a@example.org", "--to", "b@example.net"], 1),
    ],
)
def test_show(config, words, count):
    """`show` prints a network and its triplets, or one triplet."""
    assert len(run("greylist", "show", "-c", config, *words).lines) == count + 1


def test_show_nothing(config):
    """Where nothing is known, `show` says so in one line and ends with 1."""
    done = run("greylist", "show", "-c", config, "203.0.113.1")
    assert (done.status, done.output) == (1, "")
    assert done.error == "hybridgrey: nothing is known of 203.0.113.1\n"


def test_old_name(config):
    """`greylist allow` of version 0.1 does the same, and says its new name on stderr; no help shows it."""
    words = ["203.0.113.0/24", "--for", "7d", "--json"]
    old = run("greylist", "allow", "-c", config, *words)
    assert (old.status, old.output) == (0, run("greylist", "pass", "-c", config, *words).output)
    assert old.error == "note: `greylist allow` is called `greylist pass` now\n"
    assert "allow " not in run("greylist", "--help").output.partition("Commands:")[2]


def test_allow_network(config, server):
    """An allowed network is let in without delay, and `list` shows it."""
    done = run("greylist", "pass", "-c", config, "203.0.113.0/24", "--for", "7d")
    assert (done.status, done.error) == (0, "")
    first, second = done.lines
    assert first == "no delay for 203.0.113.0/24, for 1w"
    assert second == "note: a rule or list that rejects it still does; hybridgrey explain tells"
    assert peek(server.unix_url, "203.0.113.5", "x@example.org", "y@example.net") == "network"
    (one,) = listed(config, "--state", "allowed")
    assert (one["network"], one["passed"]) == ("203.0.113.0/24", 5)
    assert 604800 - 20 < one["expires"] <= 604800
    assert run("greylist", "show", "-c", config, "203.0.113.5").lines[-1].endswith("5 passed, or by hand")


def test_allow_several_networks(config, server):
    """A wide network becomes several of the greylist's, after a question."""
    refused = run("greylist", "pass", "-c", config, "203.0.112.0/23")
    assert (refused.status, refused.output) == (1, "")
    assert "give --yes" in refused.error
    assert run("greylist", "pass", "-c", config, "203.0.112.0/23", "--yes").status == 0
    for client in ("203.0.112.9", "203.0.113.9"):
        assert peek(server.unix_url, client, "x@example.org", "y@example.net") == "network"


def test_allow_triplet(config, server):
    """An allowed triplet is as one that has passed; its neighbours are not."""
    who = ["192.0.2.1", "--from", "new@example.org", "--to", "b@example.net"]
    assert run("greylist", "pass", "-c", config, *who).status == 0
    assert peek(server.unix_url, "192.0.2.1", "new@example.org", "b@example.net") == "known"
    assert peek(server.unix_url, "192.0.2.1", "new@example.org", "c@example.net") == "new"


def test_changes_as_json(config):
    """With --json a change is one object."""
    done = run("greylist", "pass", "-c", config, "203.0.113.9", "--for", "1h", "--json")
    assert json.loads(done.output) == {
        "client": "203.0.113.9",
        "networks": ["203.0.113.0/24"],
        "expires": 3600,
    }
    done = run("greylist", "forget", "-c", config, "--client", "203.0.113.9", "--json")
    assert json.loads(done.output) == {"forgotten": 1}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["pass", "nonsense"], "is no address or network"),
        (["pass", "10.0.0.0/4"], "is too wide"),
        (["pass", "192.0.2.1", "--from", "a@b.example"], "belong together"),
        (["pass", "192.0.2.1", "--for", "5x"], "'--for': '5x' is no duration"),
        (["pass", "192.0.2.1", "--for", "500ms"], "'--for': '500ms' is less than a second"),
        (["list", "--client", "nonsense"], "--client: 'nonsense' is no address, network or pattern"),
        (["show", "nonsense"], "CLIENT: 'nonsense' is no address, network or pattern"),
        (["list", "192.0.2.1", "--client", "192.0.2.2"], "PATTERN: '192.0.2.1' is a client"),
        (["forget"], "--all"),
        (["forget", "--all", "--client", "192.0.2.1"], "no other condition"),
    ],
)
def test_wrong_usage(config, words, text):
    """Wrong usage ends with 2 and says what is wrong; nothing is changed."""
    before = len(listed(config))
    done = run("greylist", words[0], "-c", config, *words[1:])
    assert (done.status, done.output) == (2, "")
    assert text in done.error
    assert len(listed(config)) == before


def test_allow_where_networks_are_off(write, server):
    """With auto_allow_after = 0 allowing a network is refused, for it would do nothing."""
    done = run(
        "greylist", "pass", "-c", write(server.unix_url, greylist={"auto_allow_after": 0}), "192.0.2.1"
    )
    assert (done.status, done.output) == (1, "")
    assert "auto_allow_after = 0" in done.error


@pytest.mark.parametrize(
    ("words", "left", "forgotten"),
    [
        (["--from", "a@example.org"], 6, "1 entry"),
        (["--client", "192.0.2.1", "--yes"], 3, "4 entries"),
        (["192.0.2.99", "--yes"], 3, "4 entries"),
        (["192.0.2", "--state", "waiting", "--yes"], 5, "2 entries"),
        (["--all", "--yes"], 0, "7 entries"),
    ],
)
def test_forget(config, words, left, forgotten):
    """`forget` removes what `list` shows with the same options."""
    done = run("greylist", "forget", "-c", config, *words)
    assert (done.status, done.output) == (0, f"forgot {forgotten}\n")
    assert len(listed(config)) == left


# Options, the kinds of notes that are left: of the credit, of waiting triplets; and how many entries go
NOTES = [
    (["--client", "192.0.2.1"], "", 4),
    (["--client", "192.0.0.0/16"], "", 4),
    (["192.0.2.*"], "", 4),
    (["192.0.2.1"], "", 4),
    (["192.0.2"], "", 4),
    (["--client", "192.0.2.1", "--state", "counting"], "@", 1),
    (["--client", "192.0.2.1", "--state", "waiting"], "+", 2),
    (["--client", "192.0.2.1", "--from", "a@example.org"], "+@", 1),
    (["--from", "*@example.org"], "+@", 3),
    (["--client", "198.51.100.7"], "+@", 0),
    (["--all"], "", 4),
]


@pytest.mark.parametrize("secret", ["", "s3cret"])
@pytest.mark.parametrize(("words", "left", "forgotten"), NOTES)
def test_notes_are_forgotten_with_what_they_are_about(server, write, words, left, forgotten, secret):
    """What keeps a network's bounds is never listed, and goes with the network, its count or what waits."""
    if secret and any("*" in word or "/" in word for word in words):
        return  # not to be found among HMACs
    config = write(server.unix_url, store={"key_secret": secret})
    with server.client() as client, contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
        client.flushall()
        terms = GreyTerms(auto_allow_interval=3600, max_waiting=10)
        greylist = Greylist(store, terms, key_secret=secret)
        for address, sender, recipient, passes in MAILS:
            if address.startswith("192.0.2."):
                greylist.touch(address, sender, recipient, 0)
                if passes:
                    greylist.touch(address, sender, recipient, 0)
        assert len(listed(config)) == 4
        done = run("greylist", "forget", "-c", config, "--yes", "--json", *words)
        assert json.loads(done.output) == {"forgotten": forgotten}
        notes = {note.value for key in client.scan_iter() if (found := parse_note(key)) for note in found[1:]}
        assert notes == set(left)


def test_forget_asks(config):
    """Before several are forgotten it asks: no, and a missing terminal, leave all as it is."""
    done = run("greylist", "forget", "-c", config, "--all", text="y\n")
    assert (done.status, len(listed(config))) == (1, 7)
    assert done.error == "hybridgrey: forget 7 entries: give --yes, for there is no terminal to ask on\n"
    assert in_terminal("greylist", "forget", "-c", config, "--all", answer="n\n").status == 1
    assert len(listed(config)) == 7
    done = in_terminal("greylist", "forget", "-c", config, "--all", answer="y\n")
    assert (done.status, done.plain.splitlines()[-1]) == (0, "forgot 7 entries")
    assert listed(config) == []


def test_forget_nothing(config):
    """Nothing to forget is a negative result."""
    assert run("greylist", "forget", "-c", config, "--client", "203.0.113.1").status == 1


def test_hidden_entries(server, write):
    """With a key secret exact values find entries, patterns are refused, and no name is shown."""
    with server.client() as client:
        client.flushall()
    fill(server.unix_url, secret="s3cret")
    config = write(server.unix_url, store={"key_secret": "s3cret"})
    everything = listed(config)
    assert len(everything) == 7
    assert all(one["hidden"] for one in everything)
    assert "example" not in json.dumps(everything)
    assert len(listed(config, "--from", "a@example.org")) == 1
    assert len(listed(config, "--client", "192.0.2.50")) == 4
    for words in (["*example*"], ["--client", "192.0.0.0/8"], ["--from", "*@example.org"]):
        done = run("greylist", "list", "-c", config, *words)
        assert (done.status, "HMAC" in done.error) == (2, True)
    assert run("greylist", "pass", "-c", config, "203.0.113.1").status == 0
    assert peek(server.unix_url, "203.0.113.9", "x@a.example", "y@example.net", "s3cret") == "network"
    assert run("greylist", "forget", "-c", config, "--from", "a@example.org").status == 0
    assert len(listed(config)) == 7


def test_store_down(write):
    """A store that is down is one line that names it, without its password; the status is 69."""
    done = run("greylist", "list", "-c", write(f"redis://:hunter2@{LOOPBACK}:{free_port()}/0"))
    assert (done.status, done.output, len(done.error.splitlines())) == (69, "", 1)
    assert done.error.startswith(f"hybridgrey: store redis://:********@{LOOPBACK}:")
    assert "hunter2" not in done.error


def test_embedded_store(write, tmp_path):
    """The embedded store is reached through its socket; when it does not run, a line says what to do."""
    state = tmp_path / "state"
    config = write(f"embedded:{state}")
    done = run("greylist", "list", "-c", config)
    assert (done.status, len(done.error.splitlines())) == (69, 1)
    assert f"{state}/store.sock: No such file or directory; it runs with the daemon" in done.error
    server = EmbeddedServer(state)
    server.start()
    try:
        fill(server.url)
        assert len(listed(config)) == 7
    finally:
        server.stop()


def test_tls_and_password(write):
    """rediss:// with a user and password is looked through."""
    with Redis(tls=True, user="grey", password="hunter2") as part:
        url = f"{part.tls_url}?ssl_ca_certs={part.ca}"
        fill(url)
        config = write(url)
        assert len(listed(config)) == 7
        assert run("greylist", "forget", "-c", config, "--all", "--yes").output == "forgot 7 entries\n"


def test_cluster(write):
    """All primaries of a cluster are looked through and changed."""

    class Node(Redis):
        def command(self):
            return [*super().command(), "--cluster-enabled", "yes", "--cluster-announce-ip", LOOPBACK]

    with Node() as one, Node() as two:
        for node, slots in ((one, range(8192)), (two, range(8192, 16384))):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", 1 + (node is two))
        with one.client() as client:
            client.execute_command("CLUSTER", "MEET", LOOPBACK, two.port)
        wait_until(lambda: all(_is_up(node) for node in (one, two)), "the cluster is up", 40)
        url = f"cluster://{LOOPBACK}:{one.port}"
        fill(url)
        config = write(url)
        assert len(listed(config)) == 7
        assert all(node.keys() for node in (one, two)), "each has some"
        assert run("greylist", "pass", "-c", config, "203.0.112.0/23", "--yes").status == 0
        assert len(listed(config, "--state", "allowed")) == 2
        assert run("greylist", "forget", "-c", config, "--all", "--yes").output == "forgot 9 entries\n"
        assert listed(config) == []


def _is_up(node):
    with node.client() as client:
        nodes = client.execute_command("CLUSTER INFO")
    return "cluster_state:ok" in str(nodes) or "'cluster_state': 'ok'" in str(nodes)


def test_sentinel(write):
    """The primary that sentinels name is looked through."""

    class Sentinel(Redis):
        def command(self):
            (self.directory / "sentinel.conf").write_text(
                f"port {self.port}\nbind {LOOPBACK}\nunixsocket {self.socket}\ndir {self.directory}\n"
                f"sentinel monitor main {LOOPBACK} {self.watched} 1\n"
            )
            return [super().command()[0], self.directory / "sentinel.conf", "--sentinel"]

    with Redis() as primary:
        sentinel = Sentinel()
        sentinel.watched = primary.port
        with sentinel:
            url = f"sentinel://{LOOPBACK}:{sentinel.port}/main/0"
            fill(url)
            assert len(listed(write(url))) == 7


def test_ctrl_c(write):
    """Ctrl-C ends a command that waits, without a traceback; the status is 1."""
    with Redis() as part:
        path = write(part.unix_url, store={"timeout": "30s"})
        part.freeze()
        try:
            process = subprocess.Popen(
                [PROGRAM, "greylist", "list", "-c", path],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            wait_until(lambda: _waits_for_a_socket(process.pid), "it waits for the store")
            process.send_signal(signal.SIGINT)
            output, error = process.communicate(timeout=30)
        finally:
            part.thaw()
    assert (process.returncode, output, error) == (1, "", "\nAborted!\n")


def _waits_for_a_socket(pid):
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.append(str(link.readlink()))
    asleep = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "S"
    return asleep and any(link.startswith("socket:") for link in links)


def test_many_entries_in_little_memory(server, write):
    """200,000 entries are listed, filtered and forgotten in order, in hardly more memory than one takes."""
    with server.client() as client:
        client.flushall()
        for start in range(0, 200_000, 20_000):
            client.eval(
                """for i = ARGV[1], ARGV[1] + 19999 do
                     local net = string.format('10.%d.%d.0/24', math.floor(i / 256) % 256, i % 256)
                     local key = 'hg1:{' .. net .. '}:sender' .. i .. '@example.org:b@example.net'
                     redis.call('SET', key, -1700000000, 'EX', 3600)
                   end""",
                0,
                start,
            )
    config = write(server.unix_url)
    few = run("greylist", "list", "-c", config, "--limit", "1")
    done = run("greylist", "list", "-c", config, "--json")
    assert (done.status, len(done.lines)) == (0, 200_000)
    places = [tuple(map(int, json.loads(line)["network"].split("/")[0].split("."))) for line in done.lines]
    assert places == sorted(places)
    assert done.memory < 100 * 2**20
    assert done.memory < few.memory + 10 * 2**20
    assert len(listed(config, "--client", "10.1.0.0/16", "--from", "sender3*")) == len(
        [i for i in range(200_000) if i // 256 % 256 == 1 and str(i).startswith("3")]
    )
    # A reader that wants the first line only ends the command without a word.
    command = f"{PROGRAM} greylist list -c {config} | head -1"
    first = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (first.stdout.count("\n"), first.stderr) == (1, "")
    done = run("greylist", "forget", "-c", config, "--all", "--yes")
    assert (done.output, done.memory < few.memory + 10 * 2**20) == ("forgot 200,000 entries\n", True)
    with server.client() as client:
        assert list(itertools.islice(client.scan_iter(), 1)) == []
