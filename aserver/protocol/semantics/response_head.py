"""Response heads: status and headers of an application are checked, encoded, and remembered in their encoded form.

Pure. An application sends the same few heads again and again. To make a head takes 1.5 us, to find it again 0.2.
The number and size of remembered heads have limits, so that neither applications nor clients can fill the memory.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from aserver.asgi import REASON
from aserver.errors import ApplicationError
from aserver.protocol.semantics.fields import RESPONSE_NAMES, check_fields, check_name, tokens
from aserver.protocol.semantics.status import BODILESS, RESET_CONTENT, WITHOUT_LENGTH, check_status, legal_reason

Pairs = Sequence[tuple[bytes, bytes]]

#: The most heads that are kept, and the most bytes of a head that is kept: half a megabyte together. When the table is
#: full, all are forgotten. That costs 0.1 us a request if heads never repeat; a least-recently-used order would cost
#: every request more.
REMEMBERED: Final = 512
REMEMBERED_SIZE: Final = 1024

#: Fields of the application that are left out: the server frames the body, and decides how long a connection is kept.
_OURS: Final = frozenset((b"transfer-encoding", b"keep-alive"))


class Head:
    """A checked and encoded head, without the fields that the server adds."""

    __slots__ = ("block", "bodiless", "close", "length", "plain", "ready", "status")

    def __init__(self, status: int, block: bytes, length: int | None, *, close: bool, plain: bool) -> None:
        self.status = status
        self.block = block  # status and fields, as an encoder has written them
        self.length = length  # the value of content-length, if the application set it; `block` then has it
        self.close = close  # the application said `Connection: close`
        self.plain = plain  # it has no default field of the server, no `close`, and a status with a body
        self.bodiless = status in BODILESS
        self.ready = plain and length is not None  # the same bytes serve every response with a body of `length`


class Defaults:
    """The fields that the server adds where the application has set none."""

    __slots__ = ("_configured", "names", "pairs")

    def __init__(self, configured: Iterable[tuple[bytes, bytes]], date: bytes | None) -> None:
        self._configured = list(configured)  # names in lower case
        self.renew(date)

    def renew(self, date: bytes | None) -> None:
        """Set the value of the date field; None leaves the field out."""
        self.pairs = [*self._configured, *([(b"date", date)] if date is not None else [])]
        self.names = frozenset(name for name, _ in self.pairs)

    def beside(self, headers: Pairs) -> list[tuple[bytes, bytes]]:
        """Return the default fields whose names are not among `headers`."""
        names = {name.lower() for name, _ in headers}
        return [pair for pair in self.pairs if pair[0] not in names]


class Heads:
    """The remembered heads of a version of HTTP. `encode` makes bytes of a status, fields and a reason phrase."""

    __slots__ = ("_encode", "defaults", "given", "last", "made", "status")

    def __init__(self, defaults: Defaults, encode: Callable[[int, Pairs, bytes], bytes]) -> None:
        self.defaults = defaults
        self._encode = encode
        self.made: dict[object, Head] = {}  # by (status, *headers)
        # The head that was looked up last. To compare with it takes a fifth of the time of a look into `made`.
        self.last: Head | None = None
        self.status: object = None
        self.given: list[tuple[bytes, bytes]] = []

    def make(self, status: object, headers: Pairs) -> Head:
        """Make and remember the head of a status and of headers from `as_pairs`. Raises ApplicationError."""
        head = compile_head(status, headers, self.defaults.names, self._encode)
        if len(head.block) <= REMEMBERED_SIZE:
            if len(self.made) >= REMEMBERED:
                self.made.clear()
            self.made[(status, *headers)] = head
        return head


def compile_head(
    given: object, headers: Pairs, defaults: frozenset[bytes], encode: Callable[[int, Pairs, bytes], bytes]
) -> Head:
    """Check status and headers and make a `Head` of them. `defaults` are the names of the server's default fields.

    Raises ApplicationError that names the wrong field.
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
                    # The connection is the server's: of this field only `close` is obeyed.
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
