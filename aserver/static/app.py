"""The ASGI app that serves files below some prefixes, and hands every other request to the user's app."""

import asyncio
import os
from collections.abc import Sequence
from urllib.parse import quote

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.errors import AppLoadError
from aserver.static import files
from aserver.static.answers import Fields, accepted, answer

_REASONS = {403: b"Forbidden\n", 404: b"Not Found\n", 405: b"Method Not Allowed\n"}


def with_static(app: ASGIApp, static: Sequence[str]) -> ASGIApp:
    """`app` with the directories of the setting `static`. Raises AppLoadError if any is missing."""
    places: list[tuple[str, str]] = []
    for each in static:
        prefix, _, directory = each.partition("=")
        if not os.path.isdir(directory):
            raise AppLoadError(f"static {each}: {os.path.abspath(directory)} is not a directory")
        places.append((prefix, os.path.abspath(directory)))
    return StaticFiles(app, sorted(places, key=lambda place: len(place[0]), reverse=True)).serve


class StaticFiles:
    """Serves files. `places` are prefix and directory, the longest prefix first."""

    def __init__(self, app: ASGIApp, places: Sequence[tuple[str, str]]) -> None:
        self._app = app
        self._places = places

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. A path below a prefix is never the application's, also if there is no such file."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            for prefix, directory in self._places:
                if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                    await _serve(scope, send, directory, path[len(prefix) :])
                    return
        await self._app(scope, receive, send)


async def _serve(scope: Scope, send: Send, directory: str, path: str) -> None:
    """`path` is empty or begins with a slash."""
    if scope["method"] not in ("GET", "HEAD"):
        await _refuse(send, 405, [(b"allow", b"GET, HEAD")])
        return
    loop = asyncio.get_running_loop()
    fields: dict[str, str] = {}
    for name, value in scope["headers"]:
        fields.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    accepts = accepted(fields.get("accept-encoding"))
    found = await loop.run_in_executor(None, files.open_file, directory, path[1:], accepts) if path else 301
    if found == 301:
        # Relative, because a proxy may have taken a prefix off; and with a dot, lest a name be taken for a host.
        last = quote(scope["path"].rpartition("/")[2])
        await _refuse(send, 301, [(b"location", f"./{last}/".encode())])
    elif isinstance(found, int):
        await _refuse(send, found, [])
    else:
        try:
            await _send_file(send, scope["method"], fields, found)
        finally:
            found.close()


async def _refuse(send: Send, status: int, fields: Fields) -> None:
    body = _REASONS.get(status, b"")
    plain = (b"content-type", b"text/plain; charset=utf-8")
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [plain, length, *fields]})
    await send({"type": "http.response.body", "body": body})


async def _send_file(send: Send, method: str, fields: dict[str, str], found: files.OpenFile) -> None:
    made = answer(method, fields, found.file)
    await send({"type": "http.response.start", "status": made.status, "headers": made.fields})
    start, end = made.start, made.end if method == "GET" else made.start
    loop = asyncio.get_running_loop()
    while start < end:
        piece = await loop.run_in_executor(None, files.read, found.descriptor, start, end)
        start += len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": start < end})
    if made.start == start:
        await send({"type": "http.response.body"})
