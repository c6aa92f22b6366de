"""The receiving half of an HTTP/1 connection: bytes to the parser, in portions that can be stopped, and within limits.

Runs in the worker's loop. It knows when to feed, to hold back and to give up on what comes in pieces; what a request
is, and what happens to it, is for `http1`. It must never call the application: the parser's callbacks only collect.
"""

from collections import deque
from typing import Any

import httptools

from aserver.errors import ClientError
from aserver.protocol import websocket, wire
from aserver.protocol.connection import OPEN, Shared
from aserver.protocol.exchange import Carrier, Exchange
from aserver.protocol.wire import REQUEST_NAMES, SPECIAL_REQUEST_NAMES

#: Parsed requests that wait for the current one's response; above it, reading pauses.
PIPELINE_LIMIT = 16

#: Bytes given to the parser at once. It cannot be stopped, and 256 KB (uvloop's read) of pipelined requests make
#: 26 MB of objects.
SLICE = 8192


class Intake(Carrier):
    """A connection that reads requests; `HttpConnection` is the one kind of it."""

    __slots__ = (
        "_fields_before",
        "_final",
        "_good_host",
        "_growth",
        "_head_size",
        "_parser",
        "_partial",
        "_piece",
        "_queue",
        "_refusal",
        "_unfed",
        "_upgrading",
        "current",
        "headers",
        "receiving",
        "special",
        "url",
    )

    def __init__(self, shared: Shared, *, scheme: str = "http", tls: bool = False) -> None:
        super().__init__(shared, scheme=scheme, tls=tls)
        self.eof = False
        self.current: Exchange | None = None  # whose response is due
        self.receiving: Exchange | None = None  # whose body is being read
        self._queue: deque[Exchange] = deque()  # parsed, not begun
        self._refusal: ClientError | None = None  # to be answered when the queue is empty
        self._unfed = b""
        # the head being read
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.special: dict[bytes, bytes] = {}
        self._good_host: bytes | None = None  # the last Host that was found well-formed
        self._piece = 0  # length of what the parser is being fed
        self._head_size = 0  # bytes of the pieces before it that hold part of this head
        self._fields_before = 0  # fields complete when the last piece had been parsed
        self._growth = 0  # bytes since a field was last completed
        self._partial = False  # a head has begun and `deadline` is for its end
        self._final = False  # no request can follow the last one that was read
        self._upgrading = False  # llhttp takes the body of the last one for another protocol
        self._parser: Any = httptools.HttpRequestParser(self)
        self.feed = self._parser.feed_data

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Parse, then start what can be started."""
        self._piece = size = len(data)
        if size > SLICE:
            self._feed_slices(data)
        else:
            try:
                self.feed(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self._parser_stopped(data, error)
        current = self.current
        if current is not None and not current.launched and not self.write_paused:
            self.launch(current)
        if self.receiving is not None or current is None or self.url:
            self._unfinished()

    def _feed_slices(self, data: bytes) -> None:
        """Feed much data in small pieces, so that a flood of pipelined requests can be stopped."""
        view = memoryview(data)
        start = 0
        while start < len(view):
            if len(self._queue) >= PIPELINE_LIMIT and self.stage is OPEN:
                self._unfed = bytes(view[start:])
                self.feed = self._stash
                return
            # Inside a body larger pieces do no harm: they make bytes, not requests.
            step = SLICE if self.receiving is None else 8 * SLICE
            piece = view[start : start + step]
            self._piece = len(piece)
            start += step
            try:
                self.feed(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self._parser_stopped(piece, error)
            if start < len(view):
                self._unfinished()

    def _stash(self, data: bytes) -> None:
        self._unfed += data

    def _feed_stashed(self) -> None:
        if self.feed != self._stash or self.stage is not OPEN:
            return
        data, self._unfed = self._unfed, b""
        self.feed = self._parser.feed_data
        self.data_received(data)
        self._resume_reading()

    def _resume_reading(self) -> None:
        """Read on, unless there is another reason not to."""
        inbound = None if self.receiving is None else self.receiving.inbound
        if not self._unfed and len(self._queue) < PIPELINE_LIMIT and (inbound is None or not inbound.paused):
            self.transport.resume_reading()

    def _parser_stopped(self, data: bytes | memoryview, error: Exception) -> None:
        if isinstance(error, httptools.HttpParserUpgrade):
            rest = bytes(data[error.args[0] :])
            if not self._became_websocket(rest):
                self._resume_after_upgrade(rest)
            return
        cause = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
            if not isinstance(cause, ClientError):
                raise cause
            self.refuse(cause)
        elif self._final and self.receiving is None:
            self.feed = self._discard  # bytes after the last request are nobody's
        elif isinstance(error, httptools.HttpParserInvalidMethodError):
            self.refuse(ClientError(501 if wire.REQUEST_START.match(data) else 400, str(error)))
        else:
            self.refuse(ClientError(400, str(error)))

    def _became_websocket(self, rest: bytes) -> bool:
        """Hand the connection over if a WebSocket is asked for, and nothing else waits; `rest` came after it."""
        current = self.current
        if current is None or current.launched or self.receiving is not None or self._queue:
            return False
        if not websocket.is_offered(current):
            return False
        self.current = self._parser = None
        websocket.take_over(self, current, rest)
        return True

    def _resume_after_upgrade(self, rest: bytes) -> None:
        """Serve as plain HTTP a request that offered another protocol (RFC 9110 section 7.8: an offer may be ignored).

        llhttp has skipped the body then. A new parser reads it, set on its way by a head that only says how the
        body is framed.
        """
        exchange = self.receiving
        if exchange is not None and exchange.inbound is not None:
            resumed = _Resumed(self)
            self._parser = httptools.HttpRequestParser(resumed)
            self.feed = self._parser.feed_data
            length = exchange.inbound.length
            framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
            self.feed(b"POST / HTTP/1.1\r\n%s\r\n\r\n" % framing)
            resumed.primed = True
        self._upgrading = False
        if rest:
            try:
                self.feed(rest)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self._parser_stopped(rest, error)

    # ── limits of what is not complete yet ───────────────────────────────────────────────────

    def _unfinished(self) -> None:
        """Hold what comes in pieces to the limits; not called when requests come whole."""
        if self.stage is not OPEN or self.feed == self._discard:
            return
        shared = self.shared
        if self.receiving is not None:
            if self.headers:  # trailers
                self._count_piece()
            return
        if not self._partial:
            self._partial = True
            self.deadline = shared.now + shared.header_timeout
        if len(self.url) > shared.limit_request_line:
            self.refuse(ClientError(414, f"request line above {shared.limit_request_line} bytes"))
        else:
            self._count_piece()

    def _count_piece(self) -> None:
        """Refuse with 431 a head, or trailers, with too many fields or one too long that is not complete yet."""
        shared = self.shared
        self._head_size += self._piece
        fields = len(self.headers)
        # Pieces in which no field ended belong to at most two fields: the value of one, the name of the next.
        self._growth = self._growth + self._piece if fields == self._fields_before else 0
        self._fields_before = fields
        if fields > shared.limit_request_fields:
            self.refuse(ClientError(431, f"more than {shared.limit_request_fields} fields"))
        elif self._growth > shared.limit_request_line + 2 * shared.limit_request_field_size:
            self.refuse(ClientError(431, f"a field above {shared.limit_request_field_size} bytes"))

    # ── callbacks of the parser: the head and, after the body, the trailers ──────────────────────

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a piece of it."""
        self.url = self.url + url if self.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of the trailers (which `on_message_complete` drops)."""
        known = REQUEST_NAMES.get(name)
        value = value.rstrip()  # llhttp leaves trailing whitespace (RFC 9110 section 5.5)
        if known is None:
            known = name.lower()
            if known in SPECIAL_REQUEST_NAMES:
                special = self.special
                if known in special:
                    if known in {b"host", b"content-length"}:
                        raise ClientError(400, f"repeated {known.decode()} field")
                    special[known] += b", " + value
                else:
                    special[known] = value
        self.headers.append((known, value))

    # ── what `HttpConnection` does with it ───────────────────────────────────────────────────────

    def on_headers_complete(self) -> None:
        """Make an exchange of the head that was collected. Raises ClientError through the parser."""
        raise NotImplementedError

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on. Raises ClientError through the parser."""
        raise NotImplementedError

    def on_message_complete(self) -> None:
        """Note the end of the request that was being read."""
        raise NotImplementedError

    def launch(self, exchange: Exchange) -> None:
        """Start the application for a request whose turn has come."""
        raise NotImplementedError

    def refuse(self, error: ClientError) -> None:
        """Answer a request that cannot be served, when its turn comes, and read no other."""
        raise NotImplementedError


class _Resumed:
    """Callbacks for a parser that begins in the middle: all but those for its first, made-up head."""

    def __init__(self, connection: Intake) -> None:
        self.primed = False
        self._connection = connection
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_url(self, url: bytes) -> None:
        if self.primed:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.primed:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.primed:
            self._connection.on_headers_complete()


def drop(data: bytes) -> None:
    """Feed of a connection that is gone; no bound method, so that no cycle keeps it."""
