"""Response heads: from status and headers to checked fields, remembered in the form in which they are sent.

Pure. An application says the same few heads again and again, so a head is made once and then found (0.2 us instead of
1.5). Applications and clients must never be able to make it grow: see `REMEMBERED`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from aserver.asgi import REASON
from aserver.errors import ApplicationError
from aserver.protocol.semantics.fields import RESPONSE_NAMES, check_fields, check_name, tokens
from aserver.protocol.semantics.status import BODILESS, RESET_CONTENT, WITHOUT_LENGTH, check_status, legal_reason

Pairs = Sequence[tuple[bytes, bytes]]

#: Heads kept, and the bytes a head may have to be kept: at most half a megabyte. When full, all are forgotten, which
#: costs an application whose heads never repeat 0.1 us a request; a proper LRU would cost all of them more.
REMEMBERED: Final = 512
REMEMBERED_SIZE: Final = 1024

#: Fields of the application that "the server must ignore" (ASGI).
_OURS: Final = frozenset((b"transfer-encoding", b"keep-alive"))


class Head:
    """A checked head without the server's own fields."""

    __slots__ = ("block", "bodiless", "close", "length", "plain", "ready", "status")

    def __init__(self, status: int, block: bytes, length: int | None, *, close: bool, plain: bool) -> None:
        self.status = status
        self.block = block  # status and fields, as an encoder has written them
        self.length = length  # of content-length, which then is in `block`
        self.close = close  # the application said `Connection: close`
        self.plain = plain  # it repeats no field of the server's, and has no other reason for a closer look
        self.bodiless = status in BODILESS
        self.ready = plain and length is not None  # nothing of a response can change it


class Defaults:
    """The fields that the server adds where the application has set none."""

    __slots__ = ("_configured", "names", "pairs")

    def __init__(self, configured: Iterable[tuple[bytes, bytes]], date: bytes | None) -> None:
        self._configured = list(configured)  # names in lower case
        self.renew(date)

    def renew(self, date: bytes | None) -> None:
        """Take the value of the date field, None for none."""
        self.pairs = [*self._configured, *([(b"date", date)] if date is not None else [])]
        self.names = frozenset(name for name, _ in self.pairs)

    def beside(self, headers: Pairs) -> list[tuple[bytes, bytes]]:
        """Return those fields that are not among `headers`."""
        names = {name.lower() for name, _ in headers}
        return [pair for pair in self.pairs if pair[0] not in names]


class Heads:
    """The remembered heads of a version of HTTP, whose `encode` makes bytes of a status, fields and a reason phrase."""

    __slots__ = ("_encode", "defaults", "given", "last", "made", "status")

    def __init__(self, defaults: Defaults, encode: Callable[[int, Pairs, bytes], bytes]) -> None:
        self.defaults = defaults
        self._encode = encode
        self.made: dict[object, Head] = {}  # by (status, *headers)
        # The last that was looked up, since a comparison takes a fifth of the time:
        self.last: Head | None = None
        self.status: object = None
        self.given: list[tuple[bytes, bytes]] = []

    def make(self, status: object, headers: Pairs) -> Head:
        """Make and remember the head for a status and headers that `as_pairs` made. Raises ApplicationError."""
        head = compile_head(status, headers, self.defaults.names, self._encode)
        if len(head.block) <= REMEMBERED_SIZE:
            if len(self.made) >= REMEMBERED:
                self.made.clear()
            self.made[(status, *headers)] = head
        return head


def compile_head(
    given: object, headers: Pairs, defaults: frozenset[bytes], encode: Callable[[int, Pairs, bytes], bytes]
) -> Head:
    """Check status and headers and make a `Head` of them; `defaults` are the names the server would add.

    Raises ApplicationError that names the culprit.
    """
    status = check_status(given)
    fields: list[tuple[bytes, bytes]] = []
    length: int | None = None
    close = False
    reason = b""
    plain = status not in BODILESS
    try:
        for name, value in headers:
            known = RESPONSE_NAMES.get(name)
            if known is None:
                known = name.lower()
                if known == b"content-length":
                    length = _content_length(value, length)
                    continue
                if known == b"connection":
                    # The connection is the server's; of the application's words only `close` has a meaning.
                    close = close or b"close" in tokens(value)
                    continue
                if known in _OURS:
                    continue
                if known == REASON:
                    reason = legal_reason(value)
                    continue
                check_name(known)
            if known in defaults:
                plain = False
            if 0 in value or 10 in value or 13 in value:
                check_fields(headers)
            fields.append((known, value))
        if status in WITHOUT_LENGTH:
            length = None
        if length is not None or status == RESET_CONTENT:
            fields.append((b"content-length", b"%d" % (length or 0)))
        block = encode(status, fields, reason)
    except (TypeError, ValueError, AttributeError) as error:
        check_fields(headers)
        raise ApplicationError(f"http.response.start: headers must be pairs of bytes: {error}") from error
    return Head(status, block, length, close=close, plain=plain and not close)


def _content_length(value: bytes, before: int | None) -> int:
    if not value.isdigit():
        raise ApplicationError(f"http.response.start: content-length {value!r} is not a number")
    length = int(value)
    if before not in (None, length):
        raise ApplicationError(f"http.response.start: content-length given twice, {before} and {length}")
    return length
