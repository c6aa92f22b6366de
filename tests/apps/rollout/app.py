"""Does on request what a lifecycle has to cope with: waits, streams, blocks, grows, dies.

IMPORT_SECONDS makes the import slow, SHUTDOWN_SECONDS the lifespan shutdown, BALLAST_MEGABYTES the zygote large.
"""

import asyncio
import os
import time
from urllib.parse import parse_qsl

from aserver.asgi import Receive, Scope, Send
from tests.apps import content

content.note(f"import {os.getpid()}")
time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))

#: Pages that are touched, so that they are in the resident set of whoever imported this.
ballast = bytearray(b"x" * (int(os.environ.get("BALLAST_MEGABYTES", "0")) << 20))
grown: list[bytes] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    assert scope["type"] == "http"
    query = dict(parse_qsl(scope["query_string"].decode()))
    amount = float(query.get("amount", "0"))
    match scope["path"]:
        case "/slow":
            content.note(f"slow {os.getpid()}")
            await asyncio.sleep(amount)
        case "/gate":  # until a file is there
            content.note(f"gate {os.getpid()}")
            while not os.path.exists(query["file"]):
                await asyncio.sleep(0.01)
        case "/stream":
            await _stream(amount, send)
            return
        case "/block":
            _block(amount)
        case "/busy":
            _spin(time.monotonic() + amount)
        case "/sum":
            _hold_the_lock(int(amount))
        case "/grow":
            grown.append(b"y" * (int(amount) << 20))
        case "/refuse":  # an answer before the body was read
            await _answer(send, 413)
            return
        case _:
            pass
    await _answer(send, 200)


async def _answer(send: Send, status: int) -> None:
    body = str(os.getpid()).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _block(seconds: float) -> None:
    time.sleep(seconds)


def _spin(until: float) -> None:
    while time.monotonic() < until:
        pass


def _hold_the_lock(count: int) -> None:
    sum(range(count))  # one call of C that never lets go of the GIL


async def _stream(seconds: float, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    end = time.monotonic() + seconds
    content.note(f"stream {os.getpid()}")
    while time.monotonic() < end:
        await send({"type": "http.response.body", "body": b"piece\n", "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"last\n"})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    content.note(f"startup {os.getpid()}")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    content.note(f"shutting {os.getpid()}")
    await asyncio.sleep(float(os.environ.get("SHUTDOWN_SECONDS", "0")))
    content.note(f"shutdown {os.getpid()}")
    await send({"type": "lifespan.shutdown.complete"})
