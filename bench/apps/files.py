"""Sends a file of 100 MB: by its name if the server offers `http.response.pathsend`, else in pieces."""

import os
import tempfile
from typing import Any

SIZE = 100 << 20
PIECE = 64 * 1024
PATH = os.path.join(tempfile.gettempdir(), f"aserver-bench-{os.getuid()}")

with open(PATH, "wb") as made:
    made.writelines(os.urandom(1 << 20) for _ in range(SIZE // (1 << 20)))


async def app(scope: Any, receive: Any, send: Any) -> None:
    del receive
    if scope["type"] != "http":
        return
    length = (b"content-length", b"%d" % SIZE)
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    if "http.response.pathsend" in (scope.get("extensions") or {}):
        await send({"type": "http.response.pathsend", "path": PATH})
        return
    with open(PATH, "rb") as file:
        while piece := file.read(PIECE):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})
