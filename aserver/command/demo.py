"""The built-in app: `make run` serves it, and it shows that each part of the server works.

Runs in a worker, like any user's app, and uses nothing but ASGI and the standard library. It must never look into the
server: it shows facts from its scope, as any app can.

Routes: / (page), /hello, /echo and /upload (POST), /stream, /slow?seconds=, /state.
"""

# ruff: noqa: ARG001 - a route has the signature of an ASGI app, whether it needs all of it or not

import asyncio
import contextlib
import hashlib
import html
import json
import os
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import metadata
from urllib.parse import parse_qs

from aserver import __version__
from aserver.asgi import Receive, Scope, Send

#: Seconds. The longest graceful timeouts in use are minutes, and a longer sleep would only keep a connection.
_LONGEST_SLEEP = 300.0


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI 3 entry point."""
    if scope["type"] == "lifespan":
        await _lifespan(scope, receive, send)
    elif scope["type"] == "http":
        route = _ROUTES.get(scope["path"], _not_found)
        # After a disconnect send() raises OSError (ASGI 2.4 and newer), and the response has no reader.
        with contextlib.suppress(OSError):
            await route(scope, receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Startup and shutdown. Values that are put into the state here are in every request's scope."""
    await receive()
    if "state" in scope:
        scope["state"]["started"] = time.monotonic()
        scope["state"]["pid"] = os.getpid()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    await _answer(send, _render(_facts(scope)).encode(), "text/html; charset=utf-8")


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    await _answer(send, b"Hello, world!\n")


async def _state(scope: Scope, receive: Receive, send: Send) -> None:
    await _answer(send, json.dumps(_facts(scope), indent=1).encode() + b"\n", "application/json")


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The request's body back, piece by piece as it comes."""
    headers = {name: value for name, value in scope["headers"] if name in {b"content-type", b"content-length"}}
    headers.setdefault(b"content-type", b"application/octet-stream")
    await send({"type": "http.response.start", "status": 200, "headers": list(headers.items())})
    async for piece in _body(receive):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def _upload(scope: Scope, receive: Receive, send: Send) -> None:
    """The number of bytes in the body, and their SHA-256; the body is not kept."""
    digest, size = hashlib.sha256(), 0
    async for piece in _body(receive):
        digest.update(piece)
        size += len(piece)
    await _answer(send, json.dumps({"bytes": size, "sha256": digest.hexdigest()}).encode() + b"\n", "application/json")


async def _stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Ten lines, a tenth of a second apart."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for number in range(10):
        line = f"line {number + 1} of 10 from worker {os.getpid()}\n".encode()
        await send({"type": "http.response.body", "body": line, "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body"})


async def _slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after `seconds` (default 1)."""
    given = parse_qs(scope["query_string"].decode("latin-1")).get("seconds", ["1"])[0]
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_SLEEP:
        text = f"seconds={given} is not a number from 0 to {_LONGEST_SLEEP:g}\n"
        await _answer(send, text.encode(), status=400)
        return
    await asyncio.sleep(seconds)
    await _answer(send, f"Slept for {seconds:g} s.\n".encode())


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await _answer(send, f"Nothing at {scope['path']}; / shows what there is.\n".encode(), status=404)


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    """The pieces of the request's body. Raises ConnectionResetError if the client leaves before its end."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client disconnected before its request was complete")
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _answer(
    send: Send, body: bytes, content_type: str = "text/plain; charset=utf-8", *, status: int = 200
) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _facts(scope: Scope) -> dict[str, str]:
    """Facts about this worker, as texts for the page."""
    state = scope.get("state", {})
    facts = {"aserver": __version__, "worker pid": str(os.getpid())}
    if "generation" in state:
        facts["generation"] = str(state["generation"])
    if "started" in state:
        facts["up for"] = f"{time.monotonic() - state['started']:.1f} s"
    facts["python"] = platform.python_version()
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    facts["event loop"] = f"uvloop {_version('uvloop')}" if loop == "uvloop" else loop
    facts["protocol"] = f"HTTP/{scope['http_version']}, {scope['scheme']}"
    facts["extensions"] = ", ".join(sorted(scope.get("extensions") or {})) or "none"
    return facts


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _render(facts: dict[str, str]) -> str:
    rows = "".join(f"<tr><th>{html.escape(name)}<td>{html.escape(value)}" for name, value in facts.items())
    return _PAGE.replace("{rows}", rows)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>aserver works</title>
<style>
 :root { color-scheme: light dark }
 body { font: 16px/1.6 system-ui, sans-serif; max-width: 42rem; margin: 10vh auto; padding: 0 1.5rem }
 h1 { font-weight: 600; margin-bottom: 0 }
 table { border-collapse: collapse; margin: 1.5rem 0 }
 th { text-align: left; font-weight: 400; opacity: .65; padding-right: 2rem; vertical-align: top }
 code { font-size: .9em }
</style>
<h1>It works.</h1>
<p>This page was made by an ASGI app in a worker process. Load it again: another worker may answer.
<table>{rows}</table>
<ul>
 <li><a href="/hello">/hello</a>: the shortest answer
 <li><a href="/stream">/stream</a>: ten lines, one by one
 <li><a href="/slow?seconds=2">/slow?seconds=2</a>: an answer that takes its time;
 stop the server meanwhile, and it still comes
 <li><a href="/state">/state</a>: the table above as JSON
 <li><code>curl -T FILE</code> to <code>/echo</code>: your bytes back; to <code>/upload</code>: their count and SHA-256
</ul>
<p>Your own app next: <code>aserver run module:app</code>
</html>
"""

_ROUTES: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]] = {
    "/": _page,
    "/hello": _hello,
    "/echo": _echo,
    "/upload": _upload,
    "/stream": _stream,
    "/slow": _slow,
    "/state": _state,
}
