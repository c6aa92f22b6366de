"""Both ends of a WebSocket, for tests: a client's bytes, a reader's sink, and applications that note what they get."""

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.websocket import mask
from aserver.protocol.websocket.deflate import Agreement, negotiate
from aserver.protocol.websocket.frames import head
from aserver.protocol.websocket.reader import FrameReader

MASK = bytes.fromhex("37fa213d")
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = b"Sec-WebSocket-Version: 13"

TAIL = b"\x00\x00\xff\xff"
RSV1 = 4


# ── the client ───────────────────────────────────────────────────────────────────────────────


def request(
    *fields: bytes, key: bytes = KEY, version: bytes = VERSION, start: bytes = b"GET /ws?q=1 HTTP/1.1"
) -> bytes:
    lines = [start, b"Host: t", b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", key, version, *fields]
    return b"\r\n".join([line for line in lines if line] + [b"", b""])


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes = MASK) -> bytes:
    """A client's frame."""
    start = bytearray(head(opcode | (0x80 if fin else 0) | rsv << 4, len(payload)))
    start[1] |= 0x80
    return bytes(start) + key + mask.plain_mask(payload, key)


def agreement(offer: bytes = b"permessage-deflate") -> Agreement:
    agreed = negotiate([offer])
    assert agreed is not None
    return agreed


def compress(data: bytes, context: Any = None, bits: int = 15) -> bytes:
    context = context or zlib.compressobj(wbits=-bits)
    made: bytes = context.compress(data) + context.flush(zlib.Z_SYNC_FLUSH)
    assert made.endswith(TAIL)
    return made[:-4]


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """First byte and payload of each of the server's frames, all of them whole."""
    found = []
    at = 0
    while at < len(data):
        first, length = data[at], data[at + 1]
        at += 2
        if wide := {126: 2, 127: 8}.get(length, 0):
            length = int.from_bytes(data[at : at + wide], "big")
            at += wide
        assert at + length <= len(data)
        found.append((first, data[at : at + length]))
        at += length
    return found


# ── the reader ───────────────────────────────────────────────────────────────────────────────


class Told:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_message(self, kind: str, data: str | bytes) -> None:
        assert type(data) is {"text": str, "bytes": bytes}[kind]
        self.events.append(data)

    def on_ping(self, data: bytes) -> None:
        self.events.append(("ping", data))

    def on_pong(self, data: bytes) -> None:
        self.events.append(("pong", data))

    def on_close(self, code: int, reason: str) -> None:
        self.events.append(("close", code, reason))

    def on_spent(self) -> None:
        """Have another turn soon: `feed` does."""


def feed(reader: FrameReader, piece: bytes) -> None:
    """Feed in as many turns as it takes."""
    reader.feed(piece)
    while reader.spent:
        reader.refill()
        reader.paused = False
        reader.feed(b"")


# ── the application ──────────────────────────────────────────────────────────────────────────


class Application:
    """Notes what it gets; `script` says what it does after `websocket.connect`."""

    def __init__(self, script: Callable[["Application"], Any], *, accept: bool = True) -> None:
        self.script = script
        self.accept = accept
        self.got: list[Any] = []
        self.scope: Scope = {}
        self.error: BaseException | None = None
        self.go_on = asyncio.Event()
        self.returned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self.send = scope, receive, send
        assert await receive() == {"type": "websocket.connect"}
        try:
            if self.accept:
                await send({"type": "websocket.accept"})
            await self.script(self)
            self.returned = True
        except BaseException as error:
            self.error = error
            raise

    async def receive(self) -> Any:
        """The next message: str, bytes, or code and reason of the disconnect."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.got.append((message["code"], message["reason"]))
        else:
            self.got.append(message["text"] if "text" in message else message["bytes"])
        return self.got[-1]

    async def say(self, data: str | bytes) -> None:
        await self.send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})

    async def until_disconnected(self) -> None:
        while not isinstance(await self.receive(), tuple):
            pass


async def echo(app: Application) -> None:
    while not isinstance(got := await app.receive(), tuple):
        await app.say(got)


async def listen(app: Application) -> None:
    await app.until_disconnected()
