"""Each form of the store, end to end: a first attempt waits and its retry passes."""

from __future__ import annotations

import time

import pytest

from mta.talk import rcpt
from parts.daemon import Daemon
from parts.postfix import Postfix
from parts.redisserver import Redis

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]

PASSWORD = "p4ss-w0rd"


@pytest.fixture(scope="module")
def redis(engine):
    with Redis(tls=True, user="mx", password=PASSWORD) as running:
        yield running


@pytest.fixture(params=["redis", "rediss", "unix", "embedded"])
def url(request, redis, tmp_path):
    return {
        "redis": redis.url,
        "rediss": f"{redis.tls_url}?ssl_ca_certs={redis.ca}",
        "unix": redis.unix_url,
        "embedded": f"embedded:{tmp_path}/store",
    }[request.param]


def test_each_form_greylists(url, redis):
    """The URL leads to a store that remembers, and its password is never logged."""
    with redis.client() as client:
        client.flushall()
    settings = {
        "store": {"url": url, "key_secret": "another-s3cret"},
        "greylist": {"delay": "1s"},
        "rule": [{"name": "the rest", "action": "greylist"}],
    }
    with Daemon(settings) as daemon, Postfix(daemon.spec) as mta:
        assert rcpt(mta, "192.0.2.1", "a@y.example", "forms@x.example")[:3] == "450"
        time.sleep(1.1)
        assert rcpt(mta, "192.0.2.1", "a@y.example", "forms@x.example")[:3] == "250"
        assert PASSWORD not in daemon.log_text()
        assert "another-s3cret" not in daemon.log_text()
    if not url.startswith("embedded"):
        keys = redis.keys()
        # With a key_secret the store has HMACs, not addresses.
        assert keys
        assert not any(b"x.example" in key or b"192.0.2" in key for key in keys)
