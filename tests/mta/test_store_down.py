"""The store goes away and comes back: mail goes on as told, one log line each way, and nothing is lost."""

from __future__ import annotations

import time

import pytest

from mta.talk import rcpt
from parts.base import wait_until
from parts.daemon import Daemon
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

DOWN = "451 4.3.0 Temporary failure, please try again later"
CLIENT, SENDER = "192.0.2.1", "a@y.example"


def settings(url, on_failure, timeout="2s"):
    return {
        "workers": 2,
        "store": {"url": url, "on_failure": on_failure, "timeout": timeout},
        "greylist": {"delay": "1s", "auto_allow_after": 0},
        "rule": [{"name": "the rest", "action": "greylist"}],
    }


def trouble(daemon):
    """The log lines about the store, without those of the start."""
    return [one for one in daemon.events() if one["event"] != "verdict" and "store" in str(one)]


@pytest.mark.parametrize(("on_failure", "wanted"), [("accept", "250"), ("tempfail", DOWN)])
@pytest.mark.parametrize("how", ["stop", "kill", "freeze"])
def test_the_store_goes_and_comes_back(on_failure, wanted, how):
    """While it is down an unknown sender gets `on_failure`; after that its old first attempt still counts."""
    with Redis() as redis:
        # Only one that is frozen lets them wait, three times in each worker.
        config = settings(redis.unix_url, on_failure, "500ms" if how == "freeze" else "2s")
        with Daemon(config) as daemon, Postfix(daemon.spec) as mta:
            assert rcpt(mta, CLIENT, SENDER, "before@x.example")[:3] == "450"
            time.sleep(1.1)
            before = len(trouble(daemon))
            getattr(redis, how)()
            for number in range(12):
                assert rcpt(mta, CLIENT, SENDER, f"down{number}@x.example").startswith(wanted)
            if how == "freeze":
                redis.thaw()
            else:
                redis.start()
            # A worker that failed only once or twice learns by its next recipient that the store is back.
            wait_until(
                lambda: rcpt(mta, CLIENT, SENDER, "poke@x.example") and len(trouble(daemon)) - before >= 2,
                "a line for each way",
            )
            assert rcpt(mta, CLIENT, SENDER, "before@x.example")[:3] == "250"
            assert daemon.verdict("before@x.example")["state"] == "passed"
            for number in range(8):  # both workers have their store again
                assert rcpt(mta, CLIENT, SENDER, f"again{number}@x.example")[:3] == "450"
            lines = trouble(daemon)[before:]
            assert [one["level"] for one in lines] == ["warning", "info"], lines


def test_a_store_that_is_down_at_the_start():
    """The daemon starts without its store, and greylists when it comes."""
    with Redis() as redis:
        redis.stop()
        with Daemon(settings(redis.unix_url, "accept")) as daemon, Postfix(daemon.spec) as mta:
            assert rcpt(mta, CLIENT, SENDER, "start@x.example")[:3] == "250"
            redis.start()
            wait_until(lambda: rcpt(mta, CLIENT, SENDER, "start@x.example")[:3] == "450", "greylisting")
