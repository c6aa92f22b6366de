"""Checks of a request's head that llhttp does not make: rules of RFC 9110 and RFC 9112, and the limits.

Pure. `RequestReader.on_headers_complete` calls `examine` for every head that is not of the plainest kind, so it may
take its time. It must never change its arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from aserver.errors import ClientError
from aserver.protocol.http1.head import CHUNKED
from aserver.protocol.semantics.fields import content_length, tokens
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.target import check_host

#: The usual values of Connection. Browsers send the first.
KEEP_ALIVE: Final = (b"keep-alive", b"Keep-Alive")


def examine(
    limits: RequestLimits,
    *,
    method: str,
    version: str,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    framing: Mapping[bytes, bytes],
) -> None:
    """Raise ClientError unless the request may be served. The length of its body is left to `body_length`.

    `framing` has the fields of `FRAMING_NAMES`. The caller has refused repeated Host and Content-Length fields.
    """
    _examine_sizes(limits, method, target, headers)
    host = framing.get(b"host")
    if host is None:
        if version == "1.1":
            raise ClientError(400, "HTTP/1.1 without Host")
    elif host or version == "1.1":
        check_host(host)
    coding = framing.get(b"transfer-encoding")
    if coding is not None:
        check_transfer_encoding(coding, version, has_length=b"content-length" in framing)
    expectation = framing.get(b"expect")
    if expectation is not None and version == "1.1" and expectation.lower() != b"100-continue":
        raise ClientError(417, f"unknown expectation {expectation[:80]!r}")


def body_length(limits: RequestLimits, framing: Mapping[bytes, bytes]) -> int:
    """Return the length of the body, or CHUNKED. Raises ClientError."""
    if b"transfer-encoding" in framing:
        return CHUNKED
    length = content_length(framing.get(b"content-length", b"0"))
    if length > limits.body:
        raise ClientError(413, f"body of {length} bytes, limit is {limits.body}")
    return length


def _examine_sizes(limits: RequestLimits, method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    if len(target) + len(method) + len(" HTTP/1.1") + 1 > limits.line:
        raise ClientError(414, f"request line above {limits.line} bytes")
    if len(headers) > limits.fields:
        raise ClientError(431, f"more than {limits.fields} fields")
    limit = limits.field_size
    for name, value in headers:
        if len(name) + len(value) + len(": ") > limit:
            raise ClientError(431, f"field {name[:80]!r} above {limit} bytes")


def check_transfer_encoding(coding: bytes, version: str, *, has_length: bool) -> None:
    """Raise ClientError unless the transfer coding is `chunked` alone, which all servers understand alike.

    With Content-Length, or in HTTP/1.0, Transfer-Encoding is refused with 400, because it may be request smuggling. A
    coding before the final chunked is not implemented: 501 (RFC 9112 section 6.1).
    """
    if version != "1.1":
        raise ClientError(400, "Transfer-Encoding in HTTP/1.0")
    if has_length:
        raise ClientError(400, "Transfer-Encoding with Content-Length")
    if coding.lower() != b"chunked":
        *before, last = (part.strip().lower() for part in coding.split(b","))
        known = last == b"chunked" and b"chunked" not in before and all(before)
        raise ClientError(501 if known else 400, f"transfer coding {coding[:80]!r} is not served")


def keeps_alive(connection: bytes | None, version: str) -> bool:
    """Tell whether another request may follow, by version ("1.0", "1.1") and Connection field (RFC 9112 section 9.3).

    llhttp's `should_keep_alive` is not used, because it takes `Proxy-Connection` for Connection.
    """
    if connection is None:
        return version == "1.1"
    if connection in KEEP_ALIVE:
        return True
    options = tokens(connection)
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)
