"""What a client's leaving does to an application: it is told, and what takes no notice is cancelled."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aserver.asgi import Message, Receive, Scope, Send
from aserver.protocol.application import parting
from aserver.protocol.application.parting import is_disconnect
from tests.harness.waiting import PATIENCE, eventually
from tests.protocol.serving import GET, Client, Serving, answer, body_of, read_all, serving

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Message = {"type": "http.response.body", "body": b"a", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"b"}

both_ends = pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])


def leave(client: Client, reset: bool) -> None:
    """Close, as clients do, or as the kernel does it for one whose process has crashed with unread bytes."""
    if reset:
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def sweep(server: Serving, seconds: float) -> None:
    """Let the sweep come `seconds` after now."""
    server.service.sweep(server.service.context.now + seconds)
    await asyncio.sleep(0)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING or each.exc_info]


# ── being told ───────────────────────────────────────────────────────────────────────────────


@both_ends
async def test_a_stream_hears_of_it_by_receive(reset: bool) -> None:
    """Its client is not heard of in any other way: it sends nothing. Fails without `half_closed` (FIN)."""
    told = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await read_all(receive) == b""
        await send(START)
        await send(PIECE)
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"a\r\n")
        leave(client, reset)
        await asyncio.wait_for(told.wait(), PATIENCE)
        await eventually(lambda: not server.service.active and not server.service.connections)


@both_ends
async def test_a_stream_that_only_sends_hears_of_it_by_send(reset: bool) -> None:
    """Also if it sends rarely: a reset that answers the first piece would show only at the third.

    Fails (FIN) with `_part()` in place of `broken()` in Exchange.half_closed.
    """
    gone = asyncio.Event()
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PIECE)
        await gone.wait()
        try:
            await send(PIECE)
        except OSError as error:
            raised.append(error)
            raise

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"a\r\n")
        leave(client, reset)
        await eventually(lambda: not server.service.connections)
        gone.set()
        await eventually(lambda: raised and not server.service.active)


async def test_a_file_sent_after_the_client_has_left_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is dropped like any whole answer. Fails with AttributeError, of what only `file` sets, in `file_sent`."""
    (tmp_path / "file").write_bytes(b"abc")
    gone = asyncio.Event()
    returned = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gone.wait()
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})
        returned.set()

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await eventually(lambda: server.service.active)
        leave(client, reset=True)
        await eventually(lambda: not server.service.connections)
        gone.set()
        await asyncio.wait_for(returned.wait(), PATIENCE)
        await eventually(lambda: not server.service.active)
    assert not errors(caplog)


def test_an_application_hears_of_it_within_a_second() -> None:
    """After a FIN; what else is on the way takes some turns of the loop."""
    assert parting.HEAR_OUT + parting.QUIET <= 1.0


async def test_the_task_that_listens_is_not_overtaken_by_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    """The pieces that another task sends before the listener has ended it are dropped, and do not hold the loop up.

    Starlette ends its streams so: an exception from `send()` would end its background tasks and the middleware, too.
    Fails with `raise parting.error()` at once in Parting.take, and hangs without the sleep there.
    """
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def stream() -> None:
            try:
                while True:
                    await send(PIECE)
                    if service.connections:
                        await asyncio.sleep(0)
            except BaseException as error:
                ended.append(type(error).__name__)
                raise

        await read_all(receive)
        await send(START)
        streaming = asyncio.create_task(stream())
        assert (await receive())["type"] == "http.disconnect"
        for _ in range(20):  # through as many layers
            await asyncio.sleep(0)
        streaming.cancel()
        await asyncio.wait([streaming])
        ended.append("background task")

    async with serving(app) as server:
        service = server.service
        client = await server.connect()
        await client.send(GET)
        await client.until(b"a\r\n")
        leave(client, reset=True)
        await eventually(lambda: len(ended) == 2)
    assert ended == ["CancelledError", "background task"]
    assert errors(caplog) == []


@pytest.mark.parametrize("length", [[], [(b"content-length", b"9")]], ids=["stream", "length"])
async def test_another_answer_after_the_stream_has_ended_is_dropped(
    caplog: pytest.LogCaptureFixture, length: list[tuple[bytes, bytes]]
) -> None:
    """The MCP SDK's SSE endpoint awaits its stream, and returns an empty response when the client has left.

    Fails with `Response.start` for a second start: an ERROR with a traceback for each client, and the work is not done.
    """
    worked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            await read_all(receive)
            assert (await receive())["type"] == "http.disconnect"

        await send({**START, "headers": length})
        await send(PIECE)
        await asyncio.create_task(listen())
        await send({**START, "headers": [(b"content-length", b"1")]})
        await send(END)
        worked.set()

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"a")
        leave(client, reset=bool(length))  # after a FIN alone, an answer of known length may still be read
        await asyncio.wait_for(worked.wait(), PATIENCE)
        await eventually(lambda: not server.service.active)
    assert errors(caplog) == []


async def test_a_stream_whose_listener_does_nothing_is_ended_by_send() -> None:
    """Fails with QUIET for ever."""
    raised = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        listening = asyncio.create_task(listen())
        await send(START)
        try:
            while True:
                await send(PIECE)
                await asyncio.sleep(0)
        except OSError:
            raised.set()
        await listening

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"a\r\n")
        leave(client, reset=True)
        await asyncio.wait_for(raised.wait(), PATIENCE)


# ── what is not ended ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
@both_ends
async def test_what_has_not_begun_to_answer_is_done_to_the_end(
    reset: bool, pieces: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A POST whose client timed out, with a commit and a background task after its answer.

    Fails with a deadline in place of `inf` in Exchange._part, and with an exception for `send()` of a whole answer.
    """
    go = asyncio.Event()
    done: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await read_all(receive) == b"ab"
        await go.wait()
        if pieces:  # as Starlette's BaseHTTPMiddleware makes of it
            await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"2")]})
            await send(PIECE)
            await send(END)
        else:
            await answer(send, b"created", 201)
        done.append("commit")

    async with serving(app, disconnect_grace=1) as server:
        client = await server.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab")
        await eventually(lambda: server.service.active)
        leave(client, reset)
        await eventually(lambda: server.service.tasks.abandoned)
        for _ in range(3):
            await sweep(server, 100)
        assert server.service.active == 1
        go.set()
        await eventually(lambda: done)
        await eventually(lambda: not server.service.active)
    assert errors(caplog) == []


async def test_who_has_answered_may_work_on() -> None:
    """Starlette runs background tasks there."""
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send)
        await done.wait()

    async with serving(app, disconnect_grace=1) as server:
        client = await server.connect()
        await client.send(GET)
        await client.response()
        client.close()
        await eventually(lambda: not server.service.connections)
        await sweep(server, 100)
        assert server.service.active == 1
        done.set()
        await eventually(lambda: not server.service.active)


async def test_who_has_been_told_may_work_on() -> None:
    """A background task of a stream whose client left. Fails without `parting.knows` in Exchange.abandon."""
    done, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await send(START)
        await send(PIECE)
        await receive()
        told.set()
        await done.wait()

    async with serving(app, disconnect_grace=1) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"a\r\n")
        client.close()
        await asyncio.wait_for(told.wait(), PATIENCE)
        await sweep(server, 100)
        await sweep(server, 200)
        assert server.service.active == 1
        done.set()
        await eventually(lambda: not server.service.active)


# ── what is ended ────────────────────────────────────────────────────────────────────────────


@both_ends
async def test_an_answer_that_takes_no_notice_is_cancelled_after_the_grace(
    reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """And no sooner, also where the loop stood still. Fails without the sweep of `abandoned`."""
    cancelled: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PIECE)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(scope["path"])
            raise

    async with serving(app, disconnect_grace=5, graceful_timeout=100) as server:
        client = await server.connect()
        await client.send(GET)
        await client.until(b"a\r\n")
        leave(client, reset)
        await eventually(lambda: server.service.tasks.abandoned)
        server.service.postpone(100)  # the loop stood still, so the application could not end either
        await sweep(server, 104)
        assert not cancelled
        with caplog.at_level(logging.INFO):
            await sweep(server, 6)
        await eventually(lambda: not server.service.active)
    assert cancelled == ["/"]
    assert [each.getMessage()[:40] for each in caplog.records] == ["request cancelled, its client has gone: "]
    assert errors(caplog) == []


async def test_the_grace_of_an_answer_that_begins_later_begins_with_it() -> None:
    """Fails where `inf` in `abandoned` is never replaced, or by a deadline counted from the FIN."""
    go, began = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await send(START)
        began.set()
        await asyncio.Event().wait()

    async with serving(app, disconnect_grace=5) as server:
        client = await server.connect()
        await client.send(GET)
        client.close()
        await eventually(lambda: server.service.tasks.abandoned)
        await sweep(server, 100)
        go.set()
        await asyncio.wait_for(began.wait(), PATIENCE)
        await sweep(server, 1)
        await sweep(server, 4)
        assert server.service.active == 1
        await sweep(server, 2)
        await eventually(lambda: not server.service.active and not server.service.connections)


# ── a client that only stops sending ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("told", [False, True], ids=["at once", "after it was told"])
@pytest.mark.parametrize("begun", [False, True], ids=["not begun", "begun"])
async def test_a_client_that_stops_sending_gets_an_answer_that_ends(told: bool, begun: bool) -> None:
    """`printf ... | nc`. Fails where every FIN sets `gone`."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        if begun:
            await send(start)
            await send(PIECE)
        await go.wait()
        if not begun:
            await send(start)
            await send(PIECE)
        await send(END)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await eventually(lambda: server.service.active)
        (connection,) = server.service.connections
        exchange: Any = connection.handler.current
        client.writer.write_eof()
        await eventually(lambda: exchange.parting if told else connection.handler.eof)
        go.set()
        assert body_of(await client.rest()) == b"ab"


async def test_pipelined_requests_of_a_client_that_stops_sending_are_heard_out_one_by_one() -> None:
    """The second, a stream, hears of it too. Fails without `_hear_out` in HttpConnection._next."""
    go, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        if scope["path"] == "/":
            await go.wait()
            await answer(send, b"first")
        else:
            await send(START)
            await send(PIECE)
            assert (await receive())["type"] == "http.disconnect"
            told.set()

    async with serving(app) as server:
        client = await server.connect()
        client.writer.write(GET + GET.replace(b"/ ", b"/stream "))
        client.writer.write_eof()
        await eventually(lambda: any(each.handler.eof for each in server.service.connections))
        go.set()
        assert (await client.response())[1] == b"first"
        await asyncio.wait_for(told.wait(), PATIENCE)
        await client.rest()


async def test_a_handler_that_gives_up_when_told_gives_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Django's does, before it has answered. Fails without `parting` in Exchange._unfinished."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        client.writer.write_eof()
        assert await client.rest() == b""
        await eventually(lambda: not server.service.active)
    assert errors(caplog) == []


# ── exceptions ───────────────────────────────────────────────────────────────────────────────


class ClientDisconnect(Exception):  # noqa: N818 - Starlette's
    pass


def _bare() -> Exception:
    return ClientDisconnect()


def _grouped() -> Exception:
    return ExceptionGroup("tasks", [ClientDisconnect(), ExceptionGroup("more", [ClientDisconnect()])])


def _handled() -> Exception:
    error = RuntimeError("Caught handled exception, but response already started.")
    error.__cause__ = _grouped()
    return error


@pytest.mark.parametrize("make", [_bare, _grouped, _handled])
async def test_no_error_is_logged_for_a_client_that_leaves(
    make: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of an upload. Fails with OSError alone in Exchange._failed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise make()

    async with serving(app) as server:
        client = await server.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\na")
        await eventually(lambda: server.service.active)
        client.close()
        await eventually(lambda: not server.service.active)
    assert errors(caplog) == []


async def test_a_fault_of_the_applications_own_is_logged_also_then(caplog: pytest.LogCaptureFixture) -> None:
    """Fails where every exception after a disconnect is kept silent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            raise ClientDisconnect
        except ClientDisconnect:
            raise KeyError("cleaning up")  # noqa: B904

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await eventually(lambda: server.service.active)
        leave(client, reset=True)
        await eventually(lambda: not server.service.active)
    assert len(errors(caplog)) == 1
    assert "the application raised KeyError" in caplog.text


def test_the_name_alone_makes_no_disconnect_while_the_client_is_there() -> None:
    """`is_disconnect` is asked only once the client has left; groups must be of nothing else, rings end."""
    ring = RuntimeError()
    ring.__cause__ = RuntimeError()
    ring.__cause__.__cause__ = ring
    assert not is_disconnect(ring)
    assert not is_disconnect(ExceptionGroup("tasks", [ClientDisconnect(), KeyError()]))
    assert is_disconnect(_handled())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("starlette.requests", "ClientDisconnect"),
        ("starlette.websockets", "WebSocketDisconnect"),
        ("litestar.exceptions", "WebSocketDisconnect"),
        ("django.core.exceptions", "RequestAborted"),
        ("werkzeug.exceptions", "ClientDisconnected"),
    ],
)
def test_what_frameworks_raise_for_a_client_that_has_left_is_known(module: str, name: str) -> None:
    """Fails without the class's name in `_NAMES`, and where a framework has renamed it."""
    kind = getattr(pytest.importorskip(module), name)
    assert is_disconnect(kind.__new__(kind))  # each takes other arguments


# ── streams at a stop ────────────────────────────────────────────────────────────────────────


async def test_streams_are_ended_at_a_stop_and_other_answers_are_not() -> None:
    """A download of known length has graceful_timeout, as has what has not begun. Fails without `open_ended`."""
    go = asyncio.Event()
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        headers = [(b"content-length", b"2")] if scope["path"] == "/download" else []
        if scope["path"] == "/later":
            await go.wait()
        await send({**START, "headers": headers})
        await send(PIECE)
        if scope["path"] == "/stream":
            ended.append((await receive())["type"])
        else:
            await go.wait()
            await send(END)

    async with serving(app, stream_grace=2) as server:
        clients = {}
        for path in (b"/stream", b"/download", b"/later"):
            clients[path] = await server.connect()
            await clients[path].send(b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n" % path)
        await clients[b"/stream"].until(b"a\r\n")
        service = server.service
        await eventually(lambda: service.active == 3)
        service.drain()
        service.tasks.stop_streams(service.context.loop.time())
        begin = service.context.loop.time()
        service.tasks.end_streams(begin + 1.5)
        assert not ended
        service.tasks.end_streams(begin + 2.5)
        await eventually(lambda: ended == ["http.disconnect"])
        assert await clients[b"/stream"].rest() == b""  # not even the last chunk: it is not whole
        go.set()
        assert (await clients[b"/download"].until(b"ab")).startswith(b"HTTP/1.1 200 ")
        assert (await clients[b"/later"].rest()).endswith(b"0\r\n\r\n")


async def test_a_stream_without_a_first_piece_gets_503_at_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    """It is cancelled, as it does not listen; nothing is out, so that its client can be told."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await asyncio.Event().wait()

    async with serving(app, stream_grace=0) as server:
        client = await server.connect()
        await client.send(GET)
        await eventually(lambda: any(each.open_ended for each in server.service.tasks.running))
        server.service.drain()
        with caplog.at_level(logging.INFO):
            server.service.tasks.stop_streams(server.service.context.loop.time())
            await sweep(server, 2)
        assert (await client.rest()).startswith(b"HTTP/1.1 503 ")
        await eventually(lambda: not server.service.active)
    assert "cancelled, the stop has ended its stream: GET /" in caplog.text
    assert errors(caplog) == []
