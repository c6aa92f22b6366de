"""A WebSocket: what the application sees as scope, `receive()` and `send()`, and how a socket lives and ends.

Runs in the worker's loop. It takes an HTTP/1 connection's transport over (`take_over`); what the frames mean is for
`ws_frames`, the handshake's rules are `ws_handshake`'s. It must never let an application's exception reach the loop,
hold more messages for a slow application than `ws_max_queue`, or arm a timer: pings are sent when `expire` is
called, which the worker's sweep does once a `deadline` has passed.

Sources: the ASGI specification's WebSocket part (version 2.5) and its Websocket Denial Response extension, RFC 6455.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from enum import Enum
from math import inf

from aserver.asgi import Message, Scope
from aserver.errors import ApplicationError, ClientError
from aserver.protocol import wire, ws_deflate, ws_frames, ws_handshake
from aserver.protocol.connection import CLOSED, HIGH_WATER, LINGERING, SWEEP_PERIOD, Connection
from aserver.protocol.cycle import DONE, HEADED, Cycle
from aserver.protocol.exchange import ClientDisconnectedError, Exchange
from aserver.protocol.ws_frames import BINARY, FIN, PING, PONG, RSV1, TEXT, ViolationError

log = logging.getLogger("aserver.error")

#: Seconds that a client has to answer our close frame before the connection is cut (as in the `websockets` library).
CLOSE_TIMEOUT = 10.0

#: Bytes of messages that wait for the application, above which reading pauses, however few they are: 32 messages of
#: `ws_max_size` would be half a gigabyte.
QUEUE_BYTES = 4 * HIGH_WATER

#: Up to this size (bytes) a message is joined to its frame's head; above it, copying costs more than a second entry
#: in the writev that the loop makes of both anyway.
JOIN_LIMIT = 8192

#: With 1012, by which IANA's registry tells a client to come back.
RESTART_REASON = "service restart"

_TEXT, _BINARY = FIN | TEXT, FIN | BINARY
_TEXT_HEADS = tuple(ws_frames.head(_TEXT, size) for size in range(126))
_BINARY_HEADS = tuple(ws_frames.head(_BINARY, size) for size in range(126))
_SCHEMES = {"http": "ws", "https": "wss"}


class Phase(Enum):
    """What the application may send."""

    CONNECTING = "websocket.accept, websocket.close or websocket.http.response.start"
    DENYING = "websocket.http.response.body"
    OPEN = "websocket.send or websocket.close"
    CLOSED = "nothing: it has closed or denied the WebSocket"
    ENDED = "nothing: the client or the server has ended the WebSocket"


# Bound once: on 3.11 each `Phase.X` costs 40 ns.
CONNECTING, DENYING, OPEN, APP_CLOSED, ENDED = Phase


class SocketRecord:
    """What an access log gets of a WebSocket (`record.AccessRecord`): one at the 101, one at the end."""

    __slots__ = ("_socket", "duration", "method", "response_headers", "status")

    def __init__(self, socket: "WebSocketConnection", method: str, status: int) -> None:
        self._socket = socket
        self.method = method
        self.status = status
        self.duration = socket.shared.loop.time() - socket.started
        self.response_headers: Sequence[tuple[bytes, bytes]] = socket.response_headers

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port; None over unix sockets."""
        client: tuple[str, int] | None = self._socket.scope["client"]
        return client

    @property
    def target(self) -> bytes:
        """The request target as sent."""
        return self._socket.target

    @property
    def version(self) -> str:
        """Of HTTP."""
        return "1.1"

    @property
    def sent(self) -> int:
        """Bytes of message payload (of body, if denied), without framing."""
        return self._socket.sent

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Of the request."""
        headers: list[tuple[bytes, bytes]] = self._socket.scope["headers"]
        return headers

    @property
    def started(self) -> float:
        """When the request was complete: seconds of the loop's clock."""
        return self._socket.started

    @property
    def scope(self) -> Scope | None:
        """The ASGI scope."""
        return self._socket.scope


class WebSocketConnection(Connection):
    """One WebSocket, from the client's complete request to the end of the connection."""

    __slots__ = (
        "_cycle",
        "_deflater",
        "_disconnect",
        "_early",
        "_handshake",
        "_messages",
        "_next_ping",
        "_phase",
        "_ping_owed",
        "_queued",
        "_reader",
        "_silent_since",
        "_told",
        "_waiter",
        "response_headers",
        "scope",
        "sent",
        "started",
        "target",
        "task",
    )

    def __init__(self, http: Connection, exchange: Exchange) -> None:
        super().__init__(http.shared, scheme=http.scheme, tls=http.tls)
        self.transport = http.transport
        self.client = http.client
        self.server = http.server
        self.write_paused = http.write_paused
        self.write_deadline = http.write_deadline
        self._unsent = http._unsent
        self.scope: Scope = exchange.scope
        self.target = exchange.target
        self.started = exchange.started
        self.sent = 0
        self.response_headers: Sequence[tuple[bytes, bytes]] = ()
        self.task: asyncio.Task[None] | None = None
        self._phase = CONNECTING
        self._told = False  # the application has got websocket.connect
        self._handshake: ws_handshake.Handshake | None = None
        self._cycle: Cycle | None = None  # a denial response
        self._early = b""  # sent by the client before it was accepted
        self._reader: ws_frames.Reader | None = None
        self._deflater: ws_deflate.Deflater | None = None
        self._messages: deque[tuple[Message, int]] = deque()  # not taken yet, with their sizes
        self._queued = 0  # sum of the sizes
        self._waiter: asyncio.Future[Message] | None = None
        self._disconnect: tuple[int, str] | None = None  # code and reason for websocket.disconnect
        self._ping_owed: bytes | None = None  # the last ping not answered, because the client does not read
        self._silent_since = inf  # when we sent the first ping that nothing has followed
        self._next_ping = inf
        self.feed = self._keep_early
        scope = self.scope
        scope["type"] = "websocket"
        del scope["method"]
        scope["scheme"] = _SCHEMES.get(scope["scheme"], scope["scheme"])
        scope["extensions"] = {"websocket.http.response": {}, "aserver.draining": self.shared.leaving}

    # ── the application's task ───────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Check the handshake and start the application."""
        shared = self.shared
        try:
            handshake = self._handshake = ws_handshake.examine(self.scope["headers"])
        except ClientError as error:
            self._refuse(error.status)
            return
        if len(shared.running) >= shared.limit_concurrency:
            if shared.on_limit is not None:
                shared.on_limit()
            self._refuse(503)
            return
        self.scope["subprotocols"] = handshake.subprotocols
        shared.start(self)

    async def run(self) -> None:
        """Call the application and see to what it leaves behind."""
        shared = self.shared
        try:
            await shared.app(self.scope, self.receive, self.send)
            self._returned()
        except BaseException as error:  # noqa: BLE001 - the application's SystemExit must not stop the server
            self._failed(error)
        finally:
            shared.running.discard(self)
            shared.requests += 1

    def describe(self, now: float) -> str:
        """Return `WEBSOCKET /x, 31.2 s` for the log."""
        return f"WEBSOCKET {self.target.decode('ascii', 'backslashreplace')}, {now - self.started:.1f} s"

    def cancel(self, reason: str) -> None:
        """Close with 1012 (503 before the handshake) and cancel the application."""
        self.leave()
        if self.task is not None:
            self.task.cancel(reason)

    def leave(self) -> None:
        """Close with 1012, because the worker goes; the application gets the disconnect and may finish."""
        if self._phase is OPEN:
            self._end(ws_frames.SERVICE_RESTART, RESTART_REASON)

    def _returned(self) -> None:
        if self._phase is OPEN:
            self._end(ws_frames.NORMAL, "")
        elif self._phase in (CONNECTING, DENYING):
            log.error(
                "WEBSOCKET %s: the application returned without an answer (expected %s)",
                self.scope["path"],
                self._phase.value,
            )
            self._give_up(500)

    def _failed(self, error: BaseException) -> None:
        cancelled = isinstance(error, asyncio.CancelledError)
        if not cancelled and not (self._phase is ENDED and isinstance(error, OSError)):
            log.error(
                "WEBSOCKET %s: the application raised %s",
                self.scope["path"],
                type(error).__name__,
                exc_info=error,
            )
        if self._phase is not OPEN:
            self._give_up(503 if cancelled else 500)
        elif cancelled:
            self.leave()
        else:
            self._end(ws_frames.INTERNAL_ERROR, "internal error")

    def _give_up(self, status: int) -> None:
        """Answer for an application that has not, or break off what it began."""
        if self._phase is CONNECTING:
            self._refuse(status)
        elif self._phase is DENYING:
            assert self._cycle is not None
            if self._cycle.state is HEADED:  # nothing is out yet
                self._refuse(status)
            else:
                self._phase = ENDED
                self.reset()

    # ── receive ──────────────────────────────────────────────────────────────────────────────

    async def receive(self) -> Message:
        """ASGI `receive()`."""
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        while True:
            if self._messages:
                message, size = self._messages.popleft()
                self._queued -= size
                if self._reader is not None and self._reader.paused:
                    self._go_on_reading()
                return message
            if self._disconnect is not None:
                code, reason = self._disconnect
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            if self._waiter is None:
                break
            await asyncio.wait([self._waiter])  # somebody else is already waiting; the first message is theirs
        waiter: asyncio.Future[Message] = self.shared.loop.create_future()
        self._waiter = waiter
        try:
            return await waiter
        except BaseException:
            if self._waiter is waiter:
                self._waiter = None
            elif waiter.done() and not waiter.cancelled():  # it had come, and must not be lost
                self._messages.appendleft((waiter.result(), 0))
            raise

    def _deliver(self, message: Message, size: int) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._waiter = None
            waiter.set_result(message)
        elif self._phase is OPEN:
            messages = self._messages
            messages.append((message, size))
            self._queued += size
            if len(messages) >= self.shared.config.ws_max_queue or self._queued > QUEUE_BYTES:
                assert self._reader is not None
                self._reader.paused = True
                self.transport.pause_reading()

    def _go_on_reading(self) -> None:
        """Read again once half of the queue has been taken."""
        if (
            self._phase is OPEN
            and len(self._messages) <= self.shared.config.ws_max_queue // 2
            and self._queued <= QUEUE_BYTES // 2
        ):
            self._resume()

    def _resume(self) -> None:
        reader = self._reader
        assert reader is not None
        reader.paused = False
        self.data_received(b"")  # what the reader has kept
        if not reader.paused and self.stage is not CLOSED:
            self.transport.resume_reading()

    def _wake(self) -> None:
        """Hand the disconnect to an application that waits."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._waiter = None
            assert self._disconnect is not None
            code, reason = self._disconnect
            waiter.set_result({"type": "websocket.disconnect", "code": code, "reason": reason})

    # ── send ─────────────────────────────────────────────────────────────────────────────────

    async def send(self, message: Message) -> None:
        """ASGI `send()`. Raises ApplicationError, and ClientDisconnectedError (an OSError) when there is no client."""
        if self._phase is not OPEN or message["type"] != "websocket.send":
            await self._send_other(message)
            return
        data = message.get("bytes")
        if data is None:
            text = message.get("text")
            if not isinstance(text, str):
                raise ApplicationError(f"websocket.send: neither bytes nor text, but text is {text!r}")
            try:
                data = text.encode()
            except UnicodeEncodeError as error:
                raise ApplicationError(f"websocket.send: text that is no Unicode: {error}") from error
            first, heads = _TEXT, _TEXT_HEADS
        else:
            if type(data) is not bytes:
                data = _as_bytes(data)
            first, heads = _BINARY, _BINARY_HEADS
        size = len(data)
        transport = self.transport
        if self._deflater is not None and size >= ws_deflate.LEAST_SIZE:
            data = self._deflater.message(data)
            size = len(data)
            transport.write(ws_frames.head(first | RSV1, size) + data)
        elif size < 126:
            transport.write(heads[size] + data)
        elif size < JOIN_LIMIT:
            transport.write(ws_frames.head(first, size) + data)
        else:
            transport.write(ws_frames.head(first, size))
            transport.write(data)
        self.sent += size
        if self.write_paused:
            await self.drained()

    async def _send_other(self, message: Message) -> None:
        kind, phase = message["type"], self._phase
        if phase is ENDED or (phase is APP_CLOSED and kind == "websocket.send"):
            # To close what is closed already is what `finally` clauses do, and asks for nothing that cannot be had.
            if kind != "websocket.close":
                raise ClientDisconnectedError("the WebSocket is closed")
        elif phase is OPEN and kind == "websocket.close":
            self._close(message)
        elif phase is CONNECTING and kind == "websocket.accept":
            self._accept(message)
        elif phase is CONNECTING and kind == "websocket.close":
            self._refuse(403)
            self._phase = APP_CLOSED
        elif kind in ("websocket.http.response.start", "websocket.http.response.body"):
            await self._deny(message)
        else:
            raise ApplicationError(f"unexpected ASGI message {kind!r}; expected {phase.value}")

    def _accept(self, message: Message) -> None:
        shared, handshake = self.shared, self._handshake
        assert handshake is not None
        headers = list(message.get("headers") or ())
        agreement = ws_deflate.negotiate(handshake.extensions) if shared.config.ws_per_message_deflate else None
        answer = b"" if agreement is None else agreement.answer
        head = ws_handshake.accept_head(handshake, message.get("subprotocol"), headers, answer)
        self.response_headers = headers
        self._phase = OPEN
        self.transport.write(head + shared.defaults.without(headers) + b"\r\n\r\n")
        inflater = None
        if agreement is not None:
            inflater = ws_deflate.Inflater(agreement)
            self._deflater = ws_deflate.Deflater(agreement)
        self._reader = ws_frames.Reader(self, shared.config.ws_max_size, inflater)
        self.feed = self._reader.feed
        self._handshake = None
        if shared.config.ws_ping_interval:
            self.deadline = self._next_ping = shared.now + shared.config.ws_ping_interval
        self._record("GET", 101)
        if self._early:
            early, self._early = self._early, b""
            self._reader.paused = True
            self._reader.feed(early)
            self._resume()

    def _close(self, message: Message) -> None:
        code = message.get("code", ws_frames.NORMAL)
        reason = message.get("reason") or ""
        if not isinstance(code, int) or not (ws_frames.may_be_sent(code) or code == ws_frames.NO_STATUS):
            raise ApplicationError(f"websocket.close: code {code!r} may not be sent (RFC 6455 section 7.4)")
        if len(reason.encode("utf-8", "replace")) > ws_frames.REASON_LIMIT:
            raise ApplicationError(f"websocket.close: reason above {ws_frames.REASON_LIMIT} bytes")
        self._end(code, reason, APP_CLOSED)

    async def _deny(self, message: Message) -> None:
        """The denial response extension: an ordinary HTTP response instead of the 101."""
        if self._phase is CONNECTING:
            self._cycle = Cycle(self.shared.defaults, True, False, False)
        cycle = self._cycle
        if cycle is None or self._phase not in (CONNECTING, DENYING):
            raise ApplicationError(f"unexpected ASGI message {message['type']!r}; expected {self._phase.value}")
        if message["type"] == "websocket.http.response.start":
            cycle.start(message)
            self._phase = DENYING
            return
        data = cycle.body(message)
        for piece in (data,) if isinstance(data, bytes) else data:
            self.transport.write(piece)
        if cycle.state is DONE:
            self.response_headers = cycle.response_headers
            self.sent = cycle.sent
            self._phase = APP_CLOSED
            self._denied(cycle.status)
        elif self.write_paused:
            await self.drained()

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
            self.transport.pause_reading()

    def on_text(self, text: str) -> None:
        """Take a text message from the reader."""
        self._deliver({"type": "websocket.receive", "text": text}, len(text))

    def on_binary(self, data: bytes) -> None:
        """Take a binary message from the reader."""
        self._deliver({"type": "websocket.receive", "bytes": data}, len(data))

    def on_ping(self, data: bytes) -> None:
        """Answer, or remember the last ping as long as the client does not read (RFC 6455 section 5.5.3)."""
        if self._phase is OPEN:
            if self.write_paused:
                self._ping_owed = data
            else:
                self.transport.write(ws_frames.head(FIN | PONG, len(data)) + data)

    def on_pong(self, data: bytes) -> None:
        """Nothing to do: any byte says that the client lives (`data_received`)."""

    def on_close(self, code: int, reason: str) -> None:
        """Complete the closing handshake, whoever began it."""
        if self._phase is OPEN:
            self._phase = ENDED
            self._disconnect = (code, reason)
            self.transport.write(ws_frames.close_frame(code))
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

    def _end(self, code: int, reason: str, phase: Phase = ENDED) -> None:
        """Begin the closing handshake."""
        self._phase = phase
        self._disconnect = (code, reason)
        self.transport.write(ws_frames.close_frame(code, reason))
        self.deadline = self.shared.now + CLOSE_TIMEOUT + SWEEP_PERIOD
        self._wake()
        reader = self._reader
        assert reader is not None
        if phase is APP_CLOSED:
            self._messages.clear()
        if reader.paused:  # the client's close frame may be behind what the application never took
            self._resume()

    def _fail(self, error: ViolationError) -> None:
        """Fail the connection (RFC 6455 section 7.1.7)."""
        if self._phase is not OPEN:
            self.close()
            return
        self._phase = ENDED
        self._disconnect = (error.code, error.reason)
        self.transport.write(ws_frames.close_frame(error.code, error.reason))
        self._wake()
        self._shut()

    def _shut(self) -> None:
        """End the connection after the last frame, which a reset must not take from the client."""
        if self.transport.can_write_eof():
            self.linger()
        else:  # over TLS a client would wait for our close until the lingering ends
            self.close()

    def _refuse(self, status: int) -> None:
        """Answer the request instead of the application."""
        self._phase = ENDED
        lines = self.shared.defaults.lines + (ws_handshake.VERSION_LINES if status == 426 else b"")
        self.transport.write(wire.plain_answer(status, lines, keep_alive=False))
        self._denied(status)

    def _denied(self, status: int) -> None:
        self._disconnect = (ws_frames.ABNORMAL, "")
        self._record("GET", status)
        self._wake()
        self.linger()

    def lost(self) -> None:
        """Tell the application, and let go of the reader, which holds us."""
        accepted, phase = self._reader is not None, self._phase
        self.feed = _drop
        self._reader = None
        self._deflater = None
        if self._disconnect is None:
            self._disconnect = (ws_frames.ABNORMAL, "")
        if phase is not APP_CLOSED:
            self._phase = ENDED
        if accepted:
            self._record("WEBSOCKET", self._disconnect[0])
        elif phase in (CONNECTING, DENYING):
            self._record("GET", self._cycle.status if self._cycle is not None else 0)
        self._wake()

    def _record(self, method: str, status: int) -> None:
        if self.shared.access is not None:
            self.shared.access(SocketRecord(self, method, status))

    def expire(self) -> None:
        """React to `deadline` having passed."""
        if self.stage is LINGERING:
            self.close()
        elif self._phase is OPEN:
            self._keep_alive()
        elif self._phase in (APP_CLOSED, ENDED):
            self.abort()
        else:
            self.deadline = inf

    def _keep_alive(self) -> None:
        """Send a ping if one is due, and give up a client that is silent since the last."""
        shared, config, reader = self.shared, self.shared.config, self._reader
        assert reader is not None
        timeout = config.ws_ping_timeout or inf
        if reader.paused:
            self._silent_since = inf  # it is we who do not listen
        if shared.now - self._silent_since >= timeout:
            self._phase = ENDED
            self._disconnect = (ws_frames.ABNORMAL, "ping timeout")
            self.transport.write(ws_frames.close_frame(ws_frames.INTERNAL_ERROR, "ping timeout"))
            self._wake()
            self.close()
            return
        if self._next_ping <= shared.now:
            self._next_ping = shared.now + config.ws_ping_interval
            if not self.write_paused:  # else `write_deadline` watches the client
                self.transport.write(ws_frames.head(FIN | PING, 0))
                self._silent_since = min(self._silent_since, shared.now)
        self.deadline = min(self._next_ping, self._silent_since + timeout)

    @property
    def idle(self) -> bool:
        """Never: an application is under way, or a closing handshake that has its own deadline."""
        return False


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise ApplicationError(f"websocket.send: bytes is {type(data).__name__}")


def _drop(data: bytes) -> None:
    """Feed of a connection that is gone; no bound method, so that no cycle keeps it."""


def is_offered(exchange: Exchange) -> bool:
    """Tell whether a request that may change protocols asks for a WebSocket; 1.0 cannot (RFC 9110 section 7.8)."""
    return exchange.modern and ws_handshake.is_offered(exchange.method, exchange.headers)


def take_over(http: Connection, exchange: Exchange, rest: bytes) -> None:
    """Make a WebSocket of an HTTP connection on which `exchange`, not begun, asks for one; `rest` came after it.

    The HTTP connection is not to be used again; what it is still fed goes on to the socket.
    """
    shared = http.shared
    socket = WebSocketConnection(http, exchange)
    http.stage = CLOSED
    http.deadline = http.write_deadline = inf
    http.feed = socket.data_received
    shared.connections.discard(http)
    shared.connections.add(socket)
    http.transport.set_protocol(socket)
    socket.open()
    if rest:
        socket.data_received(rest)
