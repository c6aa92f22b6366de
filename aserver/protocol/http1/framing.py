"""Where a request begins and where its body ends, for heads that do not come whole and plain.

Pure. llhttp takes several spaces in a request line, a bare LF before it, `RTSP/1.0` after it, and a chunk extension
without a name, but no extension with white space; it knows a fixed list of methods, and never tells where a message
ended. So `RequestReader` asks this module first about every request that is not of the plainest kind. It must never
take bytes that RFC 9112 forbids, and hold no more than a line.
"""

import re
from typing import Final

from aserver.errors import ClientError
from aserver.protocol.semantics.fields import TCHAR
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.target import METHODS

#: Visible ASCII without `#`. It is more than RFC 3986 has, because browsers send `|` and `"` in queries. A fragment is
#: never sent; servers that find a `#` in a target do not agree whether to cut it off.
_TARGET: Final = rb"[!\"$-~]"

#: RFC 9112 section 3.
_REQUEST_LINE: Final = re.compile(rb"(%b+) (%b+) HTTP/([0-9])\.([0-9])\r\n" % (TCHAR, _TARGET))
_METHOD: Final = re.compile(rb"%b*" % TCHAR)
#: Bytes of a method above which it is refused (501, RFC 9112 section 3); the longest that is registered has 17.
METHOD_LIMIT: Final = 1024
#: The beginning of the plainest request line, where the rest of the head is known.
PLAIN_GET: Final = re.compile(rb"GET (/%b*)" % _TARGET)
#: Bytes that can still become a request line: its beginning, a part that begins inside its target, the beginning of its
#: version.
_BEGUN_VERSION: Final = re.compile(rb"[HTP/0-9.]{0,8}\r?")
_BEGUN_TARGET: Final = re.compile(rb"%b*(?:(?<! ) %b)?" % (_TARGET, _BEGUN_VERSION.pattern))
_BEGUN_LINE: Final = re.compile(
    rb"\r|%(token)b*|%(token)b+ %(rest)b" % {b"token": TCHAR, b"rest": _BEGUN_TARGET.pattern}
)
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")

#: RFC 9112 section 7.1. Sixteen digits are 2**64.
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:%(s)b;%(s)b%(t)b+(?:%(s)b=%(s)b(?:%(t)b+|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)*\r\n"
    % {b"t": TCHAR, b"s": rb"[ \t]*"}
)
#: Bytes that can still become such a line, as far as its size goes. A client that sends something else waits for an
#: answer, so it is refused before the line's end.
_BEGUN_CHUNK_LINE: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t;]|\r?\Z)")
#: Bytes of a chunk's size with its extensions; a longer line is an attack.
CHUNK_LINE_LIMIT: Final = 1024
#: The cost of a line in a chunked body, in bytes of a head: 1.3 us with a chunk of one byte.
LINE_COST: Final = 192
#: The cost of each byte of the line: 20 ns if it is of extensions.
LINE_BYTE_COST: Final = 2


def has_more_lines(data: bytes, limit: int) -> bool:
    """Tell whether more than `limit` lines end in `data`."""
    # Not count(), which looks at each byte (4 us for 8 KB): this goes from LF to LF, and no further than asked.
    return len(data) - len(data.replace(b"\n", b"", limit + 1)) > limit


def empty_lines(data: bytes, start: int, most: int) -> int:
    """Return where the empty lines that may precede a request end (RFC 9112 section 2.2), or `most` bytes of them."""
    match = _EMPTY_LINES.match(data, start, start + most)
    assert match is not None
    return match.end()


def check_begun(line: bytes, limit: int, checked: int = 0) -> None:
    """Raise ClientError if `line`, of which no LF has come yet, cannot become a request line, or is too long.

    Its first `checked` bytes have passed before, and are not read again: the line may come byte by byte.
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
    """Raise ClientError if `line` begins with a method that is too long, whatever follows."""
    most = min(METHOD_LIMIT, limit)
    if len(line) > most and (method := _METHOD.match(line, 0, most + 1)) is not None and method.end() > most:
        raise ClientError(501, f"method above {most} bytes")


def parse_request_line(line: bytes, limit: int) -> tuple[str, bytes, str]:
    """Return method, target and version ("1.0" or "1.1") of a line with its CRLF.

    Raises ClientError with 400, 414, 501 for CONNECT and methods above `METHOD_LIMIT`, or 505.
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


class ChunkWalk:
    """Goes along a chunked body to its end, and looks at each chunk's size line; llhttp decodes.

    `fields` limits the number of trailers, `size` the bytes of each. After each step, feed the parser `pieces`, and
    then the data from `plain_from` to `plain_to`. A size line goes to the parser when it is whole, and without
    extensions: they mean nothing to us, and llhttp does not take all that RFC 9112 allows. `spent` is the cost of the
    step: `LINE_COST` for each line, and `LINE_BYTE_COST` for each of its bytes.
    """

    __slots__ = ("_fields", "_line", "_size", "_skip", "_trailers", "done", "pieces", "plain_from", "plain_to", "spent")

    def __init__(self, fields: int, size: int) -> None:
        self._fields = fields
        self._size = size
        self._line = b""  # begun, without its LF
        self._skip = 0  # bytes of the current chunk, with its CRLF
        self._trailers = False
        self.done = False
        self.pieces: list[bytes] = []
        self.plain_from = 0
        self.plain_to = 0
        self.spent = 0

    def advance(self, data: bytes, start: int, most: int) -> int:
        """Return the offset behind the last byte of `data` from `start` on that belongs to the body.

        It is an earlier offset where `spent` has come to `most`.

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
        """Return the line without extensions."""
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ClientError(400, f"malformed chunk size {line[:80]!r}")
        digits = match[1]
        length = int(digits, 16)
        self._skip = length + 2 if length else 0
        self._trailers = not length
        return line if len(digits) + 2 == len(line) else digits + b"\r\n"


class BodyReader:
    """Finds where a body lies; llhttp decodes it."""

    __slots__ = ("_limits", "_received", "_walk", "keep_alive", "length", "skipped")

    def __init__(self, length: int, limits: RequestLimits, *, keep_alive: bool, skipped: bool) -> None:
        self.length = length  # or CHUNKED
        self.keep_alive = keep_alive  # another request may follow
        self.skipped = skipped  # by llhttp, which believes that the protocol changes
        self._limits = limits
        self._received = 0
        self._walk: ChunkWalk | None = None  # along it, if it is chunked

    def count(self, size: int) -> None:
        """Note that `size` bytes were decoded. Raises ClientError."""
        self._received += size
        if self._received > self._limits.body:
            raise ClientError(413, f"body above {self._limits.body} bytes")

    def part(self, data: bytes, position: int, most: int) -> tuple[list[bytes | memoryview], int, int]:
        """Return the pieces from `position` on that the parser is to be fed, where they end, and their cost.

        It stops at the body's end, or where it has cost `most` (see `ChunkWalk`). Raises ClientError.
        """
        pieces: list[bytes | memoryview] = []
        cost = 0
        if self.length >= 0:
            end = until = min(len(data), position + self.length - self._received)
        else:
            walk = self._walk
            if walk is None:
                walk = self._walk = ChunkWalk(self._limits.fields, self._limits.field_size)
            end = walk.advance(data, position, most)
            cost = walk.spent
            pieces += walk.pieces
            position, until = walk.plain_from, walk.plain_to
        # Not a slice: copying 64 KB of body twice costs as much as the rest of the request.
        pieces.append(data if until - position == len(data) else memoryview(data)[position:until])
        return pieces, end, cost
