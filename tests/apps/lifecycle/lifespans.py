"""Apps whose lifespan does every possible thing; LIFESPAN_WAITS names a file that `waits` waits for."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from aserver.asgi import Receive, Scope, Send
from tests.apps import content


async def _answer(scope: Scope, send: Send) -> None:
    state = {name: value for name, value in scope.get("state", {}).items() if not name.startswith("aserver.")}
    body = json.dumps({"pid": os.getpid(), "state": state}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def good(scope: Scope, receive: Receive, send: Send) -> None:
    """Puts a list and a number into the state; each request changes both, and says what it found."""
    if scope["type"] != "lifespan":
        state: dict[str, Any] = scope["state"]
        await _answer(scope, send)
        state["number"] += 1
        state["list"].append(1)
        return
    await receive()
    scope["state"] |= {"number": 0, "list": []}
    content.note("startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    content.note("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    """Says that startup failed, and why."""
    await receive()
    content.note("attempt")
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises in lifespan; serves requests."""
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    await _answer(scope, send)


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    """Startup ends when a file is there."""
    if scope["type"] != "lifespan":
        await _answer(scope, send)
        return
    await receive()
    content.note("waiting")
    while not Path(os.environ["LIFESPAN_WAITS"]).exists():
        await asyncio.sleep(0.02)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    """Startup never ends, politely."""
    await receive()
    content.note("hanging")
    await asyncio.sleep(3600)


async def blocks(scope: Scope, receive: Receive, send: Send) -> None:
    """Startup never ends, and holds the loop."""
    await receive()
    content.note("hanging")
    time.sleep(3600)
