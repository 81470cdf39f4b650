"""Store URLs: their shape, and their secrets."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.config import store_url
from hybridgrey.store.redis_py import backend

GOOD = [
    # written, shown
    ("redis://127.0.0.1", "redis://127.0.0.1"),
    ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
    ("redis://[::1]:6379/2", "redis://[::1]:6379/2"),
    ("redis://:hunter2@mx.example.org/1", "redis://:********@mx.example.org/1"),
    ("redis://user:hunter2@mx.example.org:6380", "redis://user:********@mx.example.org:6380"),
    ("redis://hunter2@mx.example.org", "redis://********@mx.example.org"),
    ("redis://:hunter2%2Fx@mx.example.org", "redis://:********@mx.example.org"),
    ("rediss://user:hunter2@mx.example.org", "rediss://user:********@mx.example.org"),
    ("rediss://mx.example.org/0?ssl_cert_reqs=none", "rediss://mx.example.org/0?ssl_cert_reqs=none"),
    ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ("unix://:hunter2@/run/redis.sock?db=3", "unix://:********@/run/redis.sock?db=3"),
    ("sentinel://a:26379,b:26379/mymaster/0", "sentinel://a:26379,b:26379/mymaster/0"),
    ("sentinel://:hunter2@a,[::1]:26379/mymaster", "sentinel://:********@a,[::1]:26379/mymaster"),
    ("sentinel://a/m?sentinel_password=hunter2", "sentinel://a/m?sentinel_password=********"),
    ("cluster://a:6379,b:6379", "cluster://a:6379,b:6379"),
    ("cluster://u:hunter2@a:6379,b:6379/", "cluster://u:********@a:6379,b:6379/"),
]

BAD = [
    "",
    "hunter2",
    "hunter2@host",
    "reids://:hunter2@host",
    "redis:hunter2@host",
    "redis://",
    "redis://:hunter2@",
    "redis://:hunter2@host:port",
    "redis://host:hunter2",
    "redis://:hunter2@host:70000",
    "redis://:hunter2@host/db",
    "redis://:hunter2/x@host",
    "redis://:hunter2#x@host",
    "redis://:hunter2@x@host",
    "redis://:hunter2?x@host",
    "redis://:hunter2:x@host",
    "redis://:hunter2@[::1",
    "redis://:hunter2@[hunter2]:1",
    "redis://:hunter2@::1",
    "redis://:hunter2 @host",
    "redis://:hunter2@host\n",
    "redis://:hunter2@a..b",
    f"redis://:hunter2@{'x' * 64}.example",
    "cluster://a:6379,hunter2-.example:6379",
    "redis://host?password=hunter2",
    "redis://host?db=hunter2",
    "redis://:hunter2@ho℀st",
    "unix://run/redis.sock",
    "unix:/run/redis.sock",
    "unix:///run/redis.sock?hunter2",
    "sentinel://a:26379,b:26379",
    "sentinel://:hunter2@a:26379,/mymaster",
    "sentinel://a/mymaster/hunter2",
    "cluster://a:6379,b:6379/1",
    "cluster://a:6379,hunter2:x",
    "embedded:",
    "embedded://hunter2",
    "embedded:relative",
]


@pytest.mark.parametrize(("url", "shown"), GOOD)
def test_url_is_shown_without_its_password(url, shown):
    """A well-formed URL passes as it is, and is shown with every password masked."""
    assert store_url.check(url) == url
    assert store_url.mask(url) == shown
    assert "hunter2" not in shown


@pytest.mark.parametrize("url", [url for url, _ in GOOD])
def test_store_takes_what_the_check_takes(url):
    """A URL that passes the config check does not fail later in the store."""
    backend(url, 0.5).close()


@pytest.mark.parametrize("url", BAD)
def test_bad_url_is_never_repeated(url):
    """A bad URL is an error that holds no part of it, since any part may be the password."""
    with pytest.raises(ValueError, match=r".") as error:
        store_url.check(url)
    assert "hunter2" not in str(error.value)


def test_embedded_path_starts_at_the_folder():
    """A relative path of the embedded store starts at the config file's folder."""
    assert store_url.check("embedded:state", Path("/etc/hg")) == "embedded:/etc/hg/state"
    assert store_url.check("embedded:/var/lib/hg", Path("/etc/hg")) == "embedded:/var/lib/hg"


@settings(deadline=None)
@given(
    st.text(max_size=60),
    st.sampled_from(["", "redis://", "unix://", "sentinel://a,", "cluster://", "embedded:"]),
)
def test_any_text_is_read_or_refused(text, start):
    """Whatever stands in the file, the answer is a URL or a ValueError."""
    try:
        store_url.check(start + text)
    except ValueError as e:
        assert str(e)
