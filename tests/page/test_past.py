"""The search before the latest verdicts: what one question may cost, and that none is left out."""

from __future__ import annotations

from types import SimpleNamespace

import orjson
import pytest

from hybridgrey.clientaddress import ClientReader
from hybridgrey.history import chunks
from hybridgrey.history.chunks import SPAN_MAX
from hybridgrey.history.records import sender_domain
from hybridgrey.page import past, verdicts

NOW = 1_767_225_600.0
DAYS = 7 * 86_400


class Chronicle:
    """Verdicts of some moments; notes what it is asked for."""

    def __init__(self, *moments):
        self.terms = SimpleNamespace(verdicts=DAYS)
        self.moments = sorted(moments, reverse=True)
        self.asked = []

    def verdicts(self, since, until, _hosts, _needles):
        self.asked.append((since, until))
        return ({"t": t, "client": "192.0.2.1"} for t in self.moments if since <= t <= until)


@pytest.mark.parametrize("before", [NOW, NOW - 3 * 86_400, 99_999_999_999.0])
def test_no_question_is_for_all_of_the_past(before):
    """However far ahead somebody begins, and however empty it is: piece by piece, down to what is kept."""
    chronicle = Chronicle(NOW - 86_400, NOW - DAYS)
    found = past.searched(chronicle, "", ClientReader(), (before, NOW), None, 50)
    assert found["reached"] is None
    assert [one["t"] for one in found["verdicts"]] == [t for t in chronicle.moments if t <= before]
    assert chronicle.asked[0][1] == min(before, NOW + SPAN_MAX)
    assert chronicle.asked[-1][0] == NOW - DAYS - SPAN_MAX
    assert max(until - since for since, until in chronicle.asked) == past.LONGEST
    assert [since for since, _ in chronicle.asked[:-1]] == [until for _, until in chronicle.asked[1:]]


SENDERS = [
    "a@bücher.example",
    "a@BÜCHER.example",
    "a@X.example.",
    "<a@x.example>",
    "@r.example:a@x.example",
    "a@X.example",
]


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("form", ["domain:{}", "domain:{}.", "domain:<{}>"])
def test_no_needle_hides_what_matches(sender, form):
    """A domain as tops name it is found in a chunk, however the sender was written."""
    record = {"t": NOW, "client": "192.0.2.1", "sender": sender}
    (chunk,) = chunks.cut([orjson.dumps(record)])
    asked = verdicts.words(form.format(sender_domain(sender)))
    assert verdicts.Search(asked, ClientReader()).finds(verdicts.safe(record))
    assert list(chunks.unpacked(chunk, verdicts.needles(asked))) == [record]
