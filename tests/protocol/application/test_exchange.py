"""Responses: applications that fail or send nonsense, extensions, files, the access record."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.errors import ApplicationError
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.files import CHUNK
from aserver.protocol.application.tasks import REMEMBERED
from tests.harness.waiting import PATIENCE, eventually
from tests.protocol.serving import GET, LAST_GET, SCOPE_CHANGES, answer, body_of, echo, field, read_all, serving, status

START = {"type": "http.response.start", "status": 200, "headers": []}


def piece(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize("change", SCOPE_CHANGES)
async def test_the_record_is_of_what_the_client_sent_whatever_becomes_of_the_scope(
    change: Callable[[Scope], object],
) -> None:
    """Of requests parsed, known from before, with a body, pipelined, and from a trusted proxy.

    Fails where the record asks the scope (it says what is in it now), and where both have one list of fields.
    """
    seen: list[Any] = []

    def access(record: Any) -> None:
        seen.append((record.client[0], record.method, record.target, record.version, record.headers, record.request_id))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ids.append(scope["request_id"])
        change(scope)
        await answer(send)

    ids: list[str] = []
    head = b" /a?b=1 HTTP/1.1\r\nHost: t\r\n"
    proxied = b"GET" + head + b"X-Forwarded-For: 198.51.100.7\r\n\r\n"
    pieces = [b"GET" + head + b"\r\n"] * 2 + [b"POST" + head + b"Content-Length: 2\r\n\r\nab", proxied, proxied]
    host = (b"host", b"t")
    client = "127.0.0.1"
    forwarded = ("198.51.100.7", "GET", b"/a?b=1", "1.1", [host, (b"x-forwarded-for", b"198.51.100.7")])
    plain = (client, "GET", b"/a?b=1", "1.1", [host])
    wanted = [plain, plain, (client, "POST", b"/a?b=1", "1.1", [host, (b"content-length", b"2")]), forwarded, forwarded]
    async with serving(app, access=access, access_log_format="json", proxy_headers=True) as server:
        asking = await server.connect()
        for piece in pieces:
            await asking.send(piece)
            await asking.response()
        await asking.send(b"".join(pieces))
        for _ in pieces:
            await asking.response()
    assert [record[:5] for record in seen] == wanted * 2
    assert [record[5] for record in seen] == ids


@pytest.mark.parametrize("change", SCOPE_CHANGES)
async def test_an_application_that_fails_is_named_whatever_it_did_to_its_scope(
    change: Callable[[Scope], object], caplog: pytest.LogCaptureFixture
) -> None:
    """Fails with the path and the id of the scope: a KeyError in place of an answer, or the wrong ones."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        returns, ids[:] = b"returns" in scope["raw_path"], [scope["request_id"]]
        change(scope)
        if not returns:
            raise ZeroDivisionError

    ids: list[str] = []
    async with serving(app, access=print, access_log_format="json") as server:
        for path, consequence in ((b"/raises", "raised ZeroDivisionError"), (b"/returns", "returned without")):
            assert status(await server.ask(b"GET %b?secret HTTP/1.0\r\n\r\n" % path)) == 500
            assert caplog.messages[-1].startswith(f"GET {path.decode()}: the application {consequence}")
            assert caplog.records[-1].request_id == ids[0]  # type: ignore[attr-defined]


async def test_a_refused_request_is_of_the_client_that_its_proxy_named() -> None:
    """Fails where a refusal has the connection's own client, though the head was good."""
    seen: list[Any] = []
    async with serving(echo, access=lambda record: seen.append((record.status, record.client[0]))) as server:
        head = b"POST / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 198.51.100.7\r\nTransfer-Encoding: chunked\r\n\r\n"
        await server.ask(head + b"no chunk\r\n")
    assert seen == [(400, "198.51.100.7")]


@pytest.mark.parametrize("code", [204, 304])
async def test_a_body_is_dropped_though_the_scope_is_empty(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """The scope is the application's. Fails with KeyError in send(), and 500."""
    caplog.set_level(logging.WARNING, "aserver.error")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope.clear()
        await send({**START, "status": code})
        await send(piece(b"no", more=False))

    async with serving(app) as server:
        assert status(await server.ask(LAST_GET)) == code
    assert f"status {code} has no body" in caplog.text


# ── bodies where none may be ──────────────────────────────────────────────────────────────────


async def test_a_dropped_body_is_said_once_for_a_route(caplog: pytest.LogCaptureFixture) -> None:
    """204, 205 and 304 with a body: the head alone, and the connection goes on. Fails without the memory of `dropped`,
    and with one of paths alone, of which a route has any number.
    """
    caplog.set_level(logging.WARNING, "aserver.error")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        _, code, *rest = scope["path"].split("/")
        if rest:
            scope["endpoint"] = answer  # as Starlette does, for all paths of a route
        await send({**START, "status": int(code), "headers": [[b"content-type", b"text/plain"]]})
        await send(piece(b"HTTP/1.1 200 OK\r\n\r\n", more=True))
        await send(piece(b"no", more=False))

    asked = ["/204", "/204", "/205", "/304", "/204/1", "/204/2"]
    async with serving(app) as server:
        client = await server.connect()
        for path in asked:
            for method in ("GET", "HEAD"):
                await client.send(f"{method} {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
                head = await client.until(b"\r\n\r\n")
                assert status(head) == int(path.split("/")[1])
                assert field(head, b"content-length") == (b"0" if "205" in path else None)
                assert field(head, b"transfer-encoding") is None
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in said] == ["GET /204", "GET /205", "GET /304", "GET /204/1"]
    assert "status 204 has no body; the 19 bytes that the application gave are dropped" in said[0]


async def test_routes_that_drop_bodies_are_remembered_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    """Clients choose paths. Fails without the bound."""
    caplog.set_level(logging.WARNING, "aserver.error")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "status": 204})
        await send(piece(b"no", more=False))

    async with serving(app) as server:
        client = await server.connect()
        for number in range(REMEMBERED + 5):
            await client.send(b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % number)
            assert status(await client.until(b"\r\n\r\n")) == 204
    assert len(caplog.records) == REMEMBERED


@pytest.mark.parametrize("code", [204, 205, 304])
async def test_a_file_is_not_sent_where_no_body_may_be(code: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "status": code})
        await send({"type": "http.response.pathsend", "path": str(file)})

    async with serving(app) as server:
        whole = await server.ask(LAST_GET)
    assert (status(whole), body_of(whole)) == (code, b"")


# ── failures ─────────────────────────────────────────────────────────────────────────────────


class Surprise(BaseException):
    """Neither an Exception nor one that asyncio knows."""


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), SystemExit(1), KeyboardInterrupt(), Surprise(), RecursionError()]
)
@pytest.mark.parametrize("started", [False, True])
async def test_failure_before_the_head_went_out(
    error: BaseException, started: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Answered 500 on a connection that stays; the traceback is in the log, once."""
    caplog.set_level(logging.ERROR, "aserver.error")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/good":
            return await answer(send, b"good")
        if started:
            await send({**START, "status": 201})
        raise error

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        head, body = await client.response()
        assert (status(head), body) == (500, b"Internal Server Error\n")
        assert field(head, b"connection") is None
        await client.send(b"GET /good HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await client.response())[1] == b"good"
        await eventually(lambda: not server.service.active)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.getMessage() == f"GET /: the application raised {type(error).__name__}; answered 500"


@pytest.mark.parametrize(
    ("request_", "ending"),
    [
        (b"GET / HTTP/1.1\r\nHost: t\r\n\r\n", b"\r\n\r\n3\r\nabc\r\n"),
        (b"GET /length HTTP/1.1\r\nHost: t\r\n\r\n", b"\r\n\r\nabc"),
    ],
)
async def test_failure_after_the_head_breaks_the_connection_off(
    request_: bytes, ending: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", b"5")] if scope["path"] == "/length" else []})
        await send(piece(b"abc"))
        raise RuntimeError("late")

    async with serving(app) as server:
        response = await server.ask(request_ + GET)
    assert response.endswith(ending)
    assert response.count(b"HTTP/1.1") == 1
    assert caplog.records[0].getMessage().endswith("the connection was broken off")


async def test_a_broken_close_delimited_response_is_reset() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(piece(b"abc"))
        await go.wait()
        raise RuntimeError("late")

    go = asyncio.Event()
    async with serving(app) as server:
        client = await server.connect()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.until(b"abc")
        go.set()
        with pytest.raises(ConnectionResetError):
            await client.rest()


@pytest.mark.parametrize("draining", [False, True])
async def test_an_error_answer_says_that_the_connection_ends(draining: bool) -> None:
    """Where it does: the body is not worth waiting for, or the worker leaves."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    async with serving(app) as server:
        if draining:
            server.service.drain()
        body = b"" if draining else b"Content-Length: 1000000\r\n"
        response = await server.ask(b"POST / HTTP/1.1\r\nHost: t\r\n%b\r\n" % body)
        assert (status(response), field(response, b"connection")) == (500, b"close")


async def test_returning_without_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/half":
            await send(START)
            await send(piece(b"abc"))

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        assert status((await client.response())[0]) == 500
        await client.send(b"GET /half HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\n3\r\nabc\r\n")
    assert "returned without completing its response" in caplog.text


async def test_an_illegal_message_raises_and_the_client_gets_500() -> None:
    errors: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (
            piece(b"x"),
            {"type": "http.response.trailers", "headers": []},
            {"type": "http.response.nonsense"},
            {**START, "headers": [(b"x", b"a\r\nset-cookie: evil")]},
            {**START, "status": 1000},
        ):
            with pytest.raises(ApplicationError) as error:
                await send(message)
            errors.append(error.value)

    async with serving(app) as server:
        response = await server.ask(LAST_GET)
    assert status(response) == 500
    assert b"evil" not in response
    assert len(errors) == 5


async def test_too_much_body_breaks_the_connection_off() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", b"3")]})
        await send(piece(b"ab"))
        await send(piece(b"cd"))

    async with serving(app) as server:
        assert (await server.ask(GET)).endswith(b"\r\n\r\nab")


async def test_messages_after_the_end_are_errors_but_not_on_the_wire(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"ok")
        if scope["path"] == "/more":
            await send(START)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(b"GET /more HTTP/1.1\r\nHost: t\r\n\r\n" + LAST_GET)
        response = await client.rest()
    assert response.count(b"HTTP/1.1 200 OK") == 2
    assert b"500" not in response
    assert "its response was complete" in caplog.text


async def test_a_failure_of_oserror_after_the_client_left_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        await send(START)

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        await eventually(lambda: server.service.active)
        client.close()
        await eventually(lambda: not server.service.active)
    assert not caplog.records


async def test_head() -> None:
    async with serving(echo) as server:
        client = await server.connect()
        await client.send(b"HEAD /x HTTP/1.1\r\nHost: t\r\n\r\n")
        head = await client.until(b"\r\n\r\n")
        assert field(head, b"content-length") == b"8"
        await client.send(LAST_GET)
        assert (await client.response())[1] == b"GET / "


# ── settings ─────────────────────────────────────────────────────────────────────────────────


async def test_default_fields() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"", 200, [(b"X-A", b"mine")] if scope["path"] == "/own" else [])

    async with serving(app, server_header=True, header=["X-A: 1", "X-B: 2"]) as server:
        client = await server.connect()
        await client.send(GET)
        head, _ = await client.response()
        assert [field(head, name) for name in (b"server", b"x-a", b"x-b")] == [b"aserver", b"1", b"2"]
        assert field(head, b"date") is not None
        await client.send(b"GET /own HTTP/1.1\r\nHost: t\r\n\r\n")
        head, _ = await client.response()
        assert [field(head, name) for name in (b"server", b"x-a", b"x-b")] == [b"aserver", b"mine", b"2"]
        assert status(await server.ask(b"\0")) == 400


async def test_the_date_is_renewed_with_each_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(echo) as server:
        now = server.service.context.now
        assert field(await server.ask(LAST_GET), b"date") != b"later"
        monkeypatch.setattr("aserver.protocol.context.formatdate", lambda **_: "later")
        server.service.sweep(now)
        assert field(await server.ask(LAST_GET), b"date") == b"later"


async def test_no_default_fields() -> None:
    async with serving(echo, date_header=False) as server:
        response = await server.ask(LAST_GET)
    assert field(response, b"date") is None
    assert field(response, b"server") is None


# ── extensions ───────────────────────────────────────────────────────────────────────────────


async def test_early_hint() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await answer(send, b"ok")

    async with serving(app) as server:
        response = await server.ask(LAST_GET)
        assert response.startswith(
            b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"
        )
        assert status(await server.ask(b"GET / HTTP/1.0\r\n\r\n")) == 500  # it was not advertised


async def test_trailers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "trailers": True})
        await send(piece(b"abc", more=False))
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"6")]})

    async with serving(app) as server:
        response = await server.ask(b"GET / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n")
    assert response.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (5 << 20) + 7])
async def test_pathsend(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(size)
    path.write_bytes(data)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(path)})

    async with serving(app) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(GET)
            head, body = await client.response()
            assert int(field(head, b"content-length") or -1) == size
            assert body == data
        await client.send(b"HEAD / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        response = await client.rest()
        assert field(response, b"content-length") == b"%d" % size
        assert body_of(response) == b""


async def test_pathsend_of_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        before = os.listdir("/dev/fd")
        for path, error in (
            (str(tmp_path / "missing"), FileNotFoundError),
            (str(tmp_path), ApplicationError),
            (str(tmp_path / "fifo"), ApplicationError),
            ("relative", ApplicationError),
            (b"/dev/null", ApplicationError),
        ):
            with pytest.raises(error):
                await send({"type": "http.response.pathsend", "path": path})
        assert os.listdir("/dev/fd") == before
        await send(piece(b"ok", more=False))

    async with serving(app) as server:
        assert body_of(await server.ask(LAST_GET)) == b"ok"


async def test_pathsend_waits_for_a_client_that_does_not_read(tmp_path: Path) -> None:
    """No more of the file is read than goes out. Fails without `until_writable` in `_send_path`."""
    size = 64 << 20
    with (tmp_path / "file").open("wb") as file:
        file.truncate(size)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

    async with serving(app) as server:
        client = await server.connect(limit=1 << 16)
        await client.send(GET)
        await eventually(lambda: any(c.handler.write_paused for c in server.connections))
        (connection,) = server.connections
        assert connection.transport.get_write_buffer_size() < 2 * CHUNK
        await client.until(b"\r\n\r\n")
        assert len(await client.exactly(size)) == size


async def test_pathsend_leaves_no_descriptor_open(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

    (tmp_path / "file").write_bytes(b"abc")
    async with serving(app) as server:
        client = await server.connect()
        before = 0
        for counted in range(12):
            await client.send(GET)
            assert (await client.response())[1] == b"abc"
            if counted == 1:
                before = len(os.listdir("/dev/fd"))
        assert len(os.listdir("/dev/fd")) < before + 5


async def test_pathsend_of_a_file_that_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that grows gives what was announced, one that shrinks a connection broken off."""
    size = (32 << 20) + 1  # the last read could have more
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(size)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(path)})

    async with serving(app) as server:
        client = await server.connect(limit=1 << 16)
        await client.send(GET)
        head = await client.until(b"\r\n\r\n")
        assert field(head, b"content-length") == b"%d" % size
        with path.open("ab") as file:
            file.write(b"more")
        await client.exactly(size)
        await client.send(GET)
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")  # and not with what was added
        os.truncate(path, 1000)
        assert len(await client.rest()) < size
    assert "were announced" in caplog.text


async def test_pathsend_to_a_client_that_leaves(tmp_path: Path) -> None:
    """The access record has what went out until then. Fails with 0 bytes, and a record only of files sent whole."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    raised = asyncio.Event()
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            await send({"type": "http.response.pathsend", "path": str(path)})
        except OSError:
            raised.set()

    async with serving(app, access=lambda record: sent.append(record.sent)) as server:
        client = await server.connect(limit=1 << 16)
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        await client.exactly(CHUNK)
        (exchange,) = server.service.tasks.running
        assert isinstance(exchange, Exchange)
        await eventually(lambda: exchange.sent >= CHUNK)  # a thread has sent it, and may not have told yet
        client.close()
        await asyncio.wait_for(raised.wait(), PATIENCE)
        await eventually(lambda: not server.service.active)
    assert len(sent) == 1
    assert CHUNK <= sent[0] < 64 << 20


# ── the access record ────────────────────────────────────────────────────────────────────────


async def test_access_record() -> None:
    seen: list[dict[str, Any]] = []
    names = ("client", "method", "target", "version", "status", "sent", "headers", "response_headers", "scope")

    def access(record: Any) -> None:
        values = {name: getattr(record, name) for name in names}
        assert record.duration >= 0
        assert record.started <= time.monotonic()
        seen.append(values)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        if scope["path"] == "/fail":
            raise RuntimeError
        if scope["path"] == "/chunked":
            await send(START)
            await send(piece(b"abc"))
            await send(piece(b"de", more=False))
        elif scope["path"] == "/broken":
            await send(START)
            await send(piece(b"abc"))
        else:
            await answer(send, b"hello", 201, [(b"x-a", b"1")])

    async with serving(app, access=access) as server:
        client = await server.connect()
        for target in (b"/a%20?b", b"/chunked", b"/fail", b"/broken"):
            await client.send(b"GET %s HTTP/1.1\r\nHost: t\r\n\r\n" % target)
        await client.rest()
        await server.ask(b"GET /bad HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n")
        await eventually(lambda: len(seen) == 5)
    first = seen[0]
    assert first["client"][0] == "127.0.0.1"
    assert first["scope"]["path"] == "/a "
    assert [first[name] for name in names[1:-1]] == [
        "GET",
        b"/a%20?b",
        "1.1",
        201,
        5,
        [(b"host", b"t")],
        [(b"content-length", b"5"), (b"x-a", b"1")],
    ]
    assert [(r["method"], r["target"], r["status"], r["sent"]) for r in seen[1:]] == [
        ("GET", b"/chunked", 200, 5),
        ("GET", b"/fail", 500, len(b"Internal Server Error\n")),
        ("GET", b"/broken", 200, 3),
        ("GET", b"/bad", 400, len(b"Bad Request\n")),
    ]


@pytest.mark.parametrize("before", [b"", b"BREW /before HTTP/1.1\r\nHost: t\r\n\r\n"])
@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (b"PUT /x HTTP/1.0\r\nHost: a b\r\n\r\n", ("PUT", b"/x", "1.0", 400)),
        (b"POST /x?y HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n", ("POST", b"/x?y", "1.1", 413)),
        (b"GET /x HTTP/1.1\r\nHost: t\r\n" + b"A: b\r\n" * 100 + b"\r\n", ("GET", b"/x", "1.1", 431)),
        (b"POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ("POST", b"/x", "1.1", 400)),
        (b"GET /x HTTP/3.0\r\n\r\n", ("", b"", "", 505)),
        (b"\0", ("", b"", "", 400)),
    ],
)
async def test_access_record_of_a_refusal(before: bytes, request_: bytes, wanted: tuple[Any, ...]) -> None:
    """It tells what could be read, how much was answered, and nothing of the request before.

    Fails with `sent = 0` in refusal.
    """
    seen: list[tuple[Any, ...]] = []
    sizes: list[int] = []

    def access(record: Any) -> None:
        seen.append((record.method, record.target, record.version, record.status))
        sizes.append(record.sent)

    async with serving(echo, access=access, limit_request_body=5) as server:
        answers = await server.ask(before + request_)
    assert seen[-1] == wanted
    assert sizes[-1] == len(answers.rpartition(b"\r\n\r\n")[2]) > 0
    assert len(seen) == 1 + bool(before)
