"""A request's head while it is being read: its line, and its fields as llhttp finds them.

Pure. llhttp calls `RequestHead`, which collects, and applies the limits already before the head is complete. It must
never look at the meaning of fields: `RequestReader.on_headers_complete` and `rules` do. `RequestSink` is the receiver
of complete heads, `HeadCache` remembers the plain ones.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

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

#: Bytes of a head given to the parser at once. It cannot be stopped, and 256 KB (uvloop's read) of fields make 26 MB
#: of objects.
SLICE: Final = 8192

#: The lines that llhttp is given in place of a request line that `framing` has read: llhttp knows a fixed list of
#: methods.
_STAND_INS: Final = {"1.1": b"GET / HTTP/1.1\r\n", "1.0": b"GET / HTTP/1.0\r\n"}

CR: Final = 0x0D

#: `int in bytes` is a memchr; `bytes in bytes` costs 0.1 us more.
HASH: Final = 0x23


#: Of heads without such fields; never written to. Two empty dicts of its own would be a tenth of an idle connection.
_NONE: Final[dict[bytes, bytes]] = {}


#: Bytes of a head above which it is not remembered: it is kept as long as the connection, idle or not.
REMEMBERED_SIZE: Final = 2048

#: A plain GET that was parsed and passed the rules: its bytes behind the target, from ` HTTP/1.1` to the empty line;
#: its fields; those of `FORWARDING_NAMES` among them; whether the connection stays open. A bare tuple, because to make
#: a NamedTuple costs 0.3 us.
KnownHead = tuple[bytes, Headers, dict[bytes, bytes], bool]


class DoubtError(Exception):
    """These bytes are not a single plain request: read them again, part by part."""


class RequestSink(Protocol):
    """The receiver of requests. It may be called from inside the parser, where it must not start an application."""

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

        Many requests may share `headers`, which nothing may change.

        `length` is that of the body which follows, or CHUNKED; `on_end` is called only if it is not 0. `forwarding` has
        the fields that proxies add; `framing` those of `fields.FRAMING_NAMES`, or is None if they are plain.
        """

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def on_end(self) -> None:
        """Take the end of the body."""

    def on_offer(self) -> bool:
        """Tell whether the last request, which offers another protocol, ends HTTP here; then call `take_rest`."""

    def on_spent(self) -> None:
        """See to it that the reader goes on when others have had their turn."""


class HeadCache:
    """The last plain head and the last good Host of a worker.

    A client says the same fields again and again; only the target differs. Every connection remembers its last plain
    head, and begins with the worker's. It must never grow with the requests.
    """

    __slots__ = ("good_host", "known")

    def __init__(self) -> None:
        self.known: KnownHead | None = None
        self.good_host: bytes | None = None


class RequestHead:
    """Collects the heads of a connection, each in its turn, and the trailers behind a body.

    The parser calls its methods for the target and the fields, and the callables that it is given for all else.
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
        self.line: tuple[str, bytes, str] | None = None  # method, target, version, if `read_line` has read it
        self.begun = b""  # of a request line, or of the CR before it
        self._lead = b""  # bytes that the parser is fed before the fields
        self._tail = b""  # the last bytes of the head, where its end may have begun
        self.forget()
        self.on_headers_complete = on_headers_complete
        self.on_body = on_body
        self.on_message_complete = on_message_complete

    def forget(self) -> None:
        """Collect from the beginning."""
        self.expected = False  # a head, at this place
        self.target = b""
        self.fields: Headers = []
        self.framing = self.forwarding = _NONE
        self._fields_before = 0  # fields complete when the last piece had been parsed
        self._growth = 0  # bytes since a field, or the request line, was last completed

    # ── part by part ─────────────────────────────────────────────────────────────────────────

    def read_line(self, data: bytes, position: int) -> int:
        """Read a request line, or as much of it as has come; set `line` at its end. Raises ClientError."""
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
        """Return the bytes to feed to the parser next, and how many of `data` these are, up to the head's end.

        Also, whether the head is a single piece that breaks no limit of size.
        """
        before = len(self._tail)
        piece = self._tail + data[position : position + SLICE]
        found = piece.find(END_OF_HEAD)
        end = found + len(END_OF_HEAD) if found >= 0 else len(piece)
        if end > SLICE // 8 and has_more_lines(piece[:end], self._limits.fields):
            found, end = -1, SLICE // 8  # some of so many fields show that they are too many
        self._tail = piece[end - 3 : end] if end > 3 else piece
        lead, self._lead = self._lead, b""
        return lead + piece[before:end], end - before, found >= 0 and self._growth + end <= self._limits.small_head

    # ── calls of the parser ──────────────────────────────────────────────────────────────────

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a piece of it: then it will be read again, part by part.

        Raises DoubtError through the parser if a head before it, in the same piece, was believed to be the last.
        """
        if not self.expected:
            raise DoubtError
        self.target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of the trailers, which the reader drops."""
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
        """Join the lines of a list field to a value, which may have no more bytes than any other field.

        RFC 9110 section 5.3: it means the same. Without the limit these lists, looked through at once, could be
        a hundred times as long, and would be copied a hundred times.
        """
        limit = self._limits.field_size
        if len(name) + len(": ") + len(before) + len(", ") + len(value) > limit:
            raise ClientError(431, f"field {name.decode()} in several lines above {limit} bytes")
        return before + b", " + value

    def is_plain(self, piece: bytes) -> bool:
        """Tell whether `piece` is the head of a GET, as most are, and nothing else."""
        return (
            piece.startswith(b"GET /")
            and piece.startswith(b" HTTP/1.1\r\n", 4 + len(self.target))
            # The head ends where the piece ends, and begins no second time behind an empty line.
            and piece.endswith(END_OF_HEAD)
            and piece[-5] > CR
            and HASH not in self.target
        )

    def vouch_for(self, piece: bytes, name: bytes) -> tuple[str, bytes, str]:
        """Return method, target and version of a head that is not of the plainest kind; `name` is the parser's method.

        Raises DoubtError unless `piece` is this head with its body, or the beginning of that, and nothing else.
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

    # ── limits before the end ────────────────────────────────────────────────────────────────

    def check_piece(self, size: int) -> None:
        """Hold a head that is not complete yet to the limits; the last piece had `size` bytes. Raises ClientError."""
        limits = self._limits
        fields = len(self.fields)
        # Pieces in which no field ended belong to at most two fields: the value of one, the name of the next.
        self._growth = self._growth + size if fields == self._fields_before else 0
        self._fields_before = fields
        self.check_fields()
        if self._growth > limits.line + 2 * limits.field_size:
            raise ClientError(431, f"a field above {limits.field_size} bytes")

    def check_fields(self) -> None:
        """Raise ClientError if there are more fields than there may be."""
        if len(self.fields) > self._limits.fields:
            raise ClientError(431, f"more than {self._limits.fields} fields")


def is_costly(data: bytes, limits: RequestLimits) -> bool:
    """Tell whether the parser, which cannot be stopped, would take long for a piece that begins with a head."""
    if len(data) > SLICE:
        return True
    # Behind a GET is another head, if anything; behind others a body, and if it is too long for that, they stop it.
    heads = data if data.startswith(b"GET /") else data[: data.find(END_OF_HEAD)]
    return has_more_lines(heads, limits.fields)


class _TrailersOnly:
    """The callbacks of a parser that begins at a body: nothing is done for the fields of its made-up head."""

    def __init__(self, head: RequestHead, on_end: Callable[[], None]) -> None:
        self._head = head
        self.begun = False  # the made-up head is over
        self.on_body = head.on_body
        self.on_message_complete = on_end

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer."""
        if self.begun:
            self._head.on_header(name, value)


def parser_of_body(head: RequestHead, length: int, on_end: Callable[[], None]) -> Any:
    """Return a parser that begins at a body, which another has skipped; it calls `on_end` at the body's end."""
    callbacks = _TrailersOnly(head, on_end)
    parser = httptools.HttpRequestParser(callbacks)
    coding = b"transfer-encoding: chunked" if length == CHUNKED else b"content-length: %d" % length
    parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n\r\n" % coding)
    callbacks.begun = True
    return parser
