"""Starlette: plain routes, a middleware, a file response."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from tests.apps import content


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
    content.note("startup")
    handle, path = tempfile.mkstemp()
    os.close(handle)
    Path(path).write_bytes(content.DOWNLOAD)
    yield {"greeter": "lifespan", "file": path}
    Path(path).unlink()
    content.note("shutdown")


async def json_route(_: Request) -> JSONResponse:
    return JSONResponse(content.GREETING)


async def state(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.greeter)


async def upload(request: Request) -> JSONResponse:
    async with request.form() as form:
        file = form["file"]
        assert isinstance(file, UploadFile)
        return JSONResponse(content.receipt(await file.read()))


async def body(request: Request) -> JSONResponse:
    return JSONResponse(content.receipt(b"".join([piece async for piece in request.stream()])))


async def download(request: Request) -> FileResponse:
    return FileResponse(request.state.file)


async def stream(_: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for line in content.LINES:
            yield line

    return StreamingResponse(lines(), media_type="text/plain")


app = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(GZipMiddleware)],
    routes=[
        Route("/json", json_route),
        Route("/state", state),
        Route("/upload", upload, methods=["POST"]),
        Route("/body", body, methods=["POST"]),
        Route("/download", download),
        Route("/stream", stream),
    ],
)
