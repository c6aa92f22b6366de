"""The head of a request held to RFC 9110, RFC 9112 and the limits, which llhttp does not do.

Pure. `examine` is called for every head that is not of the plainest kind (`RequestReader.on_headers_complete` says
which), so it may take its time. It must never change its arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from aserver.errors import ClientError
from aserver.protocol.http1.head import CHUNKED
from aserver.protocol.semantics.fields import content_length, tokens
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.target import check_host

#: The usual values of Connection; browsers send the first.
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
    """Raise ClientError unless the request may be served, but for the length of its body (`body_length`).

    `framing` holds the fields of `FRAMING_NAMES`; Host and Content-Length are not repeated.
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
    """Raise ClientError unless the body is framed in the only way that every server reads alike.

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


def keeps_alive(connection: bytes | None, version: str) -> bool:
    """Tell whether another request may follow, by version ("1.0", "1.1") and Connection field (RFC 9112 section 9.3).

    Not llhttp's `should_keep_alive`, which takes `Proxy-Connection` for Connection.
    """
    if connection is None:
        return version == "1.1"
    if connection in KEEP_ALIVE:
        return True
    options = tokens(connection)
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)
