"""A worker that serves for a moment and then ends by itself: a crash loop. Worker 2 and later ones stay if LEAVE_ONE."""

import asyncio
import os

from aserver.asgi import Receive, Scope, Send
from tests.apps import content


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
        return
    await receive()
    content.note("startup")
    await send({"type": "lifespan.startup.complete"})
    asyncio.get_running_loop().call_later(0.02, os._exit, 41)
    await receive()
