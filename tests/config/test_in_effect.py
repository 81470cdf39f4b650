"""The copy of a configuration: complete in itself, and the same in every respect."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.config import in_effect, restart_only
from hybridgrey.config.load import Config
from hybridgrey.config.load import load as load_file
from hybridgrey.config.store_url import embedded
from parts.configfile import load

RICH = """
listen = "unix:run/hg.sock"
socket_mode = "0660"
drain_timeout = "1500ms"
pid_file = "hg.pid"
[store]
url = "redis://user:geheimes@127.0.0.1/3"
key_secret = "0123456789"
[dns]
nameservers = ["[::1]:5353"]
nat64 = ["64:ff9b:1::/48"]
[metrics]
password = "letmein-please"
[zones."0123456789abcdefghijklmnop.zen.dq.spamhaus.net"]
error_codes = ["127.255.255.[0..255]"]
health = "off"
[[rule]]
name = "friends"
clients = ["file:friends", "!192.0.2.1", "!file:foes"]
senders = ["<>", "file:senders"]
helo = ["[192.0.2.1]", ".example.org"]
recipients = ["postmaster", "abuse@example.org", "!file:none"]
action = "accept"
[[rule]]
dns = ["0123456789abcdefghijklmnop.zen.dq.spamhaus.net=127.0.0.[2..11]*2", "bl.test*-1"]
threshold = 2
action = "reject"
text = "5.7.1 no"
[[rule]]
name = "nobody"
clients = ["file:empty", "!192.0.2.1"]
action = "accept"
[[rule]]
action = "greylist"
delay = "90s"
"""
FILES = {
    "friends": "192.0.2.0/24\n192.0 OK\nexample.org OK\n2001:db8:0 permit # us\n! 2001:db8::1\n",
    "foes": "203.0.113.5\n.bad.example\n",
    "senders": "a@example.org\nmüller@bücher.example\nowner-list\n",
    "none": "# nobody\n",
    "empty": "",
}


def rich(folder: Path) -> Config:
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return load(folder, RICH)


def test_copy_is_the_same(tmp_path):
    """It means what it meant, when file and files of entries are long gone."""
    first = rich(tmp_path)
    data = in_effect.dump(first)
    for path in tmp_path.iterdir():
        path.unlink()
    assert in_effect.parse(data) == first
    assert first.rules[2].clients == ()  # of an empty file and an exclusion: nobody, not everybody else


def test_missing_file_stays_missing(tmp_path):
    """The file of allowed clients that was not there then is not taken from what is there now."""
    data = in_effect.dump(load(tmp_path, ""))
    (tmp_path / "allow_clients").write_text("not even valid !!\n")
    manual = next(rule for rule in in_effect.parse(data).rules if rule.name == "manual")
    assert manual.clients == ()


def test_kept_values_are_in_it(tmp_path):
    """What a reload could not change is as it was at the start."""
    old = rich(tmp_path)
    moved = RICH.replace("hg.sock", "other.sock").replace("redis://user:geheimes@127.0.0.1/3", "embedded:/x")
    new, names = restart_only.keep(old, load(tmp_path, moved.replace("0660", "0600").replace("hg.pid", "x")))
    assert set(names) == {"listen", "socket_mode", "pid_file", "store.url"}
    again = in_effect.parse(in_effect.dump(new))
    assert again == new
    assert again.address == old.address
    assert embedded(again.store.url.get_secret_value()) is None


def test_path_of_any_bytes(tmp_path):
    """A folder whose name is no UTF-8 is none the worse."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    folder.mkdir()
    (folder / "friends").write_text("192.0.2.1\n")
    first = load(folder, '[[rule]]\nclients = ["file:friends"]\naction = "accept"\n')
    assert in_effect.parse(in_effect.dump(first)) == first


entries = st.sampled_from(
    [
        *(
            "192.0.2.1",
            "192.0.2.0/24",
            "2001:db8::/32",
            "::ffff:192.0.2.1",
            "mail.example.org",
            ".example.org",
        ),
        *("192.0 OK", "example.org permit", "! 198.51.100.7", "# a word", ""),
    ]
)


@given(
    friends=st.lists(entries), foes=st.lists(st.sampled_from(["192.0.2.9", ".bad.example", "2001:db8::9"]))
)
def test_any_file_of_entries(tmp_path_factory, friends, foes):
    """Whatever stands in files of entries, and whatever of it is left out, the copy has the same entries."""
    folder = tmp_path_factory.mktemp("entries")
    (folder / "friends").write_text("\n".join(friends))
    (folder / "foes").write_text("\n".join(foes))
    text = '[[rule]]\nclients = ["file:friends", "!file:foes"]\naction = "accept"\n'
    first = load(folder, text)
    data = in_effect.dump(first)
    (folder / "friends").write_text("broken (\n")
    assert in_effect.parse(data).rules == first.rules


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"path": 1, "sources": {}, "kept": {}}',
        b'{"path": "/x", "sources": {}, "kept": {}}',
        b'{"path": "/x", "sources": {"/x": 1}, "kept": {}}',
        b'{"path": "/x", "sources": {"/x": "workers = -1"}, "kept": {}}',
    ],
)
def test_what_is_no_copy(data):
    """Damage is one error of one line."""
    with pytest.raises(ValueError, match=r"^is (no copy|of another version)") as error:
        in_effect.parse(data)
    assert "\n" not in str(error.value)


def test_secrets_are_in_it_only(tmp_path):
    """The texts that hold them are shown nowhere else."""
    first = rich(tmp_path)
    assert b"geheimes" in in_effect.dump(first)
    assert "geheimes" not in repr(first)
    assert "geheimes" not in json.dumps(dict(first.shown))


PLACES = {
    "all there": (
        'pid_file = "a.pid"\nlisten = "unix:b"\n[store]\nurl = "redis://h"\nbad\n',
        ("a.pid", "b", "redis"),
    ),
    "dotted": ('store.url = "redis://h"\n= =\n', ("", "", "redis")),
    "inline": ('store = {url = "redis://h"}\n[[[\n', ("", "", "redis")),
    "the line itself": ('pid_file = "a.pid\nlisten = "unix:b"\n', ("", "b", "embedded")),
    "bad value": ('pid_file = 1\nlisten = "nonsense"\n[store]\nurl = "what://"\n', ("", "", "embedded")),
    "below a broken head": (
        '[store\nurl = "redis://h"\n[metrics]\nlisten = "1.1.1.1:1"',
        ("", "", "embedded"),
    ),
    "of another table": ('[metrics]\nlisten = "unix:b"\n[[rule]]\npid_file = "x"\n(', ("", "", "embedded")),
    "nothing": ("\x00", ("", "", "embedded")),
    "deep": ("[" * 100_000, ("", "", "embedded")),
    "not text": (b"\xff\xff", ("", "", "embedded")),
}


@pytest.mark.parametrize(("text", "wanted"), PLACES.values(), ids=PLACES)
def test_places_of_a_broken_file(tmp_path, text, wanted):
    """What says where the daemon's files are is read line by line; the rest has its default."""
    path = tmp_path / "hg.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = in_effect.places(path)
    pid_file, socket, store = wanted
    assert found.pid_file == pid_file
    assert found.address.path == (tmp_path / socket if socket else None)
    assert found.store.url.get_secret_value().startswith(store)


def test_places_without_a_file(tmp_path):
    """A file that is gone leaves the defaults."""
    assert in_effect.places(tmp_path / "none").store.embedded == Path("/var/lib/hybridgrey")
    with pytest.raises(Exception, match="does not exist"):
        load_file(tmp_path / "none")
