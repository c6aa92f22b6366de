"""Flow control over HTTP/2, both ways: what is held, what goes on meanwhile, and clients that let nothing through."""

import asyncio

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.http2.connection import STREAM_WINDOW
from aserver.protocol.http2.sender import PAUSE_ABOVE
from tests.harness.waiting import eventually
from tests.protocol.http2.strict import connect, speaking
from tests.protocol.serving import Serving, answer, read_all

PIECE = {"type": "http.response.body", "body": b"x" * 16_384, "more_body": True}


async def sweep(server: Serving, seconds: float) -> None:
    server.service.sweep(server.service.context.now + seconds)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_credit_is_given_only_for_what_the_application_has_taken() -> None:
    """Fails with a credit for all that comes, and (hangs) without one."""
    go, taken = asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        while (message := await receive())["more_body"]:
            taken.append(len(message["body"]))
        await answer(send)

    async with speaking(app) as (_server, client):
        number = client.ask("/", "POST", end=False)
        await client.until(lambda: client.h2.local_flow_control_window(number) > 65_535)  # SETTINGS
        client.windows.clear()
        for _ in range(STREAM_WINDOW // 16_384):
            client.h2.send_data(number, b"x" * 16_384)
        await client.flush()
        client.h2.ping(b"12345678")
        await client.until(lambda: client.pongs)
        assert client.windows == []
        go.set()
        await client.until(lambda: client.windows)
        assert client.windows == [(number, STREAM_WINDOW)]
        client.h2.end_stream(number)
        assert (await client.answer(number)).status == 200
        assert sum(taken) == STREAM_WINDOW


async def test_a_slow_stream_holds_up_no_other() -> None:
    """Its application pauses, and little is held for it. Fails without `paused`, or with one queue for all streams."""
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/quick":
            await answer(send, b"y" * 1000)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send(PIECE)
            sent.append(len(PIECE["body"]))  # type: ignore[arg-type]

    async with speaking(app, credit=False) as (_server, client):
        client.h2.increment_flow_control_window(1 << 22)  # of the connection: only the stream's is small
        slow = client.ask("/slow")
        await client.until(lambda: len(client.answers[slow].body) == 65_535)
        await eventually(lambda: sum(sent) >= 65_536)
        for _ in range(20):
            assert len((await client.get("/quick")).body) == 1000
        assert sum(sent) <= 65_535 + PAUSE_ABOVE + 16_384
        for _ in range(100):
            client.h2.increment_flow_control_window(16_384, slow)
        assert len((await client.answer(slow)).body) == 100 * 16_384


@pytest.mark.parametrize(("urgencies", "first"), [((5, 1), 1), ((1, 5), 0)])
async def test_urgent_answers_come_first(urgencies: tuple[int, int], first: int) -> None:
    """RFC 9218. Fails where the streams take turns, or are sent in order."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x" * 60_000)

    async with speaking(app, credit=False) as (_server, client):
        client.h2.increment_flow_control_window(1 << 20)
        blocker = client.ask("/", fields=[("priority", "u=0")])
        numbers = [client.ask("/", fields=[("priority", f"u={u}")]) for u in urgencies]
        # All three wait for the connection's window, which the server sees closed: the settings come first.
        await client.answer(blocker)
        for number in numbers:
            await client.answer(number)
        order = [number for number in client.order if number in numbers]
        assert order == sorted(order, key=lambda number: number != numbers[first])


async def test_a_large_answer_is_cut_in_time_proportional_to_it() -> None:
    """32 MB are 2,000 frames; each cut of the rest would copy 32 GB. Fails (hangs) with `piece[room:]` in `_cut`."""
    size = 32 << 20

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(size))

    async with speaking(app) as (_, client):
        client.h2.increment_flow_control_window(1 << 30)
        number = client.ask()
        client.h2.increment_flow_control_window(1 << 30, number)
        got = 0
        while not client.answers[number].over:
            await client.read()
            got += len(client.answers[number].body)
            client.answers[number].body = b""
        assert got == size


async def test_other_clients_are_served_while_one_takes_a_large_answer() -> None:
    """Fails where `flush` writes on as long as the client reads."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(64 << 20 if scope["path"] == "/large" else 10))

    async with speaking(app) as (server, client):
        client.h2.increment_flow_control_window(1 << 30)
        number = client.ask("/large")
        client.h2.increment_flow_control_window(1 << 30, number)
        other = await connect(server)
        await client.flush()
        await other.get()  # and not after 64 MB
        (large,) = [each.handler.streams for each in server.connections if each.handler.streams.open]
        assert large.open[number].queued > 1 << 20


async def test_a_window_that_never_opens() -> None:
    """`write_timeout`: the stream is reset, others are served. Fails without `is_over` in StreamCarrier.expire."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x" * (100_000 if scope["path"] == "/big" else 10))

    async with speaking(app, credit=False, write_timeout=5) as (server, client):
        client.h2.increment_flow_control_window(1 << 20)
        number = client.ask("/big")
        await client.until(lambda: len(client.answers[number].body) == 65_535)
        await sweep(server, 5)
        client.h2.increment_flow_control_window(10_000, number)
        await client.until(lambda: len(client.answers[number].body) == 75_535)
        await sweep(server, 5)  # it has read something, so that its time begins anew
        await sweep(server, 3)
        assert client.answers[number].reset is None
        assert (await client.get("/little")).status == 200
        await sweep(server, 10)
        got = await client.answer(number)
        assert (got.ended, got.reset) == (False, 8)
        assert (await client.get("/little")).status == 200


async def test_a_refusal_that_finds_no_window() -> None:
    """It waits as long as any answer, not for ever. Fails without `owner` and `_sent` in StreamCarrier.turn_away."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"x" * 65_535)

    async with speaking(app, credit=False, write_timeout=5) as (server, client):
        filler = client.ask("/")
        await client.answer(filler)  # which has used up the connection's window
        numbers = [client.ask("/" + "y" * 9000) for _ in range(2)]
        await client.until(lambda: all(client.answers[number].headers for number in numbers))
        assert [client.answers[number].status for number in numbers] == [414, 414]
        assert not any(client.answers[number].ended for number in numbers)
        await sweep(server, 10)
        for number in numbers:
            assert (await client.answer(number)).reset == 8
        client.h2.increment_flow_control_window(1 << 20)
        assert (await client.get("/")).status == 200
        client.ask("/" + "y" * 9000)
        await client.flush()


async def test_a_body_that_does_not_come() -> None:
    """`body_timeout`: 408 if nothing was sent, and the connection goes on. Fails without `deadline` in the carrier."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, await read_all(receive))

    async with speaking(app, body_timeout=5) as (server, client):
        number = client.ask("/", "POST", end=False)
        client.h2.send_data(number, b"a")
        await client.flush()
        await eventually(lambda: server.service.active)
        for _ in range(3):
            await sweep(server, 4)
            client.h2.send_data(number, b"a")
            client.h2.ping(b"12345678")
            pongs = client.pongs
            await client.until(lambda: client.pongs > pongs)  # noqa: B023
        await sweep(server, 7)
        got = await client.answer(number)
        await client.until(lambda: got.reset is not None)
        assert (got.status, got.reset) == (408, 0)
        assert (await client.get("/")).status == 200


async def test_an_application_that_takes_its_time_is_no_fault_of_the_clients() -> None:
    """A body that waits for its application, while another stream waits for its client.

    Fails with a deadline at each piece, in `take_body`.
    """
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            await go.wait()
        await answer(send, await read_all(receive))

    async with speaking(app, body_timeout=5) as (server, client):
        number = client.ask("/", "POST", end=False)
        client.h2.send_data(number, b"a" * 10_000)
        waiting = client.ask("/wait", "POST", end=False)
        await client.flush()
        await eventually(lambda: server.service.active == 2)
        client.h2.ping(b"12345678")
        await client.until(lambda: client.pongs)
        await sweep(server, 20)
        assert (await client.answer(waiting)).status == 408
        go.set()
        client.h2.end_stream(number)
        assert len((await client.answer(number)).body) == 10_000
