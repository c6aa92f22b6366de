"""FastAPI: pydantic models, multipart upload, lifespan with state, streaming."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import Response, StreamingResponse

from tests.apps import content


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
    content.note("startup")
    yield {"greeter": "lifespan"}
    content.note("shutdown")


app = FastAPI(lifespan=lifespan)


@app.get("/json")
async def json_route() -> dict[str, str]:
    return content.GREETING


@app.get("/state")
def state(request: Request) -> str:  # not async: runs in anyio's threads
    greeter: str = request.state.greeter
    return greeter


@app.post("/upload")
async def upload(file: Annotated[UploadFile, "multipart"]) -> dict[str, int | str]:
    return content.receipt(await file.read())


@app.post("/body")
async def body(request: Request) -> dict[str, int | str]:
    return content.receipt(await request.body())


@app.get("/download")
async def download() -> Response:
    return Response(content.DOWNLOAD, media_type="application/octet-stream")


@app.get("/stream")
def stream() -> StreamingResponse:
    def lines() -> Iterator[str]:
        yield from content.LINES

    return StreamingResponse(lines(), media_type="text/plain")
