"""Frames as a client writes them, right or wrong, and what the server sent, taken apart."""

from collections.abc import Iterator

from aserver.protocol.http2 import errors, frames
from aserver.protocol.http2.encoder import encode_fields
from aserver.protocol.semantics.limits import RequestLimits

CODES = {getattr(errors, name): name for name in dir(errors) if name.isupper()}
OPENING = frames.PREFACE + frames.settings({})

#: A plain request's pseudo-header fields.
GET = {b":method": b"GET", b":scheme": b"http", b":path": b"/", b":authority": b"t"}
POST = {**GET, b":method": b"POST"}


def block(*fields: tuple[bytes, bytes], **pseudo: bytes | None) -> bytes:
    """Return the block of a GET with other pseudo-header fields (None: without), then `fields`."""
    values: dict[bytes, bytes | None] = {**GET, **{f":{name}".encode(): value for name, value in pseudo.items()}}
    return encode_fields([(name, value) for name, value in values.items() if value is not None] + list(fields))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return frames.head(len(payload), kind, flags, stream) + payload


def get(stream: int, *fields: tuple[bytes, bytes], **pseudo: bytes | None) -> bytes:
    """Return a whole request."""
    return frames.headers(stream, block(*fields, **pseudo), end=True)


def post(stream: int, *fields: tuple[bytes, bytes]) -> bytes:
    """Return the head of a request with a body."""
    return frames.headers(stream, block(*fields, method=b"POST"), end=False)


def data(stream: int, body: bytes = b"", *, end: bool = False) -> bytes:
    """Return a DATA frame."""
    return frame(frames.DATA, frames.END_STREAM if end else 0, stream, body)


def take_apart(raw: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, stream and payload of each frame."""
    at = 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 3], "big")
        yield raw[at + 3], raw[at + 4], int.from_bytes(raw[at + 5 : at + 9], "big"), raw[at + 9 : at + 9 + length]
        at += 9 + length
        assert at <= len(raw), "the last frame is cut"


def told(raw: bytes) -> list[str]:
    """Return in words what the client can see: answers, resets, acknowledgements."""
    found = []
    for kind, flags, stream, payload in take_apart(raw):
        if kind == frames.RST_STREAM:
            found.append(f"reset {stream} {CODES[int.from_bytes(payload, 'big')]}")
        elif kind == frames.HEADERS:
            found.append(f"head {stream}")
        elif kind == frames.SETTINGS and flags & frames.ACK:
            found.append("settings ack")
        elif kind == frames.PING and flags & frames.ACK:
            found.append(f"pong {payload.decode('latin-1')}")
        elif kind == frames.WINDOW_UPDATE:
            found.append(f"window {stream} {int.from_bytes(payload, 'big')}")
    return found


ROOMY = RequestLimits(line=8190, fields=100, field_size=8190, body=0)


def literal(name: bytes, value: bytes) -> bytes:
    return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value
