"""The states of streams: every state with every event, and random lives of a connection beside a model."""

from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aserver.protocol.http2 import frames, streams
from aserver.protocol.http2.errors import CANCEL, PROTOCOL_ERROR, STREAM_CLOSED, ConnectionFaultError, StreamFaultError
from aserver.protocol.http2.streams import (
    CLOSED,
    DATA_IN,
    END_IN,
    END_OUT,
    HALF_CLOSED_LOCAL,
    HALF_CLOSED_REMOTE,
    HEADERS_IN,
    IDLE,
    OPEN,
    RESET_IN,
    RESET_OUT,
    RESET_SENT,
    WINDOW_IN,
    Stream,
    Streams,
)
from tests.protocol.http2.server import PlainServer
from tests.protocol.http2.wire import OPENING, data, get, post, take_apart

FRAMES_IN = {HEADERS_IN, DATA_IN, RESET_IN, WINDOW_IN}
#: RFC 9113 section 5.1: state -> the events that lead elsewhere, and those that the client may not cause.
NEXT = {
    OPEN: {END_IN: HALF_CLOSED_REMOTE, END_OUT: HALF_CLOSED_LOCAL, RESET_IN: CLOSED, RESET_OUT: RESET_SENT},
    HALF_CLOSED_REMOTE: {END_OUT: CLOSED, RESET_IN: CLOSED, RESET_OUT: RESET_SENT},
    HALF_CLOSED_LOCAL: {END_IN: CLOSED, RESET_IN: CLOSED, RESET_OUT: RESET_SENT},
}
FAULTS = {(HALF_CLOSED_REMOTE, HEADERS_IN), (HALF_CLOSED_REMOTE, DATA_IN)}
OURS = {(HALF_CLOSED_REMOTE, END_IN), (HALF_CLOSED_LOCAL, END_OUT)}


@pytest.mark.parametrize("state", NEXT)
@pytest.mark.parametrize("event", range(7))
def test_every_event_of_an_open_stream(state: int, event: int) -> None:
    table = Streams()
    stream = table.begin(1, False)
    stream.state = state
    if (state, event) in FAULTS:
        with pytest.raises(StreamFaultError) as caught:
            table.change(stream, event)
        assert caught.value.code == STREAM_CLOSED
    elif (state, event) in OURS:
        with pytest.raises(AssertionError):
            table.change(stream, event)
    else:
        table.change(stream, event)
        assert stream.state == NEXT[state].get(event, state)
    assert (1 in table.open) == (stream.state < CLOSED)


@pytest.mark.parametrize("event", sorted(FRAMES_IN))
def test_every_frame_for_a_stream_that_is_not_open(event: int) -> None:
    table = Streams()
    table.last = 5
    table.remember_reset(3)
    assert [table.state_of(number) for number in (1, 3, 7)] == [CLOSED, RESET_SENT, IDLE]
    table.check_absent(3, event)
    if event != HEADERS_IN:  # which begins a stream
        with pytest.raises(ConnectionFaultError) as idle:
            table.check_absent(7, event)
        assert idle.value.code == PROTOCOL_ERROR
    if event in (HEADERS_IN, DATA_IN):
        with pytest.raises(ConnectionFaultError) as closed:
            table.check_absent(1, event)
        assert closed.value.code == STREAM_CLOSED
    else:
        table.check_absent(1, event)


def test_few_resets_are_remembered() -> None:
    """Fails without REMEMBERED."""
    table = Streams()
    for number in range(1, 20_000, 2):
        table.last = number
        table.change(table.begin(number, False), RESET_OUT)
    assert table.state_of(19_999) == RESET_SENT
    assert table.state_of(1) == CLOSED
    assert len([n for n in range(1, 20_000, 2) if table.state_of(n) == RESET_SENT]) == streams.REMEMBERED


class Life(RuleBasedStateMachine):
    """A client that keeps the rules, an application that does as it likes, and a model of what each has said."""

    SIZES: ClassVar = st.sampled_from([0, 1, 10_000, 16_384, 40_000])
    WAYS: ClassVar = st.sampled_from(["data", "head", "trailers", "reset"])

    def __init__(self) -> None:
        super().__init__()
        self.server = PlainServer(silent=True)
        self.server.credit = lambda stream, size: None
        self.server.feed(OPENING)
        self.read = 0  # of what the server has sent
        self.next = 1
        self.asked: dict[int, Stream] = {}
        self.sending: set[int] = set()  # the client may still send on these
        self.said: dict[int, int] = {}  # bytes of body that the application gave
        self.ended: set[int] = set()  # by the application
        self.got: dict[int, int] = {}  # bytes of body that the client has
        self.done: set[int] = set()  # the client has seen the end
        self.reset: set[int] = set()  # by either
        self.body: dict[int, int] = {}  # bytes that the client has sent
        self.room = 65_535
        self.rooms: dict[int, int] = {}
        self.initial = 65_535

    def feed(self, raw: bytes) -> None:
        self.server.feed(raw, float(self.next) * 1000)
        assert self.server.fault is None, self.server.fault

    def live(self) -> list[int]:
        return [number for number in self.asked if number not in self.reset | self.ended]

    @rule(whole=st.booleans())
    def ask(self, whole: bool) -> None:
        if len(self.asked) >= 12:
            return
        number, self.next = self.next, self.next + 2
        self.rooms[number] = self.initial
        self.feed(get(number) if whole else post(number))
        self.asked[number] = self.server.streams.open[number]
        self.said[number] = self.got[number] = self.body[number] = 0
        if not whole:
            self.sending.add(number)

    @precondition(lambda self: self.sending)
    @rule(pick=st.integers(0, 11), size=st.integers(0, 9), end=st.booleans())
    def send_body(self, pick: int, size: int, end: bool) -> None:
        number = sorted(self.sending)[pick % len(self.sending)]
        self.feed(data(number, b"x" * size, end=end))
        self.body[number] += size
        if end:
            self.sending.discard(number)

    @precondition(lambda self: self.live())
    @rule(pick=st.integers(0, 11), size=SIZES, end=st.booleans(), how=WAYS)
    def answer(self, pick: int, size: int, end: bool, how: str) -> None:
        live = self.live()
        number = live[pick % len(live)]
        stream, sender = self.asked[number], self.server.sender
        if how == "reset" and end:
            sender.reset(stream, CANCEL)
            self.reset.add(number)
        elif how == "head" and not self.said[number]:
            self.said[number] += size
            if end:
                self.ended.add(number)
            sender.head(stream, b"\x88", b"y" * size, end=end)
        else:
            sender.data(stream, b"y" * size, end=end and how != "trailers")
            self.said[number] += size
            if end:
                self.ended.add(number)
                if how == "trailers":
                    sender.trailers(stream, b"\0\1a\1b")
        self.feed(b"")

    @precondition(lambda self: self.asked)
    @rule(pick=st.integers(0, 11), size=st.sampled_from([1, 1000, 100_000]), of_connection=st.booleans())
    def widen(self, pick: int, size: int, of_connection: bool) -> None:
        number = sorted(self.asked)[pick % len(self.asked)]
        if of_connection:
            self.room += size
        else:
            self.rooms[number] += size
        self.feed(frames.window_update(0 if of_connection else number, size))

    @rule(window=st.sampled_from([0, 1000, 65_535, 200_000]))
    def change_windows(self, window: int) -> None:
        for number in self.rooms:
            self.rooms[number] += window - self.initial
        self.initial = window
        self.feed(frames.settings({frames.INITIAL_WINDOW_SIZE: window}))

    @precondition(lambda self: self.asked)
    @rule(pick=st.integers(0, 11))
    def give_up(self, pick: int) -> None:
        number = sorted(self.asked)[pick % len(self.asked)]
        self.sending.discard(number)
        self.reset.add(number)
        self.feed(frames.rst_stream(number, CANCEL))

    @rule(pick=st.integers(0, 5), urgency=st.integers(0, 7))
    def prefer(self, pick: int, urgency: int) -> None:
        value = (2 * pick + 1).to_bytes(4, "big") + b"u=%d, i" % urgency
        self.feed(frames.head(len(value), frames.PRIORITY_UPDATE, 0, 0) + value)

    @invariant()
    def the_client_is_content(self) -> None:
        """No window is passed, nothing follows an end or a reset, and a body ends whole."""
        fresh, self.read = self.server.sent[self.read :], len(self.server.sent)
        for kind, flags, number, payload in take_apart(fresh):
            if kind == frames.DATA:
                assert number not in self.done
                self.room -= len(payload)
                self.rooms[number] -= len(payload)
                self.got[number] += len(payload)
                if payload:
                    assert self.room >= 0
                    assert self.rooms[number] >= 0
            elif kind == frames.RST_STREAM:
                self.sending.discard(number)
                self.reset.add(number)
            if kind in (frames.DATA, frames.HEADERS) and flags & frames.END_STREAM:
                assert self.got[number] == self.said[number]
                self.done.add(number)

    @invariant()
    def what_can_be_sent_is_sent(self) -> None:
        """And what the application got is what the client sent."""
        table = self.server.streams
        assert table.send_window == self.room
        for number, stream in table.open.items():
            assert stream is self.asked[number]
            assert stream.send_window == self.rooms[number]
            assert stream.queued == self.said[number] - self.got[number]
            assert not stream.queued or min(self.room, self.rooms[number]) <= 0
            assert (number in self.ended) <= (stream.queued > 0 or number in self.sending)
        for number in self.asked.keys() - self.reset:
            assert len(self.server.bodies.get(number, b"")) == self.body[number]


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
