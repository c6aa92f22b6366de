"""The opening handshake of a WebSocket: the client's offer, and the fields of the answer (RFC 6455 section 4.2).

Pure. It must never decide for the application, which checks `Origin` and chooses the subprotocol.
"""

import base64
import binascii
import hashlib
from typing import NamedTuple

from aserver.errors import ApplicationError, ClientError
from aserver.protocol.semantics.fields import TOKEN, check_fields, tokens
from aserver.protocol.semantics.response_head import Pairs

#: Fields of a 426 answer, which name the version that is served (RFC 6455 section 4.4, RFC 9110 section 15.5.22).
VERSION_FIELDS = ((b"sec-websocket-version", b"13"), (b"upgrade", b"websocket"))

#: The most subprotocols of an offer. 100 fields of 8 KB could name 400,000, which would take 0.2 s.
MOST_OFFERED = 128

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3

#: Fields of the answer that an application may not set. Those of the connection are dropped, as in other responses.
#: Those of the handshake are refused, because they would contradict the server's.
_DROPPED = frozenset((b"connection", b"upgrade", b"content-length", b"transfer-encoding"))
_REFUSED = frozenset((b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"))


class OpeningHandshake(NamedTuple):
    """A valid offer of a client."""

    accept: bytes  # the answer to the client's key; empty if there is no key
    subprotocols: list[str]
    extensions: list[bytes]


def is_offered(method: str, headers: Pairs) -> bool:
    """Tell whether a request with an upgrade asks for a WebSocket. Else the upgrade is ignored (RFC 9110 section 7.8).

    The method must be GET. The Connection field must name `upgrade`; llhttp allows `Proxy-Connection` instead.
    """
    return (
        method == "GET"
        and any(b"websocket" in tokens(value) for name, value in headers if name == b"upgrade")
        and any(b"upgrade" in tokens(value) for name, value in headers if name == b"connection")
    )


def examine(headers: Pairs, *, keyed: bool = True) -> OpeningHandshake:
    """Check the fields of an offer. `keyed` is False over HTTP/2, where it has no key (RFC 8441 section 5).

    Raises ClientError: 426 for another version than 13, 400 for other faults.
    """
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if versions != [b"13"]:
        raise ClientError(426, f"Sec-WebSocket-Version {b', '.join(versions)[:80]!r}, not 13")
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    if keyed and (len(keys) != 1 or not _is_key(keys[0])):
        raise ClientError(400, "Sec-WebSocket-Key is not 16 bytes in base64, once")
    offered = [value for name, value in headers if name == b"sec-websocket-protocol"]
    if sum(value.count(b",") + 1 for value in offered) > MOST_OFFERED:
        raise ClientError(400, f"more than {MOST_OFFERED} subprotocols")
    names = [name for value in offered for part in value.split(b",") if (name := part.strip())]
    if not all(map(TOKEN.fullmatch, names)):
        raise ClientError(400, "Sec-WebSocket-Protocol is not a list of tokens")
    accepted = b""
    if keyed:
        accepted = base64.b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest())
    extensions = [value for name, value in headers if name == b"sec-websocket-extensions"]
    return OpeningHandshake(accepted, [name.decode("ascii") for name in names], extensions)


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def accept(
    handshake: OpeningHandshake, subprotocol: str | None, headers: Pairs, extensions: bytes
) -> list[tuple[bytes, bytes]]:
    """Return the fields of the answer that opens the WebSocket. Raises ApplicationError."""
    if subprotocol is not None and subprotocol not in handshake.subprotocols:
        offered = ", ".join(handshake.subprotocols) or "none"
        raise ApplicationError(f"websocket.accept: subprotocol {subprotocol!r} was not offered (offered: {offered})")
    check_fields(headers)
    fields = [(b"sec-websocket-accept", handshake.accept)] if handshake.accept else []
    if subprotocol is not None:
        fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if extensions:
        fields.append((b"sec-websocket-extensions", extensions))
    for name, value in headers:
        lowered = name.lower()
        if lowered in _REFUSED:
            raise ApplicationError(f"websocket.accept: header {name!r} is the server's; use `subprotocol`")
        if lowered not in _DROPPED:
            fields.append((lowered, value))
    return fields
