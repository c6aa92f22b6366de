"""Connections: keep-alive, order, backpressure, half-close, deadlines, drain."""

import asyncio
import contextlib
import contextvars
import errno
import logging
import socket
from math import inf
from typing import Any
from unittest.mock import Mock

import pytest

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.metrics.page import Awaited
from aserver.protocol.transport.connection import LEAST_PROGRESS, LINGER_BYTES, LINGER_SECONDS
from tests.harness.waiting import PATIENCE, eventually, turns_of_the_loop
from tests.protocol.http1.heads import get, post
from tests.protocol.serving import (
    GET,
    LAST_GET,
    answer,
    body_of,
    echo,
    echo_after,
    field,
    read_all,
    service_of,
    serving,
    status,
)
from tests.protocol.wiretap import Tap, Wiretap


async def test_keep_alive() -> None:
    async with serving(echo) as server:
        client = await server.connect()
        for number in range(5):
            await client.send(get(b"/%d" % number))
            head, body = await client.response()
            assert field(head, b"connection") is None
            assert body == b"GET /%d " % number
        assert server.service.requests == 5
        assert server.service.active == 0


@pytest.mark.parametrize(
    ("request_", "connection"),
    [
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"keep-alive"),
        (b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Keep-Alive\r\n\r\n", None),
    ],
)
async def test_keep_alive_asked_for(request_: bytes, connection: bytes | None) -> None:
    async with serving(echo) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(request_)
            head, _ = await client.response()
            assert field(head, b"connection") == connection


async def test_fresh_context_for_each_request() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set(scope["path"])
        assert asyncio.current_task() is not None
        await answer(send)

    async with serving(app) as server:
        await server.ask(get(b"/1") + get(b"/2") + LAST_GET)
        await server.ask(LAST_GET)
    assert seen == ["unset"] * 4


# ── flow control ─────────────────────────────────────────────────────────────────────────────


async def test_reading_pauses_when_the_application_does_not_take_the_body() -> None:
    take = asyncio.Event()
    size = 64 * 1024 * 1024

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await take.wait()
        total = 0
        while True:
            message = await receive()
            total += len(message["body"])
            assert len(message["body"]) < 1 << 20
            if not message["more_body"]:
                break
        await answer(send, b"%d" % total)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(post(size))
        sent = 0

        async def upload() -> None:
            nonlocal sent
            piece = b"x" * 65536
            while sent < size:
                await client.send(piece)
                sent += len(piece)

        uploading = asyncio.ensure_future(upload())
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size // 2
        take.set()
        assert (await client.response())[1] == b"%d" % size
        await uploading


async def test_why_a_request_was_refused_is_a_debug_record(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a status; both numbers are for who runs the server."""
    caplog.set_level("DEBUG", logger="aserver.error")
    async with serving(echo, limit_request_body=10) as server:
        await server.ask(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n")
    [record] = [record.getMessage() for record in caplog.records if "is answered" in record.getMessage()]
    assert "is answered 413: " in record
    assert "5000" in record
    assert "10" in record


async def test_send_waits_for_a_client_that_does_not_read() -> None:
    pieces = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal pieces
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            pieces += 1
        await send({"type": "http.response.body"})

    async with serving(app) as server:
        client = await server.connect(limit=1 << 16)
        await client.send(LAST_GET)
        before = -1
        while pieces != before:
            before = pieces
            await asyncio.sleep(0.2)
        assert 0 < pieces < 500
        response = await client.rest()
    assert response.count(b"x") == 1000 * 65536
    assert response.endswith(b"0\r\n\r\n")


# ── Expect ───────────────────────────────────────────────────────────────────────────────────


async def test_continue_when_the_application_first_reads() -> None:
    read = asyncio.Event()

    app = echo_after(read)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(post(3, b"Expect: 100-Continue"))
        await eventually(lambda: server.service.active)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.05)
        read.set()
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        assert (await client.response())[1] == b"POST / abc"
        await client.send(LAST_GET)
        assert (await client.response())[1] == b"GET / "


async def test_no_continue_when_the_body_is_there() -> None:
    async with serving(echo) as server:
        client = await server.connect()
        await client.send(post(3, b"Expect: 100-continue") + b"abc")
        head, _ = await client.response()
        assert status(head) == 200


async def test_no_continue_when_the_body_has_begun() -> None:
    """Fails if `body_received` leaves the continue due."""
    async with serving(echo) as server:
        client = await server.connect()
        await client.send(post(6, b"Expect: 100-continue") + b"abc")
        await eventually(lambda: any(c.deadline < float("inf") for c in server.connections))
        (connection,) = server.connections
        await eventually(lambda: connection.handler.current and connection.handler.current.waiters)
        await client.send(b"def" + LAST_GET)
        response = await client.rest()
    assert [part[:3] for part in response.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"]


async def test_one_continue_though_the_application_gives_up_and_asks_again() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        await echo(scope, receive, send)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(post(3, b"Expect: 100-continue", b"Connection: close"))
        await client.until(b"\r\n\r\n")
        await eventually(lambda: server.service.active)
        await client.send(b"abc")
        response = await client.rest()
    assert response.startswith(b"HTTP/1.1 200 "), response


async def test_no_continue_to_1_0() -> None:
    async with serving(echo) as server:
        client = await server.connect()
        await client.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        await eventually(lambda: server.service.active)
        await client.send(b"abc")
        assert status(await client.rest()) == 200


async def test_no_continue_after_the_response_began() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        body = await read_all(receive)
        await send({"type": "http.response.body", "body": body})

    async with serving(app) as server:
        client = await server.connect()
        await client.send(post(3, b"Expect: 100-continue"))
        head = await client.until(b"\r\n\r\n")
        assert status(head) == 200
        await client.send(b"bcd")
        assert await client.until(b"0\r\n\r\n") == b"1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n"


async def test_an_answer_without_reading_closes_when_a_continue_was_due() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 403)

    async with serving(app) as server:
        response = await server.ask(post(3, b"Expect: 100-continue"))
    assert status(response) == 403
    assert field(response, b"connection") == b"close"
    assert b"100 Continue" not in response


# ── early responses ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lines", [(), (b"Connection: close",)])
async def test_a_client_that_still_sends_reads_the_early_answer(lines: tuple[bytes, ...]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"too much", 413)

    async with serving(app) as server:
        for _ in range(10):
            client = await server.connect()
            await client.send(post(4 << 20, *lines))
            for _ in range(64):
                await client.send(b"x" * 65536)  # a reset would raise here or at the read
            response = await client.rest()
            assert status(response) == 413
            assert field(response, b"connection") == b"close"
            client.close()
        await eventually(lambda: not server.service.connections)


async def test_a_large_unread_body_ends_the_connection_though_the_head_did_not_say_so() -> None:
    """Nobody could know when the head went out. Fails if `answered` drops whatever is missing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async with serving(app) as server:
        response = await server.ask(post(4 << 20) + b"x" * 1000)
    assert (body_of(response), field(response, b"connection")) == (b"ab", None)


async def test_a_small_unread_body_does_not_cost_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, scope["raw_path"])

    async with serving(app) as server:
        client = await server.connect()
        for _ in range(3):
            await client.send(post(1000) + b"x" * 10)
            head, _ = await client.response()
            assert field(head, b"connection") is None
            await client.send(b"x" * 990)
        await client.send(get(b"/last"))
        assert (await client.response())[1] == b"/last"


# ── disconnects ──────────────────────────────────────────────────────────────────────────────


async def test_disconnect_is_seen_by_receive_and_send() -> None:
    seen: list[Any] = []
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        began.set()
        seen.append(await receive())
        seen.append(await receive())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except OSError as error:
            seen.append(error)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await asyncio.wait_for(began.wait(), PATIENCE)
        client.close()
        await eventually(lambda: len(seen) == 3)
    assert seen[:2] == [{"type": "http.disconnect"}] * 2
    assert isinstance(seen[2], OSError)


async def test_a_writer_that_never_receives_gets_oserror() -> None:
    raised = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 10000, "more_body": True})
                await asyncio.sleep(0)
        except OSError:
            raised.set()
            raise

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        client.close()
        await asyncio.wait_for(raised.wait(), PATIENCE)
        await eventually(lambda: not server.service.active)


async def test_disconnect_in_the_middle_of_a_body() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        seen.append(await receive())

    async with serving(app) as server:
        client = await server.connect()
        await client.send(post(10) + b"abc")
        await eventually(lambda: seen)
        client.close()
        await eventually(lambda: len(seen) == 2)
    assert seen == [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}]


async def test_receive_after_the_response_is_a_disconnect() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waiting = asyncio.create_task(receive_twice(receive))
        await asyncio.sleep(0)
        await answer(send)
        seen.append(await waiting)
        seen.append(await receive())

    async def receive_twice(receive: Receive) -> Any:
        await receive()
        return await receive()

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await client.response()
        await eventually(lambda: len(seen) == 2)
    assert seen == [{"type": "http.disconnect"}] * 2


async def test_receive_and_send_can_be_tasks() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message: Any = await asyncio.create_task(receive())  # type: ignore[arg-type]
        assert message["type"] == "http.request"
        await asyncio.create_task(send({"type": "http.response.start", "status": 200, "headers": []}))  # type: ignore[arg-type]
        await asyncio.create_task(send({"type": "http.response.body", "body": b"ok"}))  # type: ignore[arg-type]

    async with serving(app) as server:
        assert body_of(await server.ask(LAST_GET)) == b"ok"


async def test_a_client_that_half_closes_is_answered() -> None:
    go = asyncio.Event()

    app = echo_after(go)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(get(b"/1") + get(b"/2"))
        client.writer.write_eof()
        await eventually(lambda: server.service.active)
        go.set()
        response = await client.rest()
    assert response.count(b"HTTP/1.1 200 OK") == 2
    assert response.endswith(b"GET /2 ")


async def test_a_half_close_right_after_an_answer_does_not_cost_it() -> None:
    """It waits for the end of the turn, after which the transport would drop it. Fails without `flush` at the EOF."""
    tap = Tap()
    written: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        if scope["path"] == "/2":
            assert not tap.protocol.eof_received()
            written.append(tap.written.count(b"HTTP/1.1 200 OK"))

    service = service_of(app)
    for _ in range(2):  # the second is served natively, if that is there
        tap = Tap().plug(service)
        tap.protocol.data_received(get(b"/1"))
        await eventually(lambda: not service.active)
        tap.protocol.data_received(get(b"/2"))
        for each in (service.context, service.plain):
            if each is not None:
                each.gather_until = inf
        await eventually(lambda: not service.active)
    assert written == [2, 2]


async def test_a_background_task_does_not_hold_up_the_next_request() -> None:
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, scope["raw_path"])
        if scope["path"] == "/slow":
            await release.wait()

    async with serving(app) as server:
        client = await server.connect()
        await client.send(get(b"/slow"))
        assert (await client.response())[1] == b"/slow"
        await client.send(get(b"/next"))
        assert (await client.response())[1] == b"/next"
        assert server.service.active == 1
        release.set()
        await eventually(lambda: not server.service.active)


# ── the service ──────────────────────────────────────────────────────────────────────────────


async def test_drain_announces_the_close_and_keeps_idle_connections() -> None:
    async with serving(echo) as server:
        idle = await server.connect()
        used = await server.connect()
        await used.send(GET)
        await used.response()
        await eventually(lambda: len(server.service.connections) == 2)
        server.service.drain()
        for client in (idle, used):
            await client.send(get(b"/late"))
            response = await client.rest()
            assert field(response, b"connection") == b"close"
            assert response.endswith(b"GET /late ")
            client.close()
        await eventually(lambda: not server.service.connections)


async def test_drain_answers_all_that_was_pipelined() -> None:
    go = asyncio.Event()

    app = echo_after(go)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(b"".join(get(b"/%d" % n) for n in range(30)))
        await eventually(lambda: server.service.active)
        server.service.drain()
        go.set()
        response = await client.rest()
    parts = response.split(b"HTTP/1.1 200 OK")[1:]
    assert [part.rsplit(b"/", 1)[1] for part in parts] == [b"%d " % n for n in range(30)]
    assert [b"connection: close" in part for part in parts] == [False] * 29 + [True]


async def test_close_idle_spares_the_busy() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send, b"done")

    async with serving(app) as server:
        idle, busy = await server.connect(), await server.connect()
        await busy.send(GET)
        await eventually(lambda: server.service.active and len(server.service.connections) == 2)
        server.service.close_idle()
        assert await idle.rest() == b""
        go.set()
        assert (await busy.response())[1] == b"done"


async def test_cancel() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.Event().wait()

    async with serving(app) as server:
        waiting, begun, idle = [await server.connect() for _ in range(3)]
        await waiting.send(get(b"/waiting?x"))
        await begun.send(get(b"/begun"))
        await begun.until(b"x")
        await eventually(lambda: server.service.active == 2 and len(server.service.connections) == 3)
        described = server.service.cancel("test")
        assert sorted(line.rsplit(",", 1)[0] for line in described) == ["GET /begun", "GET /waiting?x"]
        assert status(await waiting.rest()) == 503
        assert b"0\r\n\r\n" not in await begun.rest()
        assert await idle.rest() == b""
        await eventually(lambda: not server.service.active)


async def test_cancel_before_the_applications_first_step() -> None:
    """Fails if the task is cancelled at once: its request would count as running for ever."""
    service = Wiretap().service
    tap = Tap().plug(service)
    tap.protocol.data_received(GET)
    assert len(service.cancel("test")) == 1
    await eventually(lambda: not service.active)
    assert service.requests == 1
    assert tap.written.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 200 "))


async def test_abort() -> None:
    async with serving(echo) as server:
        client = await server.connect()
        await eventually(lambda: server.service.connections)
        server.service.abort()
        with contextlib.suppress(ConnectionResetError):
            assert await client.rest() == b""
        await eventually(lambda: not server.service.connections)


async def test_limit_concurrency() -> None:
    go = asyncio.Event()
    refused = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send)

    async with serving(app, limit_concurrency=1, on_limit=lambda: refused.append(1)) as server:
        first, second = await server.connect(), await server.connect()
        await first.send(GET)
        await eventually(lambda: server.service.active)
        await second.send(GET)
        head, _ = await second.response()
        assert status(head) == 503
        assert field(head, b"retry-after") == b"1"
        go.set()
        assert status((await first.response())[0]) == 200
        await eventually(lambda: not server.service.active)
        await second.send(GET)  # the same connection, now that there is room
        assert status((await second.response())[0]) == 200
    assert refused == [1]


# ── deadlines ────────────────────────────────────────────────────────────────────────────────


async def after(server: Any, seconds: float) -> None:
    """Let `seconds` pass for the service, and nobody else."""
    await asyncio.sleep(0)
    server.service.sweep(asyncio.get_running_loop().time() + seconds)


async def test_deadlines_without_a_request() -> None:
    async with serving(echo, header_timeout=10, keep_alive=65) as server:
        silent, used, partial = [await server.connect() for _ in range(3)]
        await used.send(GET)
        await used.response()
        await partial.send(b"GET / HTTP/1.1\r\nHo")
        await eventually(lambda: sum(c.deadline < float("inf") for c in server.connections) == 3)
        await eventually(lambda: any(c.awaited is Awaited.HEAD for c in server.connections))
        await after(server, 9.9)
        assert len(server.service.connections) == 3
        await after(server, 12)
        assert await silent.rest() == b""
        assert status(await partial.rest()) == 408
        await used.send(GET)
        await used.response()
        await after(server, 64)
        await after(server, 80)
        assert await used.rest() == b""


async def test_the_reason_of_a_deadline_comes_and_goes_with_it() -> None:
    """Fails without `await_nothing`: BODY would stay the reason after the body's end."""
    service = Wiretap().service
    connection = Tap().plug(service).protocol

    def awaited() -> tuple[str, bool]:
        return connection.awaited.name, connection.deadline < float("inf")

    assert awaited() == ("FIRST_REQUEST", True)
    connection.data_received(post(3) + b"ab")
    assert awaited() == ("BODY", True)
    connection.data_received(b"c")
    assert awaited() == ("NOTHING", False)
    assert service.owed == [Awaited.NOTHING]
    connection.pause_writing()
    assert service.owed == [Awaited.READING]
    connection.resume_writing()
    await eventually(lambda: not service.active)
    assert awaited() == ("NEXT_REQUEST", True)
    connection.data_received(b"GET / HT")
    assert awaited() == ("HEAD", True)
    connection.data_received(b"TP/1.2\r\n")
    assert awaited() == ("LINGER", True)
    connection.close()
    assert awaited() == ("NOTHING", False)
    assert service.owed == [Awaited.LAST_READING]


async def test_a_head_that_trickles_has_one_deadline() -> None:
    """From its first byte on, which the pieces after it do not put off; it is not `keep_alive`'s any more."""
    async with serving(echo, header_timeout=10, keep_alive=65) as server:
        client = await server.connect()
        await client.send(GET)
        await client.response()
        (connection,) = server.connections
        await eventually(lambda: connection.idle)
        await client.send(b"GET / HT")
        await eventually(lambda: not connection.idle)
        await after(server, 6)
        await client.send(b"TP/")
        await eventually(lambda: connection.handler.reader.head.begun.endswith(b"/"))
        await after(server, 12)
        assert status(await client.rest()) == 408


@pytest.mark.parametrize("begun", [b"abc", b""])
async def test_body_deadline(begun: bytes) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        seen.append(await receive())

    async with serving(app, body_timeout=60) as server:
        client = await server.connect()
        await client.send(post(10) + begun)
        await eventually(lambda: any(c.deadline < float("inf") and c.handler.current for c in server.connections))
        (connection,) = server.connections
        await eventually(lambda: connection.handler.current.waiters)
        await after(server, 59)
        assert len(seen) == bool(begun)
        await after(server, 62)
        assert status(await client.rest()) == 408
        await eventually(lambda: len(seen) == 2)
        assert seen[1]["type"] == "http.disconnect"


async def test_each_piece_of_a_body_has_its_own_time() -> None:
    """Also while the application is busy with the last one. Fails if only `receive()` sets the deadline."""
    go = asyncio.Event()
    took: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        took.append(await receive())
        await go.wait()
        await answer(send, await read_all(receive))

    async with serving(app, body_timeout=60) as server:
        client = await server.connect()
        await client.send(post(9))
        await eventually(lambda: server.service.active)
        (connection,) = server.connections
        await eventually(lambda: connection.deadline < float("inf"))  # of the `receive()` that waits
        await client.send(b"abc")
        await eventually(lambda: took)
        await after(server, 50)
        await client.send(b"def")
        await eventually(lambda: connection.handler.receiving.request_body.received == 6)
        await after(server, 100)
        go.set()
        await client.send(b"ghi")
        assert (await client.response())[1] == b"defghi"


async def test_a_body_that_nobody_takes_has_a_deadline_and_then_the_connection_has_one() -> None:
    logged: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 403)

    async with serving(app, body_timeout=60, keep_alive=65, access=logged.append) as server:
        never, late = await server.connect(), await server.connect()
        for client in (never, late):
            await client.send(post(10))
            assert status((await client.response())[0]) == 403
        await late.send(b"x" * 10)
        await eventually(lambda: [connection.handler.current for connection in server.connections].count(None) == 1)
        await after(server, 59)
        assert len(server.service.connections) == 2
        await after(server, 62)
        assert await never.rest() == b""  # no 408, which would be taken for the answer to another request
        assert len(logged) == 2
        never.close()
        await late.send(GET)  # still there
        assert status((await late.response())[0]) == 403
        await late.send(post(10))
        assert status((await late.response())[0]) == 403
        await late.send(b"x" * 10)
        await eventually(lambda: all(connection.idle for connection in server.connections))
        await after(server, 64 + 62)
        await after(server, 67 + 62)
        assert await late.rest() == b""


async def test_a_slow_application_has_no_deadline() -> None:
    go = asyncio.Event()

    app = echo_after(go)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await eventually(lambda: server.service.active)
        await after(server, 10000)
        go.set()
        assert status((await client.response())[0]) == 200


async def test_write_deadline() -> None:
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await answer(send, b"x" * (32 << 20))
        finally:
            done.set()

    async with serving(app, write_timeout=60) as server:
        client = await server.connect(limit=1 << 16)
        await client.send(GET)
        await eventually(lambda: any(c.handler.write_paused for c in server.connections))
        await asyncio.sleep(0.2)  # the kernel's buffers fill
        (connection,) = server.connections
        connection.unsent = connection.transport.get_write_buffer_size()
        await after(server, 59)
        assert server.service.connections
        await after(server, 62)
        await eventually(lambda: not server.service.connections)
        await asyncio.wait_for(done.wait(), PATIENCE)


class Stuck(Tap):
    """A transport whose client reads as little as it likes."""

    def __init__(self, unsent: int) -> None:
        super().__init__()
        self.unsent = unsent
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True


def stuck(unsent: int, app: ASGIApp | None = None) -> tuple[Any, Any, Stuck]:
    service = Wiretap(app, write_timeout=60).service
    transport = Stuck(unsent).plug(service)
    return service, transport.protocol, transport


async def test_write_deadline_of_a_closed_connection() -> None:
    """So little is unsent that writing was never paused. Fails without `_bound_flush` in `close`."""
    service, connection, transport = stuck(1000)
    connection.data_received(LAST_GET)
    await eventually(lambda: transport.closed)
    service.sweep(service.context.now + 59)
    assert not transport.aborted
    service.sweep(service.context.now + 2)
    assert transport.aborted


@pytest.mark.parametrize(("takes", "dead"), [(LEAST_PROGRESS - 1, True), (LEAST_PROGRESS, False)])
async def test_who_takes_too_little_in_write_timeout_is_dead(takes: int, dead: bool) -> None:
    """A byte now and then does not keep a connection. Fails if any progress is enough."""
    service, connection, transport = stuck(100_000)
    connection.pause_writing()
    for _ in range(3):
        transport.unsent -= takes
        service.sweep(service.context.now + 61)
        assert transport.aborted == dead
    service.sweep(service.context.now + 61)
    assert transport.aborted  # each time anew


async def test_debug_lines_say_why_a_connection_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Fails without the debug lines of Connection."""
    caplog.set_level(logging.DEBUG, "aserver.error")
    async with serving(echo, keep_alive=5) as server:
        client = await server.connect()
        await client.send(GET)
        await client.response()
        await after(server, 7)
        await client.rest()
        await eventually(lambda: not server.service.connections)
        client = await server.connect()
        await client.send(GET)
        await client.response()
        client.close()
        await eventually(lambda: not server.service.connections)
    lines = [text.partition(": ")[2] for text in caplog.messages]
    assert lines == [
        "connected",
        "the client has not sent another request in time",
        "this side ends it: closing or gone",
        "ended",
        "connected",
        "ended by the client (EOF)",
    ]


async def test_a_client_that_is_heard_out_does_not_stay() -> None:
    """Nor one that goes on sending. Fails without `LINGERING` in `expire`, and without LINGER_BYTES."""
    service, connection, transport = stuck(0)
    connection.data_received(b"nonsense\r\n")
    assert (transport.half_closed, transport.closed) == (True, False)
    service.sweep(service.context.now + LINGER_SECONDS + 2)
    assert transport.closed
    service, connection, transport = stuck(0)
    connection.data_received(b"nonsense\r\n")
    for _ in range(LINGER_BYTES // (1 << 20)):
        connection.data_received(bytes(1 << 20))
    assert not transport.closed
    connection.data_received(b"x")
    assert transport.closed


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_what_comes_after_the_end_is_ignored(end: str) -> None:
    """A loop may have read already. Fails without `_end`: the application would run for a client that is gone."""
    service, connection, transport = stuck(0)
    getattr(connection, end)()
    connection.data_received(GET)
    assert (service.active, transport.written) == (0, b"")


async def test_a_client_that_has_gone_before_the_half_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's own loop calls shutdown(2) in write_eof. Seen as an error in the application's task, once in CI."""
    _, connection, transport = stuck(0)
    monkeypatch.setattr(transport, "write_eof", Mock(side_effect=OSError(errno.ENOTCONN, "not connected")))
    connection.data_received(b"nonsense\r\n")
    assert transport.aborted


async def test_a_client_that_is_heard_out_is_read_though_reading_was_paused() -> None:
    """Else its close is never seen. Fails without `resume_reading` in `linger`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 403)

    _, connection, transport = stuck(0, app)
    connection.data_received(post(1 << 20))
    connection.data_received(bytes(1 << 17))
    assert not transport.reading
    await eventually(lambda: transport.half_closed)
    assert transport.reading


async def test_an_application_that_does_not_take_the_body_is_not_the_clients_fault() -> None:
    """Pieces that came with the one at which reading paused are timed too. Fails without `gate.reasons` in `expire`."""
    service, connection, transport = stuck(0)
    chunk = b"11000\r\n" + b"x" * 0x11000 + b"\r\n"
    connection.data_received(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.data_received(chunk * 2)
    assert not transport.reading
    service.sweep(service.context.now + 3600)
    assert (transport.written, transport.closed) == (b"", False)
    connection.connection_lost(None)
    await eventually(lambda: not service.active)


async def test_hints_and_trailers_wait_for_a_client_that_does_not_read_too() -> None:
    sent: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection.pause_writing()
        await send({"type": "http.response.early_hint", "links": [b"</a>"]})
        sent.append("hint")
        await answer(send)

    _, connection, transport = stuck(100_000, app)
    connection.data_received(GET)
    await eventually(lambda: b" 103 " in transport.written)
    await turns_of_the_loop(3)
    assert not sent
    connection.resume_writing()
    await eventually(lambda: b" 200 " in transport.written)


async def test_who_reads_again_has_no_write_deadline_any_more() -> None:
    """Fails without `write_deadline = inf` in `resume_writing`: the idle connection is cut off, two timeouts later."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x" * (8 << 20))

    async with serving(app, write_timeout=60, keep_alive=10000) as server:
        client = await server.connect(limit=1 << 16)
        await client.send(GET)
        await eventually(lambda: any(c.handler.write_paused for c in server.connections))
        await client.response()
        await eventually(lambda: all(connection.idle for connection in server.connections))
        for seconds in (62, 124, 186):
            await after(server, seconds)
        assert len(server.service.connections) == 1


# ── unix sockets ─────────────────────────────────────────────────────────────────────────────


async def test_unix(tmp_path: Any) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await answer(send)

    async with serving(app) as server:
        path = str(tmp_path / "s")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        listener = await asyncio.get_running_loop().create_unix_server(
            server.service.protocol_factory(scheme="https"), sock=sock
        )
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(LAST_GET)
        assert status(await asyncio.wait_for(reader.read(), PATIENCE)) == 200
        writer.close()
        listener.close()
    assert (scopes[0]["client"], scopes[0]["server"], scopes[0]["scheme"]) == (None, (path, None), "https")
