"""Litestar: typed handlers, multipart, hooks for startup and shutdown."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from litestar import Litestar, Request, get, post
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Response, Stream

from tests.apps import content


@dataclass
class Form:
    """A multipart form."""

    file: UploadFile
    beside: str


async def startup() -> None:
    content.note("startup")


async def shutdown() -> None:
    content.note("shutdown")


@get("/json")
async def json_route() -> dict[str, str]:
    return content.GREETING


@post("/upload", status_code=200)
async def upload(
    data: Annotated[Form, Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, int | str]:
    return content.receipt(await data.file.read())


@post("/body", status_code=200)
async def body(request: Request) -> dict[str, int | str]:  # type: ignore[type-arg]
    return content.receipt(await request.body())


@get("/download")
async def download() -> Response[bytes]:
    return Response(content.DOWNLOAD, media_type="application/octet-stream")


@get("/stream")
async def stream() -> Stream:
    def lines() -> Iterator[str]:
        yield from content.LINES

    return Stream(lines, media_type="text/plain")


app = Litestar([json_route, upload, body, download, stream], on_startup=[startup], on_shutdown=[shutdown])
