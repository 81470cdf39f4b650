"""milter_default_action: what mail gets while the daemon is away, as a whole, by service and by filter."""

from __future__ import annotations

import pytest

from mta.talk import opened, plain, rcpt
from parts.base import free_port, wait_until
from parts.daemon import Daemon
from parts.postfix import Postfix, own_spelling

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

SENDER = "a@y.example"
GREY = "450 4.2.0 Greylisted, please try again in"
ACTIONS = [("accept", "250 "), ("tempfail", "451 4.7.1 "), ("reject", "554 "), ("quarantine", "250 ")]


@pytest.mark.parametrize(("action", "wanted"), ACTIONS)
def test_a_daemon_that_never_ran(action, wanted):
    """Mail passes, is deferred, refused or held, as the action says, and at once."""
    spec = f"inet:127.0.0.1:{free_port()}"
    with Postfix(spec, {"milter_default_action": action}) as mta, mta.connect() as client:
        answer = client.greeting
        if answer.code == 220:
            client.ehlo()
            answer = client.transaction(SENDER, ["b@x.example"])[-1]
        assert str(answer).startswith(wanted)
        held = list((mta.queue / "hold").iterdir())
        assert bool(held) == (action == "quarantine")
        if action == "accept":
            assert mta.sink.wait("b@x.example")
        told = f"connect to Milter service {spec}: Connection refused"
        wait_until(lambda: told in mta.log_text(), told)


def settings(redis):
    rules = [{"name": "the rest", "action": "greylist"}]
    return {"store": {"url": redis.unix_url}, "drain_timeout": "1s", "rule": rules}


@pytest.mark.parametrize(("action", "wanted"), ACTIONS[:2])
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_daemon_that_ends_and_comes_back(redis, action, wanted, how):
    """A session that is open when the daemon ends, the next one, and one when it runs again."""
    own = {"milter_default_action": action}
    with Daemon(settings(redis)) as daemon, Postfix(daemon.spec, own) as mta:
        with opened(mta, "192.0.2.1") as client:
            client.mail(SENDER)
            assert plain(client.rcpt(f"open-{action}-{how}@x.example")).startswith(GREY)
            # Stopped, it waits for this session until drain_timeout.
            getattr(daemon, how)()
            wait_until(lambda: plain(client.rcpt("b@x.example")).startswith(wanted), "the default action")
        assert rcpt(mta, "192.0.2.1", SENDER, "next@x.example").startswith(wanted)
        daemon.start()
        assert rcpt(mta, "192.0.2.1", SENDER, f"back-{action}-{how}@x.example").startswith(GREY)


def test_a_service_may_have_an_action_of_its_own():
    """-o milter_default_action at one port; the others keep main.cf's."""
    careful = free_port()
    lines = [f"127.0.0.1:{careful} inet n - n - - smtpd", "  -o milter_default_action=tempfail"]
    with Postfix("unix:/nowhere/milter.sock", services=lines) as mta:
        assert rcpt(mta, "192.0.2.1", SENDER, "b@x.example")[:3] == "250"
        assert rcpt(mta, "192.0.2.1", SENDER, "b@x.example", port=careful).startswith("451 4.7.1")


def test_a_filter_may_have_an_action_of_its_own(redis):
    """smtpd_milters = { ours, default_action=… }, {another, …} (Postfix 3.0): each its own."""
    gone = "{ unix:/nowhere/other.sock, default_action=accept }"
    with Daemon(settings(redis), unix=True) as daemon:
        ours = f"{{ {own_spelling(daemon.spec)}, default_action=tempfail, connect_timeout=5s }}"
        with Postfix(settings={"smtpd_milters": f"{gone}, {ours}"}) as mta:
            assert rcpt(mta, "192.0.2.1", SENDER, "each@x.example").startswith(GREY)
            daemon.stop()
            assert rcpt(mta, "192.0.2.1", SENDER, "each@x.example").startswith("451 4.7.1")
