"""Whatever a WebSocket's client sends holds its worker's loop for a portion of it only; see http1/test_fairness.py."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from aserver.asgi import ASGIApp
from aserver.protocol.application.body import HIGH_WATER
from aserver.protocol.websocket import deflate
from aserver.protocol.websocket.deflate import Inflater
from aserver.protocol.websocket.frames import ViolationError
from aserver.protocol.websocket.reader import INFLATED_BYTES, INFLATED_COST, PORTION_FRAMES, TEXT_BYTES, FrameReader
from tests.harness.waiting import eventually, turns_of_the_loop
from tests.protocol.narrows import PIECES, Narrows
from tests.protocol.serving import GET, service_of, status
from tests.protocol.serving import echo as echo_http
from tests.protocol.websocket.peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    TEXT,
    Application,
    Told,
    agreement,
    compress,
    echo,
    frame,
    frames_of,
    listen,
    request,
)
from tests.protocol.wiretap import READ, Tap, filled

OFFER = b"Sec-WebSocket-Extensions: permessage-deflate"
LIMIT = 4_000_000
END = frame(TEXT, b"end")

#: Four final blocks of 33 KB and three bytes more: each costs a new context with a full window.
FINALS = zlib.compress(bytes(33_000), wbits=-15) + zlib.compress(b"a", wbits=-15) * 3

#: None of them breaks a rule; all end with a message of their own.
FLOODS = {
    "messages": filled(frame(BINARY, b"x")),
    "texts": filled(frame(TEXT, b"x")),
    "pings": filled(frame(PING)),
    "pongs": filled(frame(PONG)),
    "fragments": frame(BINARY, fin=False) + filled(frame(CONTINUATION, b"x", fin=False)) + frame(CONTINUATION),
    "fragments of text": frame(TEXT, fin=False)
    + filled(frame(CONTINUATION, "\u20ac".encode()[:1], fin=False) + frame(CONTINUATION, b"\x82\xac", fin=False))
    + frame(CONTINUATION),
    "empty fragments": frame(TEXT, fin=False) + filled(frame(CONTINUATION, fin=False)) + frame(CONTINUATION),
    "texts of a kilobyte": filled(frame(TEXT, "\u20ac".encode() * 400), 4 * READ),
    "compressed messages": filled(frame(TEXT, compress(b"x"), rsv=RSV1), READ // 8),
    "a bomb": frame(BINARY, compress(bytes(LIMIT)), rsv=RSV1),
    "a bomb of text": frame(TEXT, compress("\u20ac".encode() * (LIMIT // 3)), rsv=RSV1),
    "a bomb in fragments": frame(BINARY, compress(bytes(LIMIT))[:9], fin=False, rsv=RSV1)
    + b"".join(frame(CONTINUATION, bytes((byte,)), fin=False) for byte in compress(bytes(LIMIT))[9:])
    + frame(CONTINUATION),
    "a bomb behind a final block": frame(
        BINARY, zlib.compress(bytes(deflate.STEP), wbits=-15) + compress(bytes(LIMIT - deflate.STEP)), rsv=RSV1
    ),
    "final blocks": filled(frame(BINARY, FINALS + b"\0", rsv=RSV1), READ // 16),
}
FLOODS = {name: flood + END for name, flood in FLOODS.items()}
floods = pytest.mark.parametrize("data", [pytest.param(flood, id=name) for name, flood in FLOODS.items()])


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough where the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


# ── the reader ───────────────────────────────────────────────────────────────────────────────


class Metered:
    """An inflater that counts what it makes."""

    def __init__(self) -> None:
        self._inflater = Inflater(agreement())
        self.made = 0
        self.rest = b""

    def feed(self, data: bytes, most: int) -> bytes:
        made = self._inflater.feed(data, most)
        assert len(made) <= deflate.STEP
        self.rest = self._inflater.rest
        self.made += len(made)
        return made

    def end(self, most: int) -> bytes:
        made = self._inflater.end(most)
        self.made += len(made)
        return made


class Turns(Told):
    """A sink that counts its calls, and writes down what each turn of its reader costs."""

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__()
        self.inflater = Metered()
        self.reader = FrameReader(self, limit, self.inflater)
        self.turns: list[tuple[int, int]] = []  # events and bytes inflated

    def feed(self, piece: bytes) -> None:
        self._turn(piece)
        while self.reader.spent:
            assert self.reader.paused
            self.reader.refill()
            self.reader.paused = False
            self._turn(b"")

    def _turn(self, piece: bytes) -> None:
        events, made = len(self.events), self.inflater.made
        try:
            self.reader.feed(piece)
        except ViolationError as error:
            self.events.append(("violation", error.code, error.reason))
        self.turns.append((len(self.events) - events, self.inflater.made - made))


@floods
def test_no_turn_is_long(data: bytes) -> None:
    """Fails for each of them without the part of the cost that it is there for."""
    sink = Turns()
    sink.feed(data)
    assert sink.events[-1] == "end"
    assert len(sink.turns) > 5
    assert max(events for events, _ in sink.turns) <= PORTION_FRAMES
    assert max(made for _, made in sink.turns) <= PORTION_FRAMES * INFLATED_BYTES + deflate.STEP


def test_fragments_count_though_nothing_comes_of_them() -> None:
    sink = Turns()
    sink.feed(FLOODS["fragments"])
    assert len(sink.turns) >= READ // 7 // PORTION_FRAMES


@pytest.mark.parametrize(
    ("flood", "most"),
    [("texts of a kilobyte", PORTION_FRAMES // 2), ("compressed messages", -(-PORTION_FRAMES // (1 + INFLATED_COST)))],
)
def test_messages_that_cost_more_are_fewer(flood: str, most: int) -> None:
    sink = Turns()
    sink.feed(FLOODS[flood])
    assert max(events for events, _ in sink.turns) == most


def test_who_sends_little_at_once_never_waits() -> None:
    """Each read has a portion of its own. Fails where only a turn gives another."""
    sink = Turns()
    for _ in range(PORTION_FRAMES):
        sink.reader.feed(frame(TEXT, b"x") * 10)
        assert not sink.reader.spent


def test_a_read_of_text_is_one_turn() -> None:
    """A loop may read several times in a turn if nobody stops it. Fails where only what is held can be spent."""
    sink = Turns()
    sink.reader.feed(frame(TEXT, b"x" * 1_000_000)[: PORTION_FRAMES * TEXT_BYTES + 14])
    assert sink.reader.spent
    assert not sink.events


@floods
def test_the_same_comes_of_it_wherever_it_is_cut(data: bytes) -> None:
    whole = Turns()
    whole.feed(data)
    for size in (READ // 3, 1000, 61):
        cut = Turns()
        for at in range(0, len(data), size):
            cut.feed(data[at : at + size])
        assert cut.events == whole.events, size


@pytest.mark.parametrize("seed", range(20))
def test_the_same_is_refused_wherever_it_is_cut(seed: int) -> None:
    """Any frames, and one bad bit somewhere."""
    rng = Random(seed)
    incompressible = rng.randbytes(50_000)
    data = bytearray()
    context = zlib.compressobj(wbits=-15)
    for _ in range(400):
        payload = rng.choice((b"", b"x", b"x" * 200, bytes(70_000), incompressible, "\u20ac".encode() * 3000))
        kind = rng.choice((TEXT if payload is not incompressible else BINARY, BINARY, PING))
        if kind == PING:
            data += frame(PING, payload[:100])
        elif rng.random() < 0.3:
            data += frame(kind, compress(payload, context), rsv=RSV1)
        else:
            data += frame(kind, payload)
    if seed % 4:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    found = []
    for size in (len(data), 100_000, 777):
        sink = Turns()
        for at in range(0, len(data), size):
            sink.feed(bytes(data[at : at + size]))
            if any(event[0] in ("violation", "close") for event in sink.events[-1:] if isinstance(event, tuple)):
                break
        found.append(sink.events)
    assert found[0] == found[1] == found[2]


# ── the socket ───────────────────────────────────────────────────────────────────────────────


class Wired:
    """A service whose WebSockets are for `app`, without a network."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.app = app
        self.service = service_of(self._route, **settings)

    async def _route(self, scope: Any, receive: Any, send: Any) -> None:
        await (echo_http if scope["type"] == "http" else self.app)(scope, receive, send)

    def connect(self) -> Tap:
        return Tap().plug(self.service)

    async def open(self, early: bytes = b"") -> Tap:
        """A WebSocket whose application has accepted."""
        line = self.connect()
        line.protocol.data_received(request(OFFER) + early)
        await eventually(lambda: line.written)
        assert status(line.written) == 101
        line.written = b""
        return line

    async def end(self) -> None:
        for connection in list[Any](self.service.connections):
            connection.connection_lost(None)
        self.service.cancel("the test is over")
        await eventually(lambda: not self.service.active)


@asynccontextmanager
async def wired(app: ASGIApp, **settings: Any) -> AsyncIterator[Wired]:
    service = Wired(app, **settings)
    try:
        yield service
    finally:
        await service.end()


def spent(line: Tap) -> bool:
    reader = line.protocol.handler.reader
    return reader is not None and reader.spent


@floods
async def test_others_are_answered_before_a_flood_is_read(data: bytes) -> None:
    """Fails with a huge PORTION_FRAMES; for messages also if the application's `receive()` makes the reader go on."""
    ended: list[Application] = []

    async def take(app: Application) -> None:
        while await app.receive() != "end":
            app.got.clear()
        ended.append(app)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Application(take)(scope, receive, send)

    async with wired(app) as service:
        attackers = [await service.open() for _ in range(3)]
        honest, http = await service.open(), service.connect()
        seen: list[int] = []
        http.on_write = lambda: seen.append(len(ended))
        for attacker in attackers:
            attacker.protocol.data_received(data)
        honest.protocol.data_received(END)
        http.protocol.data_received(GET)
        await eventually(lambda: http.written)
        assert seen[0] <= 1  # the honest one
        await eventually(lambda: len(ended) == 4)


async def test_an_echo_does_not_go_on_by_itself() -> None:
    """Its `receive()` never has to wait: without turns its task would answer the whole flood in one step."""
    async with wired(Application(echo)) as service:
        line = await service.open()
        line.protocol.data_received(FLOODS["messages"])
        most = before = 0
        while not line.written.endswith(b"end"):
            await asyncio.sleep(0)
            most = max(most, len(line.written) - before)
            before = len(line.written)
        assert most <= (PORTION_FRAMES + 32) * 3
        assert line.reading


@pytest.mark.parametrize("flood", ["messages", "pings"])
async def test_nothing_is_read_that_would_have_to_wait(flood: str) -> None:
    async with wired(Application(listen), ws_max_queue=1000) as service:
        line = await service.open()
        line.protocol.data_received(FLOODS[flood])
        assert spent(line)
        assert not line.reading
        line.protocol.data_received(END)  # a TLS transport hands out what it has decrypted, paused or not
        assert service.service.context.fair_queue.waiting == 1
        app = service.app
        await eventually(lambda: app.got[-2:] == ["end", "end"])
        assert line.reading
        assert not line.protocol.handler.reader.paused


async def test_a_slow_application_is_not_asked_in_each_turn() -> None:
    """The loop would be busy for as long as it thinks."""

    async def slow(app: Application) -> None:
        await app.go_on.wait()
        await app.until_disconnected()

    async with wired(Application(slow)) as service:
        line = await service.open()
        line.protocol.data_received(FLOODS["messages"])
        assert not line.reading
        assert not spent(line)
        assert not service.service.context.fair_queue.waiting
        service.app.go_on.set()
        await eventually(lambda: "end" in service.app.got)
        assert line.reading


async def test_room_in_the_queue_does_not_open_what_waits_for_its_turn() -> None:
    """Two reasons not to read. Fails without `spent` in `go_on_reading`."""
    async with wired(Application(listen), ws_max_queue=PORTION_FRAMES + 1) as service:
        line = await service.open()
        for _ in range(50):
            service.service.context.fair_queue.wait(lambda: None)
        line.protocol.data_received(FLOODS["messages"])
        await turns_of_the_loop(5)
        assert spent(line)
        assert not line.reading
        assert len(service.app.got) == PORTION_FRAMES


async def test_a_turn_does_not_open_a_full_queue() -> None:
    async def slow(app: Application) -> None:
        await app.go_on.wait()
        await app.until_disconnected()

    async with wired(Application(slow), ws_max_queue=PORTION_FRAMES + 10) as service:
        line = await service.open()
        line.protocol.data_received(FLOODS["messages"])
        assert spent(line)
        await eventually(lambda: not service.service.context.fair_queue.waiting)
        assert len(line.protocol.handler.messages) == PORTION_FRAMES + 10
        assert not line.reading
        assert not spent(line)
        service.app.go_on.set()
        await eventually(lambda: "end" in service.app.got)
        assert line.reading


async def test_a_turn_that_http_still_waits_for_withdraws_no_pause_of_the_websocket_behind_it() -> None:
    """Fails without the question for `handler` in `_read_on`."""
    tap = Tap().plug(service_of(Application(listen)))
    http = tap.protocol.handler
    tap.protocol.data_received(request())
    http.on_spent()
    assert tap.protocol.handler is not http
    await eventually(lambda: not tap.service.context.fair_queue.waiting)
    assert not tap.reading
    tap.protocol.connection_lost(None)


async def test_what_came_before_the_answer_is_read_in_turns_too() -> None:
    async with wired(Application(listen), ws_max_queue=10_000) as service:
        data = filled(frame(BINARY, b"x"), HIGH_WATER) + END
        line = await service.open(data)
        assert spent(line)
        await eventually(lambda: service.app.got[-1:] == ["end"])
        assert len(service.app.got) == HIGH_WATER // 7 + 1
        assert line.reading


async def test_a_violation_behind_a_flood() -> None:
    async with wired(Application(listen)) as service:
        line = await service.open()
        line.protocol.data_received(FLOODS["pongs"] + frame(3))
        assert not line.written
        await eventually(lambda: line.half_closed and service.app.got)
        assert frames_of(line.written)[-1][1][:2] == (1002).to_bytes(2, "big")
        assert service.app.got[0] == "end"
        assert not service.service.context.fair_queue.waiting


@pytest.mark.parametrize("answered", [True, False])
async def test_a_worker_that_leaves_amid_a_flood(answered: bool) -> None:
    """The client's close frame is behind it. Fails without `spent` in `end`, which would wait for a turn twice."""
    async with wired(Application(listen)) as service:
        line = await service.open()
        line.protocol.data_received(FLOODS["pings"] + (frame(CLOSE) if answered else b""))
        assert spent(line)
        pongs = len(frames_of(line.written))
        line.protocol.handler.leave()
        assert spent(line)
        assert service.service.context.fair_queue.waiting == 1
        *_, (first, payload) = frames_of(line.written)
        assert first == 0x80 | CLOSE
        assert payload[:2] == (1012).to_bytes(2, "big")
        assert pongs <= PORTION_FRAMES
        if answered:
            await eventually(lambda: line.closed)
        else:
            await eventually(lambda: line.reading)
            assert not line.closed
            service.service.sweep(service.service.context.now + 60)
            assert line.closed


@pytest.mark.parametrize("gone", [True, False])
async def test_a_socket_that_ends_while_it_waits(gone: bool) -> None:
    async with wired(Application(listen)) as service:
        line = await service.open()
        line.protocol.data_received(FLOODS["pings"])
        assert spent(line)
        if gone:
            line.protocol.connection_lost(None)
        else:
            line.protocol.abort()
        written = line.written
        await turns_of_the_loop(5)
        assert line.written == written
        assert not service.service.context.fair_queue.waiting


async def test_a_client_that_waits_for_its_turn_is_not_silent() -> None:
    """It is we who do not listen."""
    async with wired(Application(listen), ws_ping_interval=5, ws_ping_timeout=5) as service:
        line = await service.open()
        for _ in range(1000):
            service.service.context.fair_queue.wait(lambda: None)
        line.protocol.data_received(FLOODS["pongs"])
        assert spent(line)
        now = service.service.context.now
        for later in (7, 14, 21, 28):
            service.service.sweep(now + later)
        assert spent(line)
        assert not line.closed
        assert [first for first, _ in frames_of(line.written)] == [0x80 | PING] * 4


async def test_pongs_that_follow_one_another_are_few_writes() -> None:
    """Each write is a system call. They keep their place among other frames."""
    async with wired(Application(echo)) as service:
        line = await service.open()
        writes: list[int] = []
        line.on_write = lambda: writes.append(len(line.written))
        line.protocol.data_received(frame(TEXT, b"1") + b"".join(frame(PING, b"%d" % n) for n in range(100)))
        line.protocol.data_received(frame(CLOSE))
        await eventually(lambda: line.half_closed)
        assert frames_of(line.written) == [
            *((0x80 | PONG, b"%d" % n) for n in range(100)),
            (0x80 | CLOSE, b""),
        ]
        assert len(writes) <= 4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ws_max_queue", [1, 32, 1000])
async def test_any_order_of_sending_and_reading(ws_max_queue: int, seed: int) -> None:
    """Nothing stalls, nothing is lost, and little is held."""
    rng = Random(seed)
    messages = [b"%d" % number * rng.choice((0, 1, 1, 1, 50)) for number in range(6000)]
    messages[3000] = bytes(500_000)
    sent = b"".join(frame(BINARY, message) + (frame(PING, b"p") if rng.random() < 0.1 else b"") for message in messages)

    async def careful_echo(app: Application) -> None:
        socket = transport.protocol.handler
        while not isinstance(got := await app.receive(), tuple):
            assert transport.reading is not socket.reader.paused
            assert socket.reader.unread <= 2 * max(PIECES)
            await app.say(got)

    app = Application(careful_echo)
    service = service_of(app, ws_max_queue=ws_max_queue)
    transport = Narrows(service, rng)
    await transport.carry(request())
    got = await transport.carry(sent)
    assert [payload for first, payload in frames_of(got) if first == 0x80 | BINARY] == messages
    assert frames_of(await transport.carry(frame(CLOSE))) == [(0x80 | CLOSE, b"")]
    transport.lose()
    await eventually(lambda: not service.active)


# ── what an application sends ────────────────────────────────────────────────────────────────

#: Compressed to a thousandth; half a second if it were compressed in one call.
LARGE = bytes(range(256)) * (40 * deflate.DEFLATED_AT_ONCE // 256)


def messages_of(written: bytes) -> list[bytes]:
    """The messages of a server that compresses, or does not, each of its frames."""
    inflater, messages = Inflater(agreement()), []
    for first, payload in frames_of(written):
        if first & 0x40:
            made, rest = b"", payload
            while rest:
                made += inflater.feed(rest, 1 << 30)
                rest = inflater.rest
            messages.append(made + inflater.end(1 << 30))
        else:
            messages.append(payload)
    return messages


async def compressing(line: Tap) -> None:
    """Wait until a large message is being compressed, which takes some forty turns."""
    for _ in range(10_000):
        if line.protocol.handler.owner.compressing is not None:
            return
        await asyncio.sleep(0)
    raise AssertionError("nothing is compressed in turns")


async def test_a_large_message_is_compressed_in_portions_between_which_others_are_served() -> None:
    """113 KB that came compressed, echoed as 15 MB, kept others waiting for a second.

    Fails with `Deflater.message` for all of it: nobody is answered before the message is out.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Application(echo)(scope, receive, send)

    async with wired(app, ws_max_size=1 << 30) as service:
        lines = [await service.open() for _ in range(2)]
        http = service.connect()
        for line in lines:
            line.protocol.data_received(frame(BINARY, compress(LARGE), rsv=RSV1))
        answers = 0
        await compressing(lines[0])
        while not all(line.written for line in lines):
            before = http.written
            http.protocol.data_received(GET)
            await turns_of_the_loop(4)
            answers += http.written != before
        assert answers > 10
        for line in lines:
            assert messages_of(line.written) == [LARGE]


async def test_messages_of_other_tasks_wait_for_a_large_one() -> None:
    """A small one, another large one, and the close. Fails without `compressing`: their bytes are mixed."""

    async def several(app: Application) -> None:
        await app.receive()
        await asyncio.gather(app.say(LARGE), app.say("small" * 20), app.say(LARGE[7:]), app.say("tiny"))
        await app.send({"type": "websocket.close"})

    async with wired(Application(several)) as service:
        line = await service.open()
        line.protocol.data_received(END)
        await eventually(lambda: line.written.endswith(b"\x03\xe8"))
        *messages, close = messages_of(line.written)
        assert messages == [LARGE, b"small" * 20, LARGE[7:], b"tiny"]
        assert close == b"\x03\xe8"


async def test_a_large_message_that_is_cancelled_leaves_nothing_behind() -> None:
    """Fails without `forget`: the next message refers to bytes that the client has never got."""

    async def impatient(app: Application) -> None:
        await app.receive()
        await app.say("x" * 100)
        sending = asyncio.create_task(app.say(LARGE))
        await turns_of_the_loop(9)
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        await app.say(LARGE[:500])
        await app.until_disconnected()

    async with wired(Application(impatient)) as service:
        line = await service.open()
        line.protocol.data_received(END)
        await eventually(lambda: len(frames_of(line.written)) == 2)
        assert messages_of(line.written) == [b"x" * 100, LARGE[:500]]


@pytest.mark.parametrize("how", ["loss", "close"])
async def test_a_client_that_goes_while_a_large_message_is_compressed(how: str) -> None:
    """`send()` raises as it does for others, and no more is compressed. Fails without the look at the phase."""
    app = Application(listen)

    async def large(app: Application) -> None:
        await app.receive()
        await app.say(LARGE)

    app.script = large
    async with wired(app) as service:
        line = await service.open()
        line.protocol.data_received(END)
        await compressing(line)
        if how == "loss":
            line.protocol.connection_lost(None)
        else:
            line.protocol.data_received(frame(CLOSE))
        await eventually(lambda: not service.service.active)
        assert isinstance(app.error, OSError)
        assert not line.written or frames_of(line.written)[0][0] == 0x88
