"""``hybridgrey status`` as a process, on running daemons."""

import json
import signal
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from hybridgrey.cli import liveness
from hybridgrey.content.scanner import LIMIT
from hybridgrey.metrics.series import SCANNER_DOWN
from parts.base import LOOPBACK, free_port, wait_until
from parts.commandline import in_terminal, run
from parts.daemon import Daemon, toml
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis
from parts.spamd import ScriptedSpamd

RULES = [
    {"name": "blocked", "dns": ["bl.test"], "action": "reject"},
    {"name": "rest", "action": "greylist"},
]


@pytest.fixture(scope="module")
def daemons():
    """Two daemons with one store, which have judged five recipients together; their metrics' URLs."""
    with Redis() as server, FakeDns() as dns:
        dns.zone("bl.test", listed={"192.0.2.1": "127.0.0.2"})
        ports = [free_port(), free_port()]
        settings = [
            {
                "store": {"url": server.unix_url},
                "dns": {"nameservers": [dns.address]},
                "metrics": {"listen": f"{LOOPBACK}:{port}"},
                "rule": RULES,
            }
            for port in ports
        ]
        with Daemon(settings[0]) as one, Daemon(settings[1]) as two:
            for daemon, clients in (
                (one, ["192.0.2.1", "192.0.2.2"]),
                (two, ["192.0.2.1", "192.0.2.1", "::2"]),
            ):
                for client in clients:
                    talk(daemon, client)
            urls = [f"http://{LOOPBACK}:{port}" for port in ports]
            for url, count in zip(urls, (2, 3), strict=True):
                wait_until(lambda url=url, count=count: judged(url) == count, "all is counted")
            yield one, two, urls


def talk(daemon, client):
    """Name one recipient."""
    with MilterPeer(daemon.address) as peer:
        peer.connect("unknown", client)
        peer.mail("<a@example.org>")
        peer.rcpt("<b@example.net>")
        peer.quit()


def judged(url):
    done = run("status", "--json", "--url", url)
    counts = json.loads(done.output)["verdicts"] if done.output else []
    return done.status == 0 and sum(one["count"] for one in counts)


def counts(report):
    return {(one["rule"], one["action"]): one["count"] for one in report["verdicts"]}


def test_own_host(daemons):
    """Without --url the configuration says where this host's daemon is."""
    daemon, _, (url, _) = daemons
    done = run("status", "-c", daemon.config, "--json")
    assert (done.status, done.error) == (0, "")
    report = json.loads(done.output)
    assert counts(report) == {("blocked", "reject"): 1, ("rest", "greylist"): 1}
    (host,) = report["hosts"]
    assert (host["url"], host["state"], host["workers"], host["sessions"]) == (url, "ok", 2, 2)
    (one,) = report["lists"]
    assert (one["list"], one["listed"], one["unlisted"], one["suspended"]) == ("bl.test", 1, 1, False)
    assert report["greylist"]["new"] == 1
    assert (report["store"]["calls"], report["store"]["failures"]) == (1, 0)
    assert report["store"]["seconds"] > 0


def test_several_hosts_add_up(daemons):
    """With several --url the counts of all hosts are one."""
    *_, urls = daemons
    done = run("status", "--json", *(word for url in urls for word in ("--url", url)))
    report = json.loads(done.output)
    assert counts(report) == {("blocked", "reject"): 3, ("rest", "greylist"): 2}
    assert [host["url"] for host in report["hosts"]] == urls


def test_one_host_down(daemons):
    """A host that cannot be asked is named, the others are shown; the status is 1."""
    *_, urls = daemons
    gone = f"http://{LOOPBACK}:{free_port()}"
    done = run("status", "--url", urls[0], "--url", gone)
    assert done.status == 1
    assert f"down: {gone}: Connection refused" in done.lines
    assert any(line.split() == ["blocked", "reject", "1", "-"] for line in done.lines)


class Stranger(BaseHTTPRequestHandler):
    """Metrics, but of nobody that we know."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"other_total 1\n")

    def log_message(self, *_arguments):
        """Say nothing."""


class Bait(BaseHTTPRequestHandler):
    """Wants a password, and leads on whoever has it; what was said to it is kept."""

    def do_GET(self):
        self.server.said.append((self.path, self.headers.get("Authorization")))
        status, name, value = self.server.answers[min(len(self.server.said), len(self.server.answers)) - 1]
        self.send_response(status)
        self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments):
        """Say nothing."""


@contextmanager
def bait(*answers):
    server = HTTPServer((LOOPBACK, 0), Bait)
    server.answers, server.said = answers, []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server, f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


ASKS = (401, "WWW-Authenticate", "Basic")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("first", [(), (ASKS,)], ids=["at once", "after the password"])
def test_a_redirect_takes_no_password_along(code, first):
    """Wherever a redirect leads, even back to the same host, nobody is asked there."""
    with bait(ASKS) as (thief, there):
        for place in (f"{there}/metrics", "/metrics", "//x.test/", "file:///etc/passwd", "\x1b[31m"):
            with bait(*first, (code, "Location", place)) as (server, url):
                error = liveness.ask(url, "geheim").error
                assert error.startswith("redirects elsewhere, which is not followed: ")
                assert error.isprintable()
                assert len(server.said) == 1 + len(first)
        assert thief.said == []


def test_a_url_with_a_password_is_not_shown():
    """What an admin puts into a URL by mistake is neither sent nor said again."""
    done = run("status", "--url", "http://me:geheim@127.0.0.1:1")
    assert done.status == 69
    assert "must not have a user or a password" in done.output + done.error
    assert "geheim" not in done.output + done.error


def test_port_that_changes_hands(monkeypatch):
    """After a reload nobody has the port for a moment: who is refused asks once more, and only once."""
    port = free_port()
    served = []

    def sleep(_seconds):
        """What happens while it waits: somebody takes the port."""
        server = HTTPServer((LOOPBACK, port), Stranger)
        served.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    monkeypatch.setattr(liveness.time, "sleep", sleep)
    try:
        assert liveness.ask(f"http://{LOOPBACK}:{port}").error == "no hybridgrey there"
    finally:
        for server in served:
            server.shutdown()
            server.server_close()
    slept = []
    monkeypatch.setattr(liveness.time, "sleep", slept.append)
    assert liveness.ask(f"http://{LOOPBACK}:{free_port()}").error == "Connection refused"
    assert slept == [liveness.HANDOVER]


def test_text_and_terminal(daemons):
    """Piped it is plain text; on a terminal tables are drawn, with colours."""
    daemon, *_ = daemons
    done = run("status", "-c", daemon.config)
    assert (done.status, done.error, "\x1b" in done.output) == (0, "", False)
    assert any(line.split()[:4] == ["bl.test", "1", "1", "0"] for line in done.lines if line)
    seen = in_terminal("status", "-c", daemon.config)
    assert seen.status == 0
    assert "\x1b[32mok" in seen.output
    assert "──" in seen.output


def test_failed_reload_is_noted():
    """After a failed reload it is noted, with status 0, for mail is well; after a good one no more."""
    settings = {
        "metrics": {"listen": f"{LOOPBACK}:{free_port()}"},
        "store": {"url": "redis://127.0.0.1:1"},
        "rule": [{"action": "accept"}],
    }
    url = f"http://{settings['metrics']['listen']}"

    def failed() -> bool:
        return any(line.startswith("note:") for line in run("status", "--url", url).lines)

    with Daemon(settings) as daemon:
        assert not failed()
        daemon.config.write_text(toml({**daemon.settings, "colour": "red"}))
        daemon.send_signal(signal.SIGHUP)
        wait_until(failed, "the failed reload is noted")
        (host,) = json.loads(run("status", "--json", "--url", url).output)["hosts"]
        assert host["reload_ok"] is False
        assert host["loaded"] == pytest.approx(host["started"], abs=30)
        assert not any("reload" in problem for problem in host["problems"])
        daemon.config.write_text(toml(daemon.settings))
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: not failed(), "the good reload is noted")


def test_store_down_at_the_start_is_logged():
    """It is told before any mail needs the store, and the end of it too."""
    server = Redis()
    url = f"redis://{LOOPBACK}:{server.port}"
    with Daemon({"store": {"url": url}, "rule": [{"action": "greylist"}]}) as daemon:
        wait_until(lambda: daemon.events("store failing"), "the store is told to fail")
        with server:
            wait_until(lambda: daemon.events("store recovered"), "the store is told to serve")


def test_store_and_its_keys():
    """It is said whether the store is reachable, and how many keys it has, also before any mail."""
    server = Redis()
    settings = {
        "store": {"url": f"redis://{LOOPBACK}:{server.port}"},
        "metrics": {"listen": f"{LOOPBACK}:{free_port()}", "history": False},
        "rule": [{"action": "greylist"}],
    }

    def store(daemon):
        return json.loads(run("status", "--json", "-c", daemon.config).output)["store"]

    with Daemon(settings) as daemon:
        wait_until(lambda: store(daemon)["reachable"] is not None, "the first look at the store")
        assert (store(daemon)["reachable"], store(daemon)["keys"]) == (False, None)
        assert "down" in run("status", "-c", daemon.config).lines
    with server, server.client() as client:
        for number in range(7):
            client.set(f"other:{number}", 1)
        with Daemon(settings) as daemon:
            wait_until(lambda: store(daemon)["reachable"], "the first look at the store")
            assert store(daemon)["keys"] == 7 + 1  # and what was written to see whether it serves
            done = run("status", "-c", daemon.config)
            assert any(line.startswith("reachable, 8 keys (entries, ") for line in done.lines), done.output


def test_a_resolver_that_knows_no_list():
    """A list that answers, but does not have its test address, is not shown as well."""
    with Redis() as server, FakeDns() as dns:
        dns.zone("bl.test", test_points=False)
        settings = {
            "store": {"url": server.unix_url},
            "dns": {"nameservers": [dns.address]},
            "metrics": {"listen": f"{LOOPBACK}:{free_port()}"},
            "rule": RULES,
        }
        with Daemon(settings) as daemon:
            done = run("status", "-c", daemon.config)
            (one,) = json.loads(run("status", "-c", daemon.config, "--json").output)["lists"]
    assert any("votes, test point wrong" in line for line in done.lines), done.output
    assert (one["health"], one["suspended"]) == ("warning", False)


def scored(daemon, count):
    """Messages of new senders, whose score is wanted."""
    for number in range(count):
        with MilterPeer(daemon.address) as peer:
            peer.connect("unknown", "192.0.2.1")
            peer.helo()
            peer.mail(f"<{number}@example.org>")
            peer.rcpt("<b@example.net>")
            peer.content({"Subject": "x"})
            peer.quit()


def test_the_content_scanner():
    """It is said whether it works; once it is left alone for its failures, as a warning, with status 0."""
    with Redis() as server, ScriptedSpamd(1.5) as spamd:
        settings = {
            "workers": 1,
            "store": {"url": server.unix_url},
            "content": {"scanner": spamd.spec},
            "metrics": {"listen": f"{LOOPBACK}:{free_port()}"},
            "rule": [{"name": "spam", "score": ">=4", "action": "greylist"}],
        }
        url = f"http://{settings['metrics']['listen']}"

        def scanner():
            return json.loads(run("status", "--json", "--url", url).output)["scanner"]

        def told(start):
            return next((line for line in run("status", "--url", url).lines if line.startswith(start)), "")

        with Daemon(settings) as daemon:
            assert (scanner()["works"], scanner()["scores"]) == (None, 0)
            assert told("not asked yet, 0 scores, 0 messages without a score")
            scored(daemon, 2)
            found = scanner()
            assert (found["works"], found["scores"], found["failures"], found["left_alone"]) == (
                True,
                2,
                0,
                0,
            )
            assert told("works, 2 scores, mean ")
            spamd.answer = b"nonsense"
            scored(daemon, LIMIT)
            found = scanner()
            assert (found["works"], found["failures"], found["left_alone"], found["workers"]) == (
                False,
                3,
                1,
                1,
            )
            assert found["failing_since"] == pytest.approx(time.time(), abs=60)
            done = run("status", "--url", url)
            assert done.status == 0
            assert done.lines[0] == f"warning: {url}: {SCANNER_DOWN}"
            assert "left alone between tries by 1 of 1 worker" in told(
                "warning: does not work, failing since "
            )
            settings["rule"] = [{"name": "rest", "action": "greylist"}]
            daemon.configure(settings)
            daemon.reload()
            wait_until(lambda: scanner() is None, "the new keeper")
            assert SCANNER_DOWN not in run("status", "--url", url).output


def test_password():
    """The password is told to a daemon that wants it; without it, or with another, one line says so."""
    url = f"{LOOPBACK}:{free_port()}"
    settings = {
        "metrics": {"listen": url, "password": "geheimes Wort"},
        "store": {"url": "redis://127.0.0.1:1"},
        "rule": [{"action": "accept"}],
    }
    with Daemon(settings) as daemon:
        wait_until(lambda: run("status", "-c", daemon.config, "--json").output, "the daemon answers")
        for words in ([], ["--url", f"http://{url}"]):
            done = run("status", "-c", daemon.config, "--json", *words)
            assert json.loads(done.output)["hosts"][0]["version"]
        for password, text in (("", "password is not set here"), ("anderes", "is not the right one there")):
            daemon.config.write_text(toml({**settings, "metrics": {"listen": url, "password": password}}))
            done = run("status", "-c", daemon.config)
            assert (done.status, len(done.error.splitlines())) == (69, 1)
            assert text in done.error
            assert "geheim" not in done.output + done.error
        assert "geheim" not in daemon.log_text()


@pytest.mark.parametrize(
    ("listen", "text"), [("", '[metrics] listen is ""'), (None, "Connection refused; is the daemon running?")]
)
def test_nobody_to_ask(tmp_path, listen, text):
    """With metrics off, or no daemon, one line says what to do; the status is 69."""
    path = tmp_path / "hg.toml"
    path.write_text(toml({"metrics": {"listen": f"{LOOPBACK}:{free_port()}" if listen is None else listen}}))
    done = run("status", "-c", path)
    assert (done.status, done.output, len(done.error.splitlines())) == (69, "", 1)
    assert text in done.error


def test_another_server(daemons):
    """What is no hybridgrey is not taken for one."""
    with FakeDns() as other:
        done = run("status", "--url", f"http://{other.address}")
    assert (done.status, len(done.error.splitlines())) == (69, 1)
    assert run("status", "--url", "file:///etc/passwd").status == 69
