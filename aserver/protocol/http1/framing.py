"""Request lines and the ends of bodies, for requests that do not come whole and plain.

Pure. llhttp allows several spaces in a request line, a bare LF before it, `RTSP/1.0` in it, and a chunk extension
without a name; but no white space in an extension. It knows a fixed list of methods, and does not tell where a message
has ended. So `RequestReader` reads the request line and the sizes of chunks with this module. It must never accept
bytes that RFC 9112 forbids, nor hold more than a line.
"""

import re
from enum import Enum
from typing import Final

from aserver.errors import ClientError
from aserver.protocol.semantics.fields import TCHAR
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.target import METHODS

#: Visible ASCII without `#`. RFC 3986 allows less, but browsers send `|` and `"` in queries. Clients never send a
#: fragment; servers that find a `#` do not agree whether they have to cut it off.
_TARGET: Final = rb"[!\"$-~]"

#: A request line (RFC 9112 section 3).
_REQUEST_LINE: Final = re.compile(rb"(%b+) (%b+) HTTP/([0-9])\.([0-9])\r\n" % (TCHAR, _TARGET))
_METHOD: Final = re.compile(rb"%b*" % TCHAR)
#: A longer method is refused with 501 (RFC 9112 section 3). The longest registered method has 17 bytes.
METHOD_LIMIT: Final = 1024
#: The bytes of a plain GET before its known block (`HeadCache`).
PLAIN_GET: Final = re.compile(rb"GET (/%b*)" % _TARGET)
#: Bytes that can still become a request line: from its version, from inside its target, and from its beginning.
_BEGUN_VERSION: Final = re.compile(rb"[HTP/0-9.]{0,8}\r?")
_BEGUN_TARGET: Final = re.compile(rb"%b*(?:(?<! ) %b)?" % (_TARGET, _BEGUN_VERSION.pattern))
_BEGUN_LINE: Final = re.compile(
    rb"\r|%(token)b*|%(token)b+ %(rest)b" % {b"token": TCHAR, b"rest": _BEGUN_TARGET.pattern}
)
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")

#: The size line of a chunk, with extensions (RFC 9112 section 7.1). Sixteen digits are 64 bits.
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:%(s)b;%(s)b%(t)b+(?:%(s)b=%(s)b(?:%(t)b+|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)*\r\n"
    % {b"t": TCHAR, b"s": rb"[ \t]*"}
)
#: Bytes whose size can still become that of a size line. Other bytes are refused before the line is complete, because
#: their client may already wait for an answer.
_BEGUN_CHUNK_LINE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t;]|\r?\Z)")
#: The most bytes of a size line with its extensions. A longer line is an attack.
CHUNK_LINE_LIMIT: Final = 1024
#: The cost of a line in a chunked body, counted as bytes of a head: it takes 1.3 us, if the chunk has a single byte.
LINE_COST: Final = 192
#: The cost of each byte of such a line: an extension takes 20 ns a byte.
LINE_BYTE_COST: Final = 2


def has_more_lines(data: bytes, limit: int) -> bool:
    """Tell whether more than `limit` lines end in `data`."""
    # replace() goes from LF to LF, and stops at the limit. count() would look at each byte (4 us for 8 KB).
    return len(data) - len(data.replace(b"\n", b"", limit + 1)) > limit


def empty_lines(data: bytes, start: int, most: int) -> int:
    """Return the end of the empty lines before a request (RFC 9112 section 2.2), after `most` bytes of them at most."""
    match = _EMPTY_LINES.match(data, start, start + most)
    assert match is not None
    return match.end()


def check_begun(line: bytes, limit: int, checked: int = 0) -> None:
    """Raise ClientError if `line`, which has no LF yet, cannot become a request line, or is too long.

    The first `checked` bytes have passed in an earlier call, and are not read again: a line may come byte by byte.
    """
    if checked <= METHOD_LIMIT:
        _check_method(line, limit)
    end = limit + 1  # the CR is not counted
    space = line.find(b" ", 0, checked)
    if space < 0:
        match = _BEGUN_LINE.fullmatch(line, 0, end)
    elif (space := line.find(b" ", space + 1, checked)) < 0:
        match = _BEGUN_TARGET.fullmatch(line, checked, end)
    else:
        match = _BEGUN_VERSION.fullmatch(line, space + 1, end)
    if match is None:
        raise ClientError(400, f"malformed request line {line[:80]!r}")
    if len(line) > end:
        raise ClientError(414, f"request line above {limit} bytes")


def _check_method(line: bytes, limit: int) -> None:
    """Raise ClientError if the method at the beginning of `line` is too long."""
    most = min(METHOD_LIMIT, limit)
    if len(line) > most and (method := _METHOD.match(line, 0, most + 1)) is not None and method.end() > most:
        raise ClientError(501, f"method above {most} bytes")


def parse_request_line(line: bytes, limit: int) -> tuple[str, bytes, str]:
    """Return method, target and version ("1.0" or "1.1") of a line with its CRLF.

    Raises ClientError: 400 if malformed, 414 if too long, 501 for CONNECT or a method above `METHOD_LIMIT`, 505 for
    other versions.
    """
    if len(line) > limit + 2:
        check_begun(line, limit)
    _check_method(line, limit)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise ClientError(400, f"malformed request line {line[:80]!r}")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise ClientError(505, f"HTTP/{major.decode()}.{minor.decode()} is not served")
    if method == b"CONNECT":
        raise ClientError(501, "CONNECT is for proxies")
    return METHODS.get(method) or method.decode("ascii"), target, "1.1" if minor == b"1" else "1.0"


class ReadPhase(Enum):
    """The part of the client's bytes that a reader expects next."""

    BETWEEN = "between requests"
    LINE = "in a request line"
    FIELDS = "in the fields of a head"
    BODY = "in a body"
    WAITING = "anywhere: it keeps the rest of the piece until it may go on (see `paused` and `spent`)"
    OFFER = "behind a request that has offered another protocol: the bytes that follow are kept for it"
    OVER = "behind the last request: the bytes that follow are dropped"


class ChunkWalk:
    """Finds the end of a chunked body, and checks the size line of each chunk. llhttp decodes the body.

    `fields` limits the number of trailers, `size` the bytes of each. After each call of `advance`, feed the parser
    `pieces`, and then the data from `plain_from` to `plain_to`. A size line goes to the parser when it is complete, and
    without its extensions: they are ignored, and llhttp does not allow all that RFC 9112 allows. `spent` is the cost of
    the call: `LINE_COST` for each line, and `LINE_BYTE_COST` for each of its bytes.
    """

    __slots__ = ("_fields", "_line", "_size", "_skip", "_trailers", "done", "pieces", "plain_from", "plain_to", "spent")

    def __init__(self, fields: int, size: int) -> None:
        self._fields = fields
        self._size = size
        self._line = b""  # the beginning of a line whose LF has not come
        self._skip = 0  # bytes left of the current chunk, with its CRLF
        self._trailers = False  # whether the last chunk is over
        self.done = False
        self.pieces: list[bytes] = []
        self.plain_from = 0
        self.plain_to = 0
        self.spent = 0

    def advance(self, data: bytes, start: int, most: int) -> int:
        """Go from `start` to the end of the body or of `data`, or until `spent` is `most` or more; return the offset.

        Raises ClientError: 400 for a malformed or endless size line, 431 for trailers above the limits.
        """
        size = len(data)
        spent = 0
        pieces: list[bytes] = []
        plain_from, plain_to = start, -1
        while start < size and not self.done and spent < most:
            skip = self._skip
            if skip:
                start += skip
                self._skip = 0
                if start > size:
                    self._skip = start - size
                    start = size
                continue
            begin, begun, trailers = start, self._line, self._trailers
            end = data.find(b"\n", start) + 1
            line = begun + data[start : end or size]
            spent += LINE_COST + LINE_BYTE_COST * len(line)
            limit = self._size if trailers else CHUNK_LINE_LIMIT
            if len(line) > limit + 2:
                raise ClientError(431 if trailers else 400, f"chunk extension or trailer above {limit} bytes")
            if not end:
                if not trailers and _BEGUN_CHUNK_LINE.match(line) is None:
                    raise ClientError(400, f"malformed chunk size {line[:80]!r}")
                self._line = line
                start = size
                plain_to = size if trailers else begin
                break
            self._line = b""
            start = end
            if trailers:
                self._take_trailer(line)
                continue
            bare = self._take_size(line)
            if begun or len(bare) < len(line):
                if begin > plain_from:
                    pieces.append(data[plain_from:begin])
                pieces.append(bare)
                plain_from = end
        self.pieces = pieces
        self.plain_from = plain_from
        self.plain_to = plain_to if plain_to >= 0 else start
        self.spent = spent
        return start

    def _take_trailer(self, line: bytes) -> None:
        self.done = line == b"\r\n"
        self._fields -= 1
        if self._fields < 0 and not self.done:
            raise ClientError(431, "too many trailers")

    def _take_size(self, line: bytes) -> bytes:
        """Return a size line without its extensions. Raises ClientError(400)."""
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ClientError(400, f"malformed chunk size {line[:80]!r}")
        digits = match[1]
        length = int(digits, 16)
        self._skip = length + 2 if length else 0
        self._trailers = not length
        return line if len(digits) + 2 == len(line) else digits + b"\r\n"


class BodyReader:
    """Finds the end of a body. llhttp decodes it if it is chunked."""

    __slots__ = ("_limits", "_received", "_walk", "keep_alive", "length", "skipped")

    def __init__(self, length: int, limits: RequestLimits, *, keep_alive: bool, skipped: bool) -> None:
        self.length = length  # or CHUNKED
        self.keep_alive = keep_alive  # another request may follow
        self.skipped = skipped  # llhttp has skipped the body, as if the protocol had changed
        self._limits = limits
        self._received = 0
        self._walk: ChunkWalk | None = None  # None if it is not chunked, or not begun

    def count(self, size: int) -> None:
        """Count `size` decoded bytes. Raises ClientError(413)."""
        self._received += size
        if self._received > self._limits.body:
            raise ClientError(413, f"body above {self._limits.body} bytes")

    @property
    def ended(self) -> bool:
        """Whether a body with a Content-Length is complete."""
        return self._received == self.length

    def counted(self, data: bytes, position: int) -> bytes:
        """Return the bytes of a body with a Content-Length, from `position` to its end or that of `data`."""
        end = position + self.length - self._received
        # The object itself where that is possible: a copy of 64 KB costs as much as a short request's whole reading.
        return data if not position and end >= len(data) else data[position:end]

    def chunks(self, data: bytes, position: int, most: int) -> tuple[list[bytes | memoryview], int, int]:
        """Return the next pieces of a body in chunks for the parser, the offset of their end in `data`, and their cost.

        They end with the body or with `data`, or where the cost has reached `most` (see `ChunkWalk`).
        Raises ClientError.
        """
        walk = self._walk
        if walk is None:
            walk = self._walk = ChunkWalk(self._limits.fields, self._limits.field_size)
        end = walk.advance(data, position, most)
        pieces: list[bytes | memoryview] = [*walk.pieces]
        start, until = walk.plain_from, walk.plain_to
        pieces.append(data if until - start == len(data) else memoryview(data)[start:until])
        return pieces, end, walk.spent
