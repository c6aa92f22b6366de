"""A WebSocket on a stream of HTTP/2 (RFC 8441): the stream as a tunnel, and the answer that opens or refuses it.

Runs in the worker's loop. The session is the same as over HTTP/1 (`websocket/session`). A tunnel must never give a
client credit for bytes that its handler has not got.
"""

import asyncio
from math import inf
from typing import Any, cast

from aserver.errors import ClientError
from aserver.metrics.page import Awaited
from aserver.protocol.application.exchange import Carrier
from aserver.protocol.http2.begin import exchange_of
from aserver.protocol.http2.carrier import StreamConnection
from aserver.protocol.http2.encoder import BlockEncoder, encode_fields, encode_head
from aserver.protocol.http2.errors import CANCEL
from aserver.protocol.http2.request import StreamRequest
from aserver.protocol.http2.streams import Stream
from aserver.protocol.http2.waiting import WindowWait
from aserver.protocol.semantics.response import DONE, Response
from aserver.protocol.semantics.response_head import Pairs
from aserver.protocol.transport.connection import NOBODY, NOTHING, WINDOW, Handler
from aserver.protocol.transport.read_gate import ReadGate
from aserver.protocol.transport.writer import Writer
from aserver.protocol.websocket import session


class StreamTunnel:
    """See `websocket.tunnel.Tunnel`. It is also the transport of its writer and its gate."""

    __slots__ = (
        "_deadline",
        "_delivering",
        "_ended",
        "_kept",
        "_owner",
        "_paused",
        "_sender",
        "_stream",
        "_wait",
        "awaited",
        "context",
        "gate",
        "handler",
        "writer",
    )

    handler: Handler

    def __init__(self, owner: StreamConnection, stream: Stream) -> None:
        self._owner = owner
        self._sender = owner.sender
        self._stream = stream
        self.context = owner.context
        transport = cast("asyncio.Transport", self)
        self.writer = Writer(transport, self.context)
        self.gate = ReadGate(transport)
        self.awaited: Awaited = NOTHING
        self._deadline = inf
        self._wait = WindowWait(self.context, self._sender, stream)
        self._kept = bytearray()  # bytes that have come while reading was paused
        self._paused = False
        self._delivering = False
        self._ended = False  # by the client or the server

    # ── the tunnel ───────────────────────────────────────────────────────────────────────────

    @property
    def open(self) -> bool:
        """See `Tunnel`."""
        return not self._ended and self._owner.open

    @property
    def deadline(self) -> float:
        """See `Tunnel`."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = deadline
        self._owner.watch(deadline, self.awaited)

    def hand_over(self, handler: Handler) -> None:
        """See `Tunnel`."""
        self.handler = handler

    async def until_writable(self) -> None:
        """See `Tunnel`."""
        await self._wait.until_writable()

    def close(self) -> None:
        """See `Tunnel`: only the stream is closed."""
        if not self._ended:
            self.writer.flush()
            self._sender.data(self._stream, b"", end=True)
            self._end()

    linger = close

    def abort(self) -> None:
        """See `Tunnel`."""
        if not self._ended:
            self._sender.reset(self._stream, CANCEL)
            self.handler.cut()
            self._end()

    def _end(self) -> None:
        self._ended = True
        self.writer.stopped = True
        self._deadline = inf
        self._wait.wake()
        self._owner.write_soon()
        # In the next turn, because this may be inside a call of the handler.
        self.context.loop.call_soon(self._lost, context=self.context.variables)

    def _lost(self) -> None:
        """Tell the handler, and let go of it, so that no cycle is left (see `StreamCarrier._part`)."""
        self.handler.lost()
        self.handler = NOBODY
        self.writer = self.gate = cast("Any", None)
        if self._stream.closed:
            self._stream.owner = None

    # ── the transport of writer and gate ─────────────────────────────────────────────────────

    def write(self, data: bytes) -> None:
        """See `asyncio.Transport`."""
        stream = self._stream
        if self._ended or not data:
            return
        self._sender.data(stream, data, end=False)
        if stream.queued:
            self._wait.begin()
            self._owner.watch(self._wait.deadline, WINDOW)
        if stream.write_paused:
            self.handler.write_paused = True
        self._owner.write_soon()

    def pause_reading(self) -> None:
        """Keep the bytes that come. The window limits them."""
        self._paused = True

    def resume_reading(self) -> None:
        """Give the kept bytes to the handler, and those that come."""
        self._paused = False
        self._deliver()

    def _deliver(self) -> None:
        if self._delivering:  # called by the handler, while it takes a piece
            return
        self._delivering = True
        try:
            while self._kept and not (self._paused or self._ended):
                piece = bytes(self._kept)
                self._kept.clear()
                self._sender.credit(self._stream, len(piece))
                self._owner.write_soon()
                self.handler.data_received(piece)
        finally:
            self._delivering = False

    # ── the owner of the stream ──────────────────────────────────────────────────────────────

    def take_body(self, data: bytes) -> None:
        """Give bytes to the handler."""
        if not self._ended:
            self._kept += data
            self._deliver()

    def take_end(self) -> None:
        """Close, because the client has ended its side: a WebSocket needs both."""
        if not self._ended:
            self.handler.eof_received()
            self.close()

    def wake(self) -> None:
        """Let the handler write again, because the client reads."""
        if not self._ended:
            self.handler.write_paused = False
            self.handler.writable()
        self._wait.wake()
        if self._ended and self._stream.closed:
            self._stream.owner = None

    def lost(self) -> None:
        """End, because the stream or the connection has ended."""
        if not self._ended:
            self._end()

    def refuse(self, error: ClientError) -> None:
        """Do nothing: a tunnel has no limit of a body, which could be passed."""

    def expire(self, now: float) -> bool:
        """React to deadlines that have passed, and watch the next. Return whether the client was too slow."""
        if self._deadline <= now:
            self._deadline = inf
            self.handler.expire()
        slow = self._wait.is_over(now)
        if slow:
            self.abort()
        self._owner.watch(self._deadline, self.awaited)
        self._owner.watch(self._wait.deadline, WINDOW)
        return slow

    def postpone(self, seconds: float) -> None:
        """Put off the deadlines."""
        self._deadline += seconds
        self._wait.deadline += seconds
        self.handler.postpone(seconds)


class StreamAnswer:
    """See `websocket.tunnel.OpeningAnswer`."""

    __slots__ = ("_encoder", "_owner", "_stream", "heads", "status")

    def __init__(self, owner: StreamConnection, stream: Stream) -> None:
        self._owner = owner
        self._stream = stream
        self._encoder: BlockEncoder = owner.encoder
        self.heads = owner.encoder.heads
        self.status = 200  # of the answer that opens a tunnel (RFC 8441 section 5)

    def accept(self, fields: Pairs, headers: Pairs) -> None:
        """Send the head that opens the tunnel."""
        defaults = self._owner.context.defaults.beside(headers)
        self._send(encode_head(self.status, fields) + encode_fields(defaults), b"", end=False)

    def send_head(self, response: Response, body: bytes) -> None:
        """Send the head of a refusal with the first piece of its body."""
        self._send(self._encoder.block(response), body, end=response.state is DONE)

    def send_data(self, response: Response, body: bytes) -> None:
        """Send the next piece of a refusal's body."""
        self._owner.sender.data(self._stream, body, end=response.state is DONE)
        self._owner.write_soon()

    def _send(self, block: bytes, body: bytes, *, end: bool) -> None:
        self._owner.sender.head(self._stream, block, body, end=end)
        self._owner.write_soon()


def open_tunnel(owner: StreamConnection, stream: Stream, request: StreamRequest) -> None:
    """Make a WebSocket of a stream whose request asks for one. Raises ClientError for another protocol."""
    if request.protocol != b"websocket":
        raise ClientError(501, f":protocol is {request.protocol!r}")
    incoming = stream.incoming
    if incoming is None:
        raise ClientError(400, "a WebSocket whose client sends nothing")
    tunnel = StreamTunnel(owner, stream)
    # The connection is no whole carrier, but has `context` and `tasks`, which are all that is used.
    exchange = exchange_of(owner, cast("Carrier", owner), request, None, 0)
    stream.owner = tunnel
    incoming.tunnel = True
    session.take_over(tunnel, owner.tasks, StreamAnswer(owner, stream), exchange, b"")
