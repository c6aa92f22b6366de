"""The threads of a WSGI application on real connections: how many there are, and what may keep them from others."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aserver.config import Layer, build
from aserver.wsgi.application import BODY_KEPT, WSGIApplication
from tests.harness.waiting import PATIENCE, eventually
from tests.protocol.serving import Client, Serving, serving

pytestmark = pytest.mark.anyio

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGI = Callable[[Environ, StartResponse], Any]


@pytest.fixture
def anyio_backend() -> object:
    return "asyncio", {"use_uvloop": True}


@asynccontextmanager
async def served(app: WSGI, **settings: Any) -> AsyncIterator[Serving]:
    """`app` on a free port; its threads are ended afterwards."""
    application = WSGIApplication(app, build([Layer("test", {"target": "x:y", **settings})]).config)
    async with serving(application, **settings) as server:
        yield server
    await application.close()
    await eventually(lambda: not names(), what="the threads to end")


def names() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("wsgi-")]


async def get(server: Serving, path: str) -> Client:
    client = await server.connect()
    await client.send(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
    return client


async def status(client: Client) -> int:
    head, _ = await client.response()
    return int(head.split()[1])


def ok(start_response: StartResponse, body: bytes = b"") -> list[bytes]:
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


STREAMS = 12


@pytest.mark.parametrize("slow", ["client", "application"])
async def test_open_streams_do_not_keep_others_waiting(slow: str) -> None:
    """Twelve with two threads: clients that do not read, or an application that has nothing to say just now.

    Fails without `lend`: /health waits for the streams. Afterwards there are two threads again.
    """
    release, closed = threading.Event(), []

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] != "/stream":
            return ok(start_response, b"healthy")
        start_response("200 OK", [])
        return stream()

    def stream() -> Iterator[bytes]:
        try:
            yield b"first"
            if slow == "application":
                release.wait(PATIENCE)
            while not release.is_set():
                yield b"x" * 65_536
        finally:
            closed.append(1)

    async with served(app, threads=2) as server:
        streams = [await get(server, "/stream") for _ in range(STREAMS)]
        for client in streams:
            await client.until(b"\r\n\r\n")
        assert await status(await get(server, "/health")) == 200
        assert len(names()) > STREAMS
        release.set()
        for client in streams:
            client.close()
        await eventually(lambda: len(closed) == STREAMS, what="every stream to be closed")
        await eventually(lambda: len(names()) == 2, what="the threads that were lent to end")
        assert await status(await get(server, "/health")) == 200


async def test_uploads_that_stall_do_not_keep_others_waiting() -> None:
    """Small ones take no thread, large ones lend it. Fails without `held_since` at Notice.BODY."""
    broken: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except ConnectionResetError as error:
            broken.append(error)
            raise
        return ok(start_response)

    async with served(app, threads=2) as server:
        uploads = [await server.connect() for _ in range(6)]
        for number, client in enumerate(uploads):
            length = 2 * BODY_KEPT if number % 2 else 10
            await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\nabc" % length)
        assert await status(await get(server, "/health")) == 200
        for client in uploads:
            client.close()
        await eventually(lambda: len(broken) == 3, what="the large ones to fail in the application")


@pytest.mark.parametrize("threads", [1, 3])
async def test_so_many_requests_are_worked_on_at_once_and_no_more(threads: int) -> None:
    """1 serialises, as a sync worker does. Fails with a thread for each request."""
    at_once, most, lock = 0, 0, threading.Lock()
    gate = threading.Barrier(threads)

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        gate.wait(PATIENCE)
        with lock:
            at_once -= 1
        assert environ["wsgi.multithread"] is (threads > 1)
        return ok(start_response)

    async with served(app, threads=threads) as server:
        clients = [await get(server, "/") for _ in range(3 * threads)]
        assert [await status(client) for client in clients] == [200] * len(clients)
    assert most == threads


async def test_with_one_thread_a_stream_is_not_interrupted() -> None:
    """An application that is not thread-safe must not find two of its requests begun. Fails if 1 thread is lent."""
    release, order = threading.Event(), []

    def app(environ: Environ, start_response: StartResponse) -> Any:
        order.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/other":
            return ok(start_response)
        start_response("200 OK", [])
        return stream()

    def stream() -> Iterator[bytes]:
        yield b"first"
        release.wait(PATIENCE)
        order.append("end of the stream")

    async with served(app, threads=1) as server:
        client = await get(server, "/stream")
        await client.until(b"first")
        other = await get(server, "/other")
        await eventually(lambda: server.service.active == 2)
        asyncio.get_running_loop().call_later(0.3, release.set)
        assert await status(other) == 200
    assert order == ["/stream", "end of the stream", "/other"]


async def test_above_backpressure_the_answer_is_503_and_the_log_says_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Fails without the bound: the fourth waits for ever."""
    release = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        release.wait(PATIENCE)
        return ok(start_response)

    async with served(app, threads=1, backpressure=3) as server:
        waiting = [await get(server, "/") for _ in range(3)]
        await eventually(lambda: server.service.active == 3)
        for _ in range(2):
            client = await get(server, "/")
            head, body = await client.response()
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in head
            assert body == b"Service Unavailable\n"
        release.set()
        assert [await status(client) for client in waiting] == [200] * 3
        assert await status(await get(server, "/")) == 200
    records = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert records == ["3 WSGI requests are under way, as many as may be (backpressure): others get 503 until some end"]


async def test_a_pipelining_client_and_large_answers_stay_whole() -> None:
    """More than a window for each, in pieces and in one."""
    body = bytes(range(256)) * 2_048

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [("Content-Length", str(len(body)))])
        if environ["PATH_INFO"] == "/one":
            return [body]
        return (body[start : start + 7_000] for start in range(0, len(body), 7_000))

    async with served(app, threads=2) as server:
        client = await server.connect()
        await client.send(b"".join(b"GET /%s HTTP/1.1\r\nHost: t\r\n\r\n" % path for path in (b"one", b"many") * 3))
        for _ in range(6):
            assert (await client.response())[1] == body
