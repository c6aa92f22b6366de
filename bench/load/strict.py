"""A strict client: it never repeats a request, and counts every failure.

Runs in the harness process, in an event loop on the load's CPUs. It acts as a careful connection pool: it does not use
a connection that the server has closed, or has announced to close. So a failure is the server's fault.
"""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from bench.servers import Address

REQUEST_SECONDS = 20.0


@dataclass
class Tally:
    """The results of all clients together."""

    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    bodies: Counter[bytes] = field(default_factory=Counter)
    longest: float = 0.0
    durations: list[float] = field(default_factory=list)


class _RequestError(Exception):
    """A request failed; the message is the kind of failure."""


class _Client:
    def __init__(self, address: Address, tally: Tally, *, keep_alive: bool) -> None:
        self._address = address
        self._tally = tally
        self._keep_alive = keep_alive
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        connection = "keep-alive" if keep_alive else "close"
        self._request = f"GET / HTTP/1.1\r\nHost: bench.local\r\nConnection: {connection}\r\n\r\n".encode()

    async def run(self, until: float, think: float, rng: random.Random) -> None:
        try:
            while time.monotonic() < until:
                await self._one()
                await asyncio.sleep(rng.uniform(0, think))
        finally:
            self._drop()

    async def _one(self) -> None:
        started = time.monotonic()
        self._tally.requests += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                self._tally.bodies[await self._exchange()] += 1
        except _RequestError as failure:
            self._fail(str(failure))
        except TimeoutError:
            self._fail("timed out")
        duration = time.monotonic() - started
        self._tally.durations.append(duration)
        self._tally.longest = max(self._tally.longest, duration)

    def _fail(self, kind: str) -> None:
        self._tally.errors[kind] += 1
        self._drop()

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self) -> bytes:
        if self._streams is not None and self._streams[0].at_eof():
            self._drop()
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(self._address.host, self._address.port)
            except OSError:
                raise _RequestError("connection refused") from None
        reader, writer = self._streams
        try:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            raise _RequestError("closed before the answer") from None
        fields = head.lower()
        try:
            body = await reader.readexactly(_length(fields))
        except (OSError, asyncio.IncompleteReadError):
            raise _RequestError("cut off in the answer") from None
        if not head.startswith(b"HTTP/1.1 200"):
            raise _RequestError(f"status {head[9:12].decode('latin-1')}")
        if not self._keep_alive or b"connection: close" in fields:
            self._drop()
        return body


def _length(fields: bytes) -> int:
    """Return the Content-Length of a head in lower case. The apps that are used here always send it."""
    _, found, rest = fields.partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


async def load(address: Address, *, seconds: float, kept: int, single: int, think: float) -> Tally:
    """Load a server with `kept` keep-alive clients, and with `single` clients that connect for each request.

    Each client waits a random time of up to `think` seconds between requests, so that some connections are always idle.
    """
    tally = Tally()
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(kept + single):
            client = _Client(address, tally, keep_alive=number < kept)
            group.create_task(client.run(until, think, random.Random(number)))
    return tally
