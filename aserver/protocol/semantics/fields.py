"""Fields of requests and responses (RFC 9110 section 5): names, values, lists, and tables of the usual names.

Pure functions and tables. Nothing here trusts a value that an application or a client has given.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from aserver.errors import ApplicationError, ClientError

TCHAR: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110 section 5.6.2
TOKEN: Final = re.compile(TCHAR + rb"+")
_FORBIDDEN_IN_VALUE: Final = re.compile(rb"[\0\r\n]")  # RFC 9110 section 5.5

_COMMON_REQUEST_NAMES: Final = """
accept accept-charset accept-encoding accept-language access-control-request-headers
access-control-request-method authorization cache-control content-encoding content-type cookie date dnt
from if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive origin pragma
priority proxy-authorization range referer sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest
sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc sec-websocket-extensions sec-websocket-key
sec-websocket-protocol sec-websocket-version traceparent tracestate trailer upgrade-insecure-requests user-agent
via x-api-key x-correlation-id x-csrf-token x-real-ip x-request-id x-requested-with
"""

_COMMON_RESPONSE_NAMES: Final = """
accept-ranges access-control-allow-credentials access-control-allow-headers access-control-allow-methods
access-control-allow-origin access-control-expose-headers access-control-max-age age allow alt-svc
cache-control content-disposition content-encoding content-language content-location content-range
content-security-policy content-type cross-origin-embedder-policy cross-origin-opener-policy
cross-origin-resource-policy etag expires last-modified link location permissions-policy pragma
referrer-policy retry-after set-cookie strict-transport-security vary www-authenticate x-accel-buffering
x-accel-expires x-content-type-options x-frame-options x-process-time x-request-id x-xss-protection
"""

#: Spelling on the wire -> the name in lower case, for names that ask for no action. A fixed table and no cache, so that
#: no client can make it grow.
REQUEST_NAMES: Final[dict[bytes, bytes]] = {
    spelling: name.encode()
    for name in _COMMON_REQUEST_NAMES.split()
    for spelling in (name.encode(), name.title().encode())
}

#: Names by which a request says how it is framed, for which host it is, and what its connection does next. None of them
#: is in `REQUEST_NAMES`.
FRAMING_NAMES: Final = frozenset(
    (b"host", b"connection", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"te")
)

#: Fields in which a trusted proxy describes the client (`peer/forwarded`). None is in `REQUEST_NAMES` either.
FORWARDING_NAMES: Final = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-request-start",
    )
)

#: Spelling of the application -> the name in lower case, for names that ask for no action.
RESPONSE_NAMES: Final[dict[bytes, bytes]] = {
    spelling: name.encode()
    for name in _COMMON_RESPONSE_NAMES.split()
    for spelling in (name.encode(), name.title().encode())
}


def check_name(name: bytes) -> None:
    """Raise ApplicationError unless `name` is a token."""
    if TOKEN.fullmatch(name) is None:
        raise ApplicationError(f"response header name {name!r} is not a token (RFC 9110 section 5.6.2)")


def as_pairs(fields: Iterable[Any]) -> list[tuple[bytes, bytes]]:
    """Return an application's fields as pairs of bytes. ASGI allows any iterable of iterables with two items.

    Raises ApplicationError that names the first field of another shape. `check_fields` checks names and values.
    """
    pairs: list[tuple[bytes, bytes]] = []
    for field in fields:
        try:
            name, value = field
        except (TypeError, ValueError):
            raise ApplicationError(f"response header {field!r} is not a pair of name and value") from None
        if not isinstance(name, bytes):
            name = as_bytes(f"response header name {name!r}", name)
        if not isinstance(value, bytes):
            value = as_bytes(f"response header {name!r}: value {value!r}", value)
        pairs.append((name, value))
    return pairs


def as_bytes(subject: str, data: object) -> bytes:
    """Return an application's bytes as `bytes`. Raises ApplicationError that names the subject."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise ApplicationError(f"{subject} is {type(data).__name__}, must be bytes")


def check_fields(pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise ApplicationError that names the first pair that may not be sent. Slow: called only to find that pair."""
    for name, value in pairs:
        check_name(name)
        if _FORBIDDEN_IN_VALUE.search(value) is not None:
            raise ApplicationError(f"response header {name!r}: value {value!r} holds NUL, CR or LF")


def parse_header_setting(setting: str) -> tuple[bytes, bytes]:
    """Turn `Name: value` of the `header` setting into a pair with the name in lower case.

    `config/values` has checked its form before. Raises ApplicationError for an illegal field (RFC 9110 section 5).
    """
    name, _, value = setting.partition(":")
    pair = (name.strip().lower().encode("latin-1"), value.strip().encode("latin-1"))
    check_fields([pair])
    return pair


def tokens(value: bytes) -> list[bytes]:
    """Split a comma-separated field value: parts in lower case, without the whitespace around them, none empty."""
    return [part for part in (piece.strip().lower() for piece in value.split(b",")) if part]


#: Digits of 2**64. With leading zeros a number can have any number of digits, and int() raises ValueError above 4300.
LENGTH_DIGITS: Final = 20


def content_length(value: bytes) -> int:
    """Return the number; llhttp has checked that it has only digits. Raises ClientError(400) above LENGTH_DIGITS."""
    if len(value) > LENGTH_DIGITS:
        raise ClientError(400, f"Content-Length of {len(value)} digits")
    return int(value)


def accepts_trailers(te: bytes) -> bool:
    """Tell whether a `TE` field lets us send trailers (RFC 9110 section 10.1.4)."""
    return b"trailers" in tokens(te)
