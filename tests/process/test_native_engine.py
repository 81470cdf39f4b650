"""The native engine's connections: what an MTA may do to them, with sessions of the test's own."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time

import pytest

from hybridgrey.config.sockets import parse_address
from hybridgrey.content.question import ScanError
from hybridgrey.content.spamd import Spamd
from hybridgrey.filter.awaited import Call, Scan
from hybridgrey.filter.reply import Reply
from hybridgrey.lists.awaited import OverTcp
from hybridgrey.process import native_engine, native_worker, serving
from hybridgrey.process.native_engine import Engine
from hybridgrey.process.native_task import Task
from hybridgrey.protocol import wire
from hybridgrey.protocol.terms import Terms
from hybridgrey.store.connection import Script, StoreError
from parts.base import LOOPBACK
from parts.looped import Looped
from parts.milterpeer import NEGOTIATE, framed

CONNECT = framed(b"Cmail.example\x004" + struct.pack("!H", 25) + b"192.0.2.1\0")
MAIL = framed(b"M<a@example.org>\0")
RCPT = framed(b"R<b@example.net>\0")
END = framed(b"E")
QUIT = framed(b"Q")
QUIT_NC = framed(b"K")
CONTINUE = framed(b"c")
ASK = Call(Script("return {1}"), (b"k",), ())


class Sessions:
    """Notes the steps; RCPT is answered by what `said` has, after a call to the store if `asks`."""

    def __init__(self):
        self.terms = Terms(actions=wire.ADD_HEADERS | wire.CHANGE_HEADERS, steps=wire.SILENT_MAIL)
        self.steps = []
        self.said = None
        self.asks = False
        self.bad = set()
        self.errors = []
        self.live = 0
        self.macros = []
        self.closed_steps = 0

    def _step(self, name):
        self.steps.append(name)
        if name in self.bad:
            raise RuntimeError(f"a bug in {name}")

    def open(self, _session):
        self.live += 1

    def close(self, _session):
        self.live -= 1
        self._step("close")

    def connect(self, _session, _ctx, name, where):
        self._step(f"connect {name} {where}")
        self._step("connect")

    def hello(self, _session, name):
        self._step("hello")

    def mail(self, _session, ctx, path):
        self._step("mail")
        self.macros.append(ctx.getsymval("{auth_authen}"))

    def recipient(self, _session, _ctx, _path):
        self._step("recipient")
        try:
            if self.asks:
                yield ASK
        except StoreError as error:
            return Reply("451", "4.3.0", str(error))
        except GeneratorExit:
            self.closed_steps += 1
            raise
        return self.said

    def header(self, _session, _ctx, field, value):
        self._step(f"header {field} {value!r}")

    def end(self, _session, ctx):
        ctx.addheader("X-A", "1", 0)
        ctx.chgheader("X-B", 2, None)
        self._step("end")
        return self.said

    def failed(self, step, error):
        self.errors.append((step, str(error)))


class Store:
    """Calls that wait until a test answers them."""

    def __init__(self):
        self.waiting = []

    def call(self, _call, answered):
        self.waiting.append(answered)


class World:
    """An engine, and the MTA's side of its connections."""

    def __init__(self, looped):
        self.looped = looped
        self.sessions = Sessions()
        self.store = Store()
        looped.waits.call = self.store.call
        self.engine = Engine(looped.loop, self.sessions, looped.waits)
        self.engine.now = time.monotonic()
        self._peers = contextlib.ExitStack()

    def peer(self, greeting=NEGOTIATE):
        ours, theirs = socket.socketpair()
        self._peers.enter_context(theirs)
        theirs.setblocking(False)
        self.engine.accept(ours)
        if greeting:
            self.talk(theirs, greeting)
        return theirs

    def turn(self, times=3):
        for _ in range(times):
            self.looped.loop.turn(0)

    def talk(self, peer, data):
        """Say something; what comes back at once, None after a hang-up."""
        with contextlib.suppress(BrokenPipeError):
            peer.sendall(data)
        self.turn()
        return self.heard(peer)

    @staticmethod
    def heard(peer):
        heard = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := peer.recv(1 << 20):
                heard += data
            return heard or None
        return heard

    def close(self):
        self._peers.close()
        self.turn()


@pytest.fixture
def world():
    with Looped() as looped:
        made = World(looped)
        yield made
        made.close()
        assert made.sessions.live == 0
        assert not made.engine.peers


def test_one_by_one_and_all_at_once(world):
    """An MTA's bytes mean the same however they come."""
    said = CONNECT + MAIL + RCPT + END
    wanted = [CONTINUE, CONTINUE]
    peer = world.peer()
    heard = b"".join(world.talk(peer, bytes([byte])) for byte in said)
    assert heard.startswith(b"".join(wanted))
    assert heard.endswith(CONTINUE)
    assert world.talk(world.peer(), said) == heard


def test_edits(world):
    """Changes of the header go before the answer to the end."""
    heard = world.talk(world.peer(), CONNECT + MAIL + END)
    assert heard == (CONTINUE + framed(b"i\0\0\0\0X-A\0001\0") + framed(b"m\0\0\0\2X-B\0\0") + CONTINUE)


def test_a_refusal(world):
    """The text of a reply, its percent signs doubled."""
    world.sessions.said = Reply("450", "4.2.0", "50 % off")
    assert world.talk(world.peer(), CONNECT + MAIL + RCPT) == CONTINUE + framed(b"y450 4.2.0 50 %% off\0")


def test_only_our_fields(world):
    """Of the header only fields that may be ours are handed on."""
    header = framed(b"LSubject\0x\0") + framed(b"LX-GREYLIST\0 y\0")
    world.talk(world.peer(), CONNECT + MAIL + header)
    assert [step for step in world.sessions.steps if step.startswith("header")] == ["header x-greylist b' y'"]


def test_fields_are_nobodys_where_they_cannot_go(world):
    """An MTA that does not let headers be changed is not listened to."""
    offer = framed(b"O" + struct.pack("!III", 6, wire.ADD_HEADERS, 0x1FFFFF))
    world.talk(world.peer(offer), CONNECT + MAIL + framed(b"LX-Greylist\0y\0"))
    assert not [step for step in world.sessions.steps if step.startswith("header")]


@pytest.mark.parametrize("step", ["connect", "hello", "mail", "recipient", "end"])
def test_a_bug_in_a_step(world, step):
    """It is told and the mail passes on; the connection goes on."""
    world.sessions.bad = {step}
    peer = world.peer()
    helo = framed(b"Hmail.example\0")
    assert world.talk(peer, CONNECT + helo + MAIL + RCPT + END).endswith(CONTINUE)
    assert [error for _, error in world.sessions.errors] == [f"a bug in {step}"]
    assert world.talk(peer, MAIL + RCPT) is not None


def test_a_bug_while_somebody_elses_answer_is_handled(world, monkeypatch):
    """What fails when a verdict comes costs its connection, and not who has brought the verdict."""
    world.sessions.asks = True
    bad, good = world.peer(), world.peer()
    for peer in (bad, good):
        world.talk(peer, CONNECT + MAIL + RCPT)

    def broken(*_arguments):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(native_engine.Peer, "_say", broken)
        world.store.waiting.pop(0)([1])
    world.store.waiting.pop(0)([1])
    world.turn()
    assert world.heard(bad) is None
    assert world.heard(good) == CONTINUE
    assert world.sessions.errors == [("connection", "a bug")]


def test_no_thread_for_a_question(world, monkeypatch):
    """A wait that cannot even begin is a bug in the step: the mail passes."""
    world.sessions.asks = True

    def none(_call, _answered):
        raise RuntimeError("can't start new thread")

    world.looped.waits.call = none
    assert world.talk(world.peer(), CONNECT + MAIL + RCPT) == CONTINUE + CONTINUE
    assert world.sessions.errors == [("envrcpt", "can't start new thread")]


def test_no_thread_for_a_scan(world):
    """There is no score then, as for any scan that fails: the mail does not pass for it."""
    ends = []

    def none(_work, _done):
        raise RuntimeError("can't start new thread")

    def steps():
        try:
            yield Scan(parse_address("inet:783@127.0.0.1"), b"", Spamd(), 0.0)
        except ScanError as error:
            return str(error)

    world.looped.waits.scan = none
    Task(world.looped.waits, steps(), ends.append, ends.append).begin()
    assert ends == ["no thread can be had"]


def test_a_question_over_tcp_waits_for_no_helper():
    """While others have them all its time runs out all the same; a helper that is free then asks nothing."""
    free = threading.Event()
    with Looped() as looped, socket.create_server((LOOPBACK, 0)) as server:
        server.setblocking(False)
        where = socket.AF_INET, server.getsockname()

        def held():
            return free.wait(60)

        def question():
            return (yield OverTcp(b"\1a\0\0\1\0\1", where, 0.05))

        try:
            for _ in range(8):
                looped.helpers.run(held, lambda _held: None)
            assert looped.run(question()) is None
        finally:
            free.set()
        done = []
        looped.helpers.run(held, done.append)
        looped.until(lambda: done)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_reply_that_cannot_be_sent(world):
    """A text that no SMTP reply can have is a bug, too, and the mail passes."""
    world.sessions.said = Reply("450", "4.2.0", "two\nlines")
    assert world.talk(world.peer(), CONNECT + MAIL + RCPT) == CONTINUE + CONTINUE
    assert len(world.sessions.errors) == 1


def test_a_bug_elsewhere_costs_one_connection(world, monkeypatch):
    """What is not a step takes its own connection with it and no other."""
    good, bad = world.peer(), world.peer()
    world.talk(good, CONNECT)

    def broken(*_arguments):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(native_engine.Peer, "_handle", broken)
        assert world.talk(bad, CONNECT) is None
    assert world.talk(good, MAIL + RCPT) == CONTINUE
    assert ("connection", "a bug") in world.sessions.errors


@pytest.mark.parametrize("said", [RCPT, MAIL + RCPT])
def test_a_recipient_without_a_client(world, said):
    """It is judged all the same: a CONNECT that was lost evades nothing, and keeps no MTA waiting."""
    assert world.talk(world.peer(), said) == CONTINUE
    assert "recipient" in world.sessions.steps


@pytest.mark.parametrize(
    "said",
    [
        framed(b"O" + struct.pack("!III", 1, 0x3F, 0x7F)),  # too old
        b"\0\0\0\0O",
        b"\xff\xff\xff\xffO",
        framed(b"Mearly\0"),
        NEGOTIATE + NEGOTIATE,
        NEGOTIATE + framed(b"Z"),
        NEGOTIATE + framed(b"Cno end"),
    ],
)
def test_who_breaks_the_protocol_is_left(world, said):
    """The connection ends, and the session with it."""
    peer = world.peer(b"")
    world.talk(peer, said)
    assert world.talk(peer, b"") is None


def test_a_hang_up_while_a_verdict_is_awaited(world):
    """The judgement is closed, nobody is answered, and what the store says later means nothing."""
    world.sessions.asks = True
    peer = world.peer()
    world.talk(peer, CONNECT + MAIL + RCPT)
    (answered,) = world.store.waiting
    peer.close()
    world.turn()
    assert world.sessions.closed_steps == 1
    assert world.sessions.live == 0
    answered([1])
    world.turn()


def test_what_comes_while_a_verdict_is_awaited(world):
    """It waits for its turn."""
    world.sessions.asks = True
    peer = world.peer()
    assert world.talk(peer, CONNECT + MAIL + RCPT + RCPT + END) == CONTINUE
    for _ in range(2):
        assert world.sessions.steps[-1] == "recipient"
        world.store.waiting.pop()([1])
        world.turn()
    assert world.sessions.steps[-1] == "end"
    assert world.heard(peer).endswith(CONTINUE)


def test_a_quit_while_a_verdict_is_awaited(world):
    """The verdict comes to its end, for it may have counted, and then the connection does."""
    world.sessions.asks = True
    peer = world.peer()
    world.talk(peer, CONNECT + MAIL + RCPT + QUIT)
    assert world.sessions.live == 1
    world.store.waiting.pop()([1])
    world.turn()
    assert world.sessions.closed_steps == 0
    assert world.heard(peer) is None or world.heard(peer) is None


def test_a_store_that_is_down(world):
    """What cannot even be asked is the step's own affair."""
    world.sessions.asks = True

    def down(_call, _answered):
        raise StoreError("down")

    world.looped.waits.call = down
    assert world.talk(world.peer(), CONNECT + MAIL + RCPT) == CONTINUE + framed(b"y451 4.3.0 down\0")


def test_an_answer_that_comes_twice(world):
    """A judgement that goes on to something else is not resumed by what it waited for before."""
    world.sessions.asks = True
    peer = world.peer()
    world.talk(peer, CONNECT + MAIL + RCPT)
    first = world.store.waiting.pop()
    first([1])
    world.turn()
    assert world.heard(peer) == CONTINUE
    assert world.talk(peer, RCPT) == b""
    first([1])
    world.turn()
    assert world.heard(peer) == b""
    world.store.waiting.pop()([1])
    world.turn()
    assert world.heard(peer) == CONTINUE


def test_an_mta_that_does_not_read(world):
    """Its replies are kept up to a bound, then nothing more of it is handled; all come when it reads."""
    peer = world.peer()
    world.talk(peer, CONNECT)
    (mine,) = world.engine.peers
    said = RCPT * 1000
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += peer.send(said[sent % len(RCPT) :])
            world.turn(1)
    assert mine._watched == native_engine.WRITE
    assert len(mine._connection.output) < 1 << 18
    count = sent // len(RCPT)
    assert world.sessions.steps.count("recipient") < count
    heard = b""
    while len(heard) < count * len(CONTINUE):
        world.turn(1)
        heard += world.heard(peer) or b""
    assert heard == count * CONTINUE


def test_an_mta_that_sends_without_end_while_a_verdict_is_awaited(world):
    """No more is read than one frame and what one read gives."""
    world.sessions.asks = True
    peer = world.peer()
    world.talk(peer, CONNECT + MAIL + RCPT)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 1 << 24:
            sent += peer.send(RCPT * 1000)
            world.turn(1)
    assert sent < 1 << 22
    (mine,) = world.engine.peers
    assert mine._watched == 0
    world.store.waiting.pop()([1])
    world.turn()
    assert world.heard(peer) == CONTINUE


def test_a_hang_up_of_an_mta_that_is_not_read_from(world):
    """Its end is noticed although nothing is watched for."""
    world.sessions.asks = True
    peer = world.peer()
    world.talk(peer, CONNECT + MAIL + RCPT)
    with contextlib.suppress(BlockingIOError):
        for _ in range(100):
            peer.send(RCPT * 1000)
            world.turn(1)
    peer.close()
    world.turn()
    assert not world.engine.peers


def test_a_connection_without_a_word(world):
    """After libmilter's time it is closed; who has said something meanwhile stays."""
    silent, busy = world.peer(), world.peer()
    world.engine.now += native_worker.IDLE / 2
    world.talk(busy, CONNECT)
    world.engine.now += native_worker.IDLE / 2 + 1
    world.engine.end_silent(native_worker.IDLE)
    world.turn()
    assert world.heard(silent) is None
    assert world.talk(busy, MAIL + RCPT) == CONTINUE


def test_the_next_client_on_the_same_connection(world):
    """QUIT_NC ends the session, and its macros; CONNECT without a negotiation begins another."""
    peer = world.peer()
    login = framed(b"DM{auth_authen}\0joe\0")
    world.talk(peer, CONNECT + login + MAIL + RCPT + END + QUIT_NC)
    assert world.sessions.live == 0
    world.talk(peer, CONNECT + MAIL)
    assert world.sessions.live == 1
    assert world.sessions.macros == ["joe", None]


@pytest.mark.parametrize("between", [b"A", b"Hother\0", b"E", b"K"])
def test_a_login_does_not_outlive_its_message(world, between):
    """Macros of MAIL are forgotten after ABORT, HELO, the end of a message and of a session."""
    peer = world.peer()
    world.talk(peer, CONNECT + framed(b"DM{auth_authen}\0joe\0") + MAIL + framed(between) + MAIL)
    assert world.sessions.macros == ["joe", None]


def test_odd_clients(world):
    """A client without an address, on a unix socket, or with bytes for a name is one like any other."""
    for said in (b"Cx\0U", b"Cx\0L\0\0/a/path\0", b"Cx\0004\0\031not an address\0"):
        world.talk(world.peer(), framed(said))
    world.talk(world.peer(), framed(b"C\xff\xfe\x004\0\031192.0.2.1\0"))
    said = [step for step in world.sessions.steps if step.startswith("connect ")]
    assert said == ["connect x unknown"] * 3 + ["connect \udcff\udcfe 192.0.2.1"]


class Listening:
    """Stands for a socket that cannot give a connection."""

    def __init__(self, *results):
        self.results = list(results)
        self.sock, self.other = socket.socketpair()

    def fileno(self):
        return self.sock.fileno()

    def accept(self):
        result = self.results.pop(0) if self.results else errno.EAGAIN
        if isinstance(result, int):
            raise OSError(result, "x")
        return result, None


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM])
def test_no_descriptor_is_a_rest(world, monkeypatch, code):
    """What cannot be taken is let be for a while, not asked for without end, and told; then it goes on."""
    monkeypatch.setattr(native_worker, "_REST", 0.1)
    told = []

    class Registration:
        def full(self, error):
            told.append(error and error.errno)

    worker = native_worker._Worker.__new__(native_worker._Worker)
    worker._loop, worker._engine, worker._registration = world.looped.loop, world.engine, Registration()
    worker._refused = worker._resting = False
    worker._terms = serving.Terms()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    worker._listening = Listening(code, ours)
    worker._accept_again()
    worker._listening.other.send(b"x")
    world.turn(20)
    assert told == [code]
    time.sleep(0.1)
    world.turn()
    assert told == [code, None]
    assert world.talk(theirs, NEGOTIATE + CONNECT).endswith(CONTINUE)
    theirs.close()
