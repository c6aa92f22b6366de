"""Applications that work on for a client who has gone."""

import asyncio
import logging
import socket
import struct

import pytest

from aserver.asgi import Receive, Scope, Send
from tests.protocol.serving import GET, answer, eventually, serving


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_who_ignores_the_disconnect_is_cancelled_after_a_grace(
    reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(scope["path"])
            raise

    async with serving(app, graceful_timeout=30) as server:
        client = await server.connect()
        await client.send(GET)
        await eventually(lambda: server.service.active)
        if reset:  # what the kernel sends when the server writes to a client that has closed
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await eventually(lambda: server.service.abandoned)
        server.service.postpone(100)  # the loop stood still, so the application could not end either
        now = server.service.now + 100
        server.service.sweep(now + 29)
        await asyncio.sleep(0)
        assert not cancelled
        with caplog.at_level(logging.WARNING):
            server.service.sweep(now + 31)
        await eventually(lambda: not server.service.active)
    assert cancelled == ["/"]
    assert "its client has long gone: GET /" in caplog.text


async def test_who_has_answered_may_work_on() -> None:
    """Starlette runs background tasks there."""
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await answer(send)
        await done.wait()

    async with serving(app, graceful_timeout=1) as server:
        client = await server.connect()
        await client.send(GET)
        await client.response()
        client.close()
        await eventually(lambda: not server.service.connections)
        server.service.sweep(server.service.now + 100)
        await asyncio.sleep(0)
        assert server.service.active == 1
        done.set()
        await eventually(lambda: not server.service.active)


async def test_a_client_that_has_only_stopped_sending_gets_the_rest_of_its_answer() -> None:
    """It may be there, or the next piece will show that it is not. Fails without `pointless` in the sweep."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": b"b"})

    async with serving(app, graceful_timeout=1) as server:
        client = await server.connect()
        await client.send(GET)
        assert await client.until(b"a")
        client.writer.write_eof()
        await eventually(lambda: server.service.abandoned)
        server.service.sweep(server.service.now + 100)
        await asyncio.sleep(0)
        assert server.service.active == 1
        go.set()
        assert (await client.rest()).endswith(b"b")
