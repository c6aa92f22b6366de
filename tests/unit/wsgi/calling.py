"""One request to a WSGI application behind ASGI."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aserver.asgi import Message
from aserver.config import Config
from aserver.wsgi.application import WSGIApplication

StartResponse = Callable[..., Any]


async def call(
    app: Callable[[dict[str, Any], StartResponse], Iterable[bytes]],
    pieces: Iterable[bytes] = (b"",),
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    cut: bool = False,
    client_reads: int = 1_000,
    path: str = "/",
    root_path: str = "",
    method: str = "POST",
    http_version: str = "2",  # where a body needs no field
) -> list[Message]:
    """Run one request; `cut`: the client leaves instead of ending its body; send() fails after `client_reads`."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if cut:
        messages.append({"type": "http.disconnect"})
    else:
        messages[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        if len(sent) == client_reads:
            raise ConnectionResetError("gone")
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": http_version,
        "method": method,
        "scheme": "http",
        "path": path,
        "root_path": root_path,
        "query_string": b"",
        "headers": list(headers),
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 9),
    }
    async with asyncio.timeout(20):
        served = WSGIApplication(app, Config(target="x:y"))
        try:
            await served(scope, receive, send)
        finally:
            await served.close()
    return sent


def body_of(sent: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)
