"""`request_timeout`: an application that does nothing for its request is given up, with the reason in the log."""

import asyncio
import logging
import threading
from typing import Any

import anyio.to_thread
import pytest

from aserver.asgi import Message, Receive, Scope, Send
from tests.harness.waiting import PATIENCE, eventually
from tests.protocol.serving import GET, Client, Serving, read_all, serving

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Message = {"type": "http.response.body", "body": b"a", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"b"}

POST = b"POST /up?load HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n"


class Clock:
    """Sweeps of a service, at times of the test's."""

    def __init__(self, server: Serving) -> None:
        self._server = server

    async def pass_(self, seconds: float) -> None:
        """A second of the server's time after the other."""
        for _ in range(round(seconds)):
            self._server.service.sweep(self._server.service.context.now + 1)
            await asyncio.sleep(0.001)


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.levelno >= logging.WARNING]


async def begun(server: Serving, number: int = 1) -> None:
    await eventually(lambda: server.service.active == number)


async def test_an_application_that_does_not_answer_is_cancelled_and_answered_504(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the request, its client, its id and the line that waits; the connection lives on.

    Fails without `_end_overdue`: the client waits for ever.
    """
    cancelled: list[str] = []

    async def wait_for_a_lock_that_nobody_gives_back() -> None:
        await asyncio.Event().wait()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/":
            await send(START)
            await send(END)
            return
        try:
            await wait_for_a_lock_that_nobody_gives_back()
        except asyncio.CancelledError as error:
            cancelled.append(str(error))
            raise

    async with serving(app, request_timeout=5, access_log_format="json", access=lambda record: None) as server:
        clock, client = Clock(server), await server.connect()
        await client.send(GET)
        await begun(server)
        await clock.pass_(4)
        assert not records(caplog)
        await clock.pass_(2)
        head, body = await client.response()
        assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 504 Gateway Timeout", b"Gateway Timeout\n")
        await client.send(GET.replace(b"/", b"/next", 1))
        head, _ = await client.response()
        assert head.startswith(b"HTTP/1.1 200 ")
        (record,) = records(caplog)
        port = client.writer.get_extra_info("sockname")[1]
    assert cancelled == ["request_timeout"]
    text = record.getMessage()
    assert text.startswith("GET /: its application has done nothing for 5.0 s (request_timeout); answered 504; ")
    assert f"client 127.0.0.1:{port}; it stands here:\n" in text
    assert "await wait_for_a_lock_that_nobody_gives_back()" in text
    assert record.__dict__["request_id"]


async def test_the_stack_goes_on_in_a_thread_of_anyios(caplog: pytest.LogCaptureFixture) -> None:
    """A plain function as FastAPI's endpoint. Fails without `_in_thread`: the last line is anyio's own."""
    entered, go_on = threading.Event(), threading.Event()

    def endpoint() -> None:
        entered.set()
        go_on.wait(PATIENCE)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.to_thread.run_sync(endpoint)

    async with serving(app, request_timeout=3) as server:
        clock, client = Clock(server), await server.connect()
        await client.send(GET)
        await begun(server)
        await asyncio.to_thread(entered.wait, PATIENCE)
        await clock.pass_(1)
        await clock.pass_(4)
        go_on.set()
        await client.response()
    (record,) = records(caplog)
    assert "in endpoint\n" in record.getMessage()


async def test_an_answer_that_has_begun_is_broken_off(caplog: pytest.LogCaptureFixture) -> None:
    """Its client must not take it for whole. Fails with 504 behind half a body, and with a good end."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PIECE)
        await asyncio.Event().wait()

    async with serving(app, request_timeout=3) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"1\r\na\r\n")
        await Clock(server).pass_(5)
        assert await client.rest() == b""
        (record,) = records(caplog)
    assert "the connection was broken off" in record.getMessage()


async def test_an_application_that_ignores_its_cancellation_costs_the_client_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told of once. Fails with the answer left to the application's end."""
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with serving(app, request_timeout=3) as server:
        client = await server.connect()
        await client.send(GET)
        await begun(server)
        await Clock(server).pass_(9)
        assert (await client.response())[0].startswith(b"HTTP/1.1 504 ")
        assert len(records(caplog)) == 1
        release.set()


async def use_slow_client_upload(server: Serving, client: Client, clock: Clock, gate: asyncio.Event) -> None:
    await client.send(POST + b"u")
    await begun(server)
    await clock.pass_(8)
    await client.send(b"pup")


async def use_pauses_between_pieces(server: Serving, client: Client, clock: Clock, gate: asyncio.Event) -> None:
    await client.send(GET)
    await begun(server)
    for _ in range(4):
        await clock.pass_(2)
        gate.set()
        await eventually(lambda: not gate.is_set())


async def use_background_work(server: Serving, client: Client, clock: Clock, gate: asyncio.Event) -> None:
    await client.send(GET.replace(b"/", b"/background", 1))
    await client.until(b"b")
    await clock.pass_(8)


@pytest.mark.parametrize("use", [use_slow_client_upload, use_pauses_between_pieces, use_background_work])
async def test_nothing_is_overdue_while_the_application_owes_nothing(
    use: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An upload that is slow, a stream with pauses, work after the answer. Fails with a limit for the whole request."""
    gate = asyncio.Event()
    done: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            done.append(await read_all(receive))
        await send(START)
        if scope["path"] == "/background":
            await send(END)
            await gate.wait()
        elif scope["method"] == "GET":
            for _ in range(4):
                await gate.wait()
                gate.clear()
                await send(PIECE)
        if scope["path"] != "/background":
            await send(END)
        done.append(b"end")

    async with serving(app, request_timeout=3) as server:
        client = await server.connect()
        await use(server, client, Clock(server), gate)
        gate.set()
        await eventually(lambda: done and done[-1] == b"end")
        assert not records(caplog)


async def test_a_client_that_does_not_read_is_not_the_applications_fault(caplog: pytest.LogCaptureFixture) -> None:
    """`write_timeout` is for it. Fails without the look at write_paused."""
    over = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        for _ in range(64):
            await send({**PIECE, "body": b"x" * (1 << 20)})
        await send(END)
        over.set()

    async with serving(app, request_timeout=3, write_timeout=600) as server:
        client = await server.connect(limit=1 << 16)
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        await eventually(lambda: any(each.handler.write_paused for each in server.connections))
        await Clock(server).pass_(8)
        assert not records(caplog)
        while not over.is_set():
            assert await asyncio.wait_for(client.reader.read(1 << 20), PATIENCE)


async def test_websockets_and_the_default_have_no_limit(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    upgrade = (
        b"GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with serving(app, request_timeout=3, ws_ping_interval=0) as server:
        await (client := await server.connect()).send(upgrade)
        await client.until(b"\r\n\r\n")
        await Clock(server).pass_(8)
        assert server.service.active == 1
    async with serving(app) as server:
        await (await server.connect()).send(GET)
        await begun(server)
        await Clock(server).pass_(100)
        assert server.service.active == 1
    assert not records(caplog)
