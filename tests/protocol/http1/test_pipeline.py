"""Requests behind a request: in order, bounded, and each in its turn."""

import asyncio
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.http1.pipeline import PIPELINE_LIMIT
from tests.harness.waiting import eventually
from tests.protocol.http1.heads import get, post
from tests.protocol.serving import GET, LAST_GET, answer, echo, echo_after, serving


async def test_pipelined_requests_are_answered_in_order() -> None:
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/0":
            await release.wait()
        await echo(scope, receive, send)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(
            b"".join(get(b"/%d" % n) for n in range(5)) + b"POST /p HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabc"
        )
        await eventually(lambda: server.service.active == 1)
        release.set()
        for number in range(5):
            assert (await client.response())[1] == b"GET /%d " % number
        await client.send(b"def" + LAST_GET)
        assert (await client.response())[1] == b"POST /p abcdef"
        assert (await client.response())[1] == b"GET / "


@pytest.mark.parametrize("count", [PIPELINE_LIMIT - 1, PIPELINE_LIMIT + 1, 2000])
async def test_a_flood_of_pipelined_requests_is_held_back_and_answered(count: int) -> None:
    """The stack does not grow with the pipeline, nor does the number of requests that were parsed ahead."""
    first = asyncio.Event()
    most = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most
        await first.wait()
        (connection,) = server.connections
        most = max(most, len(connection.handler.pipeline.exchanges) if connection.handler.pipeline else 0)
        await answer(send, scope["raw_path"])

    async with serving(app) as server:
        client = await server.connect()
        sending = asyncio.ensure_future(client.send(b"".join(get(b"/%d" % n) for n in range(count))))
        await eventually(lambda: server.service.active)
        first.set()
        for number in range(count):
            assert (await client.response())[1] == b"/%d" % number
        await sending
    assert most < 400  # one slice of the parser's


async def test_a_bad_request_behind_good_ones_waits_for_its_turn() -> None:
    async with serving(echo) as server:
        response = await server.ask(get(b"/1") + get(b"/2") + b"GET / HTTP/1.1\r\n\r\n" + get(b"/4"))
    parts = response.split(b"HTTP/1.1 ")[1:]
    assert [part[:3] for part in parts] == [b"200", b"200", b"400"]


async def test_a_bad_body_behind_a_running_request_is_refused_unserved() -> None:
    """Its head was good, so it waits in the queue. Fails without the `pop` in `refuse`."""
    go = asyncio.Event()
    called: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope["path"])
        await go.wait()
        await echo(scope, receive, send)

    logged: list[tuple[str, bytes, int]] = []

    def access(record: Any) -> None:
        logged.append((record.method, record.target, record.status))

    async with serving(app, access=access) as server:
        client = await server.connect()
        await client.send(get(b"/1") + b"POST /2 HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        await eventually(lambda: called)
        go.set()
        response = await client.rest()
    assert [part[:3] for part in response.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]
    assert called == ["/1"]
    assert logged == [("GET", b"/1", 200), ("POST", b"/2", 400)]


async def test_nothing_behind_a_bad_request_that_waits_for_its_turn_is_read() -> None:
    """It would be served before the refusal. Fails without `self.reader.stop()` in `refuse`."""
    go = asyncio.Event()

    app = echo_after(go)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(get(b"/1"))
        await eventually(lambda: server.service.active)
        (connection,) = server.connections
        await client.send(b"GET / HTTP/1.1\r\n\r\n")
        await eventually(lambda: connection.handler.pipeline is not None)
        await client.send(get(b"/3"))
        await eventually(lambda: connection.discarded)
        go.set()
        response = await client.rest()
    assert [part[:3] for part in response.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]


async def test_a_large_body_behind_a_full_pipeline_is_not_buffered() -> None:
    """Both the pipeline and the body pause reading; the one's end must not undo the other's."""
    go = asyncio.Event()
    size = 16 << 20

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await go.wait()
        await answer(send, b"x")

    async with serving(app) as server:
        client = await server.connect()
        sending = asyncio.ensure_future(client.send(get(b"/") * (PIPELINE_LIMIT + 1) + post(size) + b"x" * size))
        for _ in range(PIPELINE_LIMIT + 1):
            await client.response()
        await eventually(lambda: server.service.active == 1)
        (connection,) = server.connections
        received = -1
        while received != connection.handler.receiving.request_body.received:
            received = connection.handler.receiving.request_body.received
            await asyncio.sleep(0.1)
        assert received < 1 << 20
        go.set()
        sending.cancel()


async def test_a_head_behind_a_running_request_is_limited_too() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send, b"x")

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET + b"GET / HTTP/1.1\r\n")
        await eventually(lambda: server.service.active)
        (connection,) = server.connections
        for _ in range(200):
            await client.send(b"A: b\r\n" * 10)
        await eventually(lambda: connection.handler.pipeline is not None)
        go.set()
        response = await client.rest()
    assert [part[:3] for part in response.split(b"HTTP/1.1 ")[1:]] == [b"200", b"431"]
