"""Quart: Flask's interface, on ASGI."""

from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, request

from tests.apps import content

app = Quart(__name__)


@app.before_serving
async def startup() -> None:
    content.note("startup")


@app.after_serving
async def shutdown() -> None:
    content.note("shutdown")


@app.get("/json")
async def json_route() -> dict[str, str]:
    return content.GREETING


@app.post("/upload")
async def upload() -> dict[str, int | str]:
    files = await request.files
    return content.receipt(files["file"].read())


@app.post("/body")
async def body() -> dict[str, int | str]:
    data: Any = await request.get_data()
    return content.receipt(data)


@app.get("/download")
async def download() -> Response:
    return Response(content.DOWNLOAD, mimetype="application/octet-stream")


@app.get("/stream")
async def stream() -> Response:
    async def lines() -> AsyncIterator[str]:
        for line in content.LINES:
            yield line

    return Response(lines(), mimetype="text/plain")
