"""What an application writes in one turn of the loop goes out together, but nobody waits for it longer than that."""

import asyncio
import time

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.transport.writer import MOST_GATHERED
from tests.protocol.serving import GET, LAST_GET, Serving, service_of, serving
from tests.protocol.wiretap import Tap, Writes

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]}


def piece(body: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def test_pieces_of_one_turn_arrive_though_the_application_writes_no_more() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(piece(b"a"))
        await send(piece(b"b"))
        await send(piece(b"c"))
        await go_on.wait()
        await send(piece(b"def", more=False))

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET)
        assert (await client.until(b"\r\n\r\nabc")).endswith(b"\r\n\r\nabc")
        go_on.set()
        assert await client.exactly(3) == b"def"


async def test_an_application_that_blocks_the_loop_between_pieces_holds_none_back() -> None:
    written: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = send.__self__.connection  # type: ignore[attr-defined]
        await send(START)
        for body in (b"a", b"b", b"c", b"d", b"e"):
            await send(piece(body))
            written.append(sum(map(len, connection.link.writer.held)))
            time.sleep(0.02)
        await send(piece(b"f", more=False))

    async with serving(app) as server:
        assert (await server.ask(LAST_GET)).endswith(b"\r\n\r\nabcdef")
    assert written == [0, 0, 0, 0, 0]


async def test_a_pipelined_answer_does_not_wait_for_the_next_one() -> None:
    go_on = asyncio.Event()
    served = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal served
        served += 1
        if served == 4:
            await go_on.wait()
        await send(START)
        await send(piece(b"%06d" % served, more=False))

    async with serving(app) as server:
        client = await server.connect()
        await client.send(GET * 5)
        for number in range(1, 4):
            assert (await client.response())[1] == b"%06d" % number
        go_on.set()
        for number in range(4, 6):
            assert (await client.response())[1] == b"%06d" % number


async def test_what_is_held_goes_out_before_a_failed_application_breaks_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body in (b"a", b"b", b"c"):
            await send(piece(body))
        raise LookupError("of the application's")

    async with serving(app) as server:
        answer = await server.ask(GET)
    assert answer.endswith(b"\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n")


async def test_many_small_pieces_are_few_writes() -> None:
    writes: list[Writes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = send.__self__.connection  # type: ignore[attr-defined]
        writer = connection.link.writer
        writer.transport = Writes(writer.transport)
        writes.append(writer.transport)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send(piece(b"x" * 1000))
        await send(piece(b"", more=False))

    async with serving(app) as server:
        answer = await server.ask(LAST_GET)
    assert answer.count(b"x") == 100_000
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert len(writes[0].sizes) <= 4


async def three_are_answered(server: Serving) -> None:
    """Three clients ask in the same turn."""
    clients = [await server.connect() for _ in range(3)]
    for client in clients:
        await client.send(GET)
    for client in clients:
        assert (await client.response())[1] == b"abcdef"


async def test_answers_close_together_wait_for_the_end_of_the_turn_and_no_longer() -> None:
    held: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = send.__self__.connection  # type: ignore[attr-defined]
        connection.context.gather_until = time.monotonic() + 60  # as if one had just been written
        await send(START)
        await send(piece(b"abcdef", more=False))
        held.append(len(connection.link.writer.held or ()))

    async with serving(app) as server:
        await three_are_answered(server)
        assert held == [1, 1, 1]
        assert not any(connection.writer.held for connection in server.connections)
        assert (await server.ask(LAST_GET)).endswith(b"\r\n\r\nabcdef")  # closing writes what waits


async def test_many_answers_do_not_wait_together() -> None:
    """The answer after MOST_GATHERED takes them along. Fails without the look at their number."""
    written: list[int] = []
    taps = [Tap() for _ in range(40)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for gathering in (service.context, service.plain):
            if gathering is not None:
                gathering.gather_until = time.monotonic() + 60
        await send(START)
        await send(piece(b"abcdef", more=False))
        written.append(sum(bool(tap.written) for tap in taps))

    service = service_of(app)
    for tap in taps:
        tap.plug(service).protocol.data_received(GET)
    while service.active:
        await asyncio.sleep(0)
    # By the ordinary path an answer is written when its application has returned.
    assert MOST_GATHERED <= written.count(0) <= MOST_GATHERED + 1
    assert sorted(written) == written
    assert written[-1] > MOST_GATHERED


async def test_an_application_that_takes_long_between_answers_holds_none_back() -> None:
    held: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = send.__self__.connection  # type: ignore[attr-defined]
        time.sleep(0.005)
        await send(START)
        await send(piece(b"abcdef", more=False))
        held.append(connection.link.writer.held)

    async with serving(app) as server:
        await three_are_answered(server)
    assert held == [None, None, None]


async def test_an_answer_that_comes_late_takes_those_along_that_wait() -> None:
    written: list[list[bool]] = []
    taps = [Tap(), Tap(), Tap()]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for gathering in (service.context, service.plain):
            if gathering is not None:
                gathering.gather_until = time.monotonic() + 60 if len(written) < 2 else 0.0
        await send(START)
        await send(piece(b"abcdef", more=False))
        written.append([bool(tap.written) for tap in taps])

    service = service_of(app)
    for tap in taps:
        tap.plug(service).protocol.data_received(GET)
    while service.active:
        await asyncio.sleep(0)
    assert written == [[False, False, False], [False, False, False], [True, True, True]]
