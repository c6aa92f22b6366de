"""Streams without an end, one for each framework, below paths of its name; what becomes of them is noted.

`ticks` sends often and waits for little; a "quiet" one sends one piece and waits for what never comes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI
from litestar import Litestar, get
from litestar.response import Stream
from quart import Quart
from quart import Response as QuartResponse
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aserver.asgi import ASGIApp, Receive, Scope, Send
from tests.apps import content
from tests.apps.django_asgi import application as django_app


async def ticks(name: str, pause: float = 0.02) -> AsyncIterator[bytes]:
    """A piece, again and again; notes its end."""
    content.note(f"open {name}")
    try:
        while True:
            yield b"tick\n"
            await asyncio.sleep(pause)
    finally:
        content.note(f"ended {name}")


async def afterwards(name: str) -> None:
    """A background task that needs some turns of the loop."""
    await asyncio.sleep(0.05)
    content.note(f"background {name}")


def _starlette(name: str, layers: int = 0, *, handled: bool = False) -> Starlette:
    async def stream(_: Request) -> Response:
        return StreamingResponse(ticks(name), background=BackgroundTask(afterwards, name))

    async def quiet(_: Request) -> Response:
        return StreamingResponse(ticks(name, 600), background=BackgroundTask(afterwards, name))

    async def upload(request: Request) -> Response:
        content.note(f"open {name}")
        async for _ in request.stream():
            pass
        return JSONResponse({})

    async def on_error(_: Request, error: Exception) -> Response:
        content.note(f"ended {name}" if isinstance(error, ClientDisconnect) else f"fault {error!r}")
        return JSONResponse({}, 500)

    async def layer(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    return Starlette(
        routes=[Route("/stream", stream), Route("/quiet", quiet), Route("/upload", upload, methods=["POST"])],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=layer) for _ in range(layers)],
        exception_handlers={Exception: on_error} if handled else {},
    )


fastapi = FastAPI()


@fastapi.middleware("http")
async def _layer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


async def _transaction() -> AsyncIterator[str]:
    try:
        yield "transaction"
    except BaseException as error:
        content.note(f"rollback {error!r}")
        raise
    content.note("commit fastapi")


@fastapi.get("/stream")
async def _stream(tasks: BackgroundTasks) -> StreamingResponse:
    tasks.add_task(afterwards, "fastapi")
    return StreamingResponse(ticks("fastapi"))


@fastapi.post("/order")
async def _order(tasks: BackgroundTasks, _: Annotated[str, Depends(_transaction)]) -> dict[str, str]:
    content.note("open fastapi")
    await asyncio.sleep(1.2)  # longer than it takes to hear of a client's leaving
    tasks.add_task(afterwards, "fastapi")
    return {}


async def _events(_: Request) -> EventSourceResponse:
    return EventSourceResponse(ticks("sse"), background=BackgroundTask(afterwards, "sse"))


@get("/stream")
async def _litestar_stream() -> Stream:
    return Stream(ticks("litestar"))


quart = Quart(__name__)


@quart.get("/stream")
async def _quart_stream() -> QuartResponse:
    response = QuartResponse(ticks("quart"))
    response.timeout = None
    return response


async def _deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """One piece, or an accepted WebSocket, and then nothing: neither `receive()` nor `send()`."""
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
    content.note("open deaf")
    try:
        await asyncio.sleep(600)
    finally:
        content.note("ended deaf")


@asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    yield
    content.note("shutdown")


APPS: dict[str, ASGIApp] = {
    "starlette": _starlette("starlette"),
    "layered": _starlette("layered", 2),
    "handled": _starlette("handled", handled=True),
    "fastapi": fastapi,
    "sse": Starlette(routes=[Route("/stream", _events)]),
    "litestar": Litestar([_litestar_stream], logging_config=None),  # type: ignore[dict-item]
    "quart": quart,  # type: ignore[dict-item]
    "django": django_app,
    "deaf": _deaf,
}
_root = Starlette(lifespan=_lifespan)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Lead a request to the app that its path begins with."""
    if scope["type"] == "lifespan":
        await _root(scope, receive, send)
        return
    _, name, rest = scope["path"].split("/", 2)
    await APPS[name]({**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}, receive, send)
