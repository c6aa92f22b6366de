"""The client's side of a WebSocket: frames in, what waits for the application, pings, and how a socket ends.

Runs in the worker's loop. `frames` reads the bytes; the application's side is `session`, built on this. It must never
hold more messages for a slow application than `ws_max_queue`, or arm a timer: pings are sent when `expire` is called,
which the worker's sweep does once a `deadline` has passed.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum
from math import inf
from time import monotonic
from typing import Final

from aserver.asgi import Message, Scope
from aserver.protocol.application.body import HIGH_WATER
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.context import SWEEP_PERIOD
from aserver.protocol.semantics.response import Response
from aserver.protocol.semantics.status import plain_text
from aserver.protocol.transport.connection import CLOSE_FRAME, CLOSED, LINGER, SIGN_OF_LIFE, Connection
from aserver.protocol.transport.read_gate import Pause
from aserver.protocol.websocket import deflate, frames, handshake
from aserver.protocol.websocket.frames import FIN, PING, PONG, ViolationError
from aserver.protocol.websocket.handshake import ResponseEncoder
from aserver.protocol.websocket.record import SocketRecord

#: Seconds that a client has to answer our close frame before the connection is cut (as in the `websockets` library).
CLOSE_TIMEOUT: Final = 10.0

#: Bytes of messages that wait for the application, above which reading pauses, however few they are: 32 messages of
#: `ws_max_size` would be half a gigabyte.
QUEUE_BYTES: Final = 4 * HIGH_WATER

#: With 1012, by which IANA's registry tells a client to come back.
RESTART_REASON: Final = "service restart"


class Phase(Enum):
    """The messages that the application may send."""

    CONNECTING = "websocket.accept, websocket.close or websocket.http.response.start"
    DENYING = "websocket.http.response.body"
    OPEN = "websocket.send or websocket.close"
    CLOSED = "nothing: it has closed or denied the WebSocket"
    ENDED = "nothing: the client or the server has ended the WebSocket"


# Bound once: on 3.11 each `Phase.X` costs 40 ns.
CONNECTING: Final = Phase.CONNECTING
DENYING: Final = Phase.DENYING
OPEN: Final = Phase.OPEN
APP_CLOSED: Final = Phase.CLOSED
ENDED: Final = Phase.ENDED


class Socket(Connection):
    """A WebSocket, as its client sees it."""

    __slots__ = (
        "_answered",
        "_deflater",
        "_disconnect",
        "_early",
        "_encoder",
        "_messages",
        "_next_ping",
        "_phase",
        "_ping_owed",
        "_queued",
        "_reader",
        "_silent_since",
        "_streak",
        "_waiter",
        "headers",
        "request_id",
        "response_headers",
        "scope",
        "sent",
        "started",
        "status",
        "target",
        "task",
        "tasks",
        "told",
    )

    def __init__(self, http: Connection, tasks: Tasks, encoder: ResponseEncoder, exchange: Exchange) -> None:
        super().__init__(http.context, scheme=http.scheme, tls=http.tls)
        self.tasks = tasks
        self._encoder = encoder
        self.transport = http.transport
        self.gate = http.gate
        self.writer = http.writer
        self.client = exchange.client
        self.server = http.server
        self.write_paused = http.write_paused
        self.write_deadline = http.write_deadline
        self._unsent = http._unsent
        self.scope: Scope = exchange.scope
        # Not of the scope, which the application may change or empty.
        self.target = exchange.target
        self.headers = exchange.headers
        self.request_id = exchange.request_id
        self.started = monotonic()  # the loop's clock, but in full: uvloop's has milliseconds
        self.sent = 0
        self.status = 0  # of the HTTP answer
        self._answered = False  # that is out, whole
        self.response_headers: Sequence[tuple[bytes, bytes]] = ()
        self.task: asyncio.Task[None] | None = None
        self.told = False  # the application has heard of the end, by `receive()` or `send()`
        self._phase = CONNECTING
        self._early = bytearray()  # sent by the client before it was accepted
        self._reader: frames.Reader | None = None
        self._deflater: deflate.Deflater | None = None
        self._messages: deque[tuple[Message, int]] = deque()  # not taken yet, with their sizes
        self._queued = 0  # sum of the sizes
        self._waiter: asyncio.Future[Message] | None = None
        self._streak = False  # the application has sent something since it last waited for a message
        self._disconnect: tuple[int, str] | None = None  # code and reason for websocket.disconnect
        self._ping_owed: bytes | None = None  # the last ping not answered, because the client does not read
        self._silent_since = inf  # when we sent the first ping that nothing has followed
        self._next_ping = inf
        self.feed = self._keep_early

    # ── what waits for the application ───────────────────────────────────────────────────────

    def _keep(self, message: Message, size: int) -> None:
        if self._phase is OPEN:
            messages = self._messages
            messages.append((message, size))
            self._queued += size
            if len(messages) >= self.context.config.ws_max_queue or self._queued > QUEUE_BYTES:
                assert self._reader is not None
                self._reader.paused = True
                self.gate.pause(Pause.MESSAGES)

    def go_on_reading(self) -> None:
        """Read again once half of the queue has been taken."""
        reader = self._reader
        if (
            self._phase is OPEN
            and reader is not None
            and not reader.spent
            and len(self._messages) <= self.context.config.ws_max_queue // 2
            and self._queued <= QUEUE_BYTES // 2
        ):
            self.resume()

    def resume(self) -> None:
        """Parse what the reader has kept, and read on unless that is too much already."""
        reader = self._reader
        assert reader is not None
        reader.paused = False
        self.data_received(b"")
        if not reader.paused and self.stage is not CLOSED:
            self.gate.open()

    def on_spent(self) -> None:
        """Let others have their turn before the reader goes on; what comes meanwhile would have to be kept."""
        self.gate.pause(Pause.TURN)
        self.context.fair_queue.wait(self._take_turn)

    def _take_turn(self) -> None:
        if self._reader is not None:
            self._reader.refill()
            self.resume()

    def _wake(self) -> None:
        """Hand the disconnect to an application that waits."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._waiter = None
            assert self._disconnect is not None
            self.told = True
            code, reason = self._disconnect
            waiter.set_result({"type": "websocket.disconnect", "code": code, "reason": reason})

    # ── frames in ────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Feed the reader; what it makes of the bytes comes back in the calls below."""
        self._silent_since = inf
        try:
            self.feed(data)
        except ViolationError as error:
            self._fail(error)

    def _keep_early(self, data: bytes) -> None:
        """Keep what comes before the application has accepted; an honest client sends nothing then."""
        self._early += data
        if len(self._early) > HIGH_WATER:
            self.gate.pause(Pause.MESSAGES)

    def on_text(self, text: str) -> None:
        """Take a text message from the reader."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._keep({"type": "websocket.receive", "text": text}, len(text))
        else:
            self._waiter = None
            waiter.set_result({"type": "websocket.receive", "text": text})

    def on_binary(self, data: bytes) -> None:
        """Take a binary message from the reader."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._keep({"type": "websocket.receive", "bytes": data}, len(data))
        else:
            self._waiter = None
            waiter.set_result({"type": "websocket.receive", "bytes": data})

    def on_ping(self, data: bytes) -> None:
        """Answer, or remember the last ping as long as the client does not read (RFC 6455 section 5.5.3)."""
        if self._phase is OPEN:
            if self.write_paused:
                self._ping_owed = data
            else:
                self.writer.write_soon(frames.head(FIN | PONG, len(data)) + data)

    def on_pong(self, data: bytes) -> None:
        """Nothing to do: any byte says that the client lives (`data_received`)."""

    def on_close(self, code: int, reason: str) -> None:
        """Complete the closing handshake, which either side has begun."""
        if self._phase is OPEN:
            self._phase = ENDED
            self._disconnect = (code, reason)
            self.writer.write(frames.close_frame(code))
            self._wake()
            self._shut()
        else:
            self.close()

    def writable(self) -> None:
        """Answer the ping that had to wait."""
        if self._ping_owed is not None and self._phase is OPEN:
            data, self._ping_owed = self._ping_owed, None
            self.on_ping(data)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def leave(self) -> None:
        """Close with 1012, because the worker goes; the application gets the disconnect and may finish."""
        if self._phase is OPEN:
            self.end(frames.SERVICE_RESTART, RESTART_REASON)

    def abort(self) -> None:
        """End at once. The application sees 1006, and its next `send()` fails."""
        self._lost()
        super().abort()

    def end(self, code: int, reason: str, phase: Phase = ENDED) -> None:
        """Begin the closing handshake."""
        self._phase = phase
        self._disconnect = (code, reason)
        self.writer.write(frames.close_frame(code, reason))
        self.awaited = CLOSE_FRAME
        self.deadline = self.context.now + CLOSE_TIMEOUT + SWEEP_PERIOD
        self._wake()
        reader = self._reader
        assert reader is not None
        if phase is APP_CLOSED:
            self._messages.clear()
        if reader.paused and not reader.spent:  # the client's close frame may be behind what the application never took
            self.resume()

    def _fail(self, error: ViolationError) -> None:
        """Fail the connection (RFC 6455 section 7.1.7)."""
        if self._phase is not OPEN:
            self.close()
            return
        self._phase = ENDED
        self._disconnect = (error.code, error.reason)
        self.writer.write(frames.close_frame(error.code, error.reason))
        self._wake()
        self._shut()

    def _shut(self) -> None:
        """End the connection after the last frame, which a reset must not take from the client."""
        if self.transport.can_write_eof():
            self.linger()
        else:  # over TLS a client would wait for our close until the lingering ends
            self.close()

    def refuse(self, status: int) -> None:
        """Answer the request instead of the application."""
        self._phase = ENDED
        response = Response(self._encoder.heads, True, False, False)
        body = response.answer(status, *(handshake.VERSION_FIELDS if status == 426 else ()))
        self.write_response(self._encoder.first(response, body))
        self.sent = len(plain_text(status))
        self.denied(status)

    def write_response(self, data: bytes | list[bytes]) -> None:
        """Write a piece of an HTTP response."""
        if isinstance(data, bytes):
            self.writer.write(data)
        else:
            self.writer.write_pieces(data)

    def denied(self, status: int) -> None:
        """End after an HTTP answer that is no 101."""
        self._disconnect = (frames.ABNORMAL, "")
        self.record("GET", status)
        self._wake()
        self.linger()

    def lost(self) -> None:
        """Tell the application, and let go of the reader, which holds us."""
        code = self._lost()
        if self._reader is not None:
            self.record("WEBSOCKET", code)
        elif not self._answered:
            self.record("GET", self.status)
        self.feed = _drop
        self._reader = None
        self._deflater = None

    def _lost(self) -> int:
        """Tell the application, and return the close code it gets."""
        if self._disconnect is None:
            self._disconnect = (frames.ABNORMAL, "")
        if self._phase is not APP_CLOSED:
            self._phase = ENDED
        self._wake()
        return self._disconnect[0]

    def record(self, method: str, status: int) -> None:
        """Write to the access log, if there is one."""
        self._answered = True
        if self.tasks.access is not None:
            self.tasks.access(
                SocketRecord(
                    method=method,
                    status=status,
                    client=self.client,
                    target=self.target,
                    sent=self.sent,
                    headers=self.headers,
                    response_headers=self.response_headers,
                    started=self.started,
                    duration=monotonic() - self.started,
                    request_id=self.request_id,
                    scope=self.scope,
                )
            )

    def expire(self) -> None:
        """React to `deadline` having passed."""
        awaited = self.awaited
        if awaited is LINGER:
            self.close()
        elif awaited is SIGN_OF_LIFE:
            self._keep_alive()
        elif awaited is CLOSE_FRAME:
            self.abort()
        else:
            self.deadline = inf

    def postpone(self, seconds: float) -> None:
        """Put off the deadlines, and let no client seem silent for as long."""
        super().postpone(seconds)
        self._silent_since += seconds

    def _keep_alive(self) -> None:
        """Send a ping if one is due, and give up a client that is silent since the last."""
        context, config, reader = self.context, self.context.config, self._reader
        assert reader is not None
        timeout = config.ws_ping_timeout or inf
        if reader.paused:
            self._silent_since = inf  # nothing is read, so the silence is ours
        if context.now - self._silent_since >= timeout:
            self._phase = ENDED
            self._disconnect = (frames.ABNORMAL, "ping timeout")
            self.writer.write(frames.close_frame(frames.INTERNAL_ERROR, "ping timeout"))
            self._wake()
            self.close()
            return
        if self._next_ping <= context.now:
            self._next_ping = context.now + config.ws_ping_interval
            if not self.write_paused:  # else `write_deadline` watches the client
                self.writer.write(frames.head(FIN | PING, 0))
                self._silent_since = min(self._silent_since, context.now)
        self.deadline = min(self._next_ping, self._silent_since + timeout)

    @property
    def idle(self) -> bool:
        """Never: an application is under way, or a closing handshake that has its own deadline."""
        return False


def _drop(data: bytes) -> None:
    """Feed of a connection that is gone; no bound method, so that no cycle keeps it."""
