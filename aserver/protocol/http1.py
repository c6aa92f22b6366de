"""HTTP/1.0 and 1.1 on a connection: from httptools' callbacks to exchanges, in order.

Runs in the worker's loop. No application code runs inside a parser callback: the callbacks only collect, and
`data_received` starts the application when the parser has returned. llhttp (in its strict mode) does the syntax;
what it lets through and RFC 9110 or 9112 does not is refused by `rules`.
"""

from collections import deque
from math import inf
from typing import Any

import httptools

from aserver.errors import ClientError
from aserver.protocol import rules, wire
from aserver.protocol.connection import LINGERING, OPEN, Shared
from aserver.protocol.cycle import DONE, HEADED, START
from aserver.protocol.exchange import Carrier, Exchange
from aserver.protocol.inbound import Inbound
from aserver.protocol.record import Refusal
from aserver.protocol.wire import METHODS, REQUEST_NAMES, SPECIAL_REQUEST_NAMES

#: Parsed requests that wait for the current one's response; above it, reading pauses.
PIPELINE_LIMIT = 16

#: Bytes given to the parser at once. It cannot be stopped, and 256 KB (uvloop's read) of pipelined requests make
#: 26 MB of objects.
SLICE = 8192


# `int in bytes` is a memchr; `bytes in bytes` costs 0.1 us more.
SLASH, QUESTION_MARK = b"/?"


class HttpConnection(Carrier):
    """One client's HTTP/1 connection."""

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
            self._launch(current)
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
            self._resume_after_upgrade(bytes(data[error.args[0] :]))
            return
        cause = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
            if not isinstance(cause, ClientError):
                raise cause
            self._refuse(cause)
        elif self._final and self.receiving is None:
            self.feed = self._discard  # bytes after the last request are nobody's
        elif isinstance(error, httptools.HttpParserInvalidMethodError):
            self._refuse(ClientError(501 if wire.REQUEST_START.match(data) else 400, str(error)))
        else:
            self._refuse(ClientError(400, str(error)))

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
            self._refuse(ClientError(414, f"request line above {shared.limit_request_line} bytes"))
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
            self._refuse(ClientError(431, f"more than {shared.limit_request_fields} fields"))
        elif self._growth > shared.limit_request_line + 2 * shared.limit_request_field_size:
            self._refuse(ClientError(431, f"a field above {shared.limit_request_field_size} bytes"))

    # ── callbacks of the parser ──────────────────────────────────────────────────────────────

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

    def on_headers_complete(self) -> None:
        """Make an exchange of the head that was collected. Raises ClientError through the parser."""
        parser = self._parser
        shared = self.shared
        target = self.url
        headers = self.headers
        special = self.special
        keep_alive = parser.should_keep_alive()
        host = special.get(b"host")
        common = host is not None and (len(special) == 1 or (len(special) == 2 and b"connection" in special))
        # 1.0 is kept alive only with a Connection field; asking the parser costs 0.3 us.
        version = "1.1" if common and keep_alive and len(special) == 1 else parser.get_http_version()
        method = METHODS.get(parser.get_method(), "")
        if (
            not common
            or host != self._good_host
            or not method
            or version != "1.1"
            or self._piece + self._head_size > shared.small_head
            or len(headers) > shared.limit_request_fields
        ):
            rules.examine(shared, method=method, version=version, target=target, headers=headers, special=special)
            self._good_host = host
        if target[0] != SLASH:
            path, query, authority = wire.split_target(method, target)
            if authority is not None:  # it wins over Host (RFC 9112 section 3.2.2)
                headers = [(b"host", authority), *[pair for pair in headers if pair[0] != b"host"]]
        elif QUESTION_MARK in target:
            path, _, query = target.partition(b"?")
        else:
            path = target
            query = b""
        text = path.decode("ascii")
        if "%" in text:
            text = wire.decode_path(path)
        if shared.root_path:
            text = shared.root_path + text
            path = shared.raw_root_path + path
        exchange = Exchange(
            self,
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.5"},
                "http_version": version,
                "server": self.server,
                "client": self.client,
                "scheme": self.scheme,
                "root_path": shared.root_path,
                "method": method,
                "path": text,
                "raw_path": path,
                "query_string": query,
                "headers": headers,
                "state": shared.state.copy(),
                "extensions": _EXTENSIONS.copy(),
            },
            target,
            version == "1.1",
            method == "HEAD",
            keep_alive,
        )
        if not common or version != "1.1":
            self._prepare(exchange)
        self._final = not keep_alive
        self.url = b""
        self.headers = []
        self.special = {}
        self._partial = False
        self._head_size = self._growth = self._fields_before = 0
        self.receiving = exchange
        if self.current is None:
            self.current = exchange
            self.deadline = inf
        else:
            self._queue.append(exchange)
            if len(self._queue) == PIPELINE_LIMIT:
                self.transport.pause_reading()

    def _prepare(self, exchange: Exchange) -> None:
        """Set what the less usual fields ask for."""
        special = self.special
        length = special.get(b"content-length")
        if length is not None:
            if int(length):
                exchange.inbound = Inbound(int(length), continue_expected=exchange.modern and b"expect" in special)
        elif b"transfer-encoding" in special:
            exchange.inbound = Inbound(None, continue_expected=b"expect" in special)
        if exchange.modern:
            te = special.get(b"te")
            if te is not None and wire.accepts_trailers(te):
                exchange.trailers_allowed = True
                exchange.scope["extensions"]["http.response.trailers"] = {}
        else:
            del exchange.scope["extensions"]["http.response.early_hint"]
        if b"upgrade" in special and self._parser.should_upgrade():
            # The place for a WebSocket implementation; without one the offer is ignored.
            self._upgrading = exchange.inbound is not None

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on."""
        exchange = self.receiving
        if exchange is None or exchange.inbound is None:
            return
        shared = self.shared
        exchange.inbound.received += len(data)
        if exchange.inbound.received > shared.limit_request_body:
            raise ClientError(413, f"body above {shared.limit_request_body} bytes")
        if exchange is self.current:
            self.deadline = shared.now + shared.body_timeout
        exchange.body_received(data)

    def on_message_complete(self) -> None:
        """Note the end of the request that was being read."""
        exchange = self.receiving
        if exchange is None or self._upgrading:
            return
        self.receiving = None
        exchange.complete = True
        if self.headers:  # trailers
            self.headers = []
            self.special = {}
            self._head_size = self._growth = self._fields_before = 0
        if exchange is self.current:
            self.deadline = inf
            if exchange.state is DONE:
                self._next()
            elif exchange.launched:
                exchange.wake()

    # ── requests in order ────────────────────────────────────────────────────────────────────

    def _launch(self, exchange: Exchange) -> None:
        """Start the application for a request whose turn has come."""
        shared = self.shared
        exchange.launched = True
        if len(shared.running) >= shared.limit_concurrency:
            if shared.on_limit is not None:
                shared.on_limit()
            exchange.refuse(503)
            return
        if shared.access is not None:
            exchange.started = shared.loop.time()
        shared.start(exchange)

    def answered(self, exchange: Exchange) -> None:
        """Go on after a complete response."""
        shared = self.shared
        if shared.access is not None:
            exchange.duration = shared.loop.time() - exchange.started
            shared.access(exchange)
        exchange.wake()
        if not exchange.keep_alive:
            self.current = None
            if self._final and exchange.complete and not self._queue:
                self.close()
            else:
                self.linger()
        elif exchange.complete:
            self.current = None
            self.deadline = shared.now + shared.keep_alive
            if self._queue or self._refusal is not None or self.eof:
                self._next()
        elif exchange.discardable:
            self.deadline = shared.now + shared.body_timeout
            exchange.drop_body()
        else:
            self.linger()

    def _next(self) -> None:
        """Begin what waits behind the request that was answered."""
        self.current = None
        queue = self._queue
        if queue:
            exchange = self.current = queue.popleft()
            self.deadline = inf
            if len(queue) == PIPELINE_LIMIT - 1:
                self._resume_reading()
            elif self._unfed and len(queue) == PIPELINE_LIMIT // 2:
                # Not from here: this may be a callback of the parser, or deep in an application.
                self.shared.loop.call_soon(self._feed_stashed, context=self.shared.context)
            if not self.write_paused:
                self._launch(exchange)
        elif self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif self.eof and not self._unfed:
            self.close()
        else:
            self.deadline = self.shared.now + self.shared.keep_alive

    def writable(self) -> None:
        """Start what had to wait for the client to read."""
        current = self.current
        if current is not None and not current.launched:
            self._launch(current)

    def last(self) -> bool:
        """Tell whether no request waits behind the current one."""
        return not self._queue and not self._unfed

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, error: ClientError) -> None:
        """Answer a request that cannot be served, when its turn comes, and read no other."""
        if self.stage is not OPEN:
            return
        self.feed = self._discard
        broken, self.receiving = self.receiving, None
        if broken is not None:
            if broken is not self.current:
                self._queue.pop()  # only the last one parsed can be incomplete
            elif broken.state in (START, HEADED):
                broken.disconnect()
                self.current = None
                self._answer_refusal(error, broken)
                return
            elif broken.state is DONE:
                self.linger()
                return
            else:
                self.broken(broken)
                return
        if self.current is None:
            self._answer_refusal(error)
        else:
            self._refusal = error

    def _answer_refusal(self, error: ClientError, exchange: Exchange | None = None) -> None:
        shared = self.shared
        self.transport.write(wire.plain_answer(error.status, shared.defaults.lines, keep_alive=False))
        if shared.access is not None:
            shared.access(
                Refusal(
                    error.status,
                    exchange,
                    client=self.client,
                    target=self.url,
                    headers=self.headers,
                    now=shared.loop.time(),
                )
            )
        self.linger()

    def broken(self, exchange: Exchange) -> None:
        """End the connection, because this response cannot be completed."""
        if self.shared.access is not None:
            exchange.duration = self.shared.loop.time() - exchange.started
            self.shared.access(exchange)
        exchange.disconnect()
        self.current = None
        if exchange.close_delimited:
            self.reset()
        else:
            self.close()

    def eof_received(self) -> bool:
        """Take the client's half-close: what it has asked for completely is still answered."""
        current = self.current
        if self.stage is not OPEN or self.tls or self.receiving is not None or current is None:
            return False
        self.eof = True
        current.wake()
        return True

    def lost(self) -> None:
        """Tell the application, and let go of the parser, which holds us."""
        current, self.current = self.current, None
        self.receiving = None
        self._queue.clear()
        self.feed = _drop
        self._parser = None
        if current is not None:
            current.disconnect()
            if self.shared.access is not None and current.state is not DONE and current.launched:
                current.duration = self.shared.loop.time() - current.started
                self.shared.access(current)

    def expire(self) -> None:
        """React to `deadline` having passed."""
        if self.stage is LINGERING:
            self.close()
        elif self.receiving is not None:
            self._refuse(ClientError(408, "request body timed out"))
        elif self._partial:
            self._refuse(ClientError(408, "request head timed out"))
        elif self.current is None:
            self.close()
        else:
            self.deadline = inf

    @property
    def idle(self) -> bool:
        """Whether no request is under way, also none half received."""
        return self.current is None and self.stage is OPEN and not self._partial


class _Resumed:
    """Callbacks for a parser that begins in the middle: all but those for its first, made-up head."""

    def __init__(self, connection: HttpConnection) -> None:
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


def _drop(data: bytes) -> None:
    """Feed of a connection that is gone; no bound method, so that no cycle keeps it."""


#: What every request can have; trailers only where the client takes them. `http.response.debug` is not there, because
#: the ASGI documentation says that servers should not implement it.
_EXTENSIONS: dict[str, dict[str, Any]] = {"http.response.pathsend": {}, "http.response.early_hint": {}}
