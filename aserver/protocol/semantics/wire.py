"""HTTP/1 as bytes: status lines, field names and values, the request target, Host, the canned answers.

Runs in the worker (and in the embedding program's loop), but touches neither: pure functions and tables. It must
never hold state that outlives a call, nor trust anything an application or a peer handed it.
"""

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from aserver.errors import ApplicationError, ClientError

# ── field names and values ───────────────────────────────────────────────────────────────────

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
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

#: Spelling on the wire -> the lower-case name, for names that need no further look. A fixed table, not a
#: cache: what peers send must not make it grow.
REQUEST_NAMES: Final[dict[bytes, bytes]] = {
    spelling: name.encode() for name in _COMMON_REQUEST_NAMES for spelling in (name.encode(), name.title().encode())
}

#: Names that decide about framing, the connection or the response's defaults; never in `REQUEST_NAMES`.
SPECIAL_REQUEST_NAMES: Final = frozenset(
    (b"host", b"connection", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"te")
)

#: What a trusted proxy says of the client (`forwarded`); never in `REQUEST_NAMES` either.
FORWARDING_NAMES: Final = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
    )
)

#: Spelling of the application -> the lower-case name, for names that need no further look.
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
    """Return an application's fields as pairs of bytes: ASGI allows any iterable of iterables of two.

    Raises ApplicationError that names the first that is none. What a name and a value may hold is `check_fields`'s.
    """
    pairs: list[tuple[bytes, bytes]] = []
    for field in fields:
        try:
            name, value = field
        except (TypeError, ValueError):
            raise ApplicationError(f"response header {field!r} is not a pair of name and value") from None
        if not isinstance(name, bytes):
            name = _as_bytes(f"response header name {name!r}", name)
        if not isinstance(value, bytes):
            value = _as_bytes(f"response header {name!r}: value {value!r}", value)
        pairs.append((name, value))
    return pairs


def _as_bytes(subject: str, data: object) -> bytes:
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise ApplicationError(f"{subject} is not bytes")


def check_fields(pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise ApplicationError for the first pair that may not be sent; the slow way, to name the culprit."""
    for name, value in pairs:
        check_name(name)
        if _FORBIDDEN_IN_VALUE.search(value) is not None:
            raise ApplicationError(f"response header {name!r}: value {value!r} holds NUL, CR or LF")


def parse_header_setting(setting: str) -> tuple[bytes, bytes]:
    """Turn `Name: value` of the `header` setting into a pair with the name in lower case.

    Raises ApplicationError if it cannot be a field; `config.py` has checked the form before.
    """
    name, _, value = setting.partition(":")
    pair = (name.strip().lower().encode("latin-1"), value.strip().encode("latin-1"))
    check_fields([pair])
    return pair


def tokens(value: bytes) -> list[bytes]:
    """Split a comma-separated field value, in lower case, without parameters' whitespace and empty parts."""
    return [part for part in (piece.strip().lower() for piece in value.split(b",")) if part]


def keeps_alive(connection: bytes | None, version: str) -> bool:
    """Tell whether another request may follow, by version ("1.0", "1.1") and Connection field (RFC 9112 section 9.3).

    Not llhttp's `should_keep_alive`, which takes `Proxy-Connection` for Connection.
    """
    if connection is None:
        return version == "1.1"
    options = tokens(connection)
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)


#: Digits of 2**64. Leading zeros could make any number of them, and int() raises ValueError above 4300.
LENGTH_DIGITS: Final = 20


def content_length(value: bytes) -> int:
    """Return the number. Raises ClientError(400) above `LENGTH_DIGITS`; that they are digits, llhttp has seen."""
    if len(value) > LENGTH_DIGITS:
        raise ClientError(400, f"Content-Length of {len(value)} digits")
    return int(value)


def accepts_trailers(te: bytes) -> bool:
    """Tell whether a `TE` field lets us send trailers (RFC 9110 section 10.1.4)."""
    return b"trailers" in tokens(te)


# ── the request target and Host ──────────────────────────────────────────────────────────────

#: What llhttp knows and we serve, as the ASGI scope wants it. CONNECT, PRI and RTSP's methods are left out.
_METHODS: Final = (
    "DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND "
    "UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR "
    "LINK UNLINK SOURCE QUERY"
)
METHODS: Final[dict[bytes, str]] = {name.encode(): name for name in _METHODS.split()}

_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[!$&'()*+,;=\-._~0-9A-Za-z]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)((?:[/?][^#]*)?)")


def check_host(host: bytes) -> None:
    """Raise ClientError(400) unless `host` is `uri-host [":" port]` and not empty (RFC 9110 section 7.2)."""
    if _HOST.fullmatch(host) is None:
        raise ClientError(400, f"malformed Host {host[:80]!r}")


def check_transfer_encoding(coding: bytes, version: str, *, has_length: bool) -> None:
    """Raise ClientError unless the body is framed in the one way that nobody reads differently.

    RFC 9112 section 6.1: with Content-Length or in HTTP/1.0 it is a smuggling attempt (400); a coding before the
    final chunked is just not implemented (501).
    """
    if version != "1.1":
        raise ClientError(400, "Transfer-Encoding in HTTP/1.0")
    if has_length:
        raise ClientError(400, "Transfer-Encoding with Content-Length")
    if coding.lower() != b"chunked":
        *before, last = (part.strip().lower() for part in coding.split(b","))
        known = last == b"chunked" and b"chunked" not in before and all(before)
        raise ClientError(501 if known else 400, f"transfer coding {coding[:80]!r} is not served")


def split_target(method: str, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Split a request target into path, query and, for the absolute form, its authority (RFC 9112 section 3.2).

    Raises ClientError(400) for the asterisk outside OPTIONS, the authority form, and what is none of the four.
    """
    authority = None
    if not target.startswith(b"/"):
        if target == b"*" and method == "OPTIONS":
            return b"*", b"", None
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise ClientError(400, f"request target {target[:80]!r} is neither a path nor an absolute URI")
        authority, target = match.groups()
        check_host(authority)
        if not target and method == "OPTIONS":
            target = b"*"  # RFC 9112 section 3.2.4
        elif not target.startswith(b"/"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    return path, query, authority


def decode_path(path: bytes) -> str:
    """Return the path as the ASGI scope wants it: percent sequences and UTF-8 decoded, errors replaced."""
    return unquote_to_bytes(path).decode("utf-8", "replace")
