"""What llhttp lets through and aserver does not: the head of a request held to RFC 9110, RFC 9112 and the limits.

Pure. Called for every head that is not of the plainest kind (`http1.on_headers_complete` says which), so it may
take its time. It must never change what it looks at.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from aserver.errors import ClientError
from aserver.protocol.semantics import wire


class Limits(Protocol):
    """The settings of the same names; infinite where the setting is 0."""

    limit_request_line: int
    limit_request_fields: int
    limit_request_field_size: int
    limit_request_body: float


def examine(
    limits: Limits,
    *,
    method: str,
    version: str,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    special: Mapping[bytes, bytes],
) -> None:
    """Raise ClientError unless the request may be served.

    `special` holds the fields of `wire.SPECIAL_REQUEST_NAMES`; Host and Content-Length are not repeated.
    """
    _examine_sizes(limits, method, target, headers)
    host = special.get(b"host")
    if host is None:
        if version == "1.1":
            raise ClientError(400, "HTTP/1.1 without Host")
    elif host or version == "1.1":
        wire.check_host(host)
    length = special.get(b"content-length")
    coding = special.get(b"transfer-encoding")
    if coding is not None:
        wire.check_transfer_encoding(coding, version, has_length=length is not None)
    expectation = special.get(b"expect")
    if expectation is not None and version == "1.1" and expectation.lower() != b"100-continue":
        raise ClientError(417, f"unknown expectation {expectation[:80]!r}")
    if length is not None and (size := wire.content_length(length)) > limits.limit_request_body:
        raise ClientError(413, f"body of {size} bytes, limit is {limits.limit_request_body}")


def _examine_sizes(limits: Limits, method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    if len(target) + len(method) + len(" HTTP/1.1") + 1 > limits.limit_request_line:
        raise ClientError(414, f"request line above {limits.limit_request_line} bytes")
    if len(headers) > limits.limit_request_fields:
        raise ClientError(431, f"more than {limits.limit_request_fields} fields")
    limit = limits.limit_request_field_size
    for name, value in headers:
        if len(name) + len(value) + len(": ") > limit:
            raise ClientError(431, f"field {name[:80]!r} above {limit} bytes")
