"""As data apps are: numpy, whose OpenBLAS has threads, a loop made for a Lock, and a warm cache, all at import."""

import asyncio
import os

import numpy

from aserver.asgi import Receive, Scope, Send
from tests.apps import content

content.note(f"import {os.getpid()}")

MATRIX = numpy.ones((200, 200))
(MATRIX @ MATRIX).sum()
loop = asyncio.new_event_loop()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The sum of a product, and what the loop wakes itself by in this process."""
    assert scope["type"] == "http"
    pipe = os.fstat(loop._csock.fileno()).st_ino  # type: ignore[attr-defined]
    body = f"{(MATRIX @ MATRIX).sum():.0f} {os.getpid()} {pipe}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
