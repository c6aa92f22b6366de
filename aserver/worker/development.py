"""The application while it is developed (`reload`): its exceptions and saves in the browser.

Runs in the worker, around the user's application. It must never be there without `reload`, as it shows source code.
"""

import logging
import os
import traceback
from collections.abc import Iterable
from typing import Any

from aserver import importer
from aserver.asgi import ASGIApp, Message, Receive, Scope, Send
from aserver.worker.error_page import page

log = logging.getLogger("aserver.error")

#: A stream that ends with this worker: the browser asks again, and hears from the next worker that it is another.
LIVE_PATH = "/_aserver/live"
_SCRIPT = """<script>
new EventSource("{path}").onmessage = (event) => {{ if (event.data !== "{token}") location.reload() }}
</script>"""


class DevelopedApp:
    """An ASGI application around the user's; without one, it answers everything with the page on `failure`.

    `failure` is the traceback of an application that could not be loaded or started. `live`: every page in HTML has
    the script with which it loads again at a save.
    """

    def __init__(self, app: ASGIApp | None, *, live: bool = False, failure: str = "") -> None:
        self._app = app
        self._live = live
        self._failure = failure
        self._token = os.urandom(8).hex()
        self._script = _SCRIPT.format(path=LIVE_PATH, token=self._token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        if scope["type"] == "http" and scope["path"] == LIVE_PATH:
            await self._stay(receive, send)
        elif self._app is None:
            await self._say_failure(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(self._app, scope, receive, _Live(scope, send, self._script) if self._live else send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. The framework's own answer to an exception waits: the exception may follow it."""
        held: list[Message] = []
        begun = False

        async def hold_errors(message: Message) -> None:
            nonlocal begun
            if held or (message["type"] == "http.response.start" and message["status"] >= 500):
                held.append(message)
                return
            begun = True
            await send(message)

        try:
            await app(scope, receive, hold_errors)
        except Exception as error:
            if begun:
                raise
            failure = importer.users_part("".join(traceback.format_exception(error)))
            log.error("%s %s: %s", scope["method"], scope["path"], failure.rstrip())  # noqa: TRY400 - cut to the user's part
            await self._answer(scope, send, failure)
            return
        for message in held:
            await send(message)

    async def _say_failure(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                await send({"type": f"{(await receive())['type']}.complete"})
        elif scope["type"] == "http":
            await self._answer(scope, send, self._failure)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1012})

    async def _answer(self, scope: Scope, send: Send, failure: str) -> None:
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        kind, text = (
            (b"text/html", page(failure, script=self._script))
            if b"text/html" in accept
            else (b"text/plain", failure.rstrip() + "\n")
        )
        body = text.encode("utf-8", "backslashreplace")
        fields = [
            (b"content-type", kind + b"; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 500, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def _stay(self, receive: Receive, send: Send) -> None:
        fields = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        body = f"retry: 100\ndata: {self._token}\n\n".encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass


def welcome(app: object, addresses: Iterable[str]) -> str:
    """The first lines that a developer needs: where to click, where the documentation and the errors are."""
    urls = [name.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]") for name in addresses]  # noqa: S104
    url = next((each for each in urls if each.startswith("http")), urls[0])
    docs = getattr(app, "docs_url", None)  # FastAPI's
    documented = f", its API at {url}{docs}" if isinstance(docs, str) else ""
    return f"open {url}{documented}\nErrors are shown here and in the browser. Ctrl-C stops."


class _Live:
    """`send` for a page: puts the script behind its last byte, where browsers take it, too."""

    def __init__(self, scope: Scope, send: Send, script: str) -> None:
        self._send = send
        self._script = script.encode()
        self._get = scope["method"] == "GET"
        self._start: Message | None = None
        self._adds = False

    async def __call__(self, message: Message) -> None:
        """Send."""
        if message["type"] == "http.response.start" and self._get and _is_page(message["headers"]):
            self._start = message
            return
        whole = message["type"] == "http.response.body"
        if (start := self._start) is not None:
            self._start, self._adds = None, whole
            if whole:
                start = {**start, "headers": list(_longer(start["headers"], len(self._script)))}
            await self._send(start)
        if whole and self._adds and not message.get("more_body"):
            message = {**message, "body": message.get("body", b"") + self._script}
        await self._send(message)


def _is_page(fields: Iterable[Any]) -> bool:
    names = {bytes(name).lower(): bytes(value) for name, value in fields}
    return names.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in names


def _longer(fields: Iterable[Any], by: int) -> Iterable[tuple[bytes, bytes]]:
    for name, value in fields:
        length = bytes(name).lower() == b"content-length"
        yield name, b"%d" % (int(value) + by) if length else value
