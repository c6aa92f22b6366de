"""Clients of several kinds that ask all the time and keep books: each request, its connection, its worker, its end.

One thread with an asyncio loop of its own carries all of them. Nothing is ever asked twice: a failure is written down
as one. What a pipelining client sent behind a request that was answered with `Connection: close` was not
processed (RFC 9112 section 9.6) and is no failure; it is counted as returned.
"""

import asyncio
import itertools
import random
import socket
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from tests.apps.chaos.service import PIECES, piece
from tests.harness.client import Where, parse_head

#: Seconds that a client waits for one answer: longer than anything that the script does, killing apart.
PATIENCE = 30.0
UPLOAD = b"0123456789abcdef" * 1024
PIPELINE = 4


class Key(NamedTuple):
    """A connection as both ends of it can know it: the address of the client's end."""

    family: int
    address: object


@dataclass(slots=True)
class Request:
    """One request and its fate. Times are monotonic seconds; `worker` is known from the connection's answers."""

    ident: str
    key: Key | None
    opened: float
    began: float
    ended: float = 0.0
    worker: int | None = None
    version: str = ""
    failure: str = ""

    def __str__(self) -> str:
        who = f"worker {self.worker}" if self.worker else "a worker unknown"
        times = f"opened {self.opened:.2f}, sent {self.began:.2f}, failed {self.ended:.2f}"
        return f"{self.ident} on {self.key} to {who}: {self.failure} ({times})"


@dataclass(slots=True)
class Ledger:
    """What all clients saw."""

    good: list[Request] = field(default_factory=list)
    failed: list[Request] = field(default_factory=list)
    returned: int = 0
    connections: int = 0


class Answer(NamedTuple):
    """What a client reads of a response."""

    body: bytes
    worker: int
    version: str
    closes: bool


class _Connection:
    """One connection of one client."""

    def __init__(self, opened: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Before connect(2): it may have been accepted long before this thread hears of it.
        self.opened, self.reader, self.writer = opened, reader, writer
        sock: socket.socket = writer.get_extra_info("socket")
        self.key = Key(sock.family, sock.getsockname())
        self.worker: int | None = None

    async def answer(self) -> Answer:
        head = await self.reader.readuntil(b"\r\n\r\n")
        _, status, _, headers = parse_head(head)
        fields = {name.lower(): value for name, value in headers}
        assert status == 200, f"status {status}"
        self.worker = int(fields["x-worker"])
        if "content-length" in fields:
            body = await self.reader.readexactly(int(fields["content-length"]))
        else:
            assert fields["transfer-encoding"] == "chunked", head
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        return Answer(body, self.worker, fields["x-version"], fields.get("connection", "").lower() == "close")


#: Asks on a connection, once; True if the connection can be used again.
Turn = Callable[[_Connection], Awaitable[bool]]


class Crowd:
    """A context manager: five kinds of clients, `each` of every kind at every address, ask until the block ends."""

    def __init__(self, addresses: list[Where], seed: int, each: int = 2) -> None:
        self.ledger = Ledger()
        self._addresses = addresses
        self._each = each
        self._rng = random.Random(seed)
        self._numbers = itertools.count()
        self._stopping = False
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="crowd")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(PATIENCE + 10)
        assert not self._thread.is_alive(), "the clients did not end"
        assert self._broken is None, f"a client broke: {self._broken!r}"

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._broken = error

    async def _run(self) -> None:
        kinds: list[tuple[Turn, int]] = [
            (self._kept, 50),
            (self._thinking, 20),
            (self._single, 1),
            (self._pipelined, 20),
            (self._upload, 5),
            (self._stream, 5),
        ]
        async with asyncio.TaskGroup() as group:
            for address in self._addresses:
                for turn, turns in kinds:
                    for _ in range(self._each):
                        group.create_task(self._client(address, turn, turns))

    async def _client(self, address: Where, turn: Turn, turns: int) -> None:
        while not self._over():
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    connection = await _connect(address)
            except OSError as error:
                self._fail([Request(self._ident("connect"), None, began, began)], error)
                await asyncio.sleep(0.1)
                continue
            self.ledger.connections += 1
            try:
                for _ in range(turns):
                    if not await turn(connection) or self._over():
                        break
            finally:
                connection.writer.close()

    def _over(self) -> bool:
        return self._stopping  # changed by the other thread

    def _ident(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def _request(self, kind: str, connection: _Connection) -> Request:
        now = time.monotonic()
        return Request(self._ident(kind), connection.key, connection.opened, now, worker=connection.worker)

    def _fail(self, requests: list[Request], error: BaseException) -> bool:
        for request in requests:
            request.ended, request.failure = time.monotonic(), repr(error)
            self.ledger.failed.append(request)
        return False

    async def _exchange(self, connection: _Connection, requests: list[Request], send: Awaitable[None]) -> bool:
        """Send, then read the answers to `requests`."""
        waiting = list(requests)
        try:
            async with asyncio.timeout(PATIENCE):
                await send
                while waiting:
                    answer = await connection.answer()
                    request = waiting[0]
                    assert answer.body == _expected(request.ident), f"not the answer: {answer.body[:100]!r}"
                    waiting.pop(0)
                    request.ended, request.worker, request.version = time.monotonic(), answer.worker, answer.version
                    self.ledger.good.append(request)
                    if answer.closes:
                        self.ledger.returned += len(waiting)
                        return False
        except (OSError, EOFError, AssertionError, ValueError, KeyError) as error:
            for request in waiting:
                request.worker = connection.worker
            return self._fail(waiting, error)
        return True

    # ── kinds ────────────────────────────────────────────────────────────────────────────────

    async def _quick(self, kind: str, connection: _Connection, count: int = 1, more: str = "") -> bool:
        requests = [self._request(kind, connection) for _ in range(count)]
        text = "".join(f"GET /quick?id={each.ident} HTTP/1.1\r\nHost: x\r\n{more}\r\n" for each in requests)
        return await self._exchange(connection, requests, _write(connection, text.encode()))

    async def _kept(self, connection: _Connection) -> bool:
        going = await self._quick("kept", connection)
        await asyncio.sleep(0.01)
        return going

    async def _thinking(self, connection: _Connection) -> bool:
        """Idle most of the time, and so at nearly every moment at which a worker goes."""
        going = await self._quick("thinking", connection)
        await asyncio.sleep(self._rng.random() * 0.3)
        return going

    async def _single(self, connection: _Connection) -> bool:
        await self._quick("single", connection, more="Connection: close\r\n")
        await asyncio.sleep(0.01)
        return False

    async def _pipelined(self, connection: _Connection) -> bool:
        going = await self._quick("pipelined", connection, count=PIPELINE)
        await asyncio.sleep(0.05)
        return going

    async def _upload(self, connection: _Connection) -> bool:
        request = self._request("upload", connection)
        head = f"POST /upload?id={request.ident} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(UPLOAD)}\r\n\r\n"
        return await self._exchange(connection, [request], _write_slowly(connection, head.encode()))

    async def _stream(self, connection: _Connection) -> bool:
        request = self._request("stream", connection)
        text = f"GET /stream?id={request.ident} HTTP/1.1\r\nHost: x\r\n\r\n"
        return await self._exchange(connection, [request], _write(connection, text.encode()))


async def _connect(address: Where) -> _Connection:
    opened = time.monotonic()
    if not isinstance(address, str):
        return _Connection(opened, *await asyncio.open_connection(*address))
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    sock.bind("")  # to a name that the kernel chooses, unix(7): the other end can tell who we are
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
        return _Connection(opened, *await asyncio.open_unix_connection(sock=sock))
    except OSError:
        sock.close()
        raise


async def _write(connection: _Connection, data: bytes) -> None:
    connection.writer.write(data)
    await connection.writer.drain()


async def _write_slowly(connection: _Connection, head: bytes) -> None:
    await _write(connection, head)
    quarter = len(UPLOAD) // 4
    for at in range(0, len(UPLOAD), quarter):
        await asyncio.sleep(0.03)
        await _write(connection, UPLOAD[at : at + quarter])


def _expected(ident: str) -> bytes:
    kind = ident.partition("-")[0]
    if kind == "stream":
        return b"".join(piece(ident, index) for index in range(PIECES))
    return ident.encode() + (b" %d" % zlib.crc32(UPLOAD) if kind == "upload" else b"")
