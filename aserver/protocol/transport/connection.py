"""The transport side of a client connection: flow control, deadlines, and how a connection ends.

Runs in the worker's loop, as callbacks of the transport. A `Handler` (`http1`, `http2`, `websocket`) reads the bytes.
It must never run application code. It must never end a connection so that the client loses an answer that was already
written: see `linger`.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any, Final, cast

from aserver.metrics.page import Awaited
from aserver.protocol.context import SWEEP_PERIOD, Context
from aserver.protocol.transport.read_gate import ReadGate
from aserver.protocol.transport.writer import Writer
from aserver.tls import extension

log = logging.getLogger("aserver.error")

#: The most seconds and bytes for which a connection reads on after its last answer, so that no reset takes the answer
#: from the client (RFC 9112 section 9.6). With a half-close and 2 s of reading, 40 of 40 clients got it; with a close,
#: none.
LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 16 * 1024 * 1024

#: A client that reads less than this many bytes within `write_timeout` is cut off.
LEAST_PROGRESS: Final = 4096


class Stage(Enum):
    """The stage of a connection's life."""

    SERVING = "serving"
    LINGERING = "answered for the last time, hearing the client out"
    CLOSED = "closing or gone"


# Module constants, because on 3.11 each `Awaited.X` costs 40 ns.
NOTHING: Final = Awaited.NOTHING
FIRST_REQUEST: Final = Awaited.FIRST_REQUEST
NEXT_REQUEST: Final = Awaited.NEXT_REQUEST
HEAD: Final = Awaited.HEAD
BODY: Final = Awaited.BODY
LINGER: Final = Awaited.LINGER
SIGN_OF_LIFE: Final = Awaited.SIGN_OF_LIFE
CLOSE_FRAME: Final = Awaited.CLOSE_FRAME
WINDOW: Final = Awaited.WINDOW
NO_STREAM: Final = Awaited.NO_STREAM
FAREWELL: Final = Awaited.FAREWELL
READING: Final = Awaited.READING
LAST_READING: Final = Awaited.LAST_READING


def server_of(name: object) -> tuple[str, int | None] | None:
    """Return a socket's own name in the form of a scope's `server` (ASGI spec: host and port, or path and None)."""
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    if isinstance(name, bytes):  # abstract unix name
        return "@" + name[1:].decode("utf-8", "surrogateescape"), None
    return None if name is None else (str(name), None)


SERVING: Final = Stage.SERVING
LINGERING: Final = Stage.LINGERING
CLOSED: Final = Stage.CLOSED


class Handler:
    """The protocol that is spoken on a connection. The connection calls it."""

    __slots__ = ("write_paused",)

    write_paused: bool  # the client reads too slowly; set by the connection

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client. Not called after the connection's end was decided."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        """Take the client's half-close; return whether the transport stays open for the answers that are due."""
        return False

    def writable(self) -> None:
        """Called when the client reads again, after `write_paused`."""

    def expire(self) -> None:
        """Called when `deadline` has passed, unless the connection lingers."""

    def postpone(self, seconds: float) -> None:
        """Put off the handler's own deadlines."""

    def cut(self) -> None:
        """Called when the connection is aborted: nothing that is sent from now on reaches the client."""

    def lost(self) -> None:
        """Called when the transport has ended. Let go of the objects that refer to the handler."""

    @property
    def idle(self) -> bool:
        """Whether no request is under way, also none half received."""
        return False

    @property
    def portable(self) -> bool:
        """Whether another process may take over the connection while the handler is idle: it then has no state."""
        return False


#: The handler of a connection that has ended.
NOBODY: Final = Handler()
NOBODY.write_paused = False


class Connection:
    """A client's transport, and the `handler` that speaks with the client at present.

    It has the methods of an `asyncio.Protocol`, but not the base: mypyc makes a class fast only if it compiles its
    bases. `data_received` is the handler's, so that the loop calls it directly. `handler` is a `Handler`, typed as Any:
    compiled code would refuse the class of `http1/plain.pyx`, which Cython compiles.
    """

    __slots__ = (
        "_write_waiters",
        "awaited",
        "client",
        "context",
        "data_received",
        "deadline",
        "discarded",
        "extensions",
        "gate",
        "handler",
        "scheme",
        "server",
        "stage",
        "tls",
        "transport",
        "unsent",
        "write_awaited",
        "write_deadline",
        "writer",
    )

    transport: asyncio.Transport
    gate: ReadGate
    writer: Writer
    handler: Any
    data_received: Callable[[bytes], None]

    def __init__(
        self, context: Context, *, scheme: str, tls: bool, server: tuple[str, int | None] | None = None
    ) -> None:
        self.context = context
        self.scheme = scheme
        self.tls = tls
        self.extensions = context.extensions  # copied into the scope of each request
        self.stage = SERVING
        self.client: tuple[str, int] | None = None
        self.server = server
        self.deadline = inf  # seconds of the loop's clock
        self.awaited = NOTHING  # the reason of `deadline`
        self.write_deadline = inf
        self.write_awaited = NOTHING  # the reason of `write_deadline`
        self.unsent = 0  # bytes in the transport's buffer when `write_deadline` was set
        self._write_waiters: list[asyncio.Future[None]] | None = None  # made for the first waiter
        self.discarded = 0  # bytes, since the end was decided

    def __str__(self) -> str:
        """Name the client, for log lines."""
        return "{}:{}".format(*self.client) if self.client is not None else f"a client of {self.server}"

    def speak(self, handler: Any) -> None:
        """Give the connection the handler that it begins with."""
        self.handler = handler
        self.data_received = handler.data_received

    def hand_over(self, handler: Any) -> None:
        """Give the connection another handler, as if it were a new connection."""
        self.writer.flush()
        self.gate.open()  # a long head may have been read in several turns
        handler.write_paused = self.handler.write_paused
        self.speak(handler)
        self.await_nothing()
        self._tell_transport()

    def _tell_transport(self) -> None:
        """Make the loop call the new `data_received`: uvloop keeps the method that it found with `set_protocol`."""
        self.transport.set_protocol(cast("asyncio.BaseProtocol", self))

    @property
    def open(self) -> bool:
        """Whether the connection's end has not been decided."""
        return self.stage is SERVING

    # ── callbacks of the transport ───────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport and the addresses."""
        self.transport = cast("asyncio.Transport", transport)
        context = self.context
        self.gate = ReadGate(self.transport)
        self.writer = Writer(self.transport, context)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.client = (str(peer[0]), int(peer[1]))
        if self.server is None:
            self.server = server_of(transport.get_extra_info("sockname"))
        if self.tls:
            self.extensions = context.extensions | {"tls": extension(transport.get_extra_info("ssl_object"))}
        context.connections.add(self)
        context.meter.accepted += 1
        if context.verbose:
            log.debug("%s: connected", self)
        self.expect(FIRST_REQUEST, context.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and wake the tasks that wait for room in its transport."""
        if self.context.verbose:
            log.debug("%s: ended%s", self, "" if self.stage is not SERVING else f" by the client ({exc or 'EOF'})")
        self.stage = CLOSED
        self.writer.stopped = True
        self.await_nothing()
        self.write_deadline = inf
        self.context.connections.discard(self)
        self._wake_writers()
        self.handler.lost()
        # Without these references no cycle is left for the garbage collector.
        self.handler = NOBODY
        self.data_received = _drop

    def eof_received(self) -> bool:
        """Take the client's half-close; return whether the transport stays open for the answers that are due."""
        if self.stage is SERVING and self.handler.eof_received():
            return True
        self.writer.flush()  # an answer of this turn may wait: after this the transport takes none
        return False

    def pause_writing(self) -> None:
        """Make `send()` wait, because the client reads too slowly."""
        self.handler.write_paused = True
        self._expect_reading(READING)

    def resume_writing(self) -> None:
        """Let `send()` continue."""
        self.handler.write_paused = False
        self.write_deadline = inf
        self._wake_writers()
        self.handler.writable()

    async def until_writable(self) -> None:
        """Wait until the transport takes more, or the connection is gone."""
        while self.handler.write_paused and self.stage is not CLOSED:
            waiter: asyncio.Future[None] = self.context.loop.create_future()
            waiters = self._write_waiters
            if waiters is None:
                waiters = self._write_waiters = []
            waiters.append(waiter)
            try:
                await waiter
            finally:
                waiters.remove(waiter)

    def _wake_writers(self) -> None:
        for waiter in self._write_waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # ── deadlines ────────────────────────────────────────────────────────────────────────────

    def expire(self) -> None:
        """Close, or let the handler react, because `deadline` has passed."""
        log.debug("%s: the client has not sent %s in time", self, self.awaited.value)
        if self.stage is LINGERING:
            self.close()
        else:
            self.handler.expire()

    @property
    def owes(self) -> Awaited:
        """The reason of the next deadline."""
        return self.write_awaited if self.write_deadline < self.deadline else self.awaited

    def expect(self, awaited: Awaited, seconds: float) -> None:
        """Give the client a deadline in `seconds`, with its reason."""
        self.awaited = awaited
        self.deadline = self.context.now + seconds

    def await_nothing(self) -> None:
        """Give the client no deadline, because it is not the client's turn."""
        self.awaited = NOTHING
        self.deadline = inf

    def postpone(self, seconds: float) -> None:
        """Put off the deadlines."""
        self.deadline += seconds
        self.write_deadline += seconds
        self.handler.postpone(seconds)

    @property
    def idle(self) -> bool:
        """Whether no request is under way, also none half received."""
        return self.stage is SERVING and bool(self.handler.idle)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Close when all that was written has left."""
        if self.stage is not CLOSED:
            self.writer.flush()
            self.writer.stopped = True
            self._end(CLOSED)
            self._bound_flush()
            self.transport.close()

    def _end(self, stage: Stage) -> None:
        """Enter LINGERING or CLOSED: the handler gets no more bytes."""
        if self.context.verbose:
            log.debug("%s: this side ends it: %s", self, stage.value)
        self.stage = stage
        self.await_nothing()
        self.data_received = self.discard
        self._tell_transport()

    def _bound_flush(self) -> None:
        """Give the client a deadline to read the transport's last bytes, unless it has a deadline already."""
        if self.write_deadline == inf:
            self._expect_reading(LAST_READING)

    def _expect_reading(self, awaited: Awaited) -> None:
        """Give the client `write_timeout` to read."""
        self.write_awaited = awaited
        self.unsent = self.transport.get_write_buffer_size()
        self.write_deadline = self.context.now + self.context.write_timeout

    def write_expired(self) -> None:
        """Cut off a client that has read less than LEAST_PROGRESS before `write_deadline`; set the next deadline."""
        before = self.unsent
        self._expect_reading(self.write_awaited)
        if self.unsent > before - LEAST_PROGRESS:
            text = "%s: the client has not given %s within write_timeout: %d bytes are left"
            log.debug(text, self, self.write_awaited.value, self.unsent)
            self.abort()

    def linger(self) -> None:
        """Close so that the client can read the last answer even if it is still sending.

        When a socket with unread bytes is closed, the kernel sends a reset, which drops the answer from the client's
        buffer. So this half-closes, drops the bytes that come, and closes at the client's EOF or at LINGER_SECONDS or
        LINGER_BYTES.
        """
        if self.stage is not SERVING:
            return
        self.writer.flush()
        self._end(LINGERING)
        self.expect(LINGER, LINGER_SECONDS + SWEEP_PERIOD)
        self._bound_flush()
        self.gate.open()
        try:
            self.transport.write_eof()
        except OSError:  # asyncio's loop calls shutdown(2) here, which fails if the client has gone
            self.abort()

    def abort(self) -> None:
        """End at once. Bytes that were written and not yet sent are lost."""
        self._end(CLOSED)
        self.writer.stopped = True
        self.handler.cut()
        self.transport.abort()

    def reset(self) -> None:
        """End with a TCP reset, because to the client a close would look like the good end of a response."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.tls and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def discard(self, data: bytes) -> None:
        """Drop bytes that come after the end was decided."""
        self.discarded += len(data)
        if self.discarded > LINGER_BYTES:
            self.close()


def _drop(data: bytes) -> None:
    """Drop bytes that come after the end."""
