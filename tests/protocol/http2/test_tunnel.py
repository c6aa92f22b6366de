"""WebSocket over HTTP/2 (RFC 8441): the same session, on a stream of its own."""

import asyncio
from typing import Any

from aserver.asgi import Receive, Scope, Send
from tests.harness.waiting import eventually
from tests.protocol.http2.strict import Answer, StrictClient, connect, speaking
from tests.protocol.serving import Serving, answer, serving
from tests.protocol.websocket.peers import BINARY, CLOSE, PING, TEXT, Application, echo, frame, frames_of, listen

PONG = 0x8A


async def echo_app(scope: Scope, receive: Receive, send: Send) -> None:
    await Application(echo)(scope, receive, send)


def offer(client: StrictClient, path: str = "/", *fields: tuple[str, str]) -> int:
    """Ask for a WebSocket."""
    number = client.h2.get_next_available_stream_id()
    headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path)]
    headers += [(":authority", "t"), ("sec-websocket-version", "13"), *fields]
    client.h2.send_headers(number, headers)
    client.answers[number] = Answer()
    return number


async def opened(client: StrictClient, *fields: tuple[str, str]) -> int:
    number = offer(client, "/", *fields)
    got = client.answers[number]
    await client.until(lambda: got.headers or got.over)
    assert got.status == 200
    return number


async def test_messages_pings_and_the_close_beside_other_streams() -> None:
    """The scope is HTTP/1's but for the version. Fails without `open_tunnel`."""
    app = Application(echo)

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        await (answer(send, b"http") if scope["type"] == "http" else app(scope, receive, send))

    records: list[Any] = []
    async with speaking(either, access=records.append) as (server, client):
        await client.until(lambda: client.h2.remote_settings.enable_connect_protocol)
        number = await opened(client, ("sec-websocket-protocol", "a, b"))
        got = client.answers[number]
        assert got.field(b"sec-websocket-accept") is None
        client.h2.send_data(number, frame(TEXT, b"one") + frame(PING, b"two"))
        client.h2.send_data(number, frame(BINARY, b"x" * 1000))
        await client.until(lambda: len(frames_of(got.body)) == 3)
        assert {(0x80 | TEXT, b"one"), (PONG, b"two"), (0x80 | BINARY, b"x" * 1000)} == set(frames_of(got.body))
        assert (await client.get()).body == b"http"
        assert server.service.websockets == 1
        client.h2.send_data(number, frame(CLOSE, b"\x03\xe8"))
        await client.until(lambda: got.over)
        assert frames_of(got.body)[-1] == (0x80 | CLOSE, b"\x03\xe8")
        assert (await client.get()).body == b"http"
        await eventually(lambda: not server.service.active)
        assert server.service.websockets == 0
    assert app.scope["type"] == "websocket"
    assert (app.scope["http_version"], app.scope["scheme"]) == ("2", "ws")
    assert app.scope["subprotocols"] == ["a", "b"]
    logged = [
        (each.method, each.status, each.version) for each in records if each.target == b"/" and each.method != "GET"
    ]
    assert logged == [("CONNECT", 200, "2"), ("WEBSOCKET", 1000, "2")]


async def test_compression() -> None:
    async with speaking(echo_app) as (_, client):
        number = await opened(client, ("sec-websocket-extensions", "permessage-deflate"))
        got = client.answers[number]
        assert b"permessage-deflate" in (got.field(b"sec-websocket-extensions") or b"")
        client.h2.send_data(number, frame(TEXT, b"a" * 2000))
        await client.until(lambda: frames_of(got.body))
        ((first, payload),) = frames_of(got.body)
        assert first == 0x40 | 0x80 | TEXT
        assert len(payload) < 100


async def test_a_denial_and_offers_that_are_none() -> None:
    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async with speaking(deny) as (server, client):
        got = await client.answer(offer(client))
        assert (got.status, got.body, got.ended) == (401, b"no", True)
        wrong = client.ask("/", "CONNECT", [(":protocol", "connect-udp")], end=False)
        assert (await client.answer(wrong)).status == 501
        await eventually(lambda: not server.service.active)


async def test_what_the_application_does_not_take_is_not_credited() -> None:
    """Fails where `take_body` credits while the gate is closed."""
    app = Application(lambda each: each.go_on.wait())
    async with speaking(app, ws_max_queue=2) as (_, client):
        number = await opened(client)
        client.windows.clear()
        sent = 0
        while client.h2.local_flow_control_window(number) >= 16_384:
            client.h2.send_data(number, frame(BINARY, b"x" * 16_000))
            sent += 1
        client.h2.ping(b"12345678")
        await client.until(lambda: client.pongs)
        assert sum(size for stream, size in client.windows if stream == number) < 70_000
        app.go_on.set()


async def test_limits_of_bodies_are_not_for_websockets() -> None:
    """Fails without `tunnel` in the reader."""
    async with speaking(echo_app, limit_request_body=100) as (_, client):
        number = await opened(client)
        got = client.answers[number]
        client.h2.send_data(number, frame(TEXT, b"x" * 1000))
        await client.until(lambda: frames_of(got.body))
        assert frames_of(got.body) == [(0x80 | TEXT, b"x" * 1000)]


async def test_more_than_a_window_in_each_direction() -> None:
    """Fails (hangs) without `credit` in StreamTunnel."""
    async with speaking(echo_app) as (_, client):
        number = await opened(client)
        got = client.answers[number]
        for count in range(1, 11):
            client.h2.send_data(number, frame(BINARY, b"x" * 16_000))
            await client.until(lambda: len(got.body) == count * 16_004)  # noqa: B023


async def test_a_client_that_resets_or_goes() -> None:
    """The application gets 1006."""
    apps: list[Application] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        apps.append(Application(listen))
        await apps[-1](scope, receive, send)

    async with speaking(app) as (server, client):
        number = await opened(client)
        client.h2.reset_stream(number, 8)
        await client.flush()
        await eventually(lambda: apps[0].returned)
        await opened(client)
        client.client.close()
        await eventually(lambda: len(apps) == 2 and apps[1].returned)
        assert [each.got[-1] for each in apps] == [(1006, "")] * 2
        await eventually(lambda: not server.service.active)


async def test_pings_of_the_server_and_silence() -> None:
    """Deadlines of a tunnel are looked at. Fails without `watch` in its setter."""
    async with speaking(echo_app, ws_ping_interval=20, ws_ping_timeout=20) as (server, client):
        number = await opened(client)
        got = client.answers[number]
        await sweep(server, 22)
        await client.until(lambda: frames_of(got.body) == [(0x80 | PING, b"")])
        for _ in range(3):
            await sweep(server, 22)
        await client.until(lambda: got.over)
        assert frames_of(got.body)[-1][1][:2] == b"\x03\xf3"


async def test_a_drain_closes_with_1012() -> None:
    async with speaking(echo_app) as (server, client):
        number = await opened(client)
        server.service.drain()
        await sweep(server, 3)
        departure = server.service.close_websockets(server.service.context.loop.time())
        got = client.answers[number]
        await client.until(lambda: frames_of(got.body))
        assert frames_of(got.body) == [(0x80 | CLOSE, b"\x03\xf4service restart")]
        client.h2.send_data(number, frame(CLOSE, b"\x03\xf4"))
        await client.until_closed()
        departure.cancel()
        assert client.goaways[0][1] == 2**31 - 1


async def sweep(server: Serving, seconds: float) -> None:
    server.service.sweep(server.service.context.now + seconds)
    await asyncio.sleep(0)


async def test_a_large_message_to_a_client_that_reads_slowly() -> None:
    """`send()` waits, and a client that opens no window is cut off. Fails without `begin` of the waiting."""
    size = 300_000
    app = Application(lambda each: each.send({"type": "websocket.send", "bytes": bytes(size)}))
    async with serving(app, h2c=True, http2=True, write_timeout=5) as server:
        client = await connect(server, credit=False)
        number = await opened(client)
        got = client.answers[number]
        await client.until(lambda: len(got.body) == 65_535)
        await sweep(server, 10)
        await sweep(server, 10)
        await client.until(lambda: got.reset is not None)
        await eventually(lambda: not server.service.active)
