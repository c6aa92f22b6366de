"""WebSocket frames: their bits, the codes of close frames, and making frames (RFC 6455 section 5). Pure."""

import struct
from typing import Final

from aserver.errors import AserverError

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
FIN: Final = 0x80
RSV1: Final = 0x40
RSV: Final = 0x70
MASKED: Final = 0x80

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012

#: The most bytes in the payload of a control frame (RFC 6455 section 5.5). A close code takes two of them.
CONTROL_LIMIT: Final = 125
REASON_LIMIT: Final = CONTROL_LIMIT - 2


class ViolationError(AserverError):
    """The client broke a rule or a limit: close the WebSocket with `code` and `reason`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def check_control(first: int, opcode: int, length: int) -> None:
    """Raise ViolationError for a control frame that RFC 6455 section 5.5 forbids."""
    if opcode > PONG:
        raise ViolationError(PROTOCOL_ERROR, f"reserved opcode {opcode}")
    if first & RSV:
        raise ViolationError(PROTOCOL_ERROR, "reserved bit is set")
    if first < FIN:
        raise ViolationError(PROTOCOL_ERROR, "fragmented control frame")
    if length > CONTROL_LIMIT:
        raise ViolationError(PROTOCOL_ERROR, f"control frame above {CONTROL_LIMIT} bytes")


# ── close frames ─────────────────────────────────────────────────────────────────────────────

#: The codes below 3000 that a close frame may have (RFC 6455 section 7.4 and IANA's registry).
_CODES: Final = frozenset((*range(1000, 1004), *range(1007, 1015)))


def may_be_sent(code: int) -> bool:
    """Tell whether a close frame may have `code`; those from 3000 to 4999 are for applications."""
    return code in _CODES or 3000 <= code <= 4999


def parse_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason of a close frame; 1005 for no code (RFC 6455 section 5.5.1). Raises ViolationError."""
    if not payload:
        return NO_STATUS, ""
    if len(payload) == 1:
        raise ViolationError(PROTOCOL_ERROR, "close frame of one byte")
    code = payload[0] << 8 | payload[1]
    if not may_be_sent(code):
        raise ViolationError(PROTOCOL_ERROR, f"close code {code}")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ViolationError(INVALID_DATA, "close reason is not UTF-8") from None


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; for 1005, without a code. A reason that is too long is cut between two characters."""
    if code == NO_STATUS:
        return head(FIN | CLOSE, 0)
    text = reason.encode("utf-8", "replace")
    if len(text) > REASON_LIMIT:
        text = text[:REASON_LIMIT].decode("utf-8", "ignore").encode()
    return head(FIN | CLOSE, 2 + len(text)) + code.to_bytes(2, "big") + text


# ── frames out ───────────────────────────────────────────────────────────────────────────────


def head(first: int, length: int) -> bytes:
    """Return a frame's head, with the shortest form of its length and without a mask (RFC 6455 section 5.2)."""
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)
