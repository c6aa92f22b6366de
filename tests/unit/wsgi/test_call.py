"""A WSGI request between its thread and its client: leaving, closing, errors."""

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aserver.asgi import Message
from aserver.config import Config
from aserver.wsgi.application import BODY_KEPT, WSGIApplication
from tests.unit.wsgi.calling import StartResponse, call

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_body_cut_by_the_client_raises_in_the_app() -> None:
    seen: list[BaseException] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            seen.append(error)
            raise
        return []

    length = [(b"content-length", b"%d" % (2 * BODY_KEPT))]
    assert await call(app, [b"half"], headers=length, cut=True) == [], "and the server is not told of an error"
    assert isinstance(seen.pop(), ConnectionResetError)
    for headers in ([(b"content-length", b"8")], [(b"transfer-encoding", b"chunked")]):
        assert await call(app, [b"half"], headers=headers, cut=True) == []
    assert seen == [], "a small body is received first, and without it there is no request"


async def test_client_that_leaves_ends_the_stream_and_its_thread() -> None:
    closed = threading.Event()

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    await call(app, client_reads=3)
    assert closed.is_set()


async def test_write_raises_when_the_client_has_gone() -> None:
    """As in gunicorn; fails without the look at `gone` in `_emit`: the thread writes for ever, for nobody."""
    raised = threading.Event()

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [])
        try:
            while True:
                write(b"x")
        except ConnectionResetError:
            raised.set()
            raise

    await call(app, client_reads=3)  # and the server is not told of an error
    assert raised.is_set()


async def test_close_is_called_once_also_if_the_app_fails() -> None:
    class Chunks:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            raise RuntimeError("in the middle")

        def close(self) -> None:
            Chunks.closed += 1

    def app(environ: dict[str, Any], start_response: StartResponse) -> Chunks:
        start_response("200 OK", [])
        return Chunks()

    with pytest.raises(RuntimeError, match="in the middle"):
        await call(app)
    assert Chunks.closed == 1


async def test_an_os_error_of_the_app_is_the_apps() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        raise FileNotFoundError("a template")

    with pytest.raises(FileNotFoundError, match="a template"):
        await call(app)


async def test_a_system_exit_of_the_application_is_an_error_like_another() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        sys.exit(3)

    with pytest.raises(SystemExit):
        await call(app)


async def test_each_request_has_its_own_context_variables() -> None:
    """Flask's request is one. Fails without `copy_context`: a stream leaves its own in the thread."""
    import contextvars

    variable = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        seen.append(variable.get())
        variable.set("left behind")
        start_response("200 OK", [])
        return []

    served = WSGIApplication(app, Config(target="x:y", threads=1))
    for _ in range(2):
        await one(served)
    await served.close()
    assert seen == ["clean", "clean"]


async def one(served: WSGIApplication, path: str = "/") -> list[Message]:
    """One GET."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await served(
        {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "query_string": b"",
            "headers": [],
        },
        receive,
        send,
    )
    return sent
