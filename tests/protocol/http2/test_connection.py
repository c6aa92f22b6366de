"""Requests and answers over HTTP/2, as an application and a strict client see them."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.http2.carrier import StreamCarrier
from tests.harness.waiting import eventually, turns_of_the_loop
from tests.protocol.http2.strict import connect, speaking
from tests.protocol.http2.wire import OPENING, get, told
from tests.protocol.serving import SCOPE_CHANGES, Serving, answer, echo, read_all, service_of, serving
from tests.protocol.wiretap import Tap

scopes: list[Scope] = []


async def keep(scope: Scope, receive: Receive, send: Send) -> None:
    scopes.append(scope)
    await answer(send, await read_all(receive))


@pytest.fixture(autouse=True)
def _forget() -> None:
    scopes.clear()


async def test_the_scope_is_that_of_http_2() -> None:
    """Pseudo-headers stand where ASGI wants them, and not among the headers."""
    async with speaking(keep, root_path="/api") as (_, client):
        got = await client.get("/a%20b?c=d", fields=[("cookie", "a=1"), ("x-y", "z"), ("cookie", "b=2")])
    assert (got.status, got.body) == (200, b"")
    (scope,) = scopes
    assert scope["http_version"] == "2"
    assert (scope["type"], scope["method"], scope["scheme"]) == ("http", "GET", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/api/a b", b"/api/a%20b", b"c=d")
    assert scope["root_path"] == "/api"
    assert sorted(scope["headers"]) == [(b"cookie", b"a=1; b=2"), (b"host", b"t"), (b"x-y", b"z")]
    assert scope["client"][0] == "127.0.0.1"
    assert "http.response.trailers" not in scope["extensions"]


@pytest.mark.parametrize("change", SCOPE_CHANGES)
async def test_a_request_that_comes_again_has_a_scope_of_its_own(change: Callable[[Scope], None]) -> None:
    """Also in what is inside it. Fails without one of the copies in `repeat`."""
    asked: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(repr(scope))
        for inner in (scope["asgi"], scope["state"], scope["extensions"]):
            inner["more"] = 1
        change(scope)
        await answer(send)

    async with speaking(app, state={"a": 1}) as (server, client):
        for _ in range(6):
            assert (await client.get("/a?b", fields=[("x", "y")])).status == 200
        (connection,) = server.connections
        assert any(request.scope for request in connection.handler.reader.blocks.known.values())
    assert len(set(asked)) == 1


async def test_what_differs_is_not_taken_from_the_request_before() -> None:
    """A body under the same head, the same fields after another head. Fails without `complete` in `on_request`."""
    async with speaking(keep) as (_, client):
        for body in (b"", b"", b"", b"x", b"", b"yy"):
            got = await client.get("/a", "POST", body=body)
            assert (got.status, got.body) == (200, body)
        for path in ("/a", "/b", "/a", "/b", "/a"):
            await client.get(path)
    assert [scope["path"] for scope in scopes[6:]] == ["/a", "/b", "/a", "/b", "/a"]


async def test_requests_leave_no_cycle_behind() -> None:
    """Each would cost the collector a look at all that is under way. Fails without `owner` and `exchange` being None
    at the end, in `send_head` and in `_answered`.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, await read_all(receive) if scope["path"] == "/whole" else b"")

    async with speaking(app) as (_, client):
        await client.get("/whole", "POST", body=b"x")
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await client.get("/whole", "POST", body=b"x")
                await client.get("/empty")
                await client.get("/whole", "HEAD")
            left = [each for each in gc.get_objects() if type(each) is StreamCarrier]
        finally:
            gc.enable()
    assert not left


#: The parts of connections and streams.
PARTS = {
    "Connection",
    "Exchange",
    "Http2Connection",
    "HttpConnection",
    "Socket",
    "Stream",
    "StreamCarrier",
    "StreamTunnel",
}


def parts() -> dict[int, str]:
    """Those in memory, by their addresses."""
    return {id(each): type(each).__name__ for each in gc.get_objects() if type(each).__name__ in PARTS}


async def test_whatever_ends_leaves_no_cycle_behind() -> None:
    """Streams that either side resets, late ends, answers that wait, and connections. A flood of resets would else hold
    the memory of a second, and make the collector stop the loop for 300 ms. Fails without any of the calls of `_part`,
    `Reader.close`, or `NOBODY`.
    """
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
        elif path == "/waits":
            await go.wait()
            await receive()
        else:
            await answer(send, b"x" * 200_000 if path == "/much" else b"")

    async def live(server: Serving) -> None:
        http1 = await server.connect()
        await http1.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        await http1.response()
        client = await connect(server)
        await client.get("/much")
        late = client.ask("/late", "POST", end=False)
        await client.answer(late)
        client.h2.end_stream(late)
        for length in ([], [("content-length", "90000")]):  # of which the second is not waited for
            await client.answer(client.ask("/never", "POST", length, end=False))
        reset = client.ask("/waits")
        wrong = client.ask("/waits", "POST", [("content-length", "1")], end=False)
        tunnel = client.ask("/", "CONNECT", [(":protocol", "websocket"), ("sec-websocket-version", "13")], end=False)
        await client.until(lambda: client.answers[tunnel].headers)
        much = client.ask("/waits", "POST", end=False)
        for _ in range(7):
            client.h2.send_data(much, bytes(16_000))
        client.h2.send_data(wrong, b"xx")
        client.h2.reset_stream(reset)
        assert (await client.answer(much)).status == 413
        await client.answer(wrong)
        client.ask("/waits", "POST", end=False)
        await client.flush()
        await eventually(lambda: len(server.service.tasks.running) == 5)
        client.client.close()
        http1.close()
        go.set()
        await eventually(lambda: not server.service.active and not server.service.connections)
        server.clients.clear()

    async with serving(app, h2c=True, http2=True, limit_request_body=100_000) as server:
        gc.collect()
        gc.disable()
        before = parts()
        try:
            await live(server)
            await turns_of_the_loop()
            server.service.sweep(server.service.context.now)  # compiled, deadlines are handed over then
            left = [name for where, name in parts().items() if where not in before]
        finally:
            gc.enable()
    assert not left


async def test_a_trusted_peer_names_the_client() -> None:
    """Fails without `_apply_origin` in begin_exchange."""
    async with speaking(keep) as (_, client):
        await client.get(fields=[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")])
    assert (scopes[0]["client"][0], scopes[0]["scheme"]) == ("192.0.2.7", "https")


async def test_many_requests_on_one_connection_side_by_side() -> None:
    """And each is as much load as a connection of HTTP/1.1. Fails without `_count` in Http2Connection.flush."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await go.wait()
        await answer(send, scope["raw_path"])

    async with speaking(app) as (server, client):
        slow = client.ask("/slow")
        assert server.service.load == 1
        quick = [client.ask(f"/{number}") for number in range(20)]
        for number in quick:
            assert (await client.answer(number)).ended
        assert not client.answers[slow].over
        others = [client.ask("/slow") for _ in range(9)]
        await client.flush()
        await eventually(lambda: server.service.load == 10)
        go.set()
        assert (await client.answer(slow)).body == b"/slow"
        assert [client.answers[number].body for number in quick] == [b"/%d" % n for n in range(20)]
        for number in others:
            assert (await client.answer(number)).ended
        await eventually(lambda: server.service.load == 1)


async def test_the_answers_to_one_read_are_one_write() -> None:
    """Fails with `flush` in place of `_write_at_the_end` in Http2Connection.write_soon."""
    async with speaking(echo) as (server, client):
        await client.get()  # the preface is behind us
        (connection,) = server.connections
        writes: list[bytes] = []
        transport = connection.writer.transport

        class Noting:
            def write(self, data: bytes) -> None:
                writes.append(data)
                transport.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(transport, name)

        connection.writer.transport = Noting()
        numbers = [client.ask(f"/{number}") for number in range(10)]
        for number in numbers:
            await client.answer(number)
        assert len(writes) == 1


async def test_bodies_both_ways() -> None:
    """Many windows long. Fails (hangs) without `_credit`, and without the WINDOW_UPDATE of the connection."""
    body = bytes(range(256)) * 4096  # 1 MB
    async with speaking(keep) as (_, client):
        number = client.ask("/", "POST", end=False)
        rest = body
        while rest:
            room = min(client.h2.local_flow_control_window(number), client.h2.max_outbound_frame_size, len(rest))
            if room:
                client.h2.send_data(number, rest[:room], end_stream=room == len(rest))
                rest = rest[room:]
                await client.flush()
            else:
                await client.read()
        got = await client.answer(number)
        assert got.body == body
        assert got.field(b"content-length") == b"%d" % len(body)


async def test_head_204_304_and_pieces() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/pieces":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"Connection", b"close")]})
            for piece in (b"a", b"", b"b"):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        elif scope["path"] == "/hello":
            await answer(send, b"hello")
        else:
            await send({"type": "http.response.start", "status": int(scope["path"][1:]), "headers": []})
            await send({"type": "http.response.body"})

    async with speaking(app) as (_, client):
        got = await client.get("/hello", "HEAD")
        assert (got.body, got.field(b"content-length")) == (b"", b"5")
        for path in ("/204", "/304"):
            got = await client.get(path)
            assert (got.status, got.body, got.field(b"content-length")) == (int(path[1:]), b"", None)
        got = await client.get("/pieces")
        assert (got.body, got.field(b"connection"), got.field(b"transfer-encoding")) == (b"ab", None, None)
        assert got.field(b"date") is not None


async def test_interim_answers_and_trailers() -> None:
    """103, 100 only where it is asked for, and trailers for a client that takes them, as gRPC does."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})
        body = await read_all(receive)
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": body})
        await send({"type": "http.response.trailers", "headers": [(b"Grpc-Status", b"0")]})

    async with speaking(app) as (_, client):
        fields = [("te", "trailers"), ("content-type", "application/grpc"), ("expect", "100-continue")]
        number = client.ask("/s/m", "POST", fields, end=False)
        await client.until(lambda: len(client.answers[number].interim) == 2)
        client.h2.send_data(number, b"message")
        client.h2.send_headers(number, [("x-sum", "1")], end_stream=True)
        got = await client.answer(number)
    assert [dict(each)[b":status"] for each in got.interim] == [b"103", b"100"]
    assert (got.body, got.trailers, got.reset) == (b"message", [(b"grpc-status", b"0")], None)


async def test_trailers_wait_for_the_body_before_them() -> None:
    """Fails where trailers pass by a body that waits for a window."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x" * 100_000})
        await send({"type": "http.response.trailers", "headers": [(b"a", b"b")]})

    async with speaking(app, credit=False) as (_, client):
        number = client.ask(fields=[("te", "trailers")])
        await client.until(lambda: len(client.answers[number].body) == 65_535)
        client.h2.increment_flow_control_window(65_535)
        client.h2.increment_flow_control_window(65_535, number)
        got = await client.answer(number)
        assert (len(got.body), got.trailers) == (100_000, [(b"a", b"b")])


@pytest.mark.parametrize(
    ("path", "outcome"),
    [("/raise", 500), ("/return", 500), ("/half", "reset"), ("/short", "reset")],
)
async def test_faults_of_an_application(path: str, outcome: object) -> None:
    """Answered as long as nothing is out; after that the stream is reset, and the connection goes on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/raise":
            raise RuntimeError
        if scope["path"] in ("/half", "/short"):
            headers = [(b"content-length", b"9")] if scope["path"] == "/short" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            if scope["path"] == "/short":
                await send({"type": "http.response.body"})
        elif scope["path"] == "/":
            await answer(send)

    async with speaking(app) as (_, client):
        got = await client.get(path)
        if outcome == "reset":
            assert (got.ended, got.reset) == (False, 2)
        else:
            assert (got.status, got.ended) == (outcome, True)
        assert (await client.get()).status == 200


@pytest.mark.parametrize(
    ("length", "pieces", "reset"),
    [
        pytest.param(None, [b"x" * 16_000], None, id="ends in time"),
        pytest.param(None, [b"x" * 16_000] * 3 + [None], 0, id="does not end"),
        pytest.param(None, [b"x" * 16_000] * 8, 0, id="long"),
        pytest.param(1_000_000, [None], 0, id="says that it is long"),
    ],
)
async def test_a_request_whose_answer_does_not_wait_for_it(
    length: int | None, pieces: list[bytes | None], reset: int | None
) -> None:
    """Heard out if it is short, because some clients lose an answer with a reset behind it; the connection goes on.

    Fails without `patient` in Sender._finish, and without each condition for a reset in the carrier.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 413)

    async with speaking(app) as (server, client):
        fields = [("content-length", str(length))] if length else []
        number = client.ask("/", "POST", fields, end=False)
        got = await client.answer(number)
        for piece in pieces:
            if piece is not None and not got.reset:
                client.h2.send_data(number, piece)
                await client.flush()
        if reset is None:
            client.h2.end_stream(number)
            await client.flush()
            (connection,) = server.connections
            await eventually(lambda: not connection.handler.streams.open)
        elif not length and pieces[-1] is None:
            (connection,) = server.connections
            await eventually(lambda: connection.handler.streams.open[number].incoming.received == 48_000)
            server.service.sweep(server.service.context.now + 4)
        await client.until(lambda: got.reset == reset)
        assert (got.status, got.body, got.ended, got.reset) == (413, b"no", True, reset)
        assert (await client.get()).status == 413
        assert got.reset == reset


async def test_a_client_that_resets_a_stream() -> None:
    """The application hears of it; the connection goes on. Fails without `on_reset`."""
    heard = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            await answer(send)
            return
        await read_all(receive)
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    async with speaking(app) as (server, client):
        number = client.ask("/wait")
        await client.flush()
        await eventually(lambda: server.service.active)
        client.h2.reset_stream(number, 8)
        await client.flush()
        await asyncio.wait_for(heard.wait(), 5)
        assert (await client.get()).status == 200
        await eventually(lambda: not server.service.active)


async def test_a_client_that_goes() -> None:
    """All its applications hear of it."""
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        heard.append((await receive())["type"])

    async with speaking(app) as (server, client):
        client.ask()
        client.ask()
        await client.flush()
        await eventually(lambda: server.service.active == 2)
        client.client.close()
        await eventually(lambda: heard == ["http.disconnect"] * 2 and not server.service.active)


async def test_a_half_close_right_after_an_answer_does_not_cost_it() -> None:
    """It waits for the end of the turn while another stream is open. Fails without `flush` in `eof_received`."""
    told_at_the_end: list[str] = []
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/waits":
            await go.wait()
        await answer(send, b"x")
        if scope["path"] != "/waits":
            assert not tap.protocol.eof_received()
            told_at_the_end.extend(told(tap.written))

    service = service_of(app)
    tap = Tap()
    tap.protocol = service.protocol_factory(h2c=True)()
    tap.protocol.connection_made(tap)
    tap.protocol.data_received(OPENING + get(1, path=b"/waits") + get(3))
    await eventually(lambda: told_at_the_end)
    assert "head 3" in told_at_the_end
    tap.protocol.connection_lost(None)
    go.set()
    await eventually(lambda: not service.active)


async def test_limits_are_those_of_http_1() -> None:
    """Each is answered on its stream, and the connection goes on. Fails without `on_refused`."""
    async with speaking(echo, limit_request_fields=10, limit_request_field_size=200, limit_request_line=100,
                        limit_request_body=10) as (_, client):  # fmt: skip
        many = [("x", "y")] * 12
        assert (await client.get(fields=many)).status == 431
        assert (await client.get(fields=[("cookie", "a")] * 11)).status == 431, "crumbs are counted"
        assert (await client.get(fields=[("x", "y" * 200)])).status == 431
        assert (await client.get("/" + "a" * 100)).status == 414
        assert (await client.get("/", "POST", body=b"x" * 11)).status == 413
        assert (await client.get("/", "POST", [("content-length", "11")], b"x" * 11)).status == 413
        assert (await client.get("/", "POST", body=b"x" * 10)).status == 200


async def test_limit_concurrency_counts_streams() -> None:
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send)

    async with speaking(app, limit_concurrency=2) as (_, client):
        numbers = [client.ask() for _ in range(3)]
        refused = await client.answer(numbers[2])
        assert (refused.status, refused.field(b"retry-after")) == (503, b"1")
        go.set()
        assert [(await client.answer(number)).status for number in numbers[:2]] == [200, 200]


async def test_the_access_log_and_request_ids() -> None:
    records: list[Any] = []
    async with speaking(echo, access=records.append, access_log_format="json") as (_, client):
        got = await client.get("/a?b")
        await client.get(fields=[("x", "y" * 10_000)])
    first, second = records
    assert (first.method, first.target, first.version, first.status, first.sent) == ("GET", b"/a?b", "2", 200, 7)
    assert got.field(b"x-request-id") == first.request_id.encode()
    assert second.status == 431


async def test_the_access_log_names_requests_that_are_refused() -> None:
    """For their size or an expectation, also the second time; HEAD has no body. Fails without `read_leniently`."""
    records: list[Any] = []
    long = [("x", "y" * 10_000), ("user-agent", "me")]
    async with speaking(echo, access=records.append) as (_, client):
        for _ in range(2):
            assert (await client.get("/431?a", "HEAD", long)).body == b""
        assert (await client.get("/many", "PUT", [("x", "y")] * 200)).status == 431
        assert (await client.get("/417", "PUT", [("expect", "much")])).status == 417
        assert (await client.get("/" + "a" * 9000)).status == 414
    seen = [(each.method, each.target[:9], each.version, each.status) for each in records]
    assert seen == [
        *[("HEAD", b"/431?a", "2", 431)] * 2,
        ("PUT", b"/many", "2", 431),
        ("PUT", b"/417", "2", 417),
        ("GET", b"/aaaaaaaa", "2", 414),
    ]
    assert (b"user-agent", b"me") in records[0].headers
