"""Which macros are in force: against libmilter, and as a law where this package is stricter."""

from __future__ import annotations

import socket

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hybridgrey.protocol.macros import Macros
from parts.base import wait_until
from parts.laws import examples
from parts.milterpeer import framed, strings
from parts.twinmilter import MACROS, TwinMilter
from protocol.shared import (
    ABORT,
    DATA,
    EOM,
    QUIT_NC,
    all_events,
    connect,
    helo,
    macros,
    mail,
    offer,
    opened,
    rcpt,
)

LETTERS = "CHMRTNE"
STAGES = {letter: stage for stage, letter in enumerate(LETTERS)}
NAMES = st.sampled_from(["i", "{i}", "j", "x", "{x}", "{long_name}", "long_name", "{auth_authen}", "{}"])
# Clients choose some values: what looks like a name is none.
VALUES = st.one_of(NAMES, st.sampled_from(["", "v", "{auth_authen}"]))
PAIRS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)


def seen(pairs, name):
    """The value of a macro in one list, under its name or the other form of it."""
    forms = [name]
    if len(name) == 1:
        forms.append("{" + name + "}")
    elif len(name) == 3:
        forms.append(name[1])
    return next((pairs[form] for form in forms if form in pairs), None)


# -- beside libmilter

COMMANDS = {
    "C": connect(),
    "H": helo(),
    "M": mail(),
    "R": rcpt(),
    "T": DATA,
    "N": framed(b"N"),
    "E": EOM,
}


@pytest.fixture(scope="module")
def oracle():
    with TwinMilter("libmilter") as running:
        running.terms(macros={})
        yield running


def sent(letter, pairs):
    """The macros of a command, and the command."""
    flat = [part for pair in pairs.items() for part in pair]
    return macros(letter.encode(), *flat) + COMMANDS[letter]


def one_session(stages):
    return offer() + b"".join(sent(letter, pairs) for letter, pairs in stages)


def valid(messages):
    """The letters of a session with a message for each number of recipients."""
    return "CH" + "".join("M" + "R" * recipients + "TNE" for recipients in messages)


@settings(max_examples=examples(60), deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_libmilter_sees_the_same(oracle, data):
    """At each command of any session whose commands have macros, the same are in force as with libmilter."""
    letters = valid(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    # Both forms of one name in one list are not compared: the order decides there, and no MTA sends it.
    lists = st.dictionaries(
        st.sampled_from(["{i}", "j", "x", "{long_name}", "long_name", "{auth_authen}"]), VALUES
    )
    stages = [(letter, data.draw(lists.filter(bool))) for letter in letters]
    connection = opened(data=one_session(stages)[len(offer()) :])
    found = all_events(
        connection,
        look=lambda c: {n: v.decode() for n in MACROS if (v := c.macro(n.encode())) is not None},
    )
    before = len(oracle.calls())
    with oracle_socket(oracle) as sock:
        sock.sendall(one_session(stages))
        wait_until(lambda: len(oracle.calls()) >= before + len(stages), "libmilter has seen all", 5)
        calls = oracle.calls()[before:][: len(stages)]
    names = {"C": "connect", "H": "helo", "M": "mail", "R": "rcpt", "T": "data", "N": "eoh", "E": "eom"}
    assert [call["call"] for call in calls] == [names[letter] for letter in letters]
    assert [table for _, table in found] == [call["macros"] for call in calls]


def oracle_socket(oracle):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(oracle.address)
    return sock


# -- laws


class Model(RuleBasedStateMachine):
    """Lists of pairs by stage, forgotten as the package says."""

    def __init__(self):
        super().__init__()
        self.connection = opened()
        self.lists = {}
        self.fresh = set()
        self.over = None

    def event(self, data):
        self.connection.receive(data)
        if self.over is not None:
            self.lists = {stage: pairs for stage, pairs in self.lists.items() if stage < self.over}
            self.fresh = {stage for stage in self.fresh if stage < self.over}
            self.over = None
        event = self.connection.next_event()
        if self.connection.due:
            self.connection.reply(b"\0\0\0\1c")
        return event

    @rule(letter=st.sampled_from(LETTERS), pairs=st.one_of(PAIRS, st.just({})))
    def macros_come(self, letter, pairs):
        flat = [part for pair in pairs.items() for part in pair]
        assert self.event(macros(letter.encode(), *flat)) is None
        self.lists[STAGES[letter]] = pairs
        self.fresh.add(STAGES[letter])

    @rule(letter=st.sampled_from("ULBXZ"), pairs=PAIRS)
    def macros_of_no_stage(self, letter, pairs):
        flat = [part for pair in pairs.items() for part in pair]
        assert self.event(macros(letter.encode(), *flat)) is None

    @rule(letter=st.sampled_from(LETTERS))
    def command(self, letter):
        assert self.event(COMMANDS[letter]) is not None
        stage = STAGES[letter]
        if stage not in self.fresh:
            self.lists.pop(stage, None)
        self.fresh.discard(stage)
        if stage <= STAGES["R"]:
            self.lists = {one: pairs for one, pairs in self.lists.items() if one <= stage}
            self.fresh = {one for one in self.fresh if one < stage}
        if letter == "E":
            self.over = STAGES["M"]

    @rule()
    def abort(self):
        assert self.event(ABORT) is not None
        self.over = STAGES["M"]

    @rule()
    def next_client(self):
        assert self.event(QUIT_NC) is not None
        self.over = STAGES["C"]

    @rule()
    def header(self):
        assert self.event(framed(b"L" + strings("a", "b"))) is not None

    @invariant()
    def the_same_are_in_force(self):
        for name in MACROS:
            values = (seen(self.lists[stage], name) for stage in sorted(self.lists, reverse=True))
            value = next((one for one in values if one is not None), None)
            assert self.connection.macro(name.encode()) == (None if value is None else value.encode()), name


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=examples(150), stateful_step_count=30, deadline=None)

LOGIN = macros(b"M", "{auth_authen}", "somebody")


@pytest.mark.parametrize(
    "between",
    [
        [ABORT],
        [rcpt(), DATA, EOM],
        [helo()],
        [QUIT_NC, connect()],
        [QUIT_NC],
        [ABORT, macros(b"M")],
        [macros(b"M")],
        [],
        [rcpt(), ABORT, rcpt()],
        [framed(b"UFOO\0"), ABORT],
    ],
)
@pytest.mark.parametrize("end", [mail(), rcpt() + mail(), macros(b"M", "i", "Q2") + mail()])
def test_a_login_is_for_one_transaction(between, end):
    """The {auth_authen} of a message is not that of the next, however it ended, whatever is left out."""
    connection = opened(data=connect() + LOGIN + mail())
    assert all_events(connection, look=lambda c: c.macro(b"{auth_authen}"))[-1][1] == b"somebody"
    connection.receive(b"".join(between) + end)
    assert all_events(connection, look=lambda c: c.macro(b"{auth_authen}"))[-1][1] is None


@pytest.mark.parametrize("letter", LETTERS)
def test_a_command_without_macros_has_none(letter):
    """Not those of the same command before it, at any stage."""
    connection = opened(data=macros(letter.encode(), "x", "y") + COMMANDS[letter] + COMMANDS[letter])
    found = all_events(connection, look=lambda c: c.macro(b"x"))
    assert [value for _, value in found] == [b"y", None]


def test_a_login_sent_and_not_used_is_forgotten():
    """Macros whose command never came do not stay for the one after an abort."""
    connection = opened(data=connect() + LOGIN + ABORT + mail())
    assert all_events(connection, look=lambda c: c.macro(b"{auth_authen}"))[-1][1] is None


def test_the_last_events_of_a_message_have_its_macros():
    """At ABORT, at the end of the message and of the session the queue id is still known."""
    for last in (ABORT, EOM, QUIT_NC):
        connection = opened(data=connect() + mail() + macros(b"R", "i", "Q1") + rcpt() + last)
        assert all_events(connection, look=lambda c: c.macro(b"i"))[-1][1] == b"Q1"


def test_a_value_is_never_taken_for_a_name():
    """A client that greets as `{auth_authen}` is not logged in."""
    connection = opened(data=connect() + macros(b"M", "{x}", "{auth_authen}", "{y}", "somebody") + mail())
    assert all_events(connection, look=lambda c: c.macro(b"{auth_authen}"))[-1][1] is None


@pytest.mark.parametrize(
    ("payload", "name", "value"),
    [
        (b"Mi\0Q1\0", b"i", b"Q1"),
        (b"Mi\0\0", b"i", b""),
        (b"Mi\0Q1", b"i", None),
        (b"Mi\0", b"i", None),
        (b"Mi", b"i", None),
        (b"M", b"i", None),
        (b"Mi\0a\0i\0b\0", b"i", b"a"),
        (b"M\0a\0", b"", b"a"),
        (b"Mi\0Q1\0j", b"j", None),
        (b"", b"i", None),
        (b"Mi\0\xff\xfe\0", b"{i}", b"\xff\xfe"),
        (b"M{i}\0Q1\0", b"i", b"Q1"),
        (b"M{ab}\0Q1\0", b"ab", None),
        (b"Mab\0Q1\0", b"{ab}", None),
    ],
)
def test_lists_of_any_form(payload, name, value):
    """A name needs a value and a value its end; the first of two counts; an empty value is one."""
    found = Macros()
    found.take(payload)
    found.begin(2)
    assert found.get(name) == value
