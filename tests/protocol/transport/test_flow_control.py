"""Both directions full at once, in any order of sending and reading: nothing stalls, and nothing piles up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from random import Random
from typing import Any

import pytest

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.protocol.application.body import HIGH_WATER
from aserver.protocol.http1.pipeline import PIPELINE_LIMIT
from aserver.protocol.transport.writer import HOLD_BYTES
from aserver.protocol.websocket import connection as ws_socket
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.narrows import HIGH, PIECES, TURNS, Narrows
from tests.protocol.serving import GET, answer, field, read_all, service_of, status
from tests.protocol.websocket.peers import BINARY, CLOSE, PING, Application, frame, frames_of, request

#: Different orders of events.
SEEDS = range(8)


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough where the transport is ours."""
    return "asyncio"


@asynccontextmanager
async def narrows(app: ASGIApp, seed: int, **settings: Any) -> AsyncIterator[Narrows]:
    service = service_of(app, **settings)
    transport = Narrows(service, Random(seed))
    try:
        yield transport
    finally:
        transport.lose()
        service.cancel("the test is over")
        await turns_of_the_loop(20)
        assert not service.active


# ── WebSocket ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ws_max_queue", [1, 2, 32])
async def test_echoed_messages(ws_max_queue: int, seed: int) -> None:
    rng = Random(seed)
    messages = [
        bytes([number]) * rng.choice((0, 10, 125, 5000, 70_000, ws_socket.QUEUE_BYTES, ws_socket.QUEUE_BYTES + 1))
        for number in range(60)
    ]
    sent = b"".join(
        frame(BINARY, message) + (frame(PING, b"%d" % number) if rng.random() < 0.3 else b"")
        for number, message in enumerate(messages)
    )

    async def careful_echo(app: Application) -> None:
        socket = transport.protocol.handler
        while not isinstance(got := await app.receive(), tuple):
            assert transport.reading is not socket.reader.paused
            assert len(socket.messages) <= ws_max_queue
            assert socket.queued <= 2 * ws_socket.QUEUE_BYTES + 1  # one message may go beyond
            await app.say(got)

    app = Application(careful_echo)
    async with narrows(app, seed, ws_max_queue=ws_max_queue) as transport:
        head, _, early = (await transport.carry(request())).partition(b"\r\n\r\n")
        assert status(head) == 101
        assert not early
        got = await transport.carry(sent)
        assert [payload for first, payload in frames_of(got) if first == 0x80 | BINARY] == messages
        assert frames_of(await transport.carry(frame(CLOSE))) == [(0x80 | CLOSE, b"")]
        assert transport.ended
        assert transport.most <= HIGH + HOLD_BYTES + ws_socket.QUEUE_BYTES + 100
    assert app.got == [*messages, (1005, "")]


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────


async def mixed(scope: Scope, receive: Receive, send: Send) -> None:
    """`/whole` answers with the body, `/stream` piece by piece, `/first` before it reads, `/no` without reading."""
    kind = scope["path"]
    assert len(send.__self__.connection.reader.unread) <= max(PIECES)  # type: ignore[attr-defined]
    if kind == "/whole":
        await answer(send, await read_all(receive))
        return
    if kind == "/no":
        await answer(send, b"unread")
        return
    length = next(value for name, value in scope["headers"] if name == b"x-length")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    if kind == "/first":
        await send({"type": "http.response.body", "body": bytes(int(length)), "more_body": True})
        await read_all(receive)
    else:
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def posted(size: int, path: bytes = b"/") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % (path, size) + bytes(size)


def chunk(size: int) -> bytes:
    return b"%x\r\n%s\r\n" % (size, bytes(size))


def chunked(size: int) -> bytes:
    """A request with the first chunk of its body."""
    return b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(size)


def asked(rng: Random) -> tuple[bytes, bytes]:
    """A request to `mixed`, and the body that is expected."""
    kind = rng.choice((b"/whole", b"/stream", b"/first", b"/no", b"/get"))
    if kind == b"/get":
        return GET.replace(b" / ", b" /no "), b"unread"
    size = rng.choice((1, 1000, HIGH_WATER - 1, HIGH_WATER + 1, 100_000, 300_000))
    body = rng.randbytes(1) * size
    lines = b"POST %s HTTP/1.1\r\nHost: t\r\nX-Length: %d\r\n" % (kind, size)
    if rng.random() < 0.5:
        data = lines + b"Content-Length: %d\r\n\r\n" % size + body
    else:
        cut = rng.randrange(size)
        chunks = [chunk for chunk in (body[:cut], body[cut:]) if chunk]
        data = lines + b"Transfer-Encoding: chunked\r\n\r\n"
        data += b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return data, {b"/first": bytes(size), b"/no": b"unread"}.get(kind, body)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pipelined", [False, True])
async def test_requests_with_bodies(pipelined: bool, seed: int) -> None:
    rng = Random(seed)
    requests = [asked(rng) for _ in range(40)]
    if pipelined:
        plain = (GET.replace(b" / ", b" /no "), b"unread")
        requests[rng.randrange(40) : 0] = [plain] * 5 * PIPELINE_LIMIT
    async with narrows(mixed, seed) as transport:
        if pipelined:
            got = await transport.carry(b"".join(data for data, _ in requests))
        else:
            got = b""
            for data, _ in requests:
                if not transport.closing:
                    got += await transport.carry(data)
        for _, expected in requests:
            head, _, got = got.partition(b"\r\n\r\n")
            assert status(head) == 200
            length = int(field(head, b"content-length") or 0)
            assert got[:length] == expected
            got = got[length:]
            if field(head, b"connection") == b"close":  # more of a body nobody wants than is worth reading
                assert transport.ended
                break
        assert not got
        assert transport.most <= HIGH + 300_000 + 1000


async def test_a_body_that_nobody_reads_does_not_stop_the_connection() -> None:
    """It came whole, in one piece that is more than may wait."""
    async with narrows(mixed, 0) as transport:
        transport.protocol.data_received(posted(HIGH_WATER + 1, b"/no"))
        assert not transport.reading
        assert status(await transport.carry(b"")) == 200
        assert status(await transport.carry(GET.replace(b" / ", b" /no "))) == 200


async def test_a_body_taken_does_not_open_a_full_pipeline() -> None:
    """Two reasons not to read: the first one's end is not the second one's."""
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        taken.set()
        await go_on.wait()
        await answer(send)

    async with narrows(app, 0) as transport:
        transport.protocol.data_received(posted(HIGH_WATER + 1) + GET * PIPELINE_LIMIT)
        await taken.wait()
        assert not transport.reading
        go_on.set()
        assert (await transport.carry(GET)).count(b"HTTP/1.1 200 OK") == PIPELINE_LIMIT + 2


async def test_a_pipeline_with_room_does_not_open_a_full_body() -> None:
    served = 0
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal served
        served += 1
        if served > 1:
            await go_on.wait()
        await answer(send, await read_all(receive))

    async with narrows(app, 0) as transport:
        transport.protocol.data_received(GET * PIPELINE_LIMIT + posted(140_000)[:-50_000])
        await turns_of_the_loop(TURNS)
        assert served == 2
        assert not transport.reading
        go_on.set()
        assert (await transport.carry(bytes(50_000))).count(b"HTTP/1.1 200 OK") == PIPELINE_LIMIT + 1


@pytest.mark.parametrize(
    ("first", "rest", "expected"),
    [
        pytest.param(posted(70_000) + GET[:10], GET[10:], 2, id="head"),
        pytest.param(chunked(70_000) + chunk(1), chunk(0), 1, id="body"),
    ],
)
async def test_what_we_do_not_read_is_not_late(first: bytes, rest: bytes, expected: int) -> None:
    """A slow application keeps us from reading what is left of a request: no reason to refuse that with 408."""
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await answer(send, await read_all(receive))

    async with narrows(app, 0, header_timeout=5, body_timeout=5) as transport:
        transport.protocol.data_received(first)
        assert not transport.reading
        service = transport.service
        service.sweep(service.context.now + 60)
        go_on.set()
        assert (await transport.carry(rest)).count(b"HTTP/1.1 200 OK") == expected


async def test_a_body_whose_turn_has_not_come_is_not_late() -> None:
    taken, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_all(receive)
        taken.set()
        await go_on.wait()
        await answer(send, body)

    async with narrows(app, 0, body_timeout=5) as transport:
        transport.protocol.data_received(posted(70_000) + posted(60_000)[:-1000])
        await taken.wait()
        service = transport.service
        service.sweep(service.context.now + 60)
        go_on.set()
        assert (await transport.carry(bytes(1000))).count(b"HTTP/1.1 200 OK") == 2


async def test_a_websocket_takes_over_a_connection_that_is_full() -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        if scope["type"] == "http":
            await answer(send, bytes(100_000))
            return
        await send({"type": "websocket.accept"})
        for sent in range(10):  # noqa: B007
            await send({"type": "websocket.send", "bytes": bytes(1000)})

    async with narrows(app, 0) as transport:
        for data in (GET, request()):
            transport.protocol.data_received(data)
            await turns_of_the_loop(TURNS)
        assert sent == 0
        assert transport.protocol.write_deadline < inf
        _, _, rest = (await transport.carry(b"")).partition(b"\r\n\r\n")
        _, _, got = rest[100_000:].partition(b"\r\n\r\n")
        assert frames_of(got)[:10] == [(0x80 | BINARY, bytes(1000))] * 10
