"""A request's head while it is being read: its request line, and its fields as llhttp finds them.

Pure. llhttp calls `RequestHead`, which collects fields, and applies the limits before the head is complete. It must
never look at the meaning of fields, which is for `RequestReader.on_headers_complete` and `rules`. `RequestSink` is the
receiver of complete heads, `HeadCache` remembers plain heads.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import httptools

from aserver.errors import ClientError
from aserver.protocol.http1.framing import check_begun, empty_lines, has_more_lines, parse_request_line
from aserver.protocol.semantics.fields import FORWARDING_NAMES, FRAMING_NAMES, REQUEST_NAMES, content_length
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.target import METHODS

Headers = list[tuple[bytes, bytes]]

#: The length of a body in chunks, as `RequestSink.on_request` gets it.
CHUNKED: Final = -1

END_OF_HEAD: Final = b"\r\n\r\n"

#: The most bytes of a head that the parser gets at once. It cannot be stopped, and fields of 256 KB (uvloop's read)
#: would make 26 MB of objects.
SLICE: Final = 8192

#: The lines that llhttp gets instead of a request line that `framing` has read, because llhttp knows only a fixed list
#: of methods.
_STAND_INS: Final = {"1.1": b"GET / HTTP/1.1\r\n", "1.0": b"GET / HTTP/1.0\r\n"}

CR: Final = 0x0D

#: A number, because `int in bytes` is a memchr(3). `bytes in bytes` costs 0.1 us more.
HASH: Final = 0x23

#: `framing` and `forwarding` of heads that have no such fields. Nothing may write to it. Two empty dicts for each
#: connection would be a tenth of the memory of an idle connection.
_NONE: Final[dict[bytes, bytes]] = {}

#: A head with more bytes is not remembered, because an idle connection keeps its head, too.
REMEMBERED_SIZE: Final = 2048

#: A plain GET that was parsed and has passed the rules: its bytes after the target, from ` HTTP/1.1` to the empty line;
#: its fields; the fields of `FORWARDING_NAMES` among them; and `keep_alive`. It is a bare tuple, because a NamedTuple
#: takes 0.3 us to make.
KnownHead = tuple[bytes, Headers, dict[bytes, bytes], bool]


class DoubtError(Exception):
    """The bytes are not a single plain request, and must be read again, part by part."""


class RequestSink(Protocol):
    """The receiver of requests. Its methods may be called inside the parser, so they must not start an application."""

    def on_request(  # noqa: PLR0917 - by keyword it is 0.3 us more, at each request
        self,
        method: str,
        target: bytes,
        version: str,
        headers: Headers,
        keep_alive: bool,  # noqa: FBT001
        forwarding: Mapping[bytes, bytes],
        framing: Mapping[bytes, bytes] | None,
        length: int,
    ) -> None:
        """Take a request whose head is complete. May raise ClientError.

        Nothing may change `headers`, which many requests may share. `forwarding` has the fields of
        `fields.FORWARDING_NAMES`, `framing` those of `fields.FRAMING_NAMES`; `framing` is None if these are only Host
        and Connection. `length` is the length of the body, or CHUNKED. `on_end` is called unless it is 0.
        """

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def on_end(self) -> None:
        """Take the end of the body."""

    def on_offer(self) -> bool:
        """Tell whether the last request, which offers another protocol, ends HTTP. If so, call `take_rest` later."""

    def on_spent(self) -> None:
        """Arrange that the reader goes on after other connections had their turn."""


class HeadCache:
    """The last plain head and the last good Host of a worker.

    A client sends the same fields again and again; only the target differs. Each connection begins with these two, and
    then remembers its own last plain head. The cache must never grow with the requests.
    """

    __slots__ = ("good_host", "known")

    def __init__(self) -> None:
        self.known: KnownHead | None = None
        self.good_host: bytes | None = None


class RequestHead:
    """Collects a head, then the next head of the same connection, and also the trailers of a body.

    The parser calls `on_url` and `on_header`, and for all else the three functions that are given to `__init__`.
    """

    __slots__ = (
        "_fields_before",
        "_growth",
        "_lead",
        "_limits",
        "_tail",
        "begun",
        "expected",
        "fields",
        "forwarding",
        "framing",
        "line",
        "on_body",
        "on_headers_complete",
        "on_message_complete",
        "target",
    )

    def __init__(
        self,
        limits: RequestLimits,
        on_headers_complete: Callable[[], None],
        on_body: Callable[[bytes], None],
        on_message_complete: Callable[[], None],
    ) -> None:
        self._limits = limits
        self.line: tuple[str, bytes, str] | None = None  # method, target, version; set by `read_line`
        self.begun = b""  # the beginning of a request line, or of the empty line before it
        self._lead = b""  # bytes that the parser gets before the fields
        self._tail = b""  # the last bytes of the head: the empty line may begin in them
        self.forget()
        self.on_headers_complete = on_headers_complete
        self.on_body = on_body
        self.on_message_complete = on_message_complete

    def forget(self) -> None:
        """Forget the head, to collect another."""
        self.expected = False  # whether the next bytes are a head
        self.target = b""
        self.fields: Headers = []
        self.framing = self.forwarding = _NONE
        self._fields_before = 0  # complete fields after the last piece
        self._growth = 0  # bytes since the last field, or the request line, was complete

    # ── part by part ─────────────────────────────────────────────────────────────────────────

    def read_line(self, data: bytes, position: int) -> int:
        """Read a request line, or its beginning; set `line` if it is complete. Return its end. Raises ClientError."""
        begun = self.begun
        if not begun:
            position = empty_lines(data, position, SLICE)
        end = data.find(b"\n", position) + 1
        line = begun + data[position : end or len(data)]
        limit = self._limits.line
        self.begun = b""
        self.line = None
        if not end:
            check_begun(line, limit, len(begun))
            self.begun = line
            return len(data)
        if line != b"\r\n":  # an empty line that came in two pieces
            self.line = parse_request_line(line, limit)
            self._lead = _STAND_INS[self.line[2]]
            self._tail = b"\r\n"
            self.expected = True
            self._fields_before = 0
            self._growth = len(line)
        return end

    def next_fields(self, data: bytes, position: int) -> tuple[bytes, int, bool]:
        """Return the next bytes for the parser, up to the end of the head, and the number of bytes of `data` in them.

        The third value tells whether the head has come in a single piece that breaks no limit of size.
        """
        before = len(self._tail)
        piece = self._tail + data[position : position + SLICE]
        found = piece.find(END_OF_HEAD)
        end = found + len(END_OF_HEAD) if found >= 0 else len(piece)
        if end > SLICE // 8 and has_more_lines(piece[:end], self._limits.fields):
            found, end = -1, SLICE // 8  # a part of them shows that there are too many
        self._tail = piece[end - 3 : end] if end > 3 else piece
        lead, self._lead = self._lead, b""
        return lead + piece[before:end], end - before, found >= 0 and self._growth + end <= self._limits.small_head

    # ── calls of the parser ──────────────────────────────────────────────────────────────────

    def on_url(self, url: bytes) -> None:
        """Take the request target. If it is only a piece of it, the head will be read again, part by part.

        Raises DoubtError, through the parser, if the head before it was believed to be the only one in its piece.
        """
        if not self.expected:
            raise DoubtError
        self.target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or a trailer, which the reader will drop."""
        known = REQUEST_NAMES.get(name)
        value = value.rstrip()  # llhttp leaves trailing whitespace (RFC 9110 section 5.5)
        if known is None:
            known = name.lower()
            if known in FRAMING_NAMES:
                fields = self.framing
                if not fields:
                    self.framing = {known: value}
                elif known in fields:
                    if known in {b"host", b"content-length"}:
                        raise ClientError(400, f"repeated {known.decode()} field")
                    fields[known] = self._joined(fields[known], known, value)
                else:
                    fields[known] = value
            elif known in FORWARDING_NAMES:
                if not self.forwarding:
                    self.forwarding = {}
                fields = self.forwarding
                fields[known] = self._joined(fields[known], known, value) if known in fields else value
        self.fields.append((known, value))

    def _joined(self, before: bytes, name: bytes, value: bytes) -> bytes:
        """Join two lines of a list field, which means the same (RFC 9110 section 5.3). Raises ClientError(431).

        The joined value has the limit of a single field. Otherwise a list could be a hundred times as long, and would
        be copied for each of a hundred lines.
        """
        limit = self._limits.field_size
        if len(name) + len(": ") + len(before) + len(", ") + len(value) > limit:
            raise ClientError(431, f"field {name.decode()} in several lines above {limit} bytes")
        return before + b", " + value

    def is_plain(self, piece: bytes) -> bool:
        """Tell whether `piece` is the head of a plain GET, and nothing else."""
        return (
            piece.startswith(b"GET /")
            and piece.startswith(b" HTTP/1.1\r\n", 4 + len(self.target))
            # The piece ends with this head, and no second head begins after an empty line:
            and piece.endswith(END_OF_HEAD)
            and piece[-5] > CR
            and HASH not in self.target
        )

    def vouch_for(self, piece: bytes, name: bytes) -> tuple[str, bytes, str]:
        """Return method, target and version of a head that is no plain GET. `name` is the method that llhttp has found.

        Raises DoubtError unless `piece` is this head with its body, or with a part of it, and nothing else.
        """
        fields, target = self.framing, self.target
        if (
            name in METHODS
            and piece.startswith(name + b" /")
            and piece.startswith(b" HTTP/1.1\r\n", len(name) + 1 + len(target))
            and HASH not in target
            and b"transfer-encoding" not in fields
            and b"upgrade" not in fields
        ):
            length = content_length(fields.get(b"content-length", b"0"))
            end = piece.index(END_OF_HEAD) + len(END_OF_HEAD) + length
            if end == len(piece) or (length and end > len(piece)):
                return METHODS[name], target, "1.1"
        raise DoubtError

    # ── limits of a head that is not complete ────────────────────────────────────────────────

    def check_piece(self, size: int) -> None:
        """Apply the limits to a head that is not complete; its last piece had `size` bytes. Raises ClientError."""
        limits = self._limits
        fields = len(self.fields)
        # Pieces in which no field has ended belong to two fields at most: a value, and the next field's name.
        self._growth = self._growth + size if fields == self._fields_before else 0
        self._fields_before = fields
        self.check_fields()
        if self._growth > limits.line + 2 * limits.field_size:
            raise ClientError(431, f"a field above {limits.field_size} bytes")

    def check_fields(self) -> None:
        """Raise ClientError if there are more fields than the limit."""
        if len(self.fields) > self._limits.fields:
            raise ClientError(431, f"more than {self._limits.fields} fields")


def is_costly(data: bytes, limits: RequestLimits) -> bool:
    """Tell whether the parser, which cannot be stopped, would take long for a piece that begins with a head."""
    if len(data) > SLICE:
        return True
    # After a GET there may be more heads. After any other head is its body; `vouch_for` stops the parser at more.
    heads = data if data.startswith(b"GET /") else data[: data.find(END_OF_HEAD)]
    return has_more_lines(heads, limits.fields)


class _TrailersOnly:
    """The callbacks of a parser that begins at a body. The fields of its made-up head are ignored."""

    def __init__(self, head: RequestHead, on_end: Callable[[], None]) -> None:
        self._head = head
        self.begun = False  # the made-up head was parsed
        self.on_body = head.on_body
        self.on_message_complete = on_end

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer."""
        if self.begun:
            self._head.on_header(name, value)


def parser_of_chunks(head: RequestHead, on_end: Callable[[], None]) -> httptools.HttpRequestParser:
    """Return a parser that begins at a chunked body, which another parser has skipped. It calls `on_end` at the end."""
    callbacks = _TrailersOnly(head, on_end)
    parser = httptools.HttpRequestParser(callbacks)
    parser.feed_data(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    callbacks.begun = True
    return parser
