"""The app under chaos: every answer names the worker and the deploy that gave it, and can be checked byte by byte.

A deploy is a file that makes a `Service` with its version. Each request carries `id`, which the answer repeats.
"""

import asyncio
import os
import zlib
from urllib.parse import parse_qsl

from aserver.asgi import Receive, Scope, Send

#: Of a stream; a client knows them from the id.
PIECES = 8
#: Seconds between two pieces.
PIECE_PAUSE = 0.03


def piece(ident: str, index: int) -> bytes:
    """One piece of a stream."""
    return f"{ident}:{index};".encode() * 20


class Service:
    """An ASGI app with a version."""

    def __init__(self, version: str) -> None:
        self.version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        assert scope["type"] == "http"
        ident = dict(parse_qsl(scope["query_string"].decode()))["id"]
        # Made per answer: the pid must be that of the worker, not of the zygote that imported this.
        headers = [(b"x-worker", b"%d" % os.getpid()), (b"x-version", self.version.encode())]
        if scope["path"] == "/stream":
            await _stream(ident, headers, send)
            return
        body = ident.encode()
        if scope["path"] == "/upload":
            body += b" %d" % await _checksum(receive)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await asyncio.sleep(0.05)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _checksum(receive: Receive) -> int:
    checksum = 0
    while True:
        message = await receive()
        assert message["type"] == "http.request", "the client of an upload does not go before the answer"
        checksum = zlib.crc32(message.get("body", b""), checksum)
        if not message.get("more_body"):
            return checksum


async def _stream(ident: str, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for index in range(PIECES):
        await send({"type": "http.response.body", "body": piece(ident, index), "more_body": True})
        await asyncio.sleep(PIECE_PAUSE)
    await send({"type": "http.response.body"})
