"""Requests out of bytes: HTTP/1.0 and 1.1 as a client sends it, however the network has cut it.

Pure: no transport, no loop, no clock. `RequestReader` is fed the bytes that arrive, and tells its sink of each request,
of its body and of the body's end; it raises ClientError for bytes that are no request. There are two ways through it:

* whole: a piece that looks like one plain request goes to llhttp at once. Its head is believed if `on_headers_complete`
  finds nothing odd in the raw bytes; a head whose fields were served before (`head_cache`) is not even parsed;
* part by part, for all else: heads and bodies in pieces, pipelining, other methods, anything at which llhttp stumbles.
  `framing` reads the request line and finds the end of each part, so that the outcome is the same wherever the network
  has cut; llhttp does the rest of the syntax. A call works through `PORTION` of it, and the rest waits.

The parser calls the reader from inside `feed_data`. Those calls collect, and tell the sink, which must not start an
application there.
"""

from enum import Enum
from typing import Any, Final, cast

import httptools

from aserver.errors import ClientError
from aserver.protocol.http1 import framing, rules
from aserver.protocol.http1.framing import PLAIN_GET, ChunkWalk, has_more_lines
from aserver.protocol.http1.head import END_OF_HEAD, HASH, DoubtError, RequestHead, parser_of_body
from aserver.protocol.http1.head_cache import REMEMBERED_SIZE, HeadCache, KnownHead
from aserver.protocol.http1.rules import RequestLimits
from aserver.protocol.http1.sink import Headers, RequestSink

#: Bytes of a head given to the parser at once. It cannot be stopped, and 256 KB (uvloop's read) of fields make 26 MB
#: of objects.
SLICE: Final = 8192

#: Bytes of heads and of what frames a body (see `framing.LINE_COST`) that a call reads: 0.04 ms of large fields, 0.1
#: of the smallest chunks, 0.2 of chunk extensions. With half of it a head of 12 KB needs a second turn.
PORTION: Final = 16384

CR: Final = 0x0D

#: The usual values of Connection, of which the first is what browsers send.
KEEP_ALIVE: Final = (b"keep-alive", b"Keep-Alive")

#: The lines that llhttp is given in place of a request line that `framing` has read: llhttp knows a fixed list of
#: methods.
_STAND_INS: Final = {"1.1": b"GET / HTTP/1.1\r\n", "1.0": b"GET / HTTP/1.0\r\n"}


class ReadPhase(Enum):
    """The place in a client's bytes where a reader stands, and whether it waits there."""

    BETWEEN = "between requests"
    LINE = "in a request line"
    FIELDS = "in the fields of a head"
    BODY = "in a body"
    WAITING = "at a place from which the rest of the piece is kept, until it is fed again"
    OFFER = "behind a request that has offered another protocol: the bytes that follow are kept for it"
    OVER = "behind the last request: the bytes that follow are dropped"


# Bound once: on 3.11 each `ReadPhase.X` costs 40 ns.
BETWEEN: Final = ReadPhase.BETWEEN
LINE: Final = ReadPhase.LINE
FIELDS: Final = ReadPhase.FIELDS
BODY: Final = ReadPhase.BODY
WAITING: Final = ReadPhase.WAITING
OFFER: Final = ReadPhase.OFFER
OVER: Final = ReadPhase.OVER


class RequestReader:
    """Reads the requests of one connection. After ClientError it reads nothing more.

    While it is `paused`, which a sink may set from inside a call, no other request is begun in the same piece. When a
    call has worked through a PORTION the reader is `spent`, until `refill` is called. In both cases the rest is kept as
    `unread`, and `feed(b"")` goes on with it.
    """

    __slots__ = (
        "_after_body",
        "_cache",
        "_good_host",
        "_head",
        "_interrupted",
        "_known",
        "_lead",
        "_learnt",
        "_length",
        "_limits",
        "_line",
        "_parser",
        "_piece",
        "_pipelined",
        "_received",
        "_sink",
        "_skipped",
        "_tail",
        "_units",
        "_unread_from",
        "_walk",
        "paused",
        "phase",
        "request_line",
        "spent",
        "unread",
    )

    def __init__(self, sink: RequestSink, limits: RequestLimits, cache: HeadCache) -> None:
        self._sink = sink
        self._limits = limits
        self._cache = cache
        self.phase = BETWEEN
        self.paused = False
        self.spent = False
        self.unread = b""  # from `_unread_from` on
        self._unread_from = 0
        self._interrupted = BETWEEN  # the phase to which WAITING returns
        self._units = 0  # of PORTION, in this call
        self._known: KnownHead | None = cache.known  # the last plain head of this connection
        self._good_host: bytes | None = cache.good_host  # the last Host that was found well-formed
        self._pipelined = False  # requests have come together: they are looked at one by one from then on
        self._parser: Any = None  # made for the first head that is not known
        # the head being read
        self.request_line: tuple[str, bytes, str] | None = None  # method, target, version; kept for the log
        self._head: RequestHead | None = None  # made with the first parser
        self._piece = b""  # the piece that is expected to have it whole, until the head is believed
        self._learnt: KnownHead | None = None  # will be known if the parser finds nothing behind it
        self._line = b""  # of a request line, or of the CR before it
        self._lead = b""  # bytes that the parser is fed before the fields
        self._tail = b""  # the last bytes of the head, where its end may have begun
        # the body being read
        self._length = 0  # or CHUNKED
        self._received = 0
        self._walk: ChunkWalk | None = None  # along it, if it is chunked
        self._after_body = BETWEEN
        self._skipped = False  # llhttp skips it, because it believes that the protocol changes

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────

    def feed(self, data: bytes) -> None:
        """Read a piece. Raises ClientError."""
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

    def refill(self) -> None:
        """Allow another portion: no longer `spent`, and to be resumed as after any other pause."""
        self.spent = False

    def take_rest(self) -> bytes:
        """Return what follows the request that has offered another protocol; nothing more is read."""
        rest = self.unread[self._unread_from :]
        self.stop()
        return rest

    def stop(self) -> None:
        """Read nothing more, and forget what is unread."""
        self.phase = OVER
        self.unread = b""
        self._unread_from = 0

    def close(self) -> None:
        """Stop, and let go of the sink and of the parser, which hold the reader."""
        self.stop()
        self._parser = self._head = None
        self._sink = cast("RequestSink", None)  # of which a reader that is OVER has no need

    @property
    def headers(self) -> Headers:
        """The fields of the head that was being read."""
        return [] if self._head is None else self._head.fields

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and is not complete."""
        phase = self._interrupted if self.phase is WAITING else self.phase
        return phase is LINE or phase is FIELDS

    # ── whole ────────────────────────────────────────────────────────────────────────────────

    def take_known(self, data: bytes) -> bool:
        """Take, without parsing it, a plain GET whose fields came before; return False if this is none: then `feed` it.

        The bytes before a known block are the request line's beginning and nothing else, or they do not match; so the
        block's empty line is the first one, and llhttp would find what it has found before.
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
        """Give a piece to the parser at once; where that cannot be right, read it part by part."""
        head = self._head
        if head is None:
            head = self._renew_parser()
        if len(data) > SLICE // 2 and self._is_costly(data):
            self._read_parts(data)
            return
        self._piece = data
        head.expected = True
        error = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as stop:
            error = stop
        if error is not None:  # not above: what is raised while another error is handled, forgets its own cause
            self._read_again(data, error.__context__)
        elif self._piece:  # a head without its end
            self._read_again(data, None)
        elif self._learnt is not None:
            self._learn(self._learnt)

    def _is_costly(self, data: bytes) -> bool:
        """Tell whether the parser, which cannot be stopped, would take long for it."""
        if len(data) > SLICE:
            return True
        # Behind a GET is another head, if anything; behind others a body, and if it is too long for that, they stop it.
        heads = data if data.startswith(b"GET /") else data[: data.find(END_OF_HEAD)]
        return has_more_lines(heads, self._limits.fields)

    def _read_again(self, data: bytes, cause: BaseException | None) -> None:
        """Read part by part what the parser did not take in one go, from the first byte that is not believed yet."""
        if not isinstance(cause, ClientError | DoubtError | None):
            raise cause  # a mistake of ours
        start = 0
        if not self._piece:  # a head was believed, because the piece ends like one: there is another behind it
            self._pipelined = True
            start = data.index(END_OF_HEAD) + len(END_OF_HEAD)
        self._renew_parser().forget()
        self._read_parts(data[start:])

    # ── part by part ─────────────────────────────────────────────────────────────────────────

    def _read_parts(self, data: bytes) -> None:
        """Read one part after the other: request line, rest of the head, body; as many as one turn allows."""
        self._piece = b""
        self._units = 0
        position, self._unread_from = self._unread_from, 0
        size = len(data)
        try:
            while position < size:
                phase = self.phase
                if phase is OVER or phase is WAITING or phase is OFFER:
                    return
                if self._units >= PORTION:
                    self._keep(data, position, WAITING)
                    self.spent = True
                    self._sink.on_spent()
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
        """Keep the bytes from `position` on."""
        self._interrupted = self.phase
        self.phase = phase
        self.unread = data
        self._unread_from = position

    def _read_head(self, data: bytes, position: int) -> int:
        """Read one of several requests at once if it is whole, plain and short; return where it ends, or 0."""
        if self.phase is LINE or not data.startswith(b"GET /", position):
            return 0
        end = data.find(END_OF_HEAD, position, position + REMEMBERED_SIZE) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD):
            return 0
        piece = data[position:end]
        if self.take_known(piece):
            return end
        head = self._head
        assert head is not None
        self._piece = piece
        head.expected = True
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._piece = b""
            self._renew_parser().forget()
            return 0
        if self._learnt is not None:
            self._learn(self._learnt)
        return end

    def _learn(self, known: KnownHead) -> None:
        self._known = self._cache.known = known
        self._learnt = None

    def _read_line(self, data: bytes, position: int) -> int:
        """Read what there is of a request line."""
        begun = self._line
        if not begun:
            position = framing.empty_lines(data, position, SLICE)
        end = data.find(b"\n", position) + 1
        line = begun + data[position : end or len(data)]
        limit = self._limits.line
        self._line = b""
        self.request_line = None
        if not end:
            framing.check_begun(line, limit, len(begun))
            self._line = line
            self.phase = LINE if line else BETWEEN
            return len(data)
        if line == b"\r\n":  # an empty line that came in two pieces
            self.phase = BETWEEN
            return end
        self.request_line = request = framing.parse_request_line(line, limit)
        self.phase = FIELDS
        # A new parser: for llhttp all is over after `Proxy-Connection: close`, or `Connection: close` in trailers.
        self._renew_parser().begin(len(line))
        self._lead = _STAND_INS[request[2]]
        self._tail = b"\r\n"
        return end

    def _read_fields(self, data: bytes, position: int) -> int:
        """Read the fields of a head, up to its end."""
        head = self._head
        assert head is not None
        before = len(self._tail)
        piece = self._tail + data[position : position + SLICE]
        found = piece.find(END_OF_HEAD)
        end = found + len(END_OF_HEAD) if found >= 0 else len(piece)
        if end > SLICE // 8 and has_more_lines(piece[:end], self._limits.fields):
            found, end = -1, SLICE // 8  # some of so many fields show that they are too many
        self._tail = piece[end - 3 : end] if end > 3 else piece
        position += end - before
        self._units += end - before
        if found < 0 or not head.is_small(end):
            self._good_host = None  # the head is to be examined closely
        lead, self._lead = self._lead, b""
        try:
            self._feed_parser(lead + piece[before:end])
        except httptools.HttpParserUpgrade:
            if self.phase is not BODY and self._sink.on_offer():
                self._keep(data, position, OFFER)
                return len(data)
            self._resume_after_offer()
        except ClientError:
            head.check_fields()  # the first mistake counts, wherever the pieces end
            raise
        if self.phase is FIELDS:
            head.check_piece(end - before)
        return position

    def _read_body(self, data: bytes, position: int) -> int:
        """Read a body, up to its end."""
        if self._length >= 0:
            end = until = min(len(data), position + self._length - self._received)
        else:
            walk = self._walk
            if walk is None:
                walk = self._walk = ChunkWalk(self._limits.fields, self._limits.field_size)
            end = walk.advance(data, position, PORTION - self._units)
            self._units += walk.spent
            if walk.done:
                self._walk = None
            for piece in walk.pieces:
                self._feed_parser(piece)
            position, until = walk.plain_from, walk.plain_to
        # Not a slice: copying 64 KB of body twice costs as much as the rest of the request.
        self._feed_parser(data if until - position == len(data) else memoryview(data)[position:until])
        return end

    # ── the parser ───────────────────────────────────────────────────────────────────────────

    def _renew_parser(self) -> RequestHead:
        """Make a parser that stands at the beginning of a request; return the head that it fills."""
        head = self._head
        if head is None:
            head = self._head = RequestHead(
                self._limits,
                on_headers_complete=self.on_headers_complete,
                on_body=self.on_body,
                on_message_complete=self.on_message_complete,
            )
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

    def _resume_after_offer(self) -> None:
        """Read the body of a request whose offer of another protocol is ignored (RFC 9110 section 7.8).

        llhttp has skipped it. A new parser reads it, which is given a made-up head first.
        """
        self._skipped = False
        if self.phase is BODY:
            assert self._head is not None
            self._parser = parser_of_body(self._head, self._length, self._on_body_resumed)

    def _on_body_resumed(self) -> None:
        self._renew_parser()
        self.on_message_complete()

    # ── calls of the parser ──────────────────────────────────────────────────────────────────

    def on_headers_complete(self) -> None:
        """Tell of the request whose head was collected. Raises ClientError through the parser."""
        limits = self._limits
        sink = self._sink
        piece = self._piece
        head = self._head
        assert head is not None
        target = head.target
        headers = head.fields
        fields = head.framing
        host = fields.get(b"host")
        others = len(fields) - (2 if b"connection" in fields else 1)  # than Host and Connection
        common = host is not None and not others
        # A body of a known length, and nothing odd: as the forms and calls that most clients send.
        sized = host is not None and others == 1 and b"content-length" in fields
        plain = (
            common
            and piece.startswith(b"GET /")
            and piece.startswith(b" HTTP/1.1\r\n", 4 + len(target))
            # The head ends where the piece ends, and begins no second time behind an empty line.
            and piece.endswith(END_OF_HEAD)
            and piece[-5] > CR
            and HASH not in target
        )
        if plain:
            method, version = "GET", "1.1"
            keep_alive = (
                len(fields) == 1
                or fields[b"connection"] in KEEP_ALIVE
                or rules.keeps_alive(fields[b"connection"], "1.1")
            )
        else:
            line = self.request_line if self.phase is FIELDS else None
            method, target, version = line or head.vouch_for(piece, self._parser.get_method())
            keep_alive = rules.keeps_alive(fields.get(b"connection"), version)
        if (
            not (common or sized)
            or host != self._good_host
            or version != "1.1"
            or len(piece) > limits.small_head
            or len(headers) > limits.fields
        ):
            rules.examine(limits, method=method, version=version, target=target, headers=headers, framing=fields)
            self._good_host = self._cache.good_host = host if version == "1.1" else None  # 1.0 may have an empty one
        forwarding = head.forwarding
        if plain and len(piece) <= REMEMBERED_SIZE:
            self._learnt = (piece[4 + len(target) :], headers, forwarding, keep_alive)
        if common and version == "1.1":
            sink.on_request(method, target, version, headers, keep_alive, forwarding, None, 0)
            self.phase = BETWEEN if keep_alive else OVER
        else:
            length = rules.body_length(limits, fields)
            sink.on_request(method, target, version, headers, keep_alive, forwarding, fields, length)
            self._after_body = BETWEEN if keep_alive else OVER
            if length:
                self._length = length
                self._received = 0
                self._skipped = b"upgrade" in fields and self._parser.should_upgrade()
                self.phase = BODY
            else:
                self.phase = self._after_body
        self._piece = b""
        head.expected = False
        head.fields = []
        head.framing = {}
        if forwarding:
            head.forwarding = {}

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body. Raises ClientError through the parser."""
        if self.phase is BODY:
            self._received += len(data)
            if self._received > self._limits.body:
                raise ClientError(413, f"body above {self._limits.body} bytes")
            self._sink.on_body(data)

    def on_message_complete(self) -> None:
        """Take the end of the request, that is, of its body; the end of a request without a body is known before."""
        if self.phase is BODY and not self._skipped:
            self.phase = self._after_body
            if self._head is not None and self._head.fields:  # trailers
                self._head.forget()
            self._sink.on_end()
