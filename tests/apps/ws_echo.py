"""WebSockets in raw ASGI: an echo at every path but those that show one thing each."""

import asyncio

from aserver.asgi import Receive, Scope, Send
from tests.apps import content


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"http"})
        return
    assert (await receive())["type"] == "websocket.connect"
    match scope["path"]:
        case "/deny":
            await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"teapot")]})
            await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"tea"})
        case "/forbid":
            await send({"type": "websocket.close"})
        case "/boom":
            await send({"type": "websocket.accept"})
            raise RuntimeError("the app's own mistake")
        case "/draining":
            await send({"type": "websocket.accept"})
            await asyncio.gather(_announce(scope, send), _echo(receive, send))
        case _:
            await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
            await _echo(receive, send)


async def _announce(scope: Scope, send: Send) -> None:
    draining = scope["extensions"]["aserver.draining"]
    assert not draining.is_set()
    await send({"type": "websocket.send", "text": "waiting"})
    await draining.wait()
    await send({"type": "websocket.send", "text": "draining"})


async def _echo(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            content.note(f"disconnect {message['code']} {message['reason']}".strip())
            return
        if message.get("bytes") is not None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


async def _lifespan(receive: Receive, send: Send) -> None:
    for _ in range(2):
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
