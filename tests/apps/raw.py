"""ASGI with nothing on top: the routes that all the apps have, an echo, and the state from lifespan."""

import asyncio
import json
import os
from collections.abc import Iterator

from aserver.asgi import Receive, Scope, Send
from tests.apps import content


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(scope, receive, send)
        return
    assert scope["type"] == "http"
    match scope["path"]:
        case "/json":
            await _answer(send, json.dumps(content.GREETING).encode(), kind=b"application/json")
        case "/state":
            await _answer(send, scope["state"]["greeter"].encode())
        case "/pid":
            await _answer(send, str(os.getpid()).encode())
        case "/upload" | "/body":
            await _answer(send, json.dumps(content.receipt(await _body(receive))).encode())
        case "/download":
            await _pieces(send, content.pieces(content.DOWNLOAD), (b"content-length", b"%d" % len(content.DOWNLOAD)))
        case "/stream":
            await _pieces(send, (line.encode() for line in content.LINES))
        case "/echo":
            await _echo(receive, send)
        case "/wait":  # until the client goes, which receive() tells
            content.note("waiting")
            while (await receive())["type"] != "http.disconnect":
                pass
            content.note("disconnected")
        case "/slow":
            content.note("slow begins")
            await asyncio.sleep(float(scope["query_string"] or b"1"))
            await _answer(send, b"slept")
        case "/boom":
            raise RuntimeError("the app's own mistake")
        case _:
            await _answer(send, b"hello", 200 if scope["path"] == "/" else 404)


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["greeter"] = "lifespan"
    content.note("startup")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    content.note("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


async def _answer(send: Send, body: bytes, status: int = 200, kind: bytes = b"text/plain") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _pieces(send: Send, pieces: Iterator[bytes], *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def _echo(receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})
