"""A WebSocket as its application sees it: scope, `receive()` and `send()`, and its beginning (`take_over`).

Runs in the worker's loop. `handshake` has the rules of the opening handshake, `connection` the client's side. It must
never let an application's exception reach the loop.

Sources: the WebSocket part of the ASGI specification (version 2.5), and its extension "Websocket Denial Response".
"""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final

from aserver.asgi import Message, Scope
from aserver.errors import ApplicationError, ClientDisconnectedError, ClientError
from aserver.protocol.application.access_record import PlainRecord
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.parting import is_disconnect
from aserver.protocol.application.tasks import Tasks, report
from aserver.protocol.semantics import fields
from aserver.protocol.semantics.response import DONE, HEADED, Response
from aserver.protocol.semantics.status import plain_text
from aserver.protocol.websocket import deflate, frames, handshake
from aserver.protocol.websocket.connection import ACCEPTED, APP_CLOSED, CONNECTING, DENYING, ENDED, Socket, SocketPhase
from aserver.protocol.websocket.frames import BINARY, FIN, RSV1, TEXT
from aserver.protocol.websocket.tunnel import OpeningAnswer, Tunnel

#: A message below this many bytes is joined to its frame's head. To copy a larger one costs more than to write both.
JOIN_FRAME_LIMIT: Final = 8192

_TEXT: Final = FIN | TEXT
_BINARY: Final = FIN | BINARY
_TEXT_HEADS: Final = tuple(frames.head(_TEXT, size) for size in range(126))
_BINARY_HEADS: Final = tuple(frames.head(_BINARY, size) for size in range(126))
_SCHEMES: Final = {"http": "ws", "https": "wss"}


class WebSocket:
    """A WebSocket, from the client's complete request to the end of its tunnel."""

    __slots__ = (
        "_answer",
        "_answered",
        "_asked",
        "_deflater",
        "_handshake",
        "_response",
        "client",
        "compressing",
        "context",
        "headers",
        "receive",
        "request_id",
        "response_headers",
        "scope",
        "sent",
        "socket",
        "started",
        "status",
        "target",
        "task",
        "tasks",
        "version",
    )

    # See `Request`. A WebSocket is never a stream of HTTP's: the stop ends it by a closing handshake.
    state = None
    method = "WEBSOCKET"
    open_ended = False

    def __init__(self, tunnel: Tunnel, tasks: Tasks, answer: OpeningAnswer, exchange: Exchange) -> None:
        self.socket = Socket(tunnel, self)
        self.context = tunnel.context
        self.tasks = tasks
        self._answer = answer
        self.client = exchange.client
        self.scope: Scope = exchange.scope
        # Kept for the logs, because the application may change or empty its scope:
        self.target = exchange.target
        self.headers = exchange.headers
        self.version = exchange.version
        self._asked = exchange.method  # GET, or CONNECT over HTTP/2
        self.request_id = exchange.request_id
        self.started = monotonic()  # uvloop's clock, too, but `loop.time()` has only milliseconds
        self.sent = 0
        self.status = 0  # of the HTTP answer
        self._answered = False  # the opening request has its record in the access log
        self.response_headers: Sequence[tuple[bytes, bytes]] = ()
        self.task: asyncio.Task[None] | None = None
        self.receive = self.socket.receive
        self._deflater: deflate.Deflater | None = None
        self.compressing: asyncio.Future[None] | None = None  # done when a large message is compressed
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
            offer = self._handshake = handshake.examine(self.headers, keyed=self.version == "1.1")
        except ClientError as error:
            self.refuse(error.status)
            return
        self.scope["subprotocols"] = offer.subprotocols
        self.tasks.start(self)

    @property
    def begun(self) -> bool:
        """See `Request`."""
        return self.socket.phase is not CONNECTING

    @property
    def answered(self) -> bool:
        """See `Request`: whether the WebSocket was closed or denied, by either side."""
        return self.socket.over

    def abandon(self) -> bool:
        """See `Request`: an application was always told that its client has left, so it may work on."""
        return False

    def progress(self) -> None:
        """See `Request`: None, because a WebSocket may be silent without a limit."""

    def give_up(self, status: int) -> str:  # noqa: ARG002 - see `Request`
        """See `Request`: not called, because `progress` returns None."""
        return ""

    def end_stream(self) -> None:
        """See `Request`: not called, because `open_ended` is False."""

    def cancel(self, reason: str) -> None:
        """Close with 1012, and cancel the application. `failed` answers 503 if nothing was answered yet."""
        self.socket.leave()
        if self.task is not None:
            self.task.cancel(reason)

    def returned(self) -> None:
        """Close the WebSocket, because the application has returned; log it if it has not answered."""
        if self.socket.phase is ACCEPTED:
            self.socket.end(frames.NORMAL, "")
        elif self.socket.phase in (CONNECTING, DENYING):
            report(self, "the application returned without an answer (expected %s)", self.socket.phase.value)
            self._give_up(500)

    def failed(self, error: BaseException) -> None:
        """Log the exception that the application raised, and close the WebSocket."""
        cancelled = isinstance(error, asyncio.CancelledError)
        if not cancelled and not (self.socket.phase is ENDED and (isinstance(error, OSError) or is_disconnect(error))):
            report(self, "the application raised %s", type(error).__name__, error=error)
        if self.socket.phase is not ACCEPTED:
            self._give_up(503 if cancelled else 500)
        elif cancelled:
            self.socket.leave()
        else:
            self.socket.end(frames.INTERNAL_ERROR, "internal error")

    def _give_up(self, status: int) -> None:
        """Answer instead of the application, or break its denial response off."""
        if self.socket.phase is CONNECTING:
            self.refuse(status)
        elif self.socket.phase is DENYING:
            assert self._response is not None
            if self._response.state is HEADED:  # nothing was sent yet
                self.refuse(status)
            else:
                self.socket.phase = ENDED
                self.socket.tunnel.close()

    # ── send ─────────────────────────────────────────────────────────────────────────────────

    async def send(self, message: Message) -> None:  # noqa: C901, PLR0912 - a call less is 1 % of a message
        """ASGI `send()`. Raises ApplicationError, and ClientDisconnectedError after the end of the WebSocket."""
        deflater = self._deflater
        if deflater is not None:
            while self.compressing is not None:  # another task's message comes first
                await asyncio.wait([self.compressing])
        socket = self.socket
        if socket.phase is not ACCEPTED or message["type"] != "websocket.send":
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
                data = fields.as_bytes("websocket.send: bytes", data)
            first, heads = _BINARY, _BINARY_HEADS
        size = len(data)
        writer = socket.writer
        if deflater is not None and size >= deflate.LEAST_SIZE:
            data = await self._compress(deflater, data)
            size = len(data)
            head = frames.head(first | RSV1, size)
        else:
            head = heads[size] if size < 126 else frames.head(first, size)
        if size >= JOIN_FRAME_LIMIT:
            writer.write_pieces([head, data])
        else:
            # Written at once if it answers a single message. Several answers, and messages in a row, wait for the end
            # of the turn: ten in a write take 0.4 of the CPU.
            if socket.messages and writer.held is None:
                writer.hold(pipelined=False)
            if socket.streak or writer.held is not None:
                writer.write_soon(head + data)
            else:
                socket.streak = True
                writer.transport.write(head + data)
        self.sent += size
        if socket.write_paused:
            await socket.tunnel.until_writable()

    async def _compress(self, deflater: deflate.Deflater, data: bytes) -> bytes:
        """Compress a message, a large one in parts, between which other connections have their turn."""
        if len(data) <= deflate.DEFLATED_AT_ONCE:
            return deflater.message(data)
        context = self.context
        compressing: asyncio.Future[None] = context.loop.create_future()
        self.compressing = compressing
        view = memoryview(data)
        pieces: list[bytes] = []
        whole = False
        try:
            for begin in range(0, len(data), deflate.DEFLATED_AT_ONCE):
                if begin:
                    await context.fair_queue.turn()
                if self.socket.phase is not ACCEPTED:
                    raise ClientDisconnectedError("the WebSocket was closed while a message was compressed")
                pieces.append(deflater.feed(view[begin : begin + deflate.DEFLATED_AT_ONCE]))
            pieces.append(deflater.end())
            whole = True
        finally:
            if not whole:
                deflater.forget()
            self.compressing = None
            compressing.set_result(None)
        return b"".join(pieces)

    async def _send_other(self, message: Message) -> None:
        kind, phase = message["type"], self.socket.phase
        if phase is ENDED or (phase is APP_CLOSED and kind == "websocket.send"):
            # A second close is allowed, because applications close in `finally` clauses.
            if kind != "websocket.close":
                self.socket.told = True
                raise ClientDisconnectedError("the WebSocket is closed")
        elif phase is ACCEPTED and kind == "websocket.close":
            self._close(message)
        elif phase is CONNECTING and kind == "websocket.accept":
            self._accept(message)
        elif phase is CONNECTING and kind == "websocket.close":
            self.refuse(403, APP_CLOSED)
        elif kind in ("websocket.http.response.start", "websocket.http.response.body"):
            await self._deny(message)
        else:
            raise ApplicationError(f"unexpected ASGI message {kind!r}; expected {phase.value}")

    def _accept(self, message: Message) -> None:
        context, offer = self.context, self._handshake
        assert offer is not None
        headers = fields.as_pairs(message.get("headers") or ())
        agreement = deflate.negotiate(offer.extensions) if context.config.ws_per_message_deflate else None
        extensions = b"" if agreement is None else agreement.answer
        # Raises before anything is sent, or not at all: no close frame may precede the answer.
        self._answer.accept(handshake.accept(offer, message.get("subprotocol"), headers, extensions), headers)
        self.response_headers = headers
        self._handshake = None
        self.record(self._asked, self._answer.status)
        inflater = None
        if agreement is not None:
            inflater = deflate.Inflater(agreement)
            self._deflater = deflate.Deflater(agreement)
        self.socket.open(inflater)

    def _close(self, message: Message) -> None:
        code = message.get("code")
        if code is None:
            code = frames.NORMAL
        reason = message.get("reason") or ""
        if not isinstance(code, int) or not (frames.may_be_sent(code) or code == frames.NO_STATUS):
            raise ApplicationError(f"websocket.close: code {code!r} may not be sent (RFC 6455 section 7.4)")
        if len(reason.encode("utf-8", "replace")) > frames.REASON_LIMIT:
            raise ApplicationError(f"websocket.close: reason above {frames.REASON_LIMIT} bytes")
        self.socket.end(code, reason, APP_CLOSED)

    async def _deny(self, message: Message) -> None:
        """Send an HTTP response instead of the one that opens the WebSocket ("Websocket Denial Response")."""
        if self.socket.phase is CONNECTING:
            self._response = Response(self._answer.heads, True, False, False)
        response = self._response
        if response is None or self.socket.phase not in (CONNECTING, DENYING):
            raise ApplicationError(f"unexpected ASGI message {message['type']!r}; expected {self.socket.phase.value}")
        if message["type"] == "websocket.http.response.start":
            response.start(message)
            self.status = response.status
            self.socket.phase = DENYING
            return
        send = self._answer.send_head if response.state is HEADED else self._answer.send_data
        send(response, response.body(message))
        if response.state is DONE:
            self.response_headers = response.response_headers
            self.sent = response.sent
            self._denied(response.status, APP_CLOSED)
        elif self.socket.write_paused:
            await self.socket.tunnel.until_writable()

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def refuse(self, status: int, phase: SocketPhase = ENDED) -> None:
        """Answer with an HTTP status instead of the application."""
        response = Response(self._answer.heads, True, False, False)
        self._answer.send_head(response, response.answer(status, *(handshake.VERSION_FIELDS if status == 426 else ())))
        self.sent = len(plain_text(status))
        self._denied(status, phase)

    def _denied(self, status: int, phase: SocketPhase) -> None:
        self.socket.phase = phase
        self.record(self._asked, status)
        self.socket.deny()

    def lost(self, code: int, *, accepted: bool) -> None:
        """See `Owner`: write the last record for the access log."""
        self._deflater = None
        if accepted:
            self.record("WEBSOCKET", code)
        elif not self._answered:
            self.record(self._asked, self.status)

    def record(self, method: str, status: int) -> None:
        """Count and log the answer or the end."""
        self._answered = True
        if self.tasks.observed:
            line, fields_of_both = (method, self.target, self.version), (self.headers, self.response_headers)
            times = self.started, monotonic() - self.started
            ended = PlainRecord(
                self.client, *line, status, self.sent, *fields_of_both, *times, self.request_id, self.scope
            )
            self.tasks.record(ended)


def is_offered(exchange: Exchange) -> bool:
    """Tell whether a request with an upgrade asks for a WebSocket. HTTP/1.0 has no upgrade (RFC 9110 section 7.8)."""
    return exchange.modern and handshake.is_offered(exchange.method, exchange.headers)


def take_over(tunnel: Tunnel, tasks: Tasks, answer: OpeningAnswer, exchange: Exchange, rest: bytes) -> None:
    """Make a WebSocket of a tunnel. `exchange` asks for it and was not started; `rest` are the bytes that followed."""
    websocket = WebSocket(tunnel, tasks, answer, exchange)
    tunnel.hand_over(websocket.socket)
    websocket.open()
    if rest:
        websocket.socket.data_received(rest)
