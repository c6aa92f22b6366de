"""How connections of HTTP/2 end: deadlines, GOAWAY with a round trip, mistakes, floods."""

import asyncio

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.http2 import frames
from aserver.worker.relay import Relay
from tests.harness.waiting import eventually
from tests.protocol.http2.strict import StrictClient, connect, speaking
from tests.protocol.serving import Client, Serving, answer, echo, serving

LARGEST = 2**31 - 1
CALM = 11


async def sweep(server: Serving, seconds: float) -> None:
    server.service.sweep(server.service.context.now + seconds)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_drain_costs_no_stream() -> None:
    """What is under way, and what is begun before the client has heard of it, is served. Fails with one GOAWAY.

    A lull is waited for, since some clients break off at any GOAWAY; but a connection on which streams are begun
    again and again may never have one. Fails without `_begun`.
    """
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send, scope["raw_path"])

    async with speaking(app) as (server, client):
        first = client.ask("/first")
        await client.flush()
        await eventually(lambda: server.service.active)
        server.service.drain()
        for pongs in range(1, 5):
            client.h2.ping(b"12345678")
            await client.until(lambda: client.pongs == pongs)  # noqa: B023
            assert client.goaways == []
            await sweep(server, 3)
        second = client.ask("/second")
        await client.flush()
        await eventually(lambda: server.service.active == 2)
        await sweep(server, 3)
        crossing = client.ask("/crossing")  # begun before the GOAWAY was read
        await client.flush()
        await client.until(lambda: len(client.goaways) == 2)
        assert client.goaways == [(0, LARGEST), (0, crossing)]
        assert not client.closed
        go.set()
        got = [await client.answer(number) for number in (first, second, crossing)]
        assert [each.body for each in got] == [b"/first", b"/second", b"/crossing"]
        await client.until_closed()
        client.client.close()
        await eventually(lambda: not server.service.connections)


async def test_a_goaway_is_not_read_together_with_the_last_answer() -> None:
    """Python's `h2` loses what it reads with it. Fails without `_ask` in Http2Connection._rest, and in `leave`."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send, b"the body")

    for late in (True, False):
        async with speaking(app) as (server, client):
            client.ask()
            await client.flush()
            await eventually(lambda: server.service.active)
            if late:
                server.service.drain()
            go.set()
            await client.client.until(b"the body")
            if not late:
                server.service.drain()
            assert frames.goaway(LARGEST, 0)[3:9] not in await client.client.until(b"at rest?")
            await client.client.send(frames.ping(b"at rest?", ack=True))
            assert frames.goaway(LARGEST, 0)[3:] in await client.client.until(b"leaving ")
        go.clear()


async def test_an_idle_connection_leaves_at_once_but_not_without_the_round_trip() -> None:
    async with speaking(echo) as (server, client):
        assert (await client.get()).status == 200
        server.service.drain()
        crossing = client.ask("/crossing")
        assert (await client.answer(crossing)).status == 200
        await client.until_closed()
        assert client.goaways == [(0, LARGEST), (0, crossing)]


async def test_a_client_that_does_not_answer_the_ping() -> None:
    """The connection ends anyway. Fails without the deadline of FAREWELL."""
    async with speaking(echo) as (server, client):
        assert (await client.get()).status == 200
        server.service.drain()
        await client.client.until(b"at rest?")
        await sweep(server, 4)
        await client.client.until(b"leaving ")
        await sweep(server, 7)
        assert b"\x00\x00\x08\x07" in await client.client.rest()


async def test_a_connection_that_begins_while_the_worker_drains() -> None:
    """Its request is served. Fails without `draining` in Http2Connection.data_received."""
    async with serving(echo, h2c=True, http2=True) as server:
        late = await server.connect()
        await eventually(lambda: server.service.connections)
        server.service.drain()
        client = await StrictClient(late).begin()
        assert (await client.get()).status == 200
        await client.until_closed()


async def test_a_successor_is_not_given_a_connection_in_the_middle() -> None:
    """A connection of HTTP/2 has a state that no other process knows. Fails with HTTP/1's rule in Relay.hand_on."""
    async with speaking(echo) as (server, client):
        await client.get()
        relay = Relay()
        assert all(each.idle for each in server.connections)
        relay.hand_on(server.connections)
        for sock in vars(relay).values():
            sock.close()
        assert (await client.get()).status == 200


async def test_an_idle_connection_is_kept_as_long_as_keep_alive_says() -> None:
    async with speaking(echo, keep_alive=5) as (server, client):
        for _ in range(2):
            assert (await client.get()).status == 200
            await sweep(server, 5)
            assert not client.closed
        await sweep(server, 7)
        await client.until_closed()
        assert client.goaways[0] == (0, LARGEST)


async def test_slow_heads() -> None:
    """`header_timeout`: of the preface, of SETTINGS, of a header block. Fails without HEAD in `data_received`."""
    async with serving(echo, h2c=True, http2=True, header_timeout=5) as server:
        half = await server.connect()
        await half.send(frames.PREFACE[:10])
        nothing = await server.connect()
        await nothing.send(frames.PREFACE)
        await eventually(lambda: len(server.service.connections) == 2)
        client = await connect(server)
        await client.get()
        await client.client.send(frames.head(1, frames.HEADERS, 0, 3) + b"\x82")  # CONTINUATION does not come
        (mine,) = [
            each for each in server.connections if hasattr(each.handler, "streams") and each.handler.streams.last
        ]
        await eventually(lambda: mine.awaited.name == "HEAD")
        await sweep(server, 5)
        assert len(server.service.connections) == 3
        await sweep(server, 2)
        assert await half.rest() == b""
        assert b"in time" in await nothing.rest()
        await client.until_closed()
        assert client.goaways == [(CALM, 1)]


async def test_mistakes_end_the_connection_with_their_code() -> None:
    """And its applications hear of it at once. Fails without `lost` in `_fail`."""
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        heard.append((await receive())["type"])

    async with speaking(app) as (server, client):
        client.ask()
        await client.flush()
        await eventually(lambda: server.service.active)
        await client.client.send(frames.head(0, frames.CONTINUATION, 0, 1))
        await client.until_closed()
        assert client.goaways == [(1, 1)]
        assert heard == ["http.disconnect"]


async def test_a_client_that_says_goodbye() -> None:
    """Its streams are served, then the connection ends. Fails without `on_goaway`."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await answer(send)

    async with speaking(app) as (server, client):
        number = client.ask()
        await client.client.send(client.h2.data_to_send() + frames.goaway(0, 0))
        await eventually(lambda: server.service.active)
        go.set()
        assert (await client.answer(number)).status == 200
        await client.until_closed()


async def flood(client: Client, frame: bytes) -> bytes:
    """Send a frame again and again, as long as the server takes it; return what it said at the end."""
    for _ in range(100):
        try:
            await client.send(frame * 200)
        except OSError:
            break
    client.writer.write_eof()
    return await client.rest()


async def test_floods_end_with_calm() -> None:
    """Each kind by itself, while another client is served. Fails without a cost in `rates`."""
    async with serving(echo, h2c=True, http2=True) as server:
        other = await connect(server)
        settings = frames.PREFACE + frames.settings({})
        resets = b"".join(
            frames.headers(number, b"\x82\x84\x87\x41\x01t", end=True) + frames.rst_stream(number, 8)
            for number in range(1, 4001, 2)
        )
        for attack in (
            frames.ping(b"12345678", ack=False),
            frames.settings({}),
            frames.head(5, frames.PRIORITY, 0, 3) + bytes(5),
            frames.window_update(0, 1),
            frames.head(4, frames.PRIORITY_UPDATE, 0, 0) + b"\0\0\0\1",
        ):
            client = await server.connect()
            await client.send(settings)
            said = await flood(client, attack)
            assert frames.goaway(0, CALM)[9:] in said, attack
            assert (await other.get()).status == 200
        client = await server.connect()
        await client.send(settings + resets)
        client.writer.write_eof()
        assert CALM.to_bytes(4, "big") + b"too many" in await client.rest()
        assert (await other.get()).status == 200
        await eventually(lambda: not server.service.active)
