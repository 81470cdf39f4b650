"""On which line of a file a key stands."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.config.lines import Lines

TEXT = '''\
# what a host may have
workers = 3
[store]
url = "x"   # ] and """ in a comment

[greylist]
delay = "5m"
a.b.c = 3

[[rule]]
name = "one"
clients = [
  "192.0.2.1", # the first ]
  # "192.0.2.9",
  "192.0.2.2",
  "192.0.2.3", "192.0.2.4"
]
[[rule]]
name = "two ["
text = """
a = 1
b"""
dns = ["a", "b"]
[rule.more]
x = [1,
  2]
[zones."a.b"]
label = "x"
inline = {a = 1, b = {c = 2}}
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("workers",), 2),
        (("store",), 3),
        (("store", "url"), 4),
        (("store", "missing"), 3),
        (("greylist", "delay"), 7),
        (("greylist", "a", "b", "c"), 8),
        (("rule", 0), 10),
        (("rule", 0, "missing"), 10),
        (("rule", 0, "name"), 11),
        (("rule", 0, "clients"), 12),
        (("rule", 0, "clients", 0), 13),
        (("rule", 0, "clients", 1), 15),
        (("rule", 0, "clients", 2), 16),
        (("rule", 0, "clients", 3), 16),
        (("rule", 1), 18),
        (("rule", 1, "text"), 20),
        (("rule", 1, "dns", 1), 23),
        (("rule", 1, "more", "x", 1), 26),
        (("zones", "a.b", "label"), 28),
        (("zones", "a.b", "inline", "b", "c"), 29),
        (("nowhere",), 0),
        ((), 0),
    ],
)
def test_places(path: tuple[str | int, ...], line: int) -> None:
    """A key, an item of a list over several lines, the table of a key that is missing."""
    assert Lines(TEXT).of(path) == line


@given(
    st.lists(
        st.sampled_from([*TEXT.splitlines(), "x = [", "]", "'''", '"""', "a.b = 1", "[[c]]"]), max_size=12
    )
)
def test_every_valid_file_has_places(lines: list[str]) -> None:
    """Whatever is valid can be read, and each line that is named is one of the file."""
    text = "\n".join(lines)
    try:
        parsed = tomllib.loads(text)
    except ValueError:
        return
    places = Lines(text)
    for key, value in parsed.items():
        of_tables = isinstance(value, list) and value and isinstance(value[0], dict)
        assert 1 <= places.of((key, 0) if of_tables else (key,)) <= len(lines)
