"""Tells which processes its requests ran in; a request for /thread leaves a thread."""

import json
import os
import threading
from typing import Any

ran: list[int] = []
gate = threading.Event()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["path"] == "/thread":
        threading.Thread(target=gate.wait, name="left", daemon=True).start()
    ran.append(os.getpid())
    body = json.dumps(ran).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
