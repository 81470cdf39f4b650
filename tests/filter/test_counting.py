"""What is recorded of a verdict is its event, whichever way it was written."""

import io

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey import logs
from hybridgrey.filter.counting import Counts
from hybridgrey.metrics.ring import RECORD_MAX, packed

AT = 1_790_000_000.125
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(), max_size=20),  # surrogates too
    st.sampled_from(["\u2028", '"', "\\", '\\"', "\x7f", "\x00", "\udcff@x", "}", '","t":1,"', "a" * 300]),
    st.integers(0, 1500).map("a".__mul__),
)
PLAIN = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
)
VALUES = st.one_of(PLAIN, st.lists(TEXTS, max_size=4), st.dictionaries(TEXTS, TEXTS, max_size=3))
NAMES = ["queue_id", "helo", "sender", "recipient", "rule", "age", "wait_ms", "lists", "noted", "reply"]
EVENTS = st.builds(
    lambda client, fields: {"client": client, **fields},
    st.sampled_from(["192.0.2.1", "2001:db8::1", ""]),
    st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=3),
)


class Ring:
    def __init__(self):
        self.records = []

    def write(self, record):
        self.records.append(record)


def recorded(event, *, form, mx="mx1"):
    """The record of an event, by way of its line; and the line."""
    stream, ring = io.StringIO(), Ring()
    logs.configure("info", form, stream)
    lines = logs.Lines()
    written = lines.add("info", "verdict", event, AT)
    lines.flush()
    Counts(None, (), (), ring, mx).recorded(dict(event), written, AT)
    return ring.records[0], stream.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
@given(event=EVENTS)
def test_a_record_is_the_event(form, event):
    """The content is that of the event packed by itself, and it fits."""
    record, line = recorded(event, form=form)
    assert len(record) <= RECORD_MAX
    assert orjson.loads(record) == orjson.loads(packed(event | {"t": AT, "mx": "mx1"}))
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii() or form == "text"
    if form == "json":
        assert orjson.loads(line)["event"] == "verdict"


@pytest.mark.parametrize("name", ["mx\udcff", 'a"b', "mx\n", "é"])
def test_a_host_with_an_odd_name(name):
    """A host may be called by bytes that are no UTF-8 (sethostname takes any)."""
    event = {"client": "192.0.2.1", "helo": "x"}
    quick, _ = recorded(event, form="json", mx=name)
    assert orjson.loads(quick) == orjson.loads(packed(event | {"t": AT, "mx": name}))
