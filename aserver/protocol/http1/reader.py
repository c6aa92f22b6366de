"""Reads requests of HTTP/1.0 and 1.1 from a client's bytes, wherever the network has cut them.

Pure: no transport, no loop, no clock. `RequestReader` is fed the bytes that arrive. It tells its sink of each request,
of its body and of the body's end, and raises ClientError for bytes that are no request. It reads in two ways:

* Whole: a piece that looks like a single plain request goes to llhttp at once. Its head is believed if
  `on_headers_complete` finds nothing odd in the raw bytes. A head whose fields came before (`HeadCache`) is not parsed.
* Part by part, for all else: heads and bodies in pieces, pipelining, other methods, and anything that llhttp refuses.
  `framing` reads the request line and finds the end of each part, so that the result does not depend on the pieces;
  llhttp checks the rest of the syntax. It gets no body that has a Content-Length, except the beginning that came with
  a head that was read whole. A call reads `PORTION_BYTES`, and the rest waits.
"""

from typing import Final, cast

import httptools

from aserver.errors import ClientError
from aserver.protocol.http1 import rules
from aserver.protocol.http1.framing import PLAIN_GET, BodyReader, ReadPhase
from aserver.protocol.http1.head import (
    END_OF_HEAD,
    REMEMBERED_SIZE,
    SLICE,
    DoubtError,
    HeadCache,
    KnownHead,
    RequestHead,
    RequestSink,
    is_costly,
    parser_of_chunks,
)
from aserver.protocol.semantics.limits import RequestLimits

#: The most bytes of heads, and the most cost of a chunked body's lines (`framing.LINE_COST`), of a call: 0.04 ms of
#: large fields, 0.1 of the smallest chunks, 0.2 of chunk extensions. With half of it a head of 12 KB takes two turns.
PORTION_BYTES: Final = 16384


# Module constants, because on 3.11 each `ReadPhase.X` costs 40 ns.
BETWEEN: Final = ReadPhase.BETWEEN
LINE: Final = ReadPhase.LINE
FIELDS: Final = ReadPhase.FIELDS
BODY: Final = ReadPhase.BODY
WAITING: Final = ReadPhase.WAITING
OFFER: Final = ReadPhase.OFFER
OVER: Final = ReadPhase.OVER
_NO_PARSER: Final = cast("httptools.HttpRequestParser", None)


class RequestReader:
    """Reads the requests of a connection. After ClientError it reads nothing more.

    While it is `paused` it begins no other request; the sink may set that inside a call. A call that has read
    PORTION_BYTES sets `spent`, which the owner takes back. In both cases the rest is kept as `unread`, and `feed(b"")`
    goes on with it.
    """

    __slots__ = (
        "_body",
        "_cache",
        "_good_host",
        "_interrupted",
        "_known",
        "_learnt",
        "_limits",
        "_parser",
        "_piece",
        "_pipelined",
        "_sink",
        "_units",
        "_unread_from",
        "closed",
        "head",
        "paused",
        "phase",
        "spent",
        "unread",
    )

    def __init__(self, sink: RequestSink, limits: RequestLimits, cache: HeadCache) -> None:
        self._sink = sink
        self._limits = limits
        self._cache = cache
        self.phase = BETWEEN
        self.closed = False
        self.paused = False
        self.spent = False
        self.unread = b""  # kept bytes, of which those from `_unread_from` on are unread
        self._unread_from = 0
        self._interrupted = BETWEEN  # the phase to which WAITING returns
        self._units = 0  # counted against PORTION_BYTES in this call
        self._known: KnownHead | None = cache.known  # the last plain head of this connection
        self._good_host: bytes | None = cache.good_host  # the last Host that was well-formed
        self._pipelined = False  # several requests have come in a piece: all is read part by part from then on
        self._parser = _NO_PARSER  # made for the first head that is not in the cache
        self.head: RequestHead | None = None  # made with the first parser
        self._piece = b""  # a piece that may have a whole head, until that is believed
        self._learnt: KnownHead | None = None  # becomes `_known` if the parser finds nothing after it
        self._body: BodyReader | None = None  # of the body that is being read

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────

    def feed(self, data: bytes) -> None:
        """Read the next bytes. Raises ClientError."""
        phase = self.phase
        if phase is BETWEEN and not self._pipelined:
            self._read_whole(data)
        elif phase is WAITING:
            self.unread += data
            if not self.spent:
                self.phase = self._interrupted
                data, self.unread = self.unread, b""
                self._read_parts(data)
        elif phase is OFFER:
            self.unread += data
        elif phase is not OVER:
            self._read_parts(data)

    def read_later(self, data: bytes, position: int) -> None:
        """Keep the bytes from `position` on until the owner takes `spent` back."""
        self._keep(data, position, WAITING)
        self.spent = True
        self._sink.on_spent()

    def take_rest(self) -> bytes:
        """Return the bytes after the request that has offered another protocol, and read nothing more."""
        rest = self.unread[self._unread_from :]
        self.stop()
        return rest

    def stop(self) -> None:
        """Read nothing more, and forget the unread bytes."""
        self.phase = OVER
        self.unread = b""
        self._unread_from = 0
        self._body = None

    def close(self) -> None:
        """Stop, and let go of the sink and the parser, which refer to the reader."""
        self.closed = True
        self.stop()
        self._parser, self.head = _NO_PARSER, None
        self._sink = cast("RequestSink", None)  # not used when `phase` is OVER

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and is not complete."""
        phase = self._interrupted if self.phase is WAITING else self.phase
        return phase is LINE or phase is FIELDS

    # ── whole ────────────────────────────────────────────────────────────────────────────────

    def take_known(self, data: bytes) -> bool:
        """Take a plain GET whose fields came before, without parsing it; return False if `data` is to be fed instead.

        The bytes before the known block must be the beginning of a request line and nothing else. So the empty line of
        the block is the first, and llhttp would find the same fields again.
        """
        known = self._known
        if known is None or not data.endswith(known[0]) or self.phase is not BETWEEN or self.paused:
            return False
        block, headers, forwarding, keep_alive = known
        match = PLAIN_GET.fullmatch(data, 0, len(data) - len(block))
        if match is None or len(data) > self._limits.small_head:
            return False
        self._sink.on_request("GET", match[1], "1.1", headers, keep_alive, forwarding, None, 0)
        if not keep_alive:
            self.phase = OVER
        return True

    def _read_whole(self, data: bytes) -> None:
        """Give a piece to the parser at once. If it is no whole plain request, read it part by part."""
        head = self.head or self._renew_parser()
        if len(data) > SLICE // 2 and is_costly(data, self._limits):
            self._read_parts(data)
            return
        error = self._parse_whole(head, data)
        if error is not None:
            self._read_again(data, error.__context__)
        elif self._piece:  # a head without its end
            self._read_again(data, None)

    def _parse_whole(self, head: RequestHead, piece: bytes) -> Exception | None:
        """Give the parser a piece that may be a whole request. Return the error if it stops with one, else None."""
        self._piece = piece
        head.expected = True
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            return error  # handled by the caller: an exception raised here would get this as its context
        if self._learnt is not None:
            self._known = self._cache.known = self._learnt
            self._learnt = None
        return None

    def _read_again(self, data: bytes, cause: BaseException | None) -> None:
        """Read a piece part by part, because the parser has not taken it whole. A head that was believed is skipped."""
        if not isinstance(cause, ClientError | DoubtError | None):
            raise cause  # a bug of this server
        start = 0
        if not self._piece:  # a head was believed, because the piece ends like a head: there is another after it
            self._pipelined = True
            start = data.index(END_OF_HEAD) + len(END_OF_HEAD)
        self._renew_parser().forget()
        self._read_parts(data[start:])

    # ── part by part ─────────────────────────────────────────────────────────────────────────

    def _read_parts(self, data: bytes) -> None:
        """Read part after part (request line, fields, body) until PORTION_BYTES are read."""
        self._piece = b""
        self._units = 0
        position, self._unread_from = self._unread_from, 0
        size = len(data)
        try:
            while position < size:
                phase = self.phase
                if phase is OVER or phase is WAITING or phase is OFFER:
                    return
                if self._units >= PORTION_BYTES:
                    self.read_later(data, position)
                elif phase is BODY:
                    position = self._read_body(data, position)
                elif phase is FIELDS:
                    position = self._read_fields(data, position)
                elif self.paused:
                    self._keep(data, position, WAITING)
                else:
                    begin = position
                    position = self._read_head(data, position) or self._read_line(data, position)
                    self._units += position - begin
        except ClientError:
            self.stop()
            raise

    def _keep(self, data: bytes, position: int, phase: ReadPhase) -> None:
        """Keep the bytes from `position` on, and wait in `phase`."""
        self._interrupted = self.phase
        self.phase = phase
        self.unread = data
        self._unread_from = position

    def _read_head(self, data: bytes, position: int) -> int:
        """Read a request at once if it is whole, plain and short. Return its end, or 0 if it is to be read by parts."""
        if self.phase is LINE or not data.startswith(b"GET /", position):
            return 0
        end = data.find(END_OF_HEAD, position, position + REMEMBERED_SIZE) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD):
            return 0
        piece = data[position:end]
        if self.take_known(piece):
            return end
        head = self.head or self._renew_parser()
        if self._parse_whole(head, piece) is not None:
            self._piece = b""
            self._renew_parser().forget()
            return 0
        return end

    def _read_line(self, data: bytes, position: int) -> int:
        """Read a request line, or its beginning; return its end."""
        head = self.head or self._renew_parser()
        position = head.read_line(data, position)
        if head.line is None:
            self.phase = LINE if head.begun else BETWEEN
        else:
            self.phase = FIELDS
            # A new parser: `Proxy-Connection: close`, or `Connection: close` in trailers, stops a parser for good.
            self._renew_parser()
        return position

    def _read_fields(self, data: bytes, position: int) -> int:
        """Read fields of a head, up to its end at most; return where they end."""
        head = self.head
        assert head is not None
        piece, size, small = head.next_fields(data, position)
        position += size
        self._units += size
        if not small:
            self._good_host = None  # so that `on_headers_complete` calls `rules.examine`
        try:
            self._feed_parser(piece)
        except httptools.HttpParserUpgrade:
            body = self._body
            if body is None and self._sink.on_offer():
                self._keep(data, position, OFFER)
                return len(data)
            if body is not None:  # the offer is ignored (RFC 9110 section 7.8), but llhttp has skipped the body
                body.skipped = False
                self._parser = parser_of_chunks(head, self._end_body)
        except ClientError:
            head.check_fields()  # too many fields come first, so that the error does not depend on the pieces
            raise
        if self.phase is FIELDS:
            head.check_piece(size)
        return position

    def _read_body(self, data: bytes, position: int) -> int:
        """Read a body, up to its end at most; return where that is."""
        body = self._body
        assert body is not None
        if body.length < 0:
            pieces, end, cost = body.chunks(data, position, PORTION_BYTES - self._units)
            self._units += cost
            for piece in pieces:
                self._feed_parser(piece)
        else:
            counted = body.counted(data, position)
            end = position + len(counted)
            self.on_body(counted)
            if body.ended:
                self._end_body()
        return end

    # ── the parser ───────────────────────────────────────────────────────────────────────────

    def _renew_parser(self) -> RequestHead:
        """Make a parser for the next request; return the head that it fills."""
        head = self.head
        if head is None:
            calls = self.on_headers_complete, self.on_body, self.on_message_complete
            head = self.head = RequestHead(self._limits, *calls)
        self._parser = httptools.HttpRequestParser(head)
        return head

    def _feed_parser(self, piece: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, DoubtError | None):
                raise cause from None
            raise ClientError(400, str(error)) from None

    def _end_body(self) -> None:
        """Take the end of a body that the parser of its head has not seen to the end."""
        self._renew_parser()
        self.on_message_complete()

    # ── calls of the parser ──────────────────────────────────────────────────────────────────

    def on_headers_complete(self) -> None:
        """Give the request, whose head is complete, to the sink. Raises ClientError through the parser."""
        limits, piece, head = self._limits, self._piece, self.head
        assert head is not None
        headers, fields, forwarding = head.fields, head.framing, head.forwarding
        host = fields.get(b"host")
        connection = fields.get(b"connection")
        others = len(fields) - (1 if connection is None else 2)  # than Host and Connection
        common = host is not None and not others
        plain = common and head.is_plain(piece)
        if plain:
            method, target, version = "GET", head.target, "1.1"
        else:
            line = head.line if self.phase is FIELDS else None
            method, target, version = line or head.vouch_for(piece, self._parser.get_method())
        keep_alive = rules.keeps_alive(connection, version)
        if (
            host is None
            or host != self._good_host
            or not (common or (others == 1 and b"content-length" in fields))
            or version != "1.1"
            or len(piece) > limits.small_head
            or len(headers) > limits.fields
        ):
            rules.examine(limits, method=method, version=version, target=target, headers=headers, framing=fields)
            self._good_host = self._cache.good_host = host if version == "1.1" else None  # 1.0 allows an empty Host
        if plain and len(piece) <= REMEMBERED_SIZE:
            self._learnt = (piece[4 + len(target) :], headers, forwarding, keep_alive)
        common = common and version == "1.1"
        length = 0 if common else rules.body_length(limits, fields)
        framing = None if common else fields
        self._sink.on_request(method, target, version, headers, keep_alive, forwarding, framing, length)
        if length:
            skipped = b"upgrade" in fields and self._parser.should_upgrade()
            self._body = BodyReader(length, limits, keep_alive=keep_alive, skipped=skipped)
            self.phase = BODY
        else:
            self.phase = BETWEEN if keep_alive else OVER
        self._piece = b""
        head.forget()

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body. Raises ClientError through the parser."""
        if self._body is not None:
            self._body.count(len(data))
            self._sink.on_body(data)

    def on_message_complete(self) -> None:
        """Take the end of a body. A request without a body was complete with its head."""
        body = self._body
        if body is not None and not body.skipped:
            self._body = None
            self.phase = BETWEEN if body.keep_alive else OVER
            if self.head is not None and self.head.fields:  # trailers
                self.head.forget()
            self._sink.on_end()
