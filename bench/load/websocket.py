"""A WebSocket client: on each connection it sends a message as soon as the echo of the message before has come.

Runs in the harness process on the load's CPUs. It uses bare sockets and epoll, because a client library would cost more
than the server. It offers no compression. The first echo of a connection is checked byte by byte, the others by length.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from bench.servers import Address

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: bench.local\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_BINARY = 0x82
PING = b"\x89"


class SocketError(Exception):
    """The server did not answer as a WebSocket server does."""


@dataclass(frozen=True)
class EchoResult:
    """The result of a run; latencies in milliseconds."""

    messages: int
    seconds: float
    p50: float
    p99: float


def head(length: int, masked: int = 0) -> bytes:
    """Return the head of a binary frame."""
    if length < 126:
        return bytes((_BINARY, masked | length))
    if length < 65536:
        return bytes((_BINARY, masked | 126)) + length.to_bytes(2, "big")
    return bytes((_BINARY, masked | 127)) + length.to_bytes(8, "big")


def open_socket(address: Address) -> socket.socket:
    """Connect, and make the opening handshake. Raises SocketError, OSError."""
    sock = address.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(_REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = sock.recv(4096)
        if not more:
            break
        answer += more
    if not answer.startswith(b"HTTP/1.1 101 ") or not answer.endswith(b"\r\n\r\n"):
        sock.close()
        raise SocketError(f"no WebSocket: {answer[:60]!r}")
    return sock


class EchoSocket(Protocol):
    """A socket, or a stream that behaves like one."""

    def fileno(self) -> int:
        """Return the descriptor, for epoll."""

    def sendall(self, data: bytes, /) -> None:
        """Send all bytes."""

    def recv(self, size: int, /) -> bytes:
        """Wait for bytes, and return at most `size` of them."""

    def close(self) -> None:
        """Close the socket."""


def receive(sock: EchoSocket, size: int) -> bytes:
    """Return exactly `size` bytes. Raises SocketError."""
    received = bytearray()
    while len(received) < size:
        more = sock.recv(size - len(received))
        if not more:
            raise SocketError("closed by the server")
        received += more
    return bytes(received)


def answer_pings(socks: Iterable[socket.socket]) -> None:
    """Answer the pings that have come, and drop all other data. Closed sockets are skipped."""
    poll = select.epoll()
    by_number = {sock.fileno(): sock for sock in socks}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    for number, _ in poll.poll(0, len(by_number) or 1):
        with suppress(OSError):
            data = by_number[number].recv(4096)
            while data[:1] == PING:
                length = data[1]
                by_number[number].sendall(bytes((0x8A, 0x80 | length)) + bytes(4) + data[2 : 2 + length])
                data = data[2 + length :]
    poll.close()


class Echo:
    """Open WebSockets, for echoes of messages of the same size."""

    def __init__(
        self, address: Address, *, connections: int, size: int, connect: Callable[[Address], EchoSocket]
    ) -> None:
        payload, mask = os.urandom(size), os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self._message = head(size, 0x80) + mask + masked
        self._answer = head(size) + payload
        self._sockets = [connect(address) for _ in range(connections)]
        for sock in self._sockets:
            sock.sendall(self._message)
            if receive(sock, len(self._answer)) != self._answer:
                raise SocketError("wrong echo")

    def run(self, seconds: float) -> EchoResult:
        """Send messages for `seconds`, and wait for their echoes. Raises SocketError."""
        poll = select.epoll()
        missing, begun = {}, {}
        durations = []
        size, message, clock = len(self._answer), self._message, time.perf_counter
        by_number = {sock.fileno(): sock for sock in self._sockets}
        started = clock()
        until = started + seconds
        for number, sock in by_number.items():
            poll.register(number, select.EPOLLIN)
            missing[number], begun[number] = size, clock()
            sock.sendall(message)
        while by_number:
            events = poll.poll(10)
            if not events:
                raise SocketError("no answer for 10 s")
            for number, _ in events:
                more = len(by_number[number].recv(262144))
                if not more:
                    raise SocketError("closed by the server")
                missing[number] -= more
                if missing[number] < 0:
                    raise SocketError("answer too long")
                if missing[number] == 0:
                    now = clock()
                    durations.append(now - begun[number])
                    if now >= until:
                        poll.unregister(number)
                        del by_number[number]
                        continue
                    missing[number], begun[number] = size, now
                    by_number[number].sendall(message)
        poll.close()
        durations.sort()
        p50, p99 = (durations[int(len(durations) * part)] * 1000 for part in (0.5, 0.99))
        return EchoResult(len(durations), clock() - started, p50, p99)

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets:
            sock.close()


@contextmanager
def echo(
    address: Address, *, connections: int, size: int, connect: Callable[[Address], EchoSocket] = open_socket
) -> Iterator[Echo]:
    """Open an `Echo` for a block. Raises SocketError, OSError."""
    made = Echo(address, connections=connections, size=size, connect=connect)
    try:
        yield made
    finally:
        made.close()
