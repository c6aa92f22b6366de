"""A WebSocket on a real socket, client in raw bytes: handshake, messages, flow control, pings, ends, the log."""

import asyncio
import logging
import os
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.errors import ApplicationError
from aserver.protocol.semantics.response_head import Defaults
from aserver.protocol.transport import writer
from aserver.protocol.websocket import connection
from aserver.protocol.websocket.departure import Departure
from aserver.protocol.websocket.frames import close_frame
from tests.harness.waiting import eventually, turns_of_the_loop
from tests.protocol.serving import SCOPE_CHANGES, Client, Serving, field, serving, status
from tests.protocol.websocket.peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Application,
    echo,
    frame,
    listen,
    request,
)
from tests.protocol.wiretap import Writes


@asynccontextmanager
async def opened(app: Application, *fields: bytes, **settings: Any) -> AsyncIterator[tuple[Client, Serving]]:
    """A client after the handshake."""
    async with serving(app, **settings) as server:
        client = await server.connect()
        await client.send(request(*fields))
        assert status(await client.until(b"\r\n\r\n")) == 101
        yield client, server


async def next_frame(client: Client) -> tuple[int, bytes]:
    """First byte and payload of the server's next frame."""
    first, length = await client.exactly(2)
    assert length < 128, "the server must not mask"
    if length == 126:
        length = int.from_bytes(await client.exactly(2), "big")
    elif length == 127:
        length = int.from_bytes(await client.exactly(8), "big")
    return first, await client.exactly(length)


async def close_of(client: Client) -> tuple[int, str]:
    """Code and reason of the server's close frame, which must be next."""
    first, payload = await next_frame(client)
    assert first == 0x80 | CLOSE, (first, payload)
    return int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()


def stop_reading(client: Client, socket: connection.Socket) -> None:
    """Let the client read no more, with buffers that a kernel does not make larger by itself."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 65536)
    socket.writer.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 65536)


async def stuck(socket: connection.Socket) -> None:
    """Wait until the client's buffers are full too, so that nothing has moved for a while."""
    before, quiet = -1, 0
    while quiet < 20:
        await asyncio.sleep(0.005)
        unsent = socket.writer.transport.get_write_buffer_size()
        quiet = quiet + 1 if socket.write_paused and unsent == before else 0
        before = unsent


async def test_scope() -> None:
    app = Application(listen)
    async with opened(app, b"Sec-WebSocket-Protocol: chat, , v2", b"Origin: http://o", state={"a": 1}) as (_, server):
        scope = dict(app.scope)
    draining = scope["extensions"].pop("aserver.draining")
    assert not draining.is_set()
    assert scope.pop("client")[0] == "127.0.0.1"
    assert scope.pop("server") == ("127.0.0.1", server.port)
    assert scope.pop("asgi")["version"] == "3.0"
    assert (b"origin", b"http://o") in scope.pop("headers")
    assert scope == {
        "type": "websocket",
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/ws",
        "raw_path": b"/ws",
        "query_string": b"q=1",
        "root_path": "",
        "subprotocols": ["chat", "v2"],
        "state": {"a": 1},
        "extensions": {"websocket.http.response": {}},
    }


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: [[b"x-a", b"1"], [b"date", b"never"]], id="lists"),
        pytest.param(lambda: (pair for pair in ((b"x-a", b"1"), [b"date", b"never"])), id="generator"),
        pytest.param({b"x-a": b"1", b"date": b"never"}.items, id="items of a dict"),
    ],
)
async def test_headers_of_an_accept_are_any_iterables(make: Callable[[], Any]) -> None:
    """With both builds. Fails, compiled, with loops over `tuple[bytes, bytes]`."""

    async def accept(app: Application) -> None:
        await app.send({"type": "websocket.accept", "headers": make()})
        await app.send({"type": "websocket.close", "code": None, "reason": None})

    async with serving(Application(accept, accept=False)) as server:
        client = await server.connect()
        await client.send(request())
        answer = await client.until(b"\r\n\r\n")
        assert await close_of(client) == (1000, "")
    assert (status(answer), field(answer, b"x-a"), field(answer, b"date")) == (101, b"1", b"never")


@pytest.mark.parametrize("headers", [[(b"x", "text")], [b"xy"], [(b"x",)], 5, [(b"a b", b"c")]])
async def test_an_accept_that_fails_is_answered_500(headers: Any) -> None:
    """With a whole HTTP answer. Fails if what is no pair of bytes is taken, or found after the 101."""

    async def accept(app: Application) -> None:
        await app.send({"type": "websocket.accept", "headers": headers})

    async with serving(Application(accept, accept=False)) as server:
        client = await server.connect()
        await client.send(request())
        assert status(await client.rest()) == 500


@pytest.mark.skipif("TEST_COMPILED" in os.environ, reason="replaces a method, which compiled callers do not see")
async def test_a_socket_is_open_only_when_all_that_may_fail_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails, with a close frame and no 101 before it, if it counts as open earlier."""

    def fail(*_: object) -> bytes:
        raise TypeError("as in the compiled build")

    monkeypatch.setattr(Defaults, "beside", fail)

    async def accept(app: Application) -> None:
        await app.send({"type": "websocket.accept"})

    async with serving(Application(accept, accept=False)) as server:
        client = await server.connect()
        await client.send(request())
        assert status(await client.rest()) == 500


async def test_denial_with_headers_in_lists_and_no_body() -> None:
    """As an ordinary answer; nothing of a body where none may be."""

    async def deny(app: Application) -> None:
        start = {"type": "websocket.http.response.start", "status": 204, "headers": [[b"x-why", b"teapot"]]}
        await app.send(start)
        await app.send({"type": "websocket.http.response.body", "body": b"no", "more_body": None})

    async with serving(Application(deny, accept=False)) as server:
        client = await server.connect()
        await client.send(request())
        answer = await client.rest()
    assert (status(answer), field(answer, b"x-why")) == (204, b"teapot")
    assert answer.endswith(b"\r\n\r\n")


async def test_accept_with_subprotocol_and_headers() -> None:
    async def accept(app: Application) -> None:
        with pytest.raises(ApplicationError, match="was not offered"):
            await app.send({"type": "websocket.accept", "subprotocol": "other"})
        for name in (b"Sec-WebSocket-Protocol", b"sec-websocket-accept", b"sec-websocket-extensions"):
            with pytest.raises(ApplicationError, match="is the server's"):
                await app.send({"type": "websocket.accept", "headers": [(name, b"x")]})
        with pytest.raises(ApplicationError, match="CR or LF"):
            await app.send({"type": "websocket.accept", "headers": [(b"x", b"a\r\nb: c")]})
        with pytest.raises(ApplicationError, match=r"expected websocket\.accept"):
            await app.say("too early")
        headers = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"connection", b"close"), (b"date", b"never")]
        await app.send({"type": "websocket.accept", "subprotocol": "v2", "headers": headers})
        with pytest.raises(ApplicationError, match="unexpected"):
            await app.send({"type": "websocket.accept"})

    app = Application(accept, accept=False)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(request(b"Sec-WebSocket-Protocol: v1", b"Sec-WebSocket-Protocol: v2"))
        answer = await client.until(b"\r\n\r\n")
        assert await close_of(client) == (1000, "")
    assert status(answer) == 101
    assert field(answer, b"sec-websocket-protocol") == b"v2"
    assert answer.lower().count(b"set-cookie: ") == 2
    assert field(answer, b"connection") == b"Upgrade"
    assert field(answer, b"date") == b"never"
    assert app.returned


async def test_frames_sent_before_the_accept_are_kept() -> None:
    app = Application(echo)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(request() + frame(TEXT, b"early") + frame(TEXT, b"bird")[:3])
        await client.send(frame(TEXT, b"bird")[3:])
        await client.until(b"\r\n\r\n")
        assert await next_frame(client) == (0x81, b"early")
        assert await next_frame(client) == (0x81, b"bird")


async def test_a_flood_before_the_accept_pauses_reading() -> None:
    async def wait(app: Application) -> None:
        await app.go_on.wait()
        await app.send({"type": "websocket.accept"})
        await app.until_disconnected()

    app = Application(wait, accept=False)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(request())
        whole = frame(BINARY, bytes(65536))
        client.writer.write(whole * 200)
        await eventually(lambda: app.scope)
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        await eventually(lambda: len(socket.early) > 65536)
        await turns_of_the_loop(20)
        assert len(socket.early) < 2_000_000
        app.go_on.set()
        await client.writer.drain()
        await client.send(frame(CLOSE))
        await eventually(lambda: app.returned)
    assert app.got == [bytes(65536)] * 200 + [(1005, "")]


# ── denial ───────────────────────────────────────────────────────────────────────────────────


async def test_close_before_accept_is_403() -> None:
    async def close(app: Application) -> None:
        await app.send({"type": "websocket.close"})
        await app.until_disconnected()

    app = Application(close, accept=False)
    records: list[tuple[str, int, int]] = []
    async with serving(app, access=lambda r: records.append((r.method, r.status, r.sent))) as server:
        answer = await server.ask(request())
        await eventually(lambda: app.returned)
    assert status(answer) == 403
    assert app.got == [(1006, "")]
    assert records == [("GET", 403, len(b"Forbidden\n"))]


async def test_denial_response() -> None:
    async def deny(app: Application) -> None:
        with pytest.raises(ApplicationError):
            await app.send({"type": "websocket.http.response.body", "body": b"x"})
        headers = [(b"x-why", b"teapot")]
        await app.send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
        with pytest.raises(ApplicationError):
            await app.send({"type": "websocket.accept"})
        await app.send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
        await app.send({"type": "websocket.http.response.body", "body": b"tea"})
        with pytest.raises(ApplicationError):
            await app.send({"type": "websocket.http.response.body", "body": b"more"})

    app = Application(deny, accept=False)
    records: list[tuple[str, int, int]] = []
    async with serving(app, access=lambda r: records.append((r.method, r.status, r.sent))) as server:
        answer = await server.ask(request())
    assert status(answer) == 418
    assert field(answer, b"x-why") == b"teapot"
    assert field(answer, b"connection") == b"close"
    assert b"3\r\nno \r\n" in answer
    assert answer.endswith(b"3\r\ntea\r\n0\r\n\r\n")
    assert records == [("GET", 418, 6)]
    assert app.returned


@pytest.mark.parametrize(("begun", "expected"), [(0, 500), (1, 500), (2, 418)])
async def test_an_application_that_fails_before_the_accept(
    begun: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(app: Application) -> None:
        if begun > 0:
            await app.send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        if begun > 1:
            await app.send({"type": "websocket.http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("its own mistake")

    async with serving(Application(fail, accept=False)) as server:
        client = await server.connect()
        await client.send(request())
        if begun > 1:
            assert status(await client.until(b"half\r\n")) == expected
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await client.until(b"0\r\n\r\n")  # a broken response must not look whole
        else:
            assert status(await client.rest()) == expected
    assert "the application raised RuntimeError" in caplog.text


async def test_an_application_that_returns_before_the_accept(caplog: pytest.LogCaptureFixture) -> None:
    async def leave(app: Application) -> None:
        pass

    async with serving(Application(leave, accept=False)) as server:
        assert status(await server.ask(request())) == 500
    assert "returned without an answer (expected websocket.accept" in caplog.text


async def test_limit_concurrency_counts_sockets() -> None:
    limited: list[bool] = []
    async with serving(Application(listen), limit_concurrency=1, on_limit=lambda: limited.append(True)) as server:
        client = await server.connect()
        await client.send(request())
        await client.until(b"\r\n\r\n")
        assert status(await server.ask(request())) == 503
    assert limited == [True]


# ── messages ─────────────────────────────────────────────────────────────────────────────────


async def test_messages_of_every_size_come_back() -> None:
    async with opened(Application(echo)) as (client, _):
        for size in (0, 1, 125, 126, 8191, 8192, 65535, 65536, 300_000):
            await client.send(frame(BINARY, b"b" * size))
            assert await next_frame(client) == (0x82, b"b" * size)
            await client.send(frame(TEXT, b"t" * size))
            assert await next_frame(client) == (0x81, b"t" * size)


def count_writes(app: Application) -> Writes:
    socket = app.send.__self__.socket  # type: ignore[attr-defined]
    socket.writer.transport = Writes(socket.writer.transport)
    counting: Writes = socket.writer.transport
    return counting


async def test_messages_sent_in_a_row_are_few_writes_and_wait_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "HOLD_SECONDS", 60)  # however busy the machine is

    async def chatter(app: Application) -> None:
        writes = count_writes(app)
        for number in range(100):
            await app.say(b"%04d" % number)
        await app.receive()
        counts.append(len(writes.sizes))
        await app.receive()

    counts: list[int] = []
    async with opened(Application(chatter)) as (client, _):
        for number in range(100):
            assert await next_frame(client) == (0x80 | BINARY, b"%04d" % number)
        await client.send(frame(TEXT))
        await eventually(lambda: counts)
    assert counts == [3]


async def test_answers_to_messages_of_one_packet_are_few_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "HOLD_SECONDS", 60)  # however busy the machine is

    async def count(app: Application) -> None:
        writes = count_writes(app)
        for _ in range(30):
            await app.say(await app.receive())
            counts.append(len(writes.sizes))
            collecting.append(app.send.__self__.socket.writer.held is not None)  # type: ignore[attr-defined]

    counts: list[int] = []
    collecting: list[bool] = []
    async with opened(Application(count)) as (client, _):
        await client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(20)))
        for number in range(20):
            assert await next_frame(client) == (0x80 | TEXT, b"%d" % number)
        for number in range(20, 30):
            await client.send(frame(TEXT, b"%d" % number))
            assert await next_frame(client) == (0x80 | TEXT, b"%d" % number)
        assert await close_of(client) == (1000, "")
    assert counts == [0] * 20 + [*range(2, 12)]
    assert collecting == [True] * 20 + [False] * 10


async def test_an_answer_does_not_wait_for_that_to_the_next_message() -> None:
    async def slow(app: Application) -> None:
        for _ in range(3):
            await app.say(await app.receive())
            await app.go_on.wait()
            app.go_on.clear()

    app = Application(slow)
    async with opened(app) as (client, _):
        await client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(3)))
        for number in range(3):
            assert await next_frame(client) == (0x80 | TEXT, b"%d" % number)
            app.go_on.set()


async def test_a_second_task_that_sends_does_not_overtake_the_first() -> None:
    async def two(app: Application) -> None:
        second = asyncio.create_task(app.say(b"3"))
        for number in range(3):
            await app.say(b"%d" % number)
        await app.receive()  # the second task runs before the turn is over
        await second

    async with opened(Application(two)) as (client, _):
        assert [(await next_frame(client))[1] for _ in range(4)] == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("size", [10, 1000, 8192, 100_000])
@pytest.mark.parametrize("deflated", [False, True])
async def test_what_follows_small_messages_does_not_overtake_them(size: int, deflated: bool) -> None:
    async def mix(app: Application) -> None:
        for number in range(5):
            await app.say(b"%d" % number)
        await app.say(bytes(size))
        await app.say(b"last")
        await app.send({"type": "websocket.close", "code": 4000})

    fields = [b"Sec-WebSocket-Extensions: permessage-deflate"] * deflated
    async with opened(Application(mix), *fields) as (client, _):
        for number in range(5):
            assert await next_frame(client) == (0x80 | BINARY, b"%d" % number)
        first, payload = await next_frame(client)
        if first & 0x40:
            payload = zlib.decompress(payload + b"\0\0\xff\xff\1\0\0\xff\xff", wbits=-15)
        assert payload == bytes(size)
        assert await next_frame(client) == (0x80 | BINARY, b"last")
        assert await close_of(client) == (4000, "")


async def test_compression_is_agreed_on_and_used() -> None:
    import zlib

    inflate, deflate = zlib.decompressobj(wbits=-12), zlib.compressobj(wbits=-12)
    async with serving(Application(echo)) as server:
        client = await server.connect()
        await client.send(request(b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        agreed = field(await client.until(b"\r\n\r\n"), b"sec-websocket-extensions")
        assert agreed == b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
        for _ in range(3):
            text = b"over and over again, " * 50
            payload = (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
            await client.send(frame(TEXT, payload, rsv=4))
            first, answer = await next_frame(client)
            assert first == 0xC1
            assert len(answer) < 100
            assert inflate.decompress(answer + b"\x00\x00\xff\xff") == text
        await client.send(frame(TEXT, b"short"))
        assert await next_frame(client) == (0x81, b"short")


async def test_compression_can_be_off() -> None:
    async with serving(Application(echo), ws_per_message_deflate=False) as server:
        client = await server.connect()
        await client.send(request(b"Sec-WebSocket-Extensions: permessage-deflate"))
        assert field(await client.until(b"\r\n\r\n"), b"sec-websocket-extensions") is None


async def test_bad_messages_to_send() -> None:
    async def bad(app: Application) -> None:
        for message in ({}, {"text": b"x"}, {"bytes": "x"}, {"text": "\ud800"}, {"bytes": None, "text": None}):
            with pytest.raises(ApplicationError, match=r"websocket\.send"):
                await app.send({"type": "websocket.send", **message})
        with pytest.raises(ApplicationError, match="unexpected"):
            await app.send({"type": "http.response.start", "status": 200})
        for close in ({"code": 1005 + 1}, {"code": 999}, {"code": "1000"}, {"reason": "x" * 124}):
            with pytest.raises(ApplicationError, match=r"websocket\.close"):
                await app.send({"type": "websocket.close", **close})
        await app.send({"type": "websocket.send", "bytes": bytearray(b"fine"), "text": None})
        await app.send({"type": "websocket.send", "bytes": None, "text": "fine"})

    app = Application(bad)
    async with opened(app) as (client, _):
        assert await next_frame(client) == (0x82, b"fine")
        assert await next_frame(client) == (0x81, b"fine")
        assert await close_of(client) == (1000, "")
    assert app.returned


async def test_a_message_is_not_lost_when_its_receiver_is_cancelled() -> None:
    async def hesitant(app: Application) -> None:
        tasks.append(asyncio.ensure_future(app.receive()))
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()
        assert await app.receive() == "kept"

    tasks: list[asyncio.Future[Any]] = []
    app = Application(hesitant)
    async with opened(app) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        await eventually(lambda: socket.waiter is not None)
        socket.data_received(frame(TEXT, b"kept"))
        tasks[0].cancel()  # it has the message, but has not run since
        assert await close_of(client) == (1000, "")
    assert app.returned


async def test_two_receivers_share_the_messages() -> None:
    async def two(app: Application) -> None:
        await asyncio.gather(app.receive(), app.receive())
        await app.say("both")

    app = Application(two)
    async with opened(app) as (client, _):
        await client.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        assert await next_frame(client) == (0x81, b"both")
    assert sorted(app.got[:2]) == ["1", "2"]


# ── flow control ─────────────────────────────────────────────────────────────────────────────


async def test_a_slow_application_stops_the_reading() -> None:
    async def slow(app: Application) -> None:
        await app.go_on.wait()
        await app.until_disconnected()

    app = Application(slow)
    async with opened(app, ws_max_queue=4) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        numbers = [b"%d" % number for number in range(1000)]
        await client.send(b"".join(frame(TEXT, number) for number in numbers))
        await eventually(lambda: len(socket.messages) == 4)
        await client.send(frame(PING))  # waits behind the messages
        await turns_of_the_loop(20)
        assert len(socket.messages) == 4
        app.go_on.set()
        assert await next_frame(client) == (0x80 | PONG, b"")
        await client.send(frame(CLOSE))
        await eventually(lambda: app.returned)
    assert app.got == [number.decode() for number in numbers] + [(1005, "")]


async def test_a_large_message_that_waits_stops_the_reading() -> None:
    async def slow(app: Application) -> None:
        await app.go_on.wait()
        await app.until_disconnected()

    app = Application(slow)
    async with opened(app) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        size = connection.QUEUE_BYTES + 1
        client.writer.write(frame(BINARY, bytes(size)) * 20)
        await eventually(lambda: socket.messages)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert len(socket.messages) == 1
        assert socket.reader is not None
        assert socket.reader.unread < 1_000_000  # of 5 MB
        app.go_on.set()
        await client.send(frame(CLOSE))
        await eventually(lambda: app.returned)
    assert app.got == [bytes(size)] * 20 + [(1005, "")]


async def test_a_close_is_heard_behind_messages_that_nobody_took() -> None:
    async def leave(app: Application) -> None:
        await app.go_on.wait()

    app = Application(leave)
    async with opened(app, ws_max_queue=1) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        client.writer.write(frame(BINARY, bytes(100_000)) * 50)
        await eventually(lambda: socket.messages)
        app.go_on.set()
        assert await close_of(client) == (1000, "")
        await client.send(frame(CLOSE, close_frame(1000)[2:]))
        assert await client.rest() == b""


async def test_both_directions_full_until_the_client_reads() -> None:
    """`test_flow_control` has the orders of events; this has the kernel's buffers and the loop's own transport."""
    app = Application(echo)
    async with opened(app) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        stop_reading(client, socket)
        messages = [bytes([number]) * 300_000 for number in range(40)]
        for message in messages:
            client.writer.write(frame(BINARY, message))
        await stuck(socket)
        await eventually(lambda: socket.reader is not None and socket.reader.paused)
        assert len(app.got) < 40
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for message in messages:
            assert await next_frame(client) == (0x82, message)
        await client.send(frame(CLOSE))
        assert await close_of(client) == (1005, "")


async def test_a_slow_client_suspends_send_and_gets_one_pong() -> None:
    sent: list[int] = []

    async def flood(app: Application) -> None:
        await app.go_on.wait()
        for number in range(200):
            await app.say(bytes(100_000))
            sent.append(number)
        await app.until_disconnected()

    app = Application(flood)
    async with opened(app) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        stop_reading(client, socket)
        app.go_on.set()
        await stuck(socket)
        await client.send(b"".join(frame(PING, b"%d" % number) for number in range(100)))
        await eventually(lambda: socket.ping_owed == b"99")
        assert len(sent) < 199
        assert socket.writer.transport.get_write_buffer_size() < 1_000_000
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        pongs = 0
        for _ in range(201):
            first, payload = await next_frame(client)
            if first == 0x80 | PONG:
                pongs += 1
                assert payload == b"99"
        assert pongs == 1
    assert len(sent) == 200


async def test_a_slow_client_suspends_a_denial() -> None:
    sent = 0

    async def deny(app: Application) -> None:
        nonlocal sent
        await app.go_on.wait()
        await app.send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        for sent in range(200):  # noqa: B007
            await app.send({"type": "websocket.http.response.body", "body": bytes(100_000), "more_body": True})
        await app.send({"type": "websocket.http.response.body", "body": b"end"})

    app = Application(deny, accept=False)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(request())
        await eventually(lambda: app.scope)
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        stop_reading(client, socket)
        app.go_on.set()
        await stuck(socket)
        assert sent < 199
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await client.rest()).endswith(b"\r\nend\r\n0\r\n\r\n")


# ── pings ────────────────────────────────────────────────────────────────────────────────────


async def test_pings_and_a_client_that_answers() -> None:
    app = Application(echo)
    async with opened(app, ws_ping_interval=20, ws_ping_timeout=20) as (client, server):
        service = server.service
        begin = service.context.now
        await client.send(frame(TEXT, b"there"))
        await next_frame(client)
        for turn in (1, 2, 3):
            service.sweep(begin + 20 * turn - 1)
            service.sweep(begin + 20 * turn)
            assert await next_frame(client) == (0x80 | PING, b"")
            await client.send(frame(PONG) + frame(TEXT, b"pong is read"))
            assert await next_frame(client) == (0x81, b"pong is read")
        assert app.got == ["there"] + ["pong is read"] * 3


async def test_a_client_that_is_gone() -> None:
    app = Application(listen)
    async with opened(app, ws_ping_interval=20, ws_ping_timeout=5) as (client, server):
        begin = server.service.context.now
        server.service.sweep(begin + 20)
        server.service.sweep(begin + 24)
        server.service.sweep(begin + 25)
        assert await next_frame(client) == (0x80 | PING, b"")
        assert await close_of(client) == (1011, "ping timeout")
        assert await client.rest() == b""
        await eventually(lambda: app.returned)
    assert app.got == [(1006, "ping timeout")]


async def test_our_own_silence_is_not_the_clients() -> None:
    """Its pong may wait in the kernel. Fails without `_silent_since` in `postpone`: closed at the next ping."""
    async with opened(Application(echo), ws_ping_interval=10, ws_ping_timeout=25) as (client, server):
        service = server.service
        begin = service.context.now
        service.sweep(begin + 10)
        service.postpone(100)  # the loop stood still
        service.sweep(begin + 120)
        for _ in range(2):
            assert await next_frame(client) == (0x80 | PING, b"")
        await client.send(frame(PONG) + frame(TEXT, b"still here"))
        assert await next_frame(client) == (0x81, b"still here")


async def test_a_ping_timeout_longer_than_the_interval() -> None:
    app = Application(listen)
    async with opened(app, ws_ping_interval=10, ws_ping_timeout=25) as (client, server):
        begin = server.service.context.now
        for elapsed in (10, 20, 30, 34, 35):
            server.service.sweep(begin + elapsed)
        for _ in range(3):
            assert await next_frame(client) == (0x80 | PING, b"")
        assert await close_of(client) == (1011, "ping timeout")


async def test_no_ping_for_a_client_that_does_not_read() -> None:
    """It could not answer one behind what waits for it already."""

    async def flood(app: Application) -> None:
        await app.go_on.wait()
        for _ in range(200):
            await app.say(bytes(100_000))

    app = Application(flood)
    async with opened(app, write_timeout=1000, ws_ping_interval=20, ws_ping_timeout=20) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        stop_reading(client, socket)
        app.go_on.set()
        await stuck(socket)
        unsent = socket.writer.transport.get_write_buffer_size()
        begin = server.service.context.now
        for elapsed in (20, 40, 60):
            server.service.sweep(begin + elapsed)
        assert socket.writer.transport.get_write_buffer_size() == unsent
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(200):
            assert (await next_frame(client))[0] == 0x82
        assert await close_of(client) == (1000, "")


@pytest.mark.parametrize(("interval", "timeout", "pings"), [(0, 20, 0), (20, 0, 9)])
async def test_pings_can_be_off_and_wait_for_ever(interval: int, timeout: int, pings: int) -> None:
    async with opened(Application(echo), ws_ping_interval=interval, ws_ping_timeout=timeout) as (client, server):
        begin = server.service.context.now
        for turn in range(1, 10):
            server.service.sweep(begin + 20 * turn)
        await client.send(frame(TEXT, b"end"))
        for _ in range(pings):
            assert await next_frame(client) == (0x80 | PING, b"")
        assert await next_frame(client) == (0x81, b"end")


async def test_no_ping_timeout_while_it_is_the_application_that_is_slow() -> None:
    async def slow(app: Application) -> None:
        await app.go_on.wait()
        await echo(app)

    app = Application(slow)
    async with opened(app, ws_max_queue=1, ws_ping_interval=20, ws_ping_timeout=20) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        await client.send(frame(TEXT, b"1"))
        await eventually(lambda: socket.messages)
        begin = server.service.context.now
        for turn in range(1, 5):
            server.service.sweep(begin + 20 * turn)
        app.go_on.set()
        while (await next_frame(client)) != (0x81, b"1"):
            pass
        await client.send(frame(TEXT, b"2"))
        assert await next_frame(client) == (0x81, b"2")


# ── ends ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sent", "answer", "seen"),
    [
        pytest.param(close_frame(1000, "bye")[2:], (1000, ""), (1000, "bye"), id="1000"),
        pytest.param(b"", (1005, ""), (1005, ""), id="no code"),
        pytest.param(close_frame(4321, "é")[2:], (4321, ""), (4321, "é"), id="private code"),
        pytest.param(b"\x03", (1002, "close frame of one byte"), (1002, "close frame of one byte"), id="one byte"),
        pytest.param(b"\x03\xee", (1002, "close code 1006"), (1002, "close code 1006"), id="1006"),
    ],
)
async def test_the_client_closes(sent: bytes, answer: tuple[int, str], seen: tuple[int, str]) -> None:
    async def late(app: Application) -> None:
        await app.until_disconnected()
        assert await app.receive() == app.got[-1]  # again and again
        with pytest.raises(OSError, match="is closed"):
            await app.say("too late")
        await app.send({"type": "websocket.close"})  # what a `finally` does

    app = Application(late)
    async with opened(app) as (client, server):
        await client.send(frame(TEXT, b"last") + frame(CLOSE, sent) + frame(TEXT, b"ignored"))
        assert await close_of(client) == answer
        assert await client.rest() == b""
        client.close()
        await eventually(lambda: app.returned and not server.service.connections)
    assert app.got == ["last", seen, seen]


async def test_the_application_closes() -> None:
    async def close(app: Application) -> None:
        await app.send({"type": "websocket.close", "code": 3000, "reason": "done"})
        with pytest.raises(OSError, match="is closed"):
            await app.say("too late")
        with pytest.raises(ApplicationError):
            await app.send({"type": "websocket.close"})
        await app.until_disconnected()

    app = Application(close)
    async with opened(app) as (client, server):
        assert await close_of(client) == (3000, "done")
        await client.send(frame(TEXT, b"crossed") + frame(CLOSE, close_frame(3000)[2:]))
        assert await client.rest() == b""  # the server closes first (RFC 6455 section 7.1.1)
        await eventually(lambda: app.returned and not server.service.connections)
    assert app.got == [(3000, "done")]


async def test_what_an_application_has_not_taken_is_dropped_when_it_closes() -> None:
    async def close(app: Application) -> None:
        await app.go_on.wait()
        await app.send({"type": "websocket.close"})
        await app.receive()

    app = Application(close)
    async with opened(app) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        await client.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        await eventually(lambda: len(socket.messages) == 2)
        app.go_on.set()
        assert await close_of(client) == (1000, "")
        await eventually(lambda: app.returned)
    assert app.got == [(1000, "")]


async def test_the_application_returns_and_the_client_does_not_answer() -> None:
    async def leave(app: Application) -> None:
        pass

    async with opened(Application(leave)) as (client, server):
        assert await close_of(client) == (1000, "")
        await eventually(lambda: not server.service.active)
        server.service.sweep(server.service.context.now + connection.CLOSE_TIMEOUT)
        assert server.service.connections
        server.service.sweep(server.service.context.now + 2)
        await eventually(lambda: not server.service.connections)
        assert await client.rest() == b""


class WebSocketDisconnect(Exception):  # noqa: N818 - Starlette's, which endpoints let pass
    pass


@pytest.mark.parametrize("how", ["close frame", "connection"])
async def test_no_error_is_logged_for_a_client_that_leaves(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Fails with OSError alone in WebSocket.failed, as uvicorn does."""

    async def listen_on(app: Application) -> None:
        await app.until_disconnected()
        raise ExceptionGroup("tasks", [WebSocketDisconnect()])

    async with opened(Application(listen_on)) as (client, server):
        if how == "close frame":
            await client.send(frame(CLOSE))
        client.close()
        await eventually(lambda: not server.service.active)
    assert not [each for each in caplog.records if each.name == "aserver.error"]


async def test_stopped_sockets_that_nobody_looks_at_are_cut_and_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the application nor the client answers the close. One that has been told may work on.

    Fails without Service.end_websockets, and without `told` there.
    """
    go = asyncio.Event()

    async def deaf(app: Application) -> None:
        await go.wait()

    async def told(app: Application) -> None:
        await app.until_disconnected()
        await go.wait()

    for work in (deaf, told):
        async with opened(Application(work)) as (client, server):
            server.service.close_websockets(0.0)
            assert await close_of(client) == (1012, "service restart")
            await asyncio.sleep(0)
            with caplog.at_level("INFO"):
                server.service.end_websockets()
            await eventually(lambda server=server: not server.service.connections)  # type: ignore[misc]
            if work is told:
                await asyncio.sleep(0)
                assert server.service.active == 1
                go.set()
            await eventually(lambda server=server: not server.service.active)  # type: ignore[misc]
    assert caplog.text.count("its WebSocket was closed by the stop: WEBSOCKET /ws?q=1") == 1


async def test_the_application_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(app: Application) -> None:
        raise RuntimeError("its own mistake")

    async with opened(Application(fail)) as (client, _):
        assert await close_of(client) == (1011, "internal error")
    assert "the application raised RuntimeError" in caplog.text


async def test_an_error_from_a_closed_socket_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(app: Application) -> None:
        await app.until_disconnected()
        await app.say("too late")

    app = Application(talk)
    async with opened(app) as (client, _):
        await client.send(frame(CLOSE))
        await eventually(lambda: app.error)
    assert isinstance(app.error, OSError)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_a_connection_that_breaks_is_1006(how: str) -> None:
    app = Application(listen)
    async with opened(app) as (client, _):
        if how == "eof":
            client.close()
        else:
            client.writer.transport.abort()
        await eventually(lambda: app.returned)
    assert app.got == [(1006, "")]


@pytest.mark.parametrize("change", SCOPE_CHANGES)
async def test_access_records_are_of_what_the_client_sent_whatever_becomes_of_the_scope(
    change: Callable[[Scope], object], caplog: pytest.LogCaptureFixture
) -> None:
    """The line of the answer, that of the end, and the error's. Fails with KeyError, or with what the scope has now."""
    records: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ids.append(scope["request_id"])
        change(scope)
        await receive()
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    ids: list[str] = []
    async with serving(app, access=records.append, access_log_format="json") as server:
        client = await server.connect()
        await client.send(request(b"X-Forwarded-For: 198.51.100.7"))
        await client.until(close_frame(1011, "internal error"))
        client.close()
        await eventually(lambda: len(records) == 2)
    assert [(record.method, record.status) for record in records] == [("GET", 101), ("WEBSOCKET", 1011)]
    for record in records:
        assert record.client[0] == "198.51.100.7"
        assert record.target == b"/ws?q=1"
        assert record.headers[0] == (b"host", b"t")
        assert (b"upgrade", b"WebSocket") in record.headers
        assert (b"x", b"y") not in record.headers
        assert record.request_id == ids[0]
    assert caplog.messages[-1].startswith("WEBSOCKET /ws: the application raised ZeroDivisionError")


async def test_a_client_that_leaves_before_the_accept() -> None:
    async def late(app: Application) -> None:
        await app.until_disconnected()
        with pytest.raises(OSError, match="is closed"):
            await app.send({"type": "websocket.accept"})

    app = Application(late, accept=False)
    records: list[tuple[str, int]] = []
    async with serving(app, access=lambda record: records.append((record.method, record.status))) as server:
        client = await server.connect()
        await client.send(request())
        await eventually(lambda: app.scope)
        client.close()
        await eventually(lambda: app.returned)
    assert app.got == [(1006, "")]
    assert records == [("GET", 0)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"\x81\x01x", 1002, id="not masked"),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(frame(BINARY, bytes(101)), 1009, id="too big"),
        pytest.param(frame(BINARY, bytes(60), fin=False) + frame(CONTINUATION, bytes(60)), 1009, id="in fragments"),
    ],
)
async def test_violations(data: bytes, code: int) -> None:
    app = Application(listen)
    async with opened(app, ws_max_size=100) as (client, _):
        await client.send(frame(TEXT, b"fine") + data + bytes(100_000))  # what follows must not reset the close away
        got, reason = await close_of(client)
        assert got == code
        assert await client.rest() == b""
        await eventually(lambda: app.returned)
    assert app.got == ["fine", (code, reason)]


async def test_a_violation_after_our_close() -> None:
    async def leave(app: Application) -> None:
        pass

    async with opened(Application(leave)) as (client, _):
        assert await close_of(client) == (1000, "")
        await client.send(b"\x81\x01x")
        assert await client.rest() == b""


async def test_a_client_that_never_reads_is_given_up() -> None:
    async def flood(app: Application) -> None:
        await app.go_on.wait()
        while True:
            await app.say(bytes(100_000))

    app = Application(flood)
    async with opened(app, write_timeout=5, ws_ping_interval=0) as (client, server):
        socket = next(iter(server.service.connections)).handler
        assert isinstance(socket, connection.Socket)
        stop_reading(client, socket)
        app.go_on.set()
        await stuck(socket)
        server.service.sweep(server.service.context.now + 10)
        server.service.sweep(server.service.context.now + 10)
        await eventually(lambda: app.error)
    assert isinstance(app.error, OSError)


# ── draining ─────────────────────────────────────────────────────────────────────────────────


async def test_draining_is_told_and_sockets_leave_with_1012() -> None:
    async def watch(app: Application) -> None:
        draining = app.scope["extensions"]["aserver.draining"]
        await draining.wait()
        assert draining.is_set()
        await draining.wait()
        await app.say("draining")
        await app.until_disconnected()
        with pytest.raises(OSError, match="is closed"):
            await app.say("too late")

    app = Application(watch)
    async with opened(app) as (client, server):
        server.service.drain()
        assert await next_frame(client) == (0x81, b"draining")
        server.service.close_websockets(0)
        assert await close_of(client) == (1012, "service restart")
        await client.send(frame(CLOSE, close_frame(1012)[2:]))
        assert await client.rest() == b""
        await eventually(lambda: app.returned)
    assert app.got == [(1012, "service restart")]


async def test_a_waiter_for_the_drain_may_be_cancelled() -> None:
    cancelled = asyncio.Event()

    async def watch(app: Application) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(app.scope["extensions"]["aserver.draining"].wait(), 0.01)
        cancelled.set()
        await app.until_disconnected()

    app = Application(watch)
    async with opened(app) as (client, server):
        await eventually(cancelled.is_set)
        server.service.drain()
        await client.send(frame(CLOSE))
        await eventually(lambda: app.returned)


async def test_sockets_leave_one_after_the_other() -> None:
    async with serving(Application(listen)) as server:
        clients = [await server.connect() for _ in range(20)]
        for client in clients:
            await client.send(request())
            await client.until(b"\r\n\r\n")
        loop = asyncio.get_running_loop()
        begin = loop.time()

        async def left(client: Client) -> float:
            assert await close_of(client) == (1012, "service restart")
            return loop.time() - begin

        server.service.close_websockets(begin + 0.6)
        times = sorted(await asyncio.gather(*map(left, clients)))
    assert len({round(moment * 20) for moment in times}) >= 5, times  # not in one wave
    assert times[0] < times[-1]


async def test_sockets_leave_in_an_order_that_nobody_can_foresee() -> None:
    left: list[int] = []

    class Leaver:
        def __init__(self, number: int) -> None:
            self.number = number

        def leave(self) -> None:
            left.append(self.number)

    loop = asyncio.get_running_loop()
    Departure(loop, [Leaver(number) for number in range(100)], loop.time())
    assert sorted(left) == [*range(100)]
    assert left not in ([*range(100)], [*reversed(range(100))])


async def test_a_departure_can_be_cancelled() -> None:
    async with opened(Application(echo)) as (client, server):
        server.service.close_websockets(asyncio.get_running_loop().time() + 60).cancel()
        await client.send(frame(TEXT, b"still here"))
        assert await next_frame(client) == (0x81, b"still here")


async def test_cancel_closes_with_1012() -> None:
    async def stubborn(app: Application) -> None:
        await asyncio.Event().wait()

    app = Application(stubborn)
    async with opened(app) as (client, server):
        assert [line.startswith("WEBSOCKET /ws?q=1, ") for line in server.service.cancel("over")] == [True]
        assert await close_of(client) == (1012, "service restart")
        await eventually(lambda: not server.service.active)
    assert isinstance(app.error, asyncio.CancelledError)


async def test_cancel_before_the_accept_is_503() -> None:
    async def stubborn(app: Application) -> None:
        await asyncio.Event().wait()

    app = Application(stubborn, accept=False)
    async with serving(app) as server:
        client = await server.connect()
        await client.send(request())
        await eventually(lambda: app.scope)
        server.service.cancel("over")
        assert status(await client.rest()) == 503


async def test_abort() -> None:
    app = Application(listen)
    async with opened(app) as (_, server):
        await eventually(lambda: app.scope)
        server.service.abort()
        with pytest.raises(OSError, match="is closed"):
            await app.say("too late")
        await eventually(lambda: app.returned)
        assert not server.service.connections
    assert app.got == [(1006, "")]


# ── the record ───────────────────────────────────────────────────────────────────────────────


async def test_access_records() -> None:
    records: list[Any] = []
    app = Application(echo)
    async with opened(app, access=records.append) as (client, server):
        assert [(record.method, record.status) for record in records] == [("GET", 101)]
        await client.send(frame(TEXT, b"x" * 300))
        await next_frame(client)
        await client.send(frame(CLOSE, close_frame(4000)[2:]))
        client.close()
        await eventually(lambda: len(records) == 2)
        assert server.service.requests == 1
    closing = records[1]
    assert (closing.method, closing.status, closing.sent) == ("WEBSOCKET", 4000, 300)
    assert closing.target == b"/ws?q=1"
    assert closing.version == "1.1"
    assert closing.client[0] == "127.0.0.1"
    assert closing.duration >= records[0].duration >= 0
    assert (b"upgrade", b"WebSocket") in closing.headers
