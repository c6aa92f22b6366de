"""A WebSocket on a stream of HTTP/2 (RFC 8441), which `load/websocket` uses as a socket.

Runs in the harness process on the load's CPUs. It gives the server the largest windows at the beginning, and reads only
the first byte of header blocks.
"""

import socket
from typing import Final

from bench.load.websocket import SocketError
from bench.servers import Address

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_LARGEST: Final = (1 << 31) - 1
#: INITIAL_WINDOW_SIZE, then the connection's window.
_OPENING: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\6\4\0\0\0\0\0\0\4"
    + _LARGEST.to_bytes(4, "big")
    + b"\0\0\4\10\0\0\0\0\0"
    + (_LARGEST - 65_535).to_bytes(4, "big")
)
#: CONNECT, http, /, and literals that enter no dynamic table.
_BLOCK: Final = b"\x02\7CONNECT\x86\x84\x01\x0bbench.local\0\x09:protocol\x09websocket\0\x15sec-websocket-version\x0213"
_STATUS_200: Final = 0x88


class StreamSocket:
    """The stream. `recv` waits for DATA frames, and returns their payload."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = b""
        sock.sendall(_OPENING)
        while self._frame()[0] != _SETTINGS:
            pass
        sock.sendall(b"\0\0\0\4\1\0\0\0\0" + len(_BLOCK).to_bytes(3, "big") + b"\1\4\0\0\0\1" + _BLOCK)
        while True:
            kind, payload = self._frame()
            if kind == _HEADERS:
                break
        if payload[:1] != bytes((_STATUS_200,)):
            raise SocketError(f"no WebSocket over HTTP/2: the header block begins with {payload[:8]!r}")

    def fileno(self) -> int:
        """Return the descriptor, for epoll."""
        return self._sock.fileno()

    def sendall(self, data: bytes) -> None:
        """Send bytes on the stream."""
        self._sock.sendall(len(data).to_bytes(3, "big") + b"\0\0\0\0\0\1" + data)

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises SocketError at the end of the stream."""
        found = b""
        while not found:
            kind, payload = self._frame()
            if kind == _DATA:
                found = payload
            elif kind == _PING:
                self._sock.sendall(b"\0\0\10\6\1\0\0\0\0" + payload)
        if len(found) > size:
            raise SocketError(f"{len(found)} bytes where {size} were to come")
        return found

    def _frame(self) -> tuple[int, bytes]:
        held = self._held
        while len(held) < 9 or len(held) < 9 + int.from_bytes(held[:3], "big"):
            more = self._sock.recv(262_144)
            if not more:
                raise SocketError("closed by the server")
            held += more
        end = 9 + int.from_bytes(held[:3], "big")
        self._held = held[end:]
        if held[3] in (3, 7):  # RST_STREAM, GOAWAY
            raise SocketError(f"ended by the server with a frame of type {held[3]}: {held[9:end]!r}")
        return held[3], held[9:end]

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


def open_stream(address: Address) -> StreamSocket:
    """Connect and open a WebSocket. Raises SocketError, OSError."""
    sock = address.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return StreamSocket(sock)
