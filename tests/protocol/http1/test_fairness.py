"""Whatever a client sends holds its worker's loop for a portion of it only; the others are served in between."""

import asyncio
from math import inf
from typing import Any

import httptools
import pytest
from httptools import HttpRequestParser

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.http1.pipeline import PIPELINE_LIMIT
from aserver.protocol.http1.reader import PORTION_BYTES
from tests.harness.waiting import eventually, turns_of_the_loop
from tests.protocol.serving import GET, LAST_GET, echo, echo_after, field, service_of, serving, status
from tests.protocol.websocket.peers import BINARY, frame
from tests.protocol.websocket.peers import request as websocket_request
from tests.protocol.wiretap import READ, Tap, Wiretap, filled

HEAD = b"GET / HTTP/1.1\r\nHost: t\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"

FLOODS = {
    "large fields": (HEAD + filled(b"A: %s\r\n" % (b"x" * 1000)), 431),
    "many requests with large fields": ((HEAD + b"A: %s\r\n" % (b"x" * 4000) + b"\r\n") * 12 + b"\0", 200),
    "tiny chunks": (CHUNKED + filled(b"1\r\nx\r\n") + b"0\r\n\r\n", 200),
    "chunk extensions": (CHUNKED + filled(b"1%s\r\nx\r\n" % (b";a=b" * 250)) + b"0\r\n\r\n", 200),
    "trailers": (CHUNKED + b"0\r\n" + b"a: %s\r\n" % (b"x" * 8000) * 32 + b"\r\n", 200),
    "empty lines": (filled(b"\r\n") + GET, 200),
    "requests with tiny chunks": ((CHUNKED + b"1\r\nx\r\n" * 60 + b"0\r\n\r\n") * PIPELINE_LIMIT, 200),
    "an offer to upgrade": (
        CHUNKED[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + filled(b"1\r\nx\r\n", 20_000) + b"0\r\n\r\n",
        200,
    ),
}
floods = pytest.mark.parametrize(
    ("data", "answered"), [pytest.param(*flood, id=name) for name, flood in FLOODS.items()]
)


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough where the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


class Counted:
    """A parser's callbacks, counted, and the most of them in one turn of the loop.

    Between the parser and the connection, because a compiled connection can be neither derived from nor patched.
    """

    def __init__(self) -> None:
        self.total = self.calls = self.most = 0

    def parser(self, callbacks: Any) -> Any:
        """Stand in for `httptools.HttpRequestParser`."""
        return HttpRequestParser(Counting(self, callbacks))

    def count(self) -> None:
        if not self.calls:
            asyncio.get_running_loop().call_soon(self._turn_over)
        self.total += 1
        self.calls += 1
        self.most = max(self.most, self.calls)

    def _turn_over(self) -> None:
        self.calls = 0


class Counting:
    """Passes one parser's calls on."""

    def __init__(self, counted: Counted, callbacks: Any) -> None:
        self._counted = counted
        self._callbacks = callbacks
        for name in ("on_url", "on_headers_complete", "on_message_complete"):
            if hasattr(callbacks, name):
                setattr(self, name, getattr(callbacks, name))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._counted.count()
        self._callbacks.on_header(name, value)

    def on_body(self, data: bytes) -> None:
        self._counted.count()
        self._callbacks.on_body(data)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(httptools, "HttpRequestParser", counted.parser)
    return counted


class Wired:
    """A service and connections to it, without a network."""

    def __init__(self, app: Any = echo, **settings: Any) -> None:
        self.service = service_of(app, **settings)

    def connect(self) -> tuple[Any, Tap]:
        line = Tap().plug(self.service)
        return line.protocol, line

    async def end(self, *connections: Any) -> None:
        for connection in connections:
            connection.connection_lost(None)
        await eventually(lambda: not self.service.active and not self.service.connections)


async def answer_of(connection: Any, line: Tap) -> None:
    await eventually(
        lambda: line.written and not connection.handler.reader.unread and connection.handler.receiving is None
    )


# ── floods ───────────────────────────────────────────────────────────────────────────────────


@floods
async def test_others_are_answered_before_a_flood_is_read(data: bytes, answered: int) -> None:
    """Fails with a `PORTION_BYTES` above the flood's size: then it is read to its end inside `data_received`."""
    wired = Wired()
    attackers = [wired.connect() for _ in range(3)]
    honest, line = wired.connect()
    unread: list[bool] = []
    line.on_write = lambda: unread.extend(bool(attacker.handler.reader.unread) for attacker, _ in attackers)
    for attacker, _ in attackers:
        attacker.data_received(data)
        assert attacker.handler.reader.unread
    honest.data_received(GET)
    await eventually(lambda: line.written)
    assert status(line.written) == 200
    assert unread == [True] * 3
    for attacker, theirs in attackers:
        await answer_of(attacker, theirs)
        assert status(theirs.written) == answered
    await wired.end(honest, *(attacker for attacker, _ in attackers))


@floods
async def test_no_turn_is_long(data: bytes, answered: int, counted: Counted) -> None:
    """Counted in calls of the parser, each about a microsecond. Fails without LINE_COST, by a factor of ten."""
    wired = Wired()
    attacker, line = wired.connect()
    attacker.data_received(data)
    await answer_of(attacker, line)
    assert status(line.written) == answered
    assert counted.most < 250
    await wired.end(attacker)


@pytest.mark.parametrize(
    ("data", "most"),
    [
        pytest.param(HEAD + b"a:\r\n" * 1900 + b"\r\n", 600, id="whole"),
        pytest.param(HEAD.replace(b"GET", b"POST") + b"a:\r\n" * 1900 + b"\r\n", 600, id="whole POST"),
        pytest.param(HEAD + b"a:\r\n" * 1900, 600, id="begun"),
        pytest.param(GET + HEAD + b"a:\r\n" * 1900 + b"\r\n", 600, id="behind another"),
        pytest.param(HEAD + b"a: %s\r\n" % (b"x" * 4000) + b"a:\r\n" * 900 + b"\r\n", 600, id="behind a large field"),
    ],
)
async def test_a_head_of_tiny_fields_is_not_parsed_to_its_end(data: bytes, most: int, counted: Counted) -> None:
    """Eight kilobytes that took 1.1 ms. Fails without `is_costly`, or without `has_more_lines` in `_read_fields`."""
    wired = Wired()
    attacker, line = wired.connect()
    attacker.data_received(data)
    await eventually(lambda: b" 431 " in line.written)
    assert 100 < counted.most < most
    await wired.end(attacker)


@floods
async def test_the_answer_is_the_same_however_it_comes(data: bytes, answered: int) -> None:
    tap = Wiretap()
    whole = await tap.ask([data])
    assert whole.statuses[0] == answered
    for size in (READ // 4, PORTION_BYTES + 1, 5000):
        cut = await tap.ask([data[at : at + size] for at in range(0, len(data), size)])
        assert (cut.statuses, cut.bodies, cut.open) == (whole.statuses, whole.bodies, whole.open)


async def test_the_first_thing_wrong_counts_wherever_the_pieces_end() -> None:
    """Fails without `check_fields` where the parser has refused: then a piece's end would decide."""
    tap = Wiretap()
    for good, wanted in ((30, 400), (150, 431)):
        data = HEAD + b"a: b\r\n" * good + b"no field\r\n\r\n"
        assert (await tap.ask([data])).statuses == [wanted]
        for at in range(1, len(data), 7):
            assert (await tap.ask([data[:at], data[at:]])).statuses == [wanted], at
    double = HEAD + b"a: b\r\n" * 150 + b"Host: t\r\n\r\n"
    for at in range(0, len(double), 7):
        assert (await tap.ask([double[:at], double[at:]])).statuses == [431], at


# ── while something waits ────────────────────────────────────────────────────────────────────

LONG = HEAD + b"A: %s\r\n" % (b"x" * 8000) * 4 + b"\r\n"


async def test_nothing_is_read_that_would_have_to_wait() -> None:
    wired = Wired()
    attacker, line = wired.connect()
    attacker.data_received(LONG)
    assert attacker.handler.reader.unread
    assert not line.reading
    await eventually(lambda: line.written)
    assert line.reading
    assert not attacker.handler.reader.unread
    assert status(line.written) == 200
    await wired.end(attacker)


async def test_what_is_read_all_the_same_is_not_lost() -> None:
    """A TLS transport hands out what it has decrypted, paused or not."""
    wired = Wired()
    attacker, line = wired.connect()
    body = filled(b"1\r\nx\r\n", 40_002)
    attacker.data_received(CHUNKED + body)
    attacker.data_received(body + b"0\r\n\r\n")
    await eventually(lambda: line.written)
    assert line.written.endswith(b"POST / " + b"x" * (2 * 40_002 // 6))
    attacker.data_received(GET * 3 * PIPELINE_LIMIT)
    assert attacker.handler.reader.unread
    attacker.data_received(GET * 5)
    await eventually(lambda: line.written.count(b"HTTP/1.1 200") == 1 + 3 * PIPELINE_LIMIT + 5)
    await wired.end(attacker)


async def test_who_waits_for_room_does_not_ask_in_each_turn() -> None:
    """The loop would be busy for as long as the application thinks."""
    answer = asyncio.Event()

    app = echo_after(answer)
    wired = Wired(app)
    client, line = wired.connect()
    client.data_received(GET * 3 * PIPELINE_LIMIT)
    assert client.handler.reader.unread
    assert not wired.service.context.fair_queue.waiting
    answer.set()
    await eventually(lambda: line.written.count(b"HTTP/1.1 200") == 3 * PIPELINE_LIMIT)
    await wired.end(client)


async def test_a_connection_that_waits_is_not_idle() -> None:
    """A drain closes the idle ones. Fails without `reader.unread` in `idle`."""
    wired = Wired()
    waiting, line = wired.connect()
    waiting.data_received(filled(b"\r\n") + GET)  # nothing of a head has come yet
    assert not waiting.handler.reader.in_head
    wired.service.drain()
    wired.service.close_idle()
    assert not line.closed
    await eventually(lambda: line.written)
    assert status(line.written) == 200
    assert field(line.written, b"connection") == b"close"
    await wired.end(waiting)


@pytest.mark.parametrize("gone", [True, False])
async def test_a_connection_that_ends_meanwhile(gone: bool, counted: Counted) -> None:
    wired = Wired()
    attacker, line = wired.connect()
    attacker.data_received(LONG)
    reader = attacker.handler.reader
    assert reader.unread
    if gone:
        attacker.connection_lost(None)
        assert not reader.unread
    else:
        attacker.linger()
        assert line.reading
    parsed = counted.total
    await turns_of_the_loop(10)
    assert counted.total == parsed > 0
    assert not reader.unread
    assert not line.written
    await wired.end(attacker)


async def test_a_head_that_waits_has_its_time_still() -> None:
    """Not read, but not because of the application. Fails without `Pause.TURN` in `expire`: it would live on."""
    wired = Wired(header_timeout=5)
    attacker, line = wired.connect()
    attacker.data_received(LONG)
    assert attacker.handler.reader.in_head
    assert attacker.deadline < inf
    wired.service.sweep(wired.service.context.now + 60)
    assert status(line.written) == 408
    await turns_of_the_loop(10)
    assert line.written.count(b"HTTP/1.1") == 1
    assert line.half_closed
    await wired.end(attacker)


async def test_bytes_behind_the_last_request_never_wait() -> None:
    """To close with something unread is a reset. Fails if `_read_parts` looks at the portion before the phase."""
    wired = Wired()
    others = [wired.connect()[0] for _ in range(10)]
    for other in others:
        other.data_received(LONG)
    client, line = wired.connect()
    last = HEAD + b"Connection: close\r\n" + b"A: %s\r\n" % (b"x" * 5000) * 3
    last += b"B: %s\r\n\r\n" % (b"x" * (PORTION_BYTES - len(last) - 7))
    assert len(last) == PORTION_BYTES  # the head ends where the turn does
    client.data_received(last + b"more")
    assert client.handler.current is not None
    assert not client.handler.reader.unread
    assert line.reading
    await eventually(lambda: line.written)
    assert status(line.written) == 200
    assert line.closed
    await wired.end(client, *others)


async def test_a_websocket_after_a_long_head() -> None:
    """Fails without `gate.open` in `_hand_over`: its frames would never be read."""
    received: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        received.append(await receive())

    wired = Wired(app)
    client, line = wired.connect()
    head = websocket_request()
    long = head[:-2] + b"A: %s\r\n" % (b"x" * 8000) * 4 + b"\r\n"
    client.data_received(long)
    assert client.handler.reader.unread
    assert not line.reading
    await eventually(lambda: line.written)
    assert status(line.written) == 101
    assert line.reading
    line.protocol.data_received(frame(BINARY, b"first"))
    await eventually(lambda: received)
    assert received[0]["bytes"] == b"first"
    line.protocol.connection_lost(None)
    await wired.end()


async def test_a_websocket_behind_a_long_head_that_is_full_stays_paused() -> None:
    """What it got with its head is more than may wait until it is accepted."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    wired = Wired(app)
    client, line = wired.connect()
    long = websocket_request()[:-2] + b"A: %s\r\n" % (b"x" * 8000) * 4 + b"\r\n"
    client.data_received(long + frame(BINARY, b"x" * 70_000))
    await eventually(lambda: line.protocol is not None)
    await turns_of_the_loop(5)
    assert not line.reading
    line.protocol.connection_lost(None)
    await wired.end()


@pytest.mark.parametrize("uvloop", [True, False])
def test_a_client_that_shuts_down_behind_a_flood_gets_its_answers(uvloop: bool) -> None:
    """The end is not seen before what came before it: a transport that is paused tells nothing."""

    async def talk() -> bytes:
        async with serving(echo) as server:
            client = await server.connect()
            client.writer.write(
                GET * 50 + LONG * 10 + CHUNKED + filled(b"1\r\nx\r\n", 60_000) + b"0\r\n\r\n" + LAST_GET
            )
            client.writer.write_eof()
            return await client.rest()

    if uvloop:
        import uvloop as loops

        got = loops.run(talk())
    else:
        got = asyncio.run(talk())
    assert got.count(b"HTTP/1.1 200 OK") == 50 + 10 + 1 + 1
    assert b"x" * 10_000 in got
