"""A WebSocket as its application sees it: scope, `receive()` and `send()`; and how one begins.

Runs in the worker's loop. It takes an HTTP/1 connection's transport over (`take_over`); the handshake's rules are
`handshake`'s, the client's side is `connection`. It must never let an application's exception reach the loop.

Sources: the ASGI specification's WebSocket part (version 2.5) and its Websocket Denial Response extension.
"""

import asyncio
from math import inf
from typing import Final, cast

from aserver.asgi import Message
from aserver.errors import ApplicationError, ClientDisconnectedError, ClientError
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.parting import is_disconnect
from aserver.protocol.application.tasks import Tasks, describe, report
from aserver.protocol.semantics import fields
from aserver.protocol.semantics.response import DONE, HEADED, Response
from aserver.protocol.transport.connection import CLOSED, SIGN_OF_LIFE, Connection
from aserver.protocol.websocket import deflate, frames, handshake
from aserver.protocol.websocket.connection import APP_CLOSED, CONNECTING, DENYING, ENDED, OPEN, Socket
from aserver.protocol.websocket.frames import BINARY, FIN, RSV1, TEXT

#: Up to this size (bytes) a message is joined to its frame's head; above it, copying costs more than writing both.
JOIN_FRAME_LIMIT: Final = 8192

_TEXT: Final = FIN | TEXT
_BINARY: Final = FIN | BINARY
_TEXT_HEADS: Final = tuple(frames.head(_TEXT, size) for size in range(126))
_BINARY_HEADS: Final = tuple(frames.head(_BINARY, size) for size in range(126))
_SCHEMES: Final = {"http": "ws", "https": "wss"}


class WebSocketConnection(Socket):
    """A WebSocket, from the client's complete request to the end of the connection."""

    __slots__ = ("_compressing", "_handshake", "_response")

    def __init__(self, http: Connection, tasks: Tasks, encoder: handshake.ResponseEncoder, exchange: Exchange) -> None:
        super().__init__(http, tasks, encoder, exchange)
        self._messages.append(({"type": "websocket.connect"}, 0))
        self._compressing: asyncio.Future[None] | None = None  # until a large message is compressed
        self._handshake: handshake.OpeningHandshake | None = None
        self._response: Response | None = None  # a denial response
        scope = self.scope
        scope["type"] = "websocket"
        del scope["method"]
        scope["scheme"] = _SCHEMES.get(scope["scheme"], scope["scheme"])
        told = {"tls": scope["extensions"]["tls"]} if "tls" in scope["extensions"] else {}
        scope["extensions"] = {"websocket.http.response": {}, "aserver.draining": self.context.leaving, **told}

    # ── the application's task ───────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Check the offer and start the application."""
        try:
            offer = self._handshake = handshake.examine(self.headers)
        except ClientError as error:
            self.refuse(error.status)
            return
        self.scope["subprotocols"] = offer.subprotocols
        if not self.tasks.start(self):
            self.refuse(503)

    @property
    def method(self) -> str:
        """The log's word for a WebSocket."""
        return "WEBSOCKET"

    def describe(self, now: float) -> str:
        """Return `WEBSOCKET /x, 31.2 s` for the log."""
        return describe(self, now - self.started)

    @property
    def begun(self) -> bool:
        """Whether the application has begun to answer."""
        return self._phase is not CONNECTING

    @property
    def answered(self) -> bool:
        """Whether it has been closed or denied, by any side."""
        return self.over

    def abandon(self) -> bool:
        """Do nothing: an application whose client has left has heard of it, and may work on."""
        return False

    def progress(self) -> None:
        """See `Request`: between two messages an application may take as long as it likes."""

    def give_up(self, status: int) -> str:  # noqa: ARG002 - see `Request`
        """Do nothing: it is never overdue."""
        return ""

    @property
    def open_ended(self) -> bool:
        """Not as HTTP is: WebSockets leave by a closing offer."""
        return False

    def end_stream(self) -> None:
        """Do nothing; see `leave`."""

    @property
    def over(self) -> bool:
        """Whether it has been closed or denied, by any side."""
        return self._phase in (APP_CLOSED, ENDED)

    def cancel(self, reason: str) -> None:
        """Close with 1012 (503 before the offer) and cancel the application."""
        self.leave()
        if self.task is not None:
            self.task.cancel(reason)

    def returned(self) -> None:
        """React to the application's return: complain unless it has answered."""
        if self._phase is OPEN:
            self.end(frames.NORMAL, "")
        elif self._phase in (CONNECTING, DENYING):
            report(self, "the application returned without an answer (expected %s)", self._phase.value)
            self._give_up(500)

    def failed(self, error: BaseException) -> None:
        """React to an exception of the application."""
        cancelled = isinstance(error, asyncio.CancelledError)
        if not cancelled and not (self._phase is ENDED and (isinstance(error, OSError) or is_disconnect(error))):
            report(self, "the application raised %s", type(error).__name__, error=error)
        if self._phase is not OPEN:
            self._give_up(503 if cancelled else 500)
        elif cancelled:
            self.leave()
        else:
            self.end(frames.INTERNAL_ERROR, "internal error")

    def _give_up(self, status: int) -> None:
        """Answer for an application that has not, or break off what it began."""
        if self._phase is CONNECTING:
            self.refuse(status)
        elif self._phase is DENYING:
            assert self._response is not None
            if self._response.state is HEADED:  # nothing is out yet
                self.refuse(status)
            else:
                self._phase = ENDED
                self.close()

    # ── receive ──────────────────────────────────────────────────────────────────────────────

    async def receive(self) -> Message:
        """ASGI `receive()`."""
        while self._messages or self._disconnect is not None or self._waiter is not None:
            if self._messages:
                message, size = self._messages.popleft()
                self._queued -= size
                if self._reader is not None and self._reader.paused:
                    self.go_on_reading()
                return message
            if self._disconnect is not None:
                self.told = True
                code, reason = self._disconnect
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            assert self._waiter is not None  # another task is waiting already; the first message is its
            await asyncio.wait([self._waiter])
        self._streak = False
        waiter: asyncio.Future[Message] = self.context.loop.create_future()
        self._waiter = waiter
        try:
            return await waiter
        except BaseException:
            if self._waiter is waiter:
                self._waiter = None
            elif waiter.done() and not waiter.cancelled():  # it had come, and must not be lost
                self._messages.appendleft((waiter.result(), 0))
            raise

    # ── send ─────────────────────────────────────────────────────────────────────────────────

    async def send(self, message: Message) -> None:
        """ASGI `send()`. Raises ApplicationError, and ClientDisconnectedError (an OSError) when there is no client."""
        while self._compressing is not None:  # another task's message comes before this one
            await asyncio.wait([self._compressing])
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
        if self._deflater is not None and size >= deflate.LEAST_SIZE:
            data = await self._compress(self._deflater, data)
            size = len(data)
            self._write_frame(frames.head(first | RSV1, size) + data)
        elif size < 126:
            self._write_frame(heads[size] + data)
        elif size < JOIN_FRAME_LIMIT:
            self._write_frame(frames.head(first, size) + data)
        else:
            self.writer.write_pieces([frames.head(first, size), data])
        self.sent += size
        if self.write_paused:
            await self.until_writable()

    async def _compress(self, deflater: deflate.Deflater, data: bytes) -> bytes:
        """Compress a message; a large one in portions, between which the worker serves others."""
        if len(data) <= deflate.DEFLATED_AT_ONCE:
            return deflater.message(data)
        context = self.context
        compressing: asyncio.Future[None] = context.loop.create_future()
        self._compressing = compressing
        view = memoryview(data)
        pieces: list[bytes] = []
        whole = False
        try:
            for begin in range(0, len(data), deflate.DEFLATED_AT_ONCE):
                if begin:
                    await context.fair_queue.turn()
                if self._phase is not OPEN:
                    raise ClientDisconnectedError("the WebSocket was closed while a message was compressed")
                pieces.append(deflater.feed(view[begin : begin + deflate.DEFLATED_AT_ONCE]))
            pieces.append(deflater.end())
            whole = True
        finally:
            if not whole:
                deflater.forget()
            self._compressing = None
            compressing.set_result(None)
        return b"".join(pieces)

    def _write_frame(self, frame: bytes) -> None:
        """Write at once what answers a message; what answers more of them, or is sent in a row, once in a turn."""
        writer = self.writer
        if self._messages and writer.held is None:  # their answers will follow: ten in one write take 0.4 of the CPU
            writer.hold(pipelined=False)
        if self._streak or writer.held is not None:
            writer.write_soon(frame)
        else:
            self._streak = True
            self.transport.write(frame)

    async def _send_other(self, message: Message) -> None:
        kind, phase = message["type"], self._phase
        if phase is ENDED or (phase is APP_CLOSED and kind == "websocket.send"):
            # To close what is closed already is what `finally` clauses do, and asks for nothing that cannot be had.
            if kind != "websocket.close":
                self.told = True
                raise ClientDisconnectedError("the WebSocket is closed")
        elif phase is OPEN and kind == "websocket.close":
            self._close(message)
        elif phase is CONNECTING and kind == "websocket.accept":
            self._accept(message)
        elif phase is CONNECTING and kind == "websocket.close":
            self.refuse(403)
            self._phase = APP_CLOSED
        elif kind in ("websocket.http.response.start", "websocket.http.response.body"):
            await self._deny(message)
        else:
            raise ApplicationError(f"unexpected ASGI message {kind!r}; expected {phase.value}")

    def _accept(self, message: Message) -> None:
        context, offer = self.context, self._handshake
        assert offer is not None
        headers = fields.as_pairs(message.get("headers") or ())
        agreement = deflate.negotiate(offer.extensions) if context.config.ws_per_message_deflate else None
        answer = b"" if agreement is None else agreement.answer
        head = self._encoder.switch(handshake.accept(offer, message.get("subprotocol"), headers, answer), headers)
        self.response_headers = headers
        self._phase = OPEN  # after all that can fail: a close frame must not come before the 101
        self.writer.write(head)
        inflater = None
        if agreement is not None:
            inflater = deflate.Inflater(agreement)
            self._deflater = deflate.Deflater(agreement)
        self._reader = frames.Reader(self, context.config.ws_max_size, inflater)
        self.feed = self._reader.feed
        self._handshake = None
        if context.config.ws_ping_interval:
            self.awaited = SIGN_OF_LIFE
            self.deadline = self._next_ping = context.now + context.config.ws_ping_interval
        self.record("GET", 101)
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            self._reader.paused = True
            self._reader.feed(early)
            self.resume()

    def _close(self, message: Message) -> None:
        code = message.get("code")
        if code is None:
            code = frames.NORMAL
        reason = message.get("reason") or ""
        if not isinstance(code, int) or not (frames.may_be_sent(code) or code == frames.NO_STATUS):
            raise ApplicationError(f"websocket.close: code {code!r} may not be sent (RFC 6455 section 7.4)")
        if len(reason.encode("utf-8", "replace")) > frames.REASON_LIMIT:
            raise ApplicationError(f"websocket.close: reason above {frames.REASON_LIMIT} bytes")
        self.end(code, reason, APP_CLOSED)

    async def _deny(self, message: Message) -> None:
        """The denial response extension: an ordinary HTTP response instead of the 101."""
        if self._phase is CONNECTING:
            self._response = Response(self._encoder.heads, True, False, False)
        response = self._response
        if response is None or self._phase not in (CONNECTING, DENYING):
            raise ApplicationError(f"unexpected ASGI message {message['type']!r}; expected {self._phase.value}")
        if message["type"] == "websocket.http.response.start":
            response.start(message)
            self.status = response.status
            self._phase = DENYING
            return
        encode = self._encoder.first if response.state is HEADED else self._encoder.piece
        self.write_response(encode(response, response.body(message)))
        if response.state is DONE:
            self.response_headers = response.response_headers
            self.sent = response.sent
            self._phase = APP_CLOSED
            self.denied(response.status)
        elif self.write_paused:
            await self.until_writable()


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise ApplicationError(f"websocket.send: bytes is {type(data).__name__}")


def is_offered(exchange: Exchange) -> bool:
    """Tell whether a request that may change protocols asks for a WebSocket; 1.0 cannot (RFC 9110 section 7.8)."""
    return exchange.modern and handshake.is_offered(exchange.method, exchange.headers)


def take_over(
    http: Connection, tasks: Tasks, encoder: handshake.ResponseEncoder, exchange: Exchange, rest: bytes
) -> None:
    """Make a WebSocket of an HTTP connection on which `exchange`, not begun, asks for one; `rest` came after it.

    The HTTP connection is not to be used again; what it is still fed goes on to the socket.
    """
    context = http.context
    socket = WebSocketConnection(http, tasks, encoder, exchange)
    http.stage = CLOSED
    http.deadline = http.write_deadline = inf
    http.feed = socket.data_received
    context.connections.discard(http)
    context.connections.add(socket)
    http.transport.set_protocol(cast("asyncio.BaseProtocol", socket))
    socket.open()
    if rest:
        socket.data_received(rest)
