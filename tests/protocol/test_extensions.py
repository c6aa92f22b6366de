"""Extensions: nothing is announced that changes what a framework does unless its application asks for it."""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from aserver.asgi import ASGIApp, Message, Receive, Scope, Send
from tests.protocol.serving import LAST_GET, answer, body_of, field, serving, status

CONTENT = b"a line of a file\n" * 20_000
TRAILERS = LAST_GET.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\n\r\n")


@pytest.mark.parametrize(
    ("pathsend", "request_", "announced"),
    [
        (False, LAST_GET, {"http.response.early_hint"}),
        (False, TRAILERS, {"http.response.early_hint", "http.response.trailers"}),
        (False, LAST_GET.replace(b"1.1", b"1.0"), set()),
        (True, LAST_GET, {"http.response.early_hint", "http.response.pathsend"}),
        (True, LAST_GET.replace(b"1.1", b"1.0"), {"http.response.pathsend"}),
    ],
)
async def test_what_is_announced(pathsend: bool, request_: bytes, announced: set[str]) -> None:
    """One request's own entries are not seen by the next. Fails with pathsend for everybody, or one shared dict."""
    seen: list[set[str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(set(scope["extensions"]))
        scope["extensions"]["made.up"] = {}
        await answer(send)

    async with serving(app, pathsend=pathsend) as server:
        for _ in range(2):
            await server.ask(request_)
    assert seen == [announced, announced]


class _ReadsTheBody(BaseHTTPMiddleware):
    """As FastAPI's `@app.middleware("http")` that logs or rewrites answers."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        pieces = [piece async for piece in response.body_iterator]  # type: ignore[attr-defined]
        return Response(b"".join(pieces), response.status_code, dict(response.headers))


class _Buffers:
    """Plain ASGI middleware that knows the two messages of 2018, as many do (brotli-asgi, Gradio's)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def keep(message: Message) -> None:
            held.append(message)

        await self._app(scope, receive, keep)
        body = b"".join(message["body"] for message in held[1:])
        assert {message["type"] for message in held} == {"http.response.start", "http.response.body"}
        await send(held[0])
        await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("middleware", [GZipMiddleware, _ReadsTheBody, _Buffers])
async def test_middleware_sees_the_files_that_a_framework_sends(middleware: Any, tmp_path: Path) -> None:
    """Fails in all three with `pathsend` offered: uncompressed, 500, 500."""
    path = tmp_path / "file.txt"
    path.write_bytes(CONTENT)

    async def file(_: Request) -> Response:
        return FileResponse(path)

    app = Starlette(routes=[Route("/", file)], middleware=[Middleware(middleware)])
    request = LAST_GET.replace(b"\r\n\r\n", b"\r\nAccept-Encoding: gzip\r\n\r\n")
    async with serving(app) as server:
        response = await server.ask(request)
    assert status(response) == 200
    if middleware is GZipMiddleware:
        assert field(response.split(b"\r\n\r\n")[0], b"content-encoding") == b"gzip"
        assert len(response) < len(CONTENT) / 10
    else:
        assert body_of(response) == CONTENT
