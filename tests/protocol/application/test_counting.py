"""What a worker counts, by real requests: each once, whatever became of it."""

import time
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.metrics.families import of_words
from aserver.metrics.page import PAGE_SIZE, WORDS
from aserver.metrics.totals import Totals
from tests.harness.waiting import eventually
from tests.protocol.serving import LAST_GET, Serving, answer, read_all, serving
from tests.protocol.websocket.peers import CLOSE, TEXT, frame
from tests.protocol.websocket.peers import request as websocket_request


def counted(server: Serving) -> dict[str, Any]:
    """Numbers that are not 0, by family; requests by the class of their status."""
    page = bytearray(PAGE_SIZE)
    server.service.meter.flush(memoryview(page)[: 8 * WORDS].cast("Q"), 0)
    totals = Totals()
    totals.look(1, bytes(page))
    found: dict[str, Any] = {}
    for family in of_words(totals.sums()):
        for sample in family.samples:
            if value := sample.value or sample.count:
                found[sample.labels.get("status", family.name)] = value
    return found


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/fails":
        raise ValueError
    await read_all(receive)
    await answer(send, body=b"0123456789")


@pytest.mark.filterwarnings("ignore")
async def test_each_request_is_counted_once_by_its_class() -> None:
    """Served, refused, failed, and left alone by its client. Fails where one of them goes another way."""
    async with serving(_app, metered=True) as server:
        await server.ask(b"POST / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        await server.ask(LAST_GET.replace(b" / ", b" /fails "))
        await server.ask(b"nonsense\r\n\r\n")
        client = await server.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhe")
        await eventually(lambda: server.service.active == 1)
        client.close()
        await eventually(lambda: counted(server).get("other"))
        found = counted(server)
        sent = found.pop("aserver.sent")
    assert found == {
        "2xx": 1,
        "4xx": 1,
        "5xx": 1,
        "other": 1,
        "aserver.connections.accepted": 4,
        "aserver.received": 7,
    }
    assert sent > 10  # with the texts of 400 and 500


async def test_a_websocket_is_a_request_and_counts_again_when_it_ends() -> None:
    """Fails if its close code is taken for a status, or its messages are not counted."""

    async def echo(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    async with serving(echo, metered=True) as server:
        client = await server.connect()
        await client.send(websocket_request())
        await client.until(b"\r\n\r\n")
        await client.send(frame(TEXT, b"hello"))
        await client.until(b"hello")
        await client.send(frame(CLOSE, b"\x03\xe8"))
        await client.rest()
        client.close()
        await eventually(lambda: counted(server).get("aserver.websockets.ended"))
        found = counted(server)
    assert (found["1xx"], found["aserver.websockets.ended"], found["aserver.sent"]) == (1, 1, 5)
    assert found["aserver.received"] >= 5
    assert "other" not in found


async def test_nothing_is_counted_unless_asked() -> None:
    """Fails with a list that grows for ever, because nothing empties it."""
    async with serving(_app) as server:
        await server.ask(LAST_GET.replace(b"\r\n\r\n", f"\r\nX-Request-Start: {_now()}\r\n\r\n".encode()))
        assert server.service.meter.queues == []
        assert counted(server) == {"aserver.connections.accepted": 1}


async def test_a_connection_that_may_speak_http2_is_counted_too() -> None:
    """Fails where only connections that begin with HTTP/1 are counted: those over TLS were not."""
    async with serving(_app, h2c=True, http2=True, metered=True) as server:
        await server.ask(LAST_GET)
        assert counted(server)["aserver.connections.accepted"] == 1


@pytest.mark.parametrize(("trusted", "count"), [("127.0.0.1", 1), ("10.0.0.1", 0)])
async def test_queue_time_is_a_trusted_peers_word(trusted: str, count: int) -> None:
    """Fails if a stranger's field is believed, or if the field leads past the fields of the same proxy."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])
        await _app(scope, receive, send)

    fields = b"X-Request-Start: t=1512379167.574\r\nX-Forwarded-For: 192.0.2.7\r\n"
    async with serving(app, metered=True, forwarded_allow_ips=[trusted]) as server:
        await server.ask(LAST_GET.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n"))
        assert counted(server).get("aserver.request.queue", 0) == 0  # it is of 2017
        now = f"{_now():.3f}".encode()
        await server.ask(LAST_GET.replace(b"\r\n\r\n", b"\r\n" + fields.replace(b"1512379167.574", now) + b"\r\n"))
        assert counted(server).get("aserver.request.queue", 0) == count
    assert seen == ["192.0.2.7" if count else "127.0.0.1"] * 2


def _now() -> float:
    return time.clock_gettime(time.CLOCK_REALTIME)
