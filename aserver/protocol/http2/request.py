"""Makes a request of the fields in a header block, and checks it: RFC 9113 section 8, and the limits. Pure.

`make_request` is called for every header block that is not remembered. It must never change the fields that it gets. A
malformed head is a fault of the stream. A head that is well-formed and refused, for example because of its size, is a
ClientError, which is answered.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from aserver.errors import ClientError
from aserver.protocol.http2.errors import PROTOCOL_ERROR, StreamFaultError
from aserver.protocol.http2.priority import parse_priority
from aserver.protocol.http2.static_table import Field
from aserver.protocol.semantics.fields import FORWARDING_NAMES, FRAMING_NAMES, LENGTH_DIGITS, REQUEST_NAMES, TCHAR
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.target import METHODS, check_host

#: A token without upper-case letters (RFC 9113 section 8.2).
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
#: Illegal in a value: control characters except tab, and white space at its ends. RFC 9113 section 8.2.1 names NUL, CR,
#: LF and the white space; llhttp refuses all control characters.
_BAD_VALUE: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z")
_METHOD: Final = re.compile(TCHAR + rb"{1,1024}")
_PATH: Final = re.compile(rb"/[!\"$-~]*")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*")

_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))

#: Fields of HTTP/1's connections, which HTTP/2 does not allow (RFC 9113 section 8.2.2).
CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)

#: Names that ask for no action.
_COMMON: Final = frozenset(REQUEST_NAMES.values()) - {b"cookie", b"keep-alive", b"priority"}

#: The length of a body without content-length.
UNKNOWN: Final = -1


class StreamRequest:
    """A request whose head was checked."""

    __slots__ = (
        "authority",
        "forwarding",
        "framing",
        "headers",
        "length",
        "method",
        "priority",
        "protocol",
        "scheme",
        "scope",
        "target",
    )

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.scheme = b""
        self.authority = b""
        self.protocol: bytes | None = None  # `:protocol` of an extended CONNECT (RFC 8441)
        self.headers: list[Field] = []  # for the scope: `:authority` as `host`, first; cookies joined
        self.framing: dict[bytes, bytes] = {}  # the fields of `fields.FRAMING_NAMES`
        self.forwarding: dict[bytes, bytes] = {}  # the fields of `fields.FORWARDING_NAMES`
        self.length = UNKNOWN  # content-length
        self.scope: dict[str, Any] | None = None  # set by the sink, which gets `on_repeated` then
        self.priority: tuple[int, bool] | None = None  # urgency and incremental, if the client gives them (RFC 9218)


def make_request(number: int, fields: Sequence[Field], limits: RequestLimits) -> StreamRequest:
    """Return the request. Raises StreamFaultError if it is malformed, ClientError if it is refused."""
    request = StreamRequest()
    headers = request.headers
    pseudo: dict[bytes, bytes] = {}
    crumbs: list[bytes] = []
    for name, value in fields:
        if _BAD_VALUE.search(value) is not None:
            raise StreamFaultError(number, PROTOCOL_ERROR, f"value of {name[:80]!r} has characters that no value has")
        if name in _COMMON:
            headers.append((name, value))
        elif name[:1] == b":":
            if headers or crumbs or name not in _PSEUDO or name in pseudo:
                raise StreamFaultError(number, PROTOCOL_ERROR, f"pseudo-header {name[:80]!r} is not known or in place")
            pseudo[name] = value
        elif name == b"cookie":
            crumbs.append(value)
        else:
            _take_less_common(request, number, name, value)
    if crumbs:
        headers.append((b"cookie", b"; ".join(crumbs)))  # RFC 9113 section 8.2.3
    _take_pseudo(request, number, pseudo)
    _examine(request, fields, limits, number_of_fields=len(fields) - len(pseudo))
    return request


def _examine(request: StreamRequest, fields: Sequence[Field], limits: RequestLimits, *, number_of_fields: int) -> None:
    """Raise ClientError if a well-formed request may not be served."""
    if request.method == "CONNECT" and request.protocol is None:
        raise ClientError(501, "CONNECT is for proxies")
    if len(request.target) + len(request.method) + len(" HTTP/1.1") + 1 > limits.line:
        raise ClientError(414, f"request line above {limits.line} bytes")
    if number_of_fields > limits.fields:
        raise ClientError(431, f"more than {limits.fields} fields")
    for name, value in (*fields, *request.forwarding.items()):
        if len(name) + len(value) + len(": ") > limits.field_size and name != b":path":
            raise ClientError(431, f"field {name[:80]!r} above {limits.field_size} bytes")
    if not request.authority:
        raise ClientError(400, "neither :authority nor host")
    check_host(request.authority)
    expectation = request.framing.get(b"expect")
    if expectation is not None and expectation.lower() != b"100-continue":
        raise ClientError(417, f"unknown expectation {expectation[:80]!r}")
    if request.length > limits.body:
        raise ClientError(413, f"body of {request.length} bytes, limit is {limits.body}")


def _take_less_common(request: StreamRequest, number: int, name: bytes, value: bytes) -> None:
    if _NAME.fullmatch(name) is None:
        raise StreamFaultError(number, PROTOCOL_ERROR, f"field name {name[:80]!r} is no token in lower case")
    if name in CONNECTION_SPECIFIC:
        raise StreamFaultError(number, PROTOCOL_ERROR, f"field {name.decode()} of HTTP/1 connections")
    if name in FRAMING_NAMES:
        if name in request.framing:
            raise StreamFaultError(number, PROTOCOL_ERROR, f"repeated {name.decode()} field")
        if name == b"te" and value.lower() != b"trailers":
            raise StreamFaultError(number, PROTOCOL_ERROR, f"te is {value[:80]!r}, may only be trailers")
        if name == b"content-length":
            if not value.isdigit() or len(value) > LENGTH_DIGITS:
                raise StreamFaultError(number, PROTOCOL_ERROR, f"content-length is {value[:80]!r}")
            request.length = int(value)
        request.framing[name] = value
    elif name in FORWARDING_NAMES:
        before = request.forwarding.get(name)
        request.forwarding[name] = value if before is None else before + b", " + value
    elif name == b"priority":
        request.priority = parse_priority(value, 3, incremental=False)
    request.headers.append((name, value))


def _take_pseudo(request: StreamRequest, number: int, pseudo: dict[bytes, bytes]) -> None:
    """Check the pseudo-header fields (RFC 9113 section 8.3.1, RFC 8441 section 4)."""
    method = pseudo.get(b":method", b"")
    path = pseudo.get(b":path")
    scheme = pseudo.get(b":scheme")
    authority = pseudo.get(b":authority")
    protocol = pseudo.get(b":protocol")
    if _METHOD.fullmatch(method) is None:
        raise StreamFaultError(number, PROTOCOL_ERROR, f":method is {method[:80]!r}")
    if protocol is not None and (method != b"CONNECT" or authority is None):
        raise StreamFaultError(number, PROTOCOL_ERROR, ":protocol without CONNECT or :authority")
    if method == b"CONNECT" and protocol is None:
        if path is not None or scheme is not None or authority is None:
            raise StreamFaultError(number, PROTOCOL_ERROR, "CONNECT has :authority, and neither :scheme nor :path")
    elif scheme is None or _SCHEME.fullmatch(scheme) is None:
        raise StreamFaultError(number, PROTOCOL_ERROR, f":scheme is {scheme!r}")
    elif path is None or (_PATH.fullmatch(path) is None and not (path == b"*" and method == b"OPTIONS")):
        raise StreamFaultError(number, PROTOCOL_ERROR, f":path is {path!r}"[:200])
    host = request.framing.get(b"host")
    if authority is not None:
        if host is None:
            request.headers.insert(0, (b"host", authority))
        elif host.lower() != authority.lower():
            raise StreamFaultError(number, PROTOCOL_ERROR, f"host {host[:80]!r} is not :authority {authority[:80]!r}")
        host = authority
    request.method = METHODS.get(method) or method.decode("ascii")
    request.target = path or b""
    request.scheme = scheme or b""
    request.authority = host or b""
    request.protocol = protocol


def read_leniently(fields: Sequence[Field]) -> StreamRequest:
    """Return method, target and fields of a refused head, for the access log; those that are illegal are left out."""
    request = StreamRequest()
    for name, value in fields:
        if name == b":method" and _METHOD.fullmatch(value) is not None:
            request.method = value.decode("ascii")
        elif name == b":path" and _PATH.fullmatch(value) is not None:
            request.target = value
        elif name[:1] != b":":
            request.headers.append((name, value))
    return request


def check_trailers(number: int, fields: Sequence[Field]) -> None:
    """Raise StreamFaultError if these fields may not be trailers (RFC 9113 section 8.1)."""
    for name, value in fields:
        if name[:1] == b":" or _NAME.fullmatch(name) is None or name in CONNECTION_SPECIFIC:
            raise StreamFaultError(number, PROTOCOL_ERROR, f"trailer {name[:80]!r}")
        if name == b"te" and value.lower() != b"trailers":
            raise StreamFaultError(number, PROTOCOL_ERROR, f"te is {value[:80]!r}, may only be trailers")
        if _BAD_VALUE.search(value) is not None:
            raise StreamFaultError(number, PROTOCOL_ERROR, f"value of trailer {name[:80]!r}")
