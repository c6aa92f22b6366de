"""Sends the file in FILES that the path names, by `http.response.pathsend`, whatever becomes of it."""

import os
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.pathsend", "path": os.environ["FILES"] + scope["path"]})
