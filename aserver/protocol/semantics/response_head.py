"""Response heads: from status and headers to checked bytes, remembered, and the fields the server adds.

Pure, and shared by all responses of a worker. An application says the same few heads again and again, so a head is
made once and then found (0.2 us instead of 1.5); what was remembered can only ever be what `compile_head` makes of
equal arguments. It must never grow with what applications or clients think of: see `REMEMBERED`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from aserver.errors import ApplicationError
from aserver.protocol.semantics import wire
from aserver.protocol.semantics.wire import RESPONSE_PREFIXES

Pairs = Sequence[tuple[bytes, bytes]]

#: Heads kept, and the bytes a head may have to be kept: at most half a megabyte. When full, all are forgotten, which
#: costs an application whose heads never repeat 0.1 us a request; a proper LRU would cost all of them more.
REMEMBERED: Final = 512
REMEMBERED_SIZE: Final = 1024

#: Statuses without a body. Of 204 and 304 nothing may follow the head (RFC 9112 section 6.3, rule 1); 205 has a body
#: of no bytes, and says so (RFC 9110 section 15.3.6).
BODILESS: Final = frozenset((204, 205, 304))
RESET_CONTENT: Final = 205

#: Their content-length is not the application's: 204 never has one (RFC 9110 section 8.6), 205 has 0.
_WITHOUT_LENGTH: Final = frozenset((204, 205))
#: Of the application's "the server must ignore it" (ASGI).
_OURS: Final = frozenset((b"transfer-encoding", b"keep-alive"))


class Head:
    """A checked head without the server's own fields and without the final CRLFs."""

    __slots__ = ("block", "close", "length", "plain", "status")

    def __init__(self, status: int, block: bytes, length: int | None, *, close: bool, plain: bool) -> None:
        self.status = status
        self.block = block
        self.length = length  # of content-length, which then is in `block`
        self.close = close  # the application said `Connection: close`
        self.plain = plain  # nothing that `Defaults.ending` would repeat, nor another reason for a closer look


class Defaults:
    """The fields the server adds where the application set none, and the heads remembered with regard to them."""

    __slots__ = ("_heads", "_names", "ending", "lines", "pairs")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]], date: bytes | None) -> None:
        self._heads: dict[object, Head] = {}
        self.update(pairs, date)

    def update(self, pairs: Iterable[tuple[bytes, bytes]], date: bytes | None) -> None:
        """Take the configured fields (names in lower case) and, unless None, the value of the date field."""
        self.pairs = [*pairs, *([(b"date", date)] if date is not None else [])]
        self._names = frozenset(name for name, _ in self.pairs)
        self.lines = wire.field_lines(self.pairs)
        self.ending = self.lines + b"\r\n\r\n"

    def find(self, status: object, headers: list[Any]) -> Head | None:
        """Return the remembered head for a status and headers, which then are pairs, or None."""
        try:
            return self._heads.get((status, *headers))
        except TypeError:  # pairs that are lists, or values that are no bytes
            return None

    def make(self, status: object, headers: Pairs) -> Head:
        """Make and remember the head for a status and headers that `wire.as_pairs` made. Raises ApplicationError."""
        head = compile_head(status, headers, self._names)
        if len(head.block) <= REMEMBERED_SIZE:
            if len(self._heads) >= REMEMBERED:
                self._heads.clear()
            self._heads[(status, *headers)] = head
        return head

    def without(self, headers: Pairs) -> bytes:
        """Return the lines of those fields that are not among `headers`."""
        names = {name.lower() for name, _ in headers}
        return wire.field_lines(pair for pair in self.pairs if pair[0] not in names)


def compile_head(status: object, headers: Pairs, defaults: frozenset[bytes]) -> Head:
    """Check status and headers and make a `Head` of them; `defaults` are the names the server would add.

    Raises ApplicationError that names the culprit.
    """
    line = wire.status_line(status)
    parts = [line]
    length: int | None = None
    close = False
    plain = status not in BODILESS
    try:
        for name, value in headers:
            prefix = RESPONSE_PREFIXES.get(name)
            if prefix is None:
                lowered = name.lower()
                plain = plain and lowered not in defaults
                if lowered == b"content-length":
                    length = _content_length(value, length, repeated=length is not None)
                    continue
                if lowered == b"connection":
                    # The connection is the server's; of what the application says only `close` has a meaning.
                    close = close or b"close" in wire.tokens(value)
                    continue
                if lowered in _OURS:
                    continue
                prefix = wire.field_prefix(lowered)
            elif name in defaults:
                plain = False
            if 0 in value or 10 in value or 13 in value:
                wire.check_fields(headers)
            parts += (prefix, value)
        if status in _WITHOUT_LENGTH:
            length = None
        if length is not None:
            parts.append(b"\r\ncontent-length: %d" % length)
        block = b"".join(parts)
    except (TypeError, ValueError, AttributeError) as error:
        wire.check_fields(headers)
        raise ApplicationError(f"http.response.start: headers must be pairs of bytes: {error}") from error
    return Head(int(line[9:12]), block, length, close=close, plain=plain and not close)


def _content_length(value: bytes, before: int | None, *, repeated: bool) -> int:
    if not value.isdigit():
        raise ApplicationError(f"http.response.start: content-length {value!r} is not a number")
    if repeated and int(value) != before:
        raise ApplicationError(f"http.response.start: content-length given twice, {before} and {int(value)}")
    return int(value)
