"""The pure half of an HTTP/2 connection with an application that says hello."""

from collections.abc import Callable

from aserver.errors import ClientError
from aserver.protocol.http2.encoder import BlockEncoder
from aserver.protocol.http2.errors import ConnectionFaultError
from aserver.protocol.http2.rates import Patience
from aserver.protocol.http2.reader import Reader
from aserver.protocol.http2.request import StreamRequest
from aserver.protocol.http2.sender import Sender
from aserver.protocol.http2.streams import Stream, Streams
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.response import Response
from aserver.protocol.semantics.response_head import Defaults

HELLO = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


LIMITS = RequestLimits(line=8190, fields=100, field_size=8190, body=0)


class PlainServer:
    """Answers each request when it is complete, unless it is `silent`, and keeps a record."""

    def __init__(
        self, limits: RequestLimits = LIMITS, most_streams: int = 100, *, window: int = 65_535, silent: bool = False
    ) -> None:
        self.silent = silent
        self.blocks = BlockEncoder(Defaults([], None))
        self.streams = Streams(window)
        patience = Patience(0.0)
        self.sender = Sender(self.streams, patience, self.on_writable)
        self.reader = Reader(self, self.streams, self.sender, patience, limits, most_streams)
        self.requests: list[StreamRequest] = []
        self.refused: list[tuple[int, int]] = []
        self.bodies: dict[int, bytes] = {}
        self.resets: list[tuple[int, int]] = []
        self.pongs: list[bytes] = []
        self.writable: list[int] = []
        self.refill = True
        self.credit: Callable[[Stream, int], None] = self.sender.credit
        self.sent = b""
        self.fault: ConnectionFaultError | None = None

    def feed(self, data: bytes, now: float = 0.0) -> None:
        """Read, and keep what is to be sent."""
        try:
            self.reader.feed(data, now)
            while self.refill and self.reader.spent:
                self.reader.refill()
                self.reader.feed(b"", now)
        except ConnectionFaultError as fault:
            self.fault = fault
        while data := self.sender.take():
            self.sent += data

    def on_request(self, stream: Stream, request: StreamRequest) -> None:
        """See `StreamSink`."""
        stream.owner = request
        self.requests.append(request)
        if stream.complete:
            self.on_end(stream)

    def on_repeated(self, number: int, request: StreamRequest) -> None:
        """See `StreamSink`: never, as it sets no scope."""
        raise AssertionError(number)

    def on_refused(self, stream: Stream, error: ClientError, request: StreamRequest | None) -> None:
        """See `StreamSink`."""
        self.refused.append((stream.id, error.status))
        stream.owner = error
        response = Response(self.blocks.heads, True, False, True)
        body = response.answer(error.status)
        self.sender.head(stream, self.blocks.block(response), body, end=True)

    def on_body(self, stream: Stream, data: bytes) -> None:
        """See `StreamSink`."""
        self.bodies[stream.id] = self.bodies.get(stream.id, b"") + data
        self.credit(stream, len(data))

    def on_end(self, stream: Stream) -> None:
        """See `StreamSink`."""
        if self.silent:
            return
        response = Response(self.blocks.heads, True, False, True)
        response.start({"type": "http.response.start", "status": 200, "headers": HELLO})
        body = response.body({"type": "http.response.body", "body": b"hello"})
        self.sender.head(stream, self.blocks.block(response), body, end=True)

    def on_reset(self, stream: Stream, code: int, reason: str) -> None:
        """See `StreamSink`."""
        self.resets.append((stream.id, code))

    def on_writable(self, stream: Stream) -> None:
        """See `StreamSink`."""
        self.writable.append(stream.id)

    def on_goaway(self, code: int, debug: bytes) -> None:
        """See `StreamSink`."""

    def on_pong(self, data: bytes) -> None:
        """See `StreamSink`."""
        self.pongs.append(data)

    def on_spent(self) -> None:
        """See `StreamSink`."""
