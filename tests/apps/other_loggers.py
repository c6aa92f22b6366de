"""Writes to loggers of other servers, as FastAPI and Flask apps do; with CONFIGURES it configures logging itself."""

import logging
import os

from aserver.asgi import Receive, Scope, Send

if "CONFIGURES" in os.environ:
    logging.basicConfig(format="mine: %(message)s", level=logging.INFO)

NAMES = ("uvicorn", "uvicorn.error", "gunicorn.error")


def _tell(when: str) -> None:
    for name in NAMES:
        logging.getLogger(name).info("%s writes at %s.", name, when)


_tell("import")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell of each kind of scope; answer."""
    _tell(scope["type"])
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"told"})
