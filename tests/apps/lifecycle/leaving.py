"""A worker that serves for a moment and then ends by itself: a crash loop. The first one that takes STAYER stays."""

import asyncio
import os
from contextlib import suppress

from aserver.asgi import Receive, Scope, Send
from tests.apps import content


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
        return
    await receive()
    stays = False
    if path := os.environ.get("STAYER"):
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            stays = True
    content.note(f"{'stays' if stays else 'leaves'} {os.getpid()}")
    await send({"type": "lifespan.startup.complete"})
    if not stays:
        asyncio.get_running_loop().call_later(0.02, os._exit, 41)
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
