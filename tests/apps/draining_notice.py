"""An app with work of its own beside its requests, which ends when its worker is told to go."""

import asyncio
import os
from pathlib import Path
from typing import Any

from aserver.asgi import Receive, Scope, Send


async def _work(draining: Any) -> None:
    await draining.wait()
    Path(os.environ["APP_EVENTS"]).write_text("told, and lifespan is up\n")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Lifespan only."""
    assert scope["type"] == "lifespan"
    await receive()
    work = asyncio.create_task(_work(scope["state"]["aserver.draining"]))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    assert work.done(), "lifespan shutdown came before the notice"
    await send({"type": "lifespan.shutdown.complete"})
