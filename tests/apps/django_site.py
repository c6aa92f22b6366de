"""A Django site in one module; django_asgi and django_wsgi serve it."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from tests.apps import content

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEBUG=False,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="only for tests",
        USE_TZ=True,
    )


def json_route(_: HttpRequest) -> HttpResponse:
    return JsonResponse(content.GREETING)


def upload(request: HttpRequest) -> HttpResponse:
    return JsonResponse(content.receipt(request.FILES["file"].read()))


def body(request: HttpRequest) -> HttpResponse:
    return JsonResponse(content.receipt(request.body))


def download(_: HttpRequest) -> HttpResponse:
    return HttpResponse(content.DOWNLOAD, content_type="application/octet-stream")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        yield from content.LINES

    async def lines_async() -> AsyncIterator[str]:
        for line in content.LINES:
            yield line

    # Django warns where a synchronous iterator meets ASGI, and the reverse.
    return StreamingHttpResponse(lines_async() if isinstance(request, ASGIRequest) else lines(), "text/plain")


async def endless(_: HttpRequest) -> StreamingHttpResponse:
    """For ASGI only."""

    async def ticks() -> AsyncIterator[bytes]:
        content.note("open django")
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.02)
        finally:
            content.note("ended django")

    return StreamingHttpResponse(ticks())


urlpatterns = [
    path("json", json_route),
    path("upload", upload),
    path("body", body),
    path("download", download),
    path("stream", stream),
    path("endless", endless),
]
