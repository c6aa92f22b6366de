"""Frames of HTTP/2: types, flags and legal lengths; reading payloads, making frames (RFC 9113 sections 4 and 6). Pure.

A frame's head is nine bytes: the length of its payload (three), type, flags, and the stream (four). `reader` reads it.
The functions here must never depend on the state of a stream.
"""

from typing import Final

from aserver.protocol.http2.errors import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    ConnectionFaultError,
    StreamFaultError,
)

#: The first bytes of a client (RFC 9113 section 3.4).
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEAD_SIZE: Final = 9  # bytes of a frame's head

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
PRIORITY_UPDATE: Final = 0x10  # RFC 9218 section 7.1

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
ENABLE_CONNECT_PROTOCOL: Final = 0x8  # RFC 8441 section 3
NO_RFC7540_PRIORITIES: Final = 0x9  # RFC 9218 section 2.1

#: The largest payload that a peer takes by default, as this server does; and the largest that MAX_FRAME_SIZE may name
#: (RFC 9113 section 4.2).
FRAME_SIZE: Final = 16_384
LARGEST_FRAME_SIZE: Final = 2**24 - 1

#: The first window of streams and connections, and the largest window (RFC 9113 section 6.9).
INITIAL_WINDOW: Final = 65_535
LARGEST_WINDOW: Final = 2**31 - 1

LARGEST_STREAM: Final = 2**31 - 1

#: The least and the largest value of a setting, and the error for other values. Other settings may have any value.
_BOUNDS: Final[dict[int, tuple[int, int, int]]] = {
    ENABLE_PUSH: (0, 1, PROTOCOL_ERROR),
    INITIAL_WINDOW_SIZE: (0, LARGEST_WINDOW, FLOW_CONTROL_ERROR),
    MAX_FRAME_SIZE: (FRAME_SIZE, LARGEST_FRAME_SIZE, PROTOCOL_ERROR),
    ENABLE_CONNECT_PROTOCOL: (0, 1, PROTOCOL_ERROR),
    NO_RFC7540_PRIORITIES: (0, 1, PROTOCOL_ERROR),
}

#: The length of the payload of types for which it is fixed (RFC 9113 sections 6.3, 6.4, 6.7 and 6.9).
_LENGTHS: Final[dict[int, int]] = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}

#: Types that are allowed on stream 0 only, and types that are not allowed there. Other types may be on any stream.
_OF_CONNECTION: Final = frozenset((SETTINGS, PING, GOAWAY, PRIORITY_UPDATE))
_OF_STREAM: Final = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM))

NAMES: Final[dict[int, str]] = {
    DATA: "DATA",
    HEADERS: "HEADERS",
    PRIORITY: "PRIORITY",
    RST_STREAM: "RST_STREAM",
    SETTINGS: "SETTINGS",
    PUSH_PROMISE: "PUSH_PROMISE",
    PING: "PING",
    GOAWAY: "GOAWAY",
    WINDOW_UPDATE: "WINDOW_UPDATE",
    CONTINUATION: "CONTINUATION",
    PRIORITY_UPDATE: "PRIORITY_UPDATE",
}


# ── frames in ────────────────────────────────────────────────────────────────────────────────


def check_head(kind: int, stream: int, length: int, flags: int) -> None:
    """Check the length and the stream of a frame that is not inside a header block.

    Raises ConnectionFaultError; for a PRIORITY frame of another length StreamFaultError (RFC 9113 section 6.3).
    """
    if kind == PUSH_PROMISE or kind == CONTINUATION:  # noqa: PLR1714, SIM109 - two compares are faster
        raise ConnectionFaultError(PROTOCOL_ERROR, f"{NAMES[kind]} where it may not be")
    if stream:
        if kind in _OF_CONNECTION:
            raise ConnectionFaultError(PROTOCOL_ERROR, f"{NAMES[kind]} on stream {stream}")
    elif kind in _OF_STREAM:
        raise ConnectionFaultError(PROTOCOL_ERROR, f"{NAMES[kind]} on stream 0")
    wanted = _LENGTHS.get(kind)
    if wanted is not None and length != wanted:
        reason = f"{NAMES[kind]} of {length} bytes, must have {wanted}"
        if kind == PRIORITY:
            raise StreamFaultError(stream, FRAME_SIZE_ERROR, reason)
        raise ConnectionFaultError(FRAME_SIZE_ERROR, reason)
    if kind == SETTINGS:
        if flags & ACK and length:
            raise ConnectionFaultError(FRAME_SIZE_ERROR, f"acknowledgement of SETTINGS with {length} bytes")
        if length % 6:
            raise ConnectionFaultError(FRAME_SIZE_ERROR, f"SETTINGS of {length} bytes, must be a multiple of 6")
    elif kind == GOAWAY and length < 8:
        raise ConnectionFaultError(FRAME_SIZE_ERROR, f"GOAWAY of {length} bytes, must have 8")
    elif kind == PRIORITY_UPDATE and length < 4:
        raise ConnectionFaultError(FRAME_SIZE_ERROR, f"PRIORITY_UPDATE of {length} bytes, must have 4")


def unpadded(kind: int, payload: bytes) -> bytes:
    """Return the payload of a PADDED frame without its padding (RFC 9113 section 6.1). Raises ConnectionFaultError."""
    if not payload:
        raise ConnectionFaultError(FRAME_SIZE_ERROR, f"padded {NAMES[kind]} without the length of its padding")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFaultError(PROTOCOL_ERROR, f"{NAMES[kind]}: padding of {payload[0]} in {len(payload)} bytes")
    return payload[1:end]


def parse_settings(payload: bytes) -> dict[int, int]:
    """Return a peer's settings; of a setting that comes twice, the last value. Raises ConnectionFaultError."""
    found: dict[int, int] = {}
    for at in range(0, len(payload), 6):
        name = payload[at] << 8 | payload[at + 1]
        value = int.from_bytes(payload[at + 2 : at + 6], "big")
        bounds = _BOUNDS.get(name)
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            raise ConnectionFaultError(bounds[2], f"setting {name} is {value}, not {bounds[0]} to {bounds[1]}")
        found[name] = value
    return found


def number(payload: bytes, at: int = 0) -> int:
    """Return the number of 31 bits at `at`: a stream or an increment."""
    return int.from_bytes(payload[at : at + 4], "big") & LARGEST_STREAM


# ── frames out ───────────────────────────────────────────────────────────────────────────────


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return a frame's head."""
    return (length << 48 | kind << 40 | flags << 32 | stream).to_bytes(HEAD_SIZE, "big")


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join([(name << 32 | value).to_bytes(6, "big") for name, value in values.items()])
    return head(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = b"\0\0\0\x04\x01\0\0\0\0"


def ping(data: bytes, *, ack: bool) -> bytes:
    """Return a PING frame; `data` has eight bytes."""
    return (b"\0\0\x08\x06\x01\0\0\0\0" if ack else b"\0\0\x08\x06\0\0\0\0\0") + data


def goaway(last: int, code: int, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame: streams above `last` were not processed."""
    return head(8 + len(debug), GOAWAY, 0, 0) + (last << 32 | code).to_bytes(8, "big") + debug


def rst_stream(stream: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return b"\0\0\x04\x03\0" + (stream << 32 | code).to_bytes(8, "big")


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame, for the connection if `stream` is 0."""
    return b"\0\0\x04\x08\0" + (stream << 32 | increment).to_bytes(8, "big")


def headers(stream: int, block: bytes, *, end: bool, limit: int = FRAME_SIZE) -> bytes:
    """Return a HEADERS frame with the first `limit` bytes of a block, and CONTINUATION frames with the others."""
    flag = END_STREAM if end else 0
    if len(block) <= limit:
        return head(len(block), HEADERS, flag | END_HEADERS, stream) + block
    parts = [head(limit, HEADERS, flag, stream), block[:limit]]
    for at in range(limit, len(block), limit):
        piece = block[at : at + limit]
        parts += (head(len(piece), CONTINUATION, 0 if at + limit < len(block) else END_HEADERS, stream), piece)
    return b"".join(parts)
