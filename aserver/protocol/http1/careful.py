"""The careful way to read requests: part by part, within limits, and never much in one turn of the loop.

Runs in the worker's loop. `framing` reads the request line and finds the end of each part, so that every answer is the
same wherever the network has cut; llhttp does the rest of the syntax. Whatever a client sends, one turn works through
`PORTION` of it, and what is left waits behind the others'. It must never call the application: the parser's
callbacks only collect.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import httptools

from aserver.asgi import Scope
from aserver.errors import ClientError
from aserver.protocol.application.exchange import Carrier, Exchange
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.context import Context
from aserver.protocol.http1 import framing
from aserver.protocol.http1.framing import PLAIN_GET, ChunkWalk
from aserver.protocol.http1.resumed import Resumed
from aserver.protocol.transport.connection import OPEN
from aserver.protocol.websocket import session

#: Parsed requests that wait for the current one's response; above it, reading pauses.
PIPELINE_LIMIT: Final = 16

#: Bytes of a head given to the parser at once. It cannot be stopped, and 256 KB (uvloop's read) of fields make 26 MB
#: of objects.
SLICE: Final = 8192

#: Bytes of heads and of what frames a body (see `framing.LINE_COST`) that are read in one turn of the loop: 0.04 ms of
#: large fields, 0.1 of the smallest chunks, 0.2 of chunk extensions. Half of it costs a head of 12 KB a second turn.
PORTION: Final = 16384

END_OF_HEAD: Final = b"\r\n\r\n"

#: Bytes of a head above which it is not remembered: it is kept as long as the connection, idle or not.
REMEMBERED_SIZE: Final = 2048

#: What llhttp is given in place of a request line that `framing` has read: it knows a fixed list of methods.
_STAND_INS: Final = {"1.1": b"GET / HTTP/1.1\r\n", "1.0": b"GET / HTTP/1.0\r\n"}

#: What stands behind the target of a plain GET that was read and held to the rules, from ` HTTP/1.1` to the empty line;
#: its fields, all of them and those of `FORWARDING_NAMES`; whether another request may follow. A bare tuple, as making
#: a named one costs 0.3 us.
Known = tuple[bytes, list[tuple[bytes, bytes]], dict[bytes, bytes], bool]


class DoubtError(Exception):
    """This is not one plain request: read it again, carefully."""


def unmade(data: bytes) -> None:
    """Feed of a connection without a parser: it is made for the first piece that is not known, if there is one."""
    raise AssertionError(f"{data!r} came before there was a parser")


class CarefulIntake(Carrier):
    """A connection that reads requests part by part. What a request is, and what happens to it, is its subclass's."""

    __slots__ = (
        "_data",
        "_fields_before",
        "_final",
        "_first_line",
        "_good_host",
        "_growth",
        "_known",
        "_lead",
        "_learnt",
        "_line",
        "_offered",
        "_parser",
        "_partial",
        "_pipelining",
        "_queue",
        "_refusal",
        "_refused",
        "_request_line",
        "_spent",
        "_tail",
        "_unfed",
        "_unfed_from",
        "_unstopped",
        "_upgrading",
        "_walk",
        "current",
        "headers",
        "receiving",
        "special",
        "told",
        "url",
    )

    def __init__(
        self,
        context: Context,
        tasks: Tasks,
        *,
        scheme: str = "http",
        tls: bool = False,
        server: tuple[str, int | None] | None = None,
    ) -> None:
        super().__init__(context, scheme=scheme, tls=tls, server=server)
        self.tasks = tasks
        self.eof = False
        self.current: Exchange | None = None  # whose response is due
        self.receiving: Exchange | None = None  # whose body is being read
        self._queue: list[Exchange] = []  # parsed, not begun; an idle deque has 0.7 KB
        self._refusal: ClientError | None = None  # to be answered when the queue is empty
        self._refused: Exchange | None = None  # whose body was bad, if its head was good
        # the head being read
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.special: dict[bytes, bytes] = {}
        self.told: dict[bytes, bytes] = {}  # what a proxy may have to say of the client
        self._good_host: bytes | None = context.good_host  # the last Host that was found well-formed
        self._known: Known | None = context.known  # the last plain head that was served
        self._learnt: Known | None = None  # will be known if the parser finds nothing behind it
        self._data = b""  # the piece being fed, until a head that begins with it is believed
        self._partial = False  # a head has begun and `deadline` is for its end
        self._offered: Exchange | None = None  # to become a WebSocket when its turn comes
        self._final = False  # no request can follow the last one that was read
        self._upgrading = False  # llhttp takes the body of the last one for another protocol
        # the careful way
        self._unfed = b""  # what waits, see `_wait`, from `_unfed_from` on
        self._unfed_from = 0
        self._spent = 0  # of PORTION, in this turn
        self._line = b""  # of a request line, or of the CR before it
        self._request_line: tuple[str, bytes, str] | None = None  # of the head being read
        self._first_line: tuple[str, bytes, str] | None = None  # the same, until the next one: for who has to log it
        self._lead = b""  # what the parser is to be fed before the fields
        self._tail = b""  # the last bytes of the head, where its end may have begun
        self._walk: ChunkWalk | None = None  # along the chunked body being read
        self._pipelining = False  # requests have come together: no use in trying the other way again
        self._fields_before = 0  # fields complete when the last piece had been parsed
        self._growth = 0  # bytes since a field, or the request line, was last completed
        self._parser: Any = None
        self._unstopped: Callable[[Any], object] = unmade
        self.feed = unmade

    def _renew_parser(self, callbacks: object = None) -> None:
        """Have a parser that stands at the beginning of a request, for our callbacks if no others are given."""
        self._parser = httptools.HttpRequestParser(self if callbacks is None else callbacks)
        self._unstopped = self._parser.feed_data  # the same object each time it is asked for

    def _forget_head(self) -> None:
        self.url = b""
        self.headers = []
        self.special = {}
        self.told = {}
        self._learnt = None
        self._fields_before = self._growth = 0

    def _read_again(self, data: bytes, known: Known) -> Exchange | None:
        """Take a request whose fields came before without parsing them; return None if its line is not a plain GET's.

        The bytes before a known block are the request line's beginning and nothing else, or they do not match; so the
        block's empty line is the first one, and llhttp would find what it has found before.
        """
        block, headers, told, keep_alive = known
        match = PLAIN_GET.fullmatch(data, 0, len(data) - len(block))
        if match is None or len(data) > self.context.small_head:
            return None
        exchange = self.begin("GET", match[1], "1.1", headers.copy(), keep_alive=keep_alive)
        exchange.complete = True
        if not keep_alive:
            self._final = True
            self.feed = self._discard  # bytes after the last request are nobody's
        if told:
            self.believe(told, exchange.scope)
        return exchange

    # ── the careful way ──────────────────────────────────────────────────────────────────────

    def _feed_carefully(self, data: bytes) -> None:
        """Feed one part after the other: request line, rest of the head, body; as many as one turn allows."""
        self._data = b""
        position, self._unfed_from = self._unfed_from, 0
        self._spent, size = 0, len(data)
        feed = self.feed
        try:
            while position < size and self.feed is feed:
                if self._spent >= PORTION:
                    self._wait(data, position, self._await_turn)
                elif self.receiving is not None:
                    position = self._feed_body(self.receiving, data, position)
                elif self._request_line is not None:
                    position = self._feed_fields(data, position)
                elif self._final:
                    self.feed = self._discard  # bytes after the last request are nobody's
                elif len(self._queue) >= PIPELINE_LIMIT:
                    self._wait(data, position, self._await_room)
                else:
                    begin = position
                    position = self._feed_head(data, position) or self._feed_line(data, position)
                    self._spent += position - begin
        except ClientError as error:
            if self._request_line is not None:
                self.url = self._request_line[1]
            self.refuse(error)
        if self.feed is feed or self._unfed:
            self._between_pieces()

    def _between_pieces(self) -> None:
        """See to it that a head that has begun ends in time; if nothing has, be hopeful again."""
        if self._line or self._request_line is not None:
            if not self._partial:
                self._partial = True
                self.deadline = self.context.now + self.context.header_timeout
        elif self.receiving is None and not self._unfed and not self._pipelining:
            self.feed = self._unstopped

    # ── what has to wait ─────────────────────────────────────────────────────────────────────

    def _wait(self, data: bytes, position: int, feed: Callable[[bytes], None]) -> None:
        """Keep what follows `position`, and read nothing that would have to be kept too."""
        self._unfed = data
        self._unfed_from = position
        self.feed = feed
        self.transport.pause_reading()
        if feed == self._await_turn:
            self.context.fair_queue.wait(self.feed_unfed)

    def _await_turn(self, data: bytes) -> None:
        """Feed while others are to be served first."""
        self._unfed += data

    def _await_room(self, data: bytes) -> None:
        """Feed while as many requests are parsed as may wait; `HttpConnection` sees when they are fewer."""
        self._unfed += data

    def feed_unfed(self) -> None:
        """Go on with what had to wait, if it still matters."""
        data, self._unfed = self._unfed, b""
        if self.feed in (self._await_turn, self._await_room):
            self.feed = self._feed_carefully
            self.data_received(data)
        if self.stage is OPEN:
            self.read_on()

    def read_on(self) -> None:
        """Read on, unless there is another reason not to."""
        body = None if self.receiving is None else self.receiving.request_body
        if not self._unfed and len(self._queue) < PIPELINE_LIMIT and (body is None or not body.paused):
            self.transport.resume_reading()

    # ── part by part ─────────────────────────────────────────────────────────────────────────

    def _feed_head(self, data: bytes, position: int) -> int:
        """Feed one of several requests at once if it is whole, plain and short; return where it ends, or 0."""
        if self._line or not data.startswith(b"GET /", position):
            return 0
        end = data.find(END_OF_HEAD, position, position + REMEMBERED_SIZE) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD):
            return 0
        piece = data[position:end]
        known = self._known
        if known is not None and piece.endswith(known[0]) and self._read_again(piece, known) is not None:
            return end
        self._data = piece
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._data = b""
            self._forget_head()
            self._renew_parser()
            return 0
        return end

    def _feed_line(self, data: bytes, position: int) -> int:
        """Take what there is of a request line."""
        begun = self._line
        if not begun:
            position = framing.empty_lines(data, position, SLICE)
        end = data.find(b"\n", position) + 1
        line = begun + data[position : end or len(data)]
        limit = self.context.limit_request_line
        self._line = self.url = b""
        self._first_line = None
        if not end:
            framing.check_begun(line, limit, len(begun))
            self._line = line
            return len(data)
        if line != b"\r\n":  # an empty line that came in two pieces
            self._request_line = self._first_line = request = framing.parse_request_line(line, limit)
            # A new parser: for llhttp all is over after `Proxy-Connection: close`, or `Connection: close` in trailers.
            self._renew_parser()
            self._lead = _STAND_INS[request[2]]
            self._tail = b"\r\n"
            self._growth = len(line)
        return end

    def _feed_fields(self, data: bytes, position: int) -> int:
        """Feed the fields of a head, up to its end."""
        before = len(self._tail)
        piece = self._tail + data[position : position + SLICE]
        found = piece.find(END_OF_HEAD)
        end = found + len(END_OF_HEAD) if found >= 0 else len(piece)
        if end > SLICE // 8 and framing.has_more_lines(piece[:end], self.context.limit_request_fields):
            found, end = -1, SLICE // 8  # some of so many fields show that they are too many
        self._tail = piece[end - 3 : end] if end > 3 else piece
        position += end - before
        self._spent += end - before
        if found < 0 or self._growth + end > self.context.small_head:
            self._good_host = None  # the head is to be examined closely
        lead, self._lead = self._lead, b""
        try:
            self._feed_parser(lead + piece[before:end])
        except httptools.HttpParserUpgrade:
            if self._becomes_websocket(data, position):
                return len(data)
            self._resume_after_upgrade()
        except ClientError:
            self._count_fields()  # what is wrong first counts, wherever the pieces end
            raise
        if self._request_line is not None:
            self._count_piece(end - before)
        return position

    def _feed_body(self, exchange: Exchange, data: bytes, position: int) -> int:
        """Feed a body, up to its end."""
        body = exchange.request_body
        assert body is not None
        if body.length is not None:
            end = until = min(len(data), position + body.length - body.received)
        else:
            walk = self._walk
            if walk is None:
                walk = self._walk = ChunkWalk(self.context.limit_request_fields, self.context.limit_request_field_size)
            end = walk.advance(data, position, PORTION - self._spent)
            self._spent += walk.spent
            if walk.done:
                self._walk = None
            for piece in walk.pieces:
                self._feed_parser(piece)
            position, until = walk.plain_from, walk.plain_to
        # Not a slice: copying 64 KB of body twice costs as much as the rest of the request.
        self._feed_parser(data if until - position == len(data) else memoryview(data)[position:until])
        return end

    def _feed_parser(self, piece: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, DoubtError | None):
                raise cause from None
            raise ClientError(400, str(error)) from None

    def _count_piece(self, size: int) -> None:
        """Hold a head that is not complete yet to the limits. Raises ClientError."""
        context = self.context
        fields = len(self.headers)
        # Pieces in which no field ended belong to at most two fields: the value of one, the name of the next.
        self._growth = self._growth + size if fields == self._fields_before else 0
        self._fields_before = fields
        self._count_fields()
        if self._growth > context.limit_request_line + 2 * context.limit_request_field_size:
            raise ClientError(431, f"a field above {context.limit_request_field_size} bytes")

    def _count_fields(self) -> None:
        limit = self.context.limit_request_fields
        if len(self.headers) > limit:
            raise ClientError(431, f"more than {limit} fields")

    # ── other protocols ──────────────────────────────────────────────────────────────────────

    def _becomes_websocket(self, data: bytes, position: int) -> bool:
        """Hand the connection over if the last request asks for a WebSocket, with what follows `position`.

        If requests before it have no answer yet, reading stops until they have.
        """
        exchange = self._queue[-1] if self._queue else self.current
        if exchange is None or exchange.launched or self.receiving is not None or not session.is_offered(exchange):
            return False
        if self._queue:
            self._offered = exchange
            self._wait(data, position, self._await_answers)
        else:
            self._hand_over(exchange, data[position:])
        return True

    def _await_answers(self, data: bytes) -> None:
        """Feed while requests before a WebSocket's are to be answered."""
        self._unfed += data

    def hand_over_soon(self, exchange: Exchange) -> None:
        """Hand the connection over for the offer that waited; not now, deep in an application that has answered."""
        exchange.launched = True
        self.context.loop.call_soon(self._hand_over_waiting, exchange, context=self.context.variables)

    def _hand_over_waiting(self, exchange: Exchange) -> None:
        if self.current is exchange and self.stage is OPEN:
            rest = self._unfed[self._unfed_from :]
            self._unfed = b""
            self._unfed_from = 0
            self._hand_over(exchange, rest)

    def _hand_over(self, exchange: Exchange, rest: bytes) -> None:
        self.current = self._parser = self._offered = None
        self.flush()
        self.transport.resume_reading()  # a long head may have been read in several turns
        session.take_over(self, exchange, rest)

    def _resume_after_upgrade(self) -> None:
        """Serve as plain HTTP a request that offered another protocol (RFC 9110 section 7.8: an offer may be ignored).

        llhttp has skipped the body then. A new parser reads it.
        """
        self._upgrading = False
        exchange = self.receiving
        if exchange is not None and exchange.request_body is not None:
            resumed = Resumed(self)
            self._renew_parser(resumed)
            resumed.prime(self._unstopped, exchange.request_body.length)

    # ── what subclasses do with it ───────────────────────────────────────────────────────────────

    def on_url(self, url: bytes) -> None:
        """Take the request target."""
        raise NotImplementedError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head or of the trailers. Raises ClientError through the parser."""
        raise NotImplementedError

    def on_headers_complete(self) -> None:
        """Make an exchange of the head that was collected. Raises ClientError through the parser."""
        raise NotImplementedError

    def begin(
        self, method: str, target: bytes, version: str, headers: list[tuple[bytes, bytes]], *, keep_alive: bool
    ) -> Exchange:
        """Make an exchange of a head that was found good, and put it behind those that wait."""
        raise NotImplementedError

    def believe(self, told: Mapping[bytes, bytes], scope: Scope) -> None:
        """Take from a trusted proxy what the client and its request were."""
        raise NotImplementedError

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on. Raises ClientError through the parser."""
        raise NotImplementedError

    def on_message_complete(self) -> None:
        """Note the end of the request that was being read."""
        raise NotImplementedError

    def refuse(self, error: ClientError) -> None:
        """Answer a request that cannot be served, when its turn comes, and read no other."""
        raise NotImplementedError
