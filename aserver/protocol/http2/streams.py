"""The streams of a connection: their states and the windows of flow control (RFC 9113 sections 5.1 and 5.2). Pure.

A stream's state changes by the table `TRANSITIONS`. A closed stream must leave `Streams.open`, so that the number of
open streams limits the memory of a connection. The numbers of streams that this server has reset are remembered,
because frames for them may still come.
"""

from collections.abc import Callable
from math import inf
from typing import Any, Final

from aserver.protocol.http2.errors import (
    FLOW_CONTROL_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    ConnectionFaultError,
    StreamFaultError,
)
from aserver.protocol.http2.frames import INITIAL_WINDOW, LARGEST_WINDOW

# States (RFC 9113 section 5.1). The reserved states are left out, because neither side pushes.
IDLE: Final = 0
OPEN: Final = 1
HALF_CLOSED_REMOTE: Final = 2  # the client has ended its side
HALF_CLOSED_LOCAL: Final = 3  # the server has ended its side
CLOSED: Final = 4
RESET_SENT: Final = 5  # closed by the server; the client may not know it yet

# Events.
HEADERS_IN: Final = 0
DATA_IN: Final = 1
END_IN: Final = 2  # END_STREAM, after the event of its frame
RESET_IN: Final = 3
WINDOW_IN: Final = 4
END_OUT: Final = 5
RESET_OUT: Final = 6

# Outcomes in the table that are no states:
IGNORED: Final = -1
FAULT: Final = -2  # a fault of the connection, PROTOCOL_ERROR
CLOSED_FAULT: Final = -3  # a fault of the connection, STREAM_CLOSED
STREAM_FAULT: Final = -4  # a fault of the stream, STREAM_CLOSED
OURS: Final = -5  # a bug of this server

#: State -> event -> the next state, or another outcome.
TRANSITIONS: Final[list[list[int]]] = [
    # by event, in the order above
    [OPEN,         FAULT,        OURS,               FAULT,   FAULT,              OURS,              OURS],
    [OPEN,         OPEN,         HALF_CLOSED_REMOTE, CLOSED,  OPEN,               HALF_CLOSED_LOCAL, RESET_SENT],
    [STREAM_FAULT, STREAM_FAULT, OURS,               CLOSED,  HALF_CLOSED_REMOTE, CLOSED,            RESET_SENT],
    [HALF_CLOSED_LOCAL, HALF_CLOSED_LOCAL, CLOSED,   CLOSED,  HALF_CLOSED_LOCAL,  OURS,              RESET_SENT],
    [CLOSED_FAULT, CLOSED_FAULT, OURS,               IGNORED, IGNORED,            OURS,              IGNORED],
    [IGNORED,      IGNORED,      IGNORED,            IGNORED, IGNORED,            OURS,              IGNORED],
]  # fmt: skip

#: The most numbers of reset streams that are remembered.
REMEMBERED: Final = 256


class Incoming:
    """The body that a client sends on a stream. `patient`, `credited` and `deadline` are its owner's."""

    __slots__ = ("credit", "credited", "deadline", "expected", "patient", "received", "refused", "tunnel", "window")

    def __init__(self, window: int) -> None:
        self.window = window  # bytes that the client may send
        self.credit = 0  # bytes that the application has taken, for which no WINDOW_UPDATE was sent
        self.received = 0  # bytes of body
        self.expected = -1  # content-length, -1 if there is none
        self.tunnel = False  # the bytes are a WebSocket's: the limit of bodies does not count
        self.refused = False  # the rest of the body is dropped
        self.patient = False  # if the answer ends before the request, the owner resets the stream, not the sender
        self.credited = 0  # bytes that were given to `Sender.credit`
        self.deadline = inf  # of the next piece


class Stream:
    """An open stream. The connection sets `owner`; only `reader` and `sender` may change the rest."""

    __slots__ = (
        "ending",
        "id",
        "incoming",
        "incremental",
        "offset",
        "owner",
        "queue",
        "queued",
        "send_window",
        "state",
        "trailers",
        "urgency",
        "write_paused",
    )

    # Set with the first piece of a body that waits:
    offset: int  # bytes of `queue[0]` that were sent
    ending: bool  # the queue has the last piece of the body

    def __init__(self, id: int, send_window: int) -> None:  # noqa: A002 - RFC 9113's
        self.id = id
        self.owner: Any = None  # the carrier of the request, or its tunnel
        self.state = OPEN
        self.incoming: Incoming | None = None  # None if the request has no body
        # The answer:
        self.send_window = send_window  # bytes that may be sent; below 0 if the client has made its windows smaller
        self.queue: list[bytes] | None = None  # pieces of body that wait
        self.queued = 0  # bytes that wait
        self.trailers: bytes | None = None  # the block that follows the body
        self.write_paused = False  # `send()` is to wait (see PAUSE_ABOVE)
        self.urgency = 3
        self.incremental = True

    @property
    def complete(self) -> bool:
        """Whether the client has ended the request, or the stream is closed."""
        return self.state == HALF_CLOSED_REMOTE or self.state >= CLOSED

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.state >= CLOSED


class Streams:
    """The streams of a connection, and its windows. `make` makes a stream; the connection may give its own class."""

    __slots__ = (
        "_reset",
        "largest",
        "last",
        "make",
        "open",
        "peer_window",
        "receive_window",
        "send_window",
        "window",
    )

    def __init__(self, window: int = INITIAL_WINDOW, make: Callable[[int, int], Stream] = Stream) -> None:
        self.make = make
        self.window = window  # the client's on each new stream
        self.open: dict[int, Stream] = {}
        self.last = 0  # the highest stream that the client has begun
        self.largest = 2**31 - 1  # the highest stream that is taken: the last GOAWAY has said it
        self._reset: dict[int, None] = {}  # streams that this server has reset, the oldest first
        self.send_window = INITIAL_WINDOW
        self.receive_window = INITIAL_WINDOW
        self.peer_window = INITIAL_WINDOW  # ours on each new stream

    def begin(self, number: int, end: bool) -> Stream:  # noqa: FBT001 - at each request
        """Return a new stream that the client has begun, and ended if `end`. The caller has checked `number`."""
        self.last = number
        stream = self.open[number] = self.make(number, self.peer_window)
        if end:
            stream.state = HALF_CLOSED_REMOTE
        else:
            stream.incoming = Incoming(self.window)
        return stream

    def state_of(self, number: int) -> int:
        """Return the state of any stream, open or not."""
        stream = self.open.get(number)
        if stream is not None:
            return stream.state
        if number > self.last:
            return IDLE if number <= self.largest else RESET_SENT
        return RESET_SENT if number in self._reset else CLOSED

    def change(self, stream: Stream, event: int) -> None:
        """Change the state of an open stream by an event. Raises ConnectionFaultError, StreamFaultError."""
        state = TRANSITIONS[stream.state][event]
        if state < 0:
            raise_fault(stream.id, stream.state, event)
        stream.state = state
        if state >= CLOSED:
            self.open.pop(stream.id, None)
            if stream.queued:
                stream.queue = None
                stream.queued = 0
            if state == RESET_SENT:
                self.remember_reset(stream.id)

    def forget_reset(self, number: int) -> None:
        """Forget a reset stream, because the client has reset it, too: no more frames of it can come."""
        self._reset.pop(number, None)

    def remember_reset(self, number: int) -> None:
        """Remember that the server has reset a stream: the client may not know it yet."""
        if len(self._reset) >= REMEMBERED:
            del self._reset[next(iter(self._reset))]
        self._reset[number] = None

    def check_absent(self, number: int, event: int) -> None:
        """Raise an error unless an event of a stream that is not open is to be ignored.

        Raises ConnectionFaultError, StreamFaultError.
        """
        state = self.state_of(number)
        if TRANSITIONS[state][event] != IGNORED:
            raise_fault(number, state, event)

    # ── windows ──────────────────────────────────────────────────────────────────────────────

    def resize(self, window: int) -> None:
        """Take the client's SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.9.2). Raises ConnectionFaultError."""
        change = window - self.peer_window
        if not change:
            return
        self.peer_window = window
        for stream in self.open.values():
            stream.send_window += change
            if stream.send_window > LARGEST_WINDOW:
                raise ConnectionFaultError(FLOW_CONTROL_ERROR, f"window of stream {stream.id} above 2**31-1")

    def widen(self, increment: int) -> None:
        """Take a WINDOW_UPDATE of the connection. Raises ConnectionFaultError."""
        if not increment:
            raise ConnectionFaultError(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self.send_window += increment
        if self.send_window > LARGEST_WINDOW:
            raise ConnectionFaultError(FLOW_CONTROL_ERROR, "window of the connection above 2**31-1")

    def count_received(self, size: int) -> None:
        """Count the payload of a DATA frame of any stream. Raises ConnectionFaultError."""
        self.receive_window -= size
        if self.receive_window < 0:
            raise ConnectionFaultError(FLOW_CONTROL_ERROR, "more DATA than the connection's window")


def widen(stream: Stream, increment: int) -> None:
    """Take a WINDOW_UPDATE of a stream. Raises StreamFaultError."""
    if not increment:
        raise StreamFaultError(stream.id, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
    stream.send_window += increment
    if stream.send_window > LARGEST_WINDOW:
        raise StreamFaultError(stream.id, FLOW_CONTROL_ERROR, "window above 2**31-1")


def raise_fault(number: int, state: int, event: int) -> None:
    """Raise the error for an event that is not allowed in a state."""
    outcome = TRANSITIONS[state][event]
    what = f"{_EVENTS[event]} on stream {number}, which is {_STATES[state]}"
    if outcome == FAULT:
        raise ConnectionFaultError(PROTOCOL_ERROR, what)
    if outcome == CLOSED_FAULT:
        raise ConnectionFaultError(STREAM_CLOSED, what)
    if outcome == STREAM_FAULT:
        raise StreamFaultError(number, STREAM_CLOSED, what)
    raise AssertionError(what)


_STATES: Final = ("idle", "open", "half-closed (remote)", "half-closed (local)", "closed", "closed by us")
_EVENTS: Final = ("HEADERS", "DATA", "END_STREAM", "RST_STREAM", "WINDOW_UPDATE", "our END_STREAM", "our RST_STREAM")
