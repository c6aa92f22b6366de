"""Plain messages natively (`websocket/plain.pyx`) and as without a compiler: the same answers, faults and logs."""

import asyncio
import gc
import importlib.util
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aserver.errors import ApplicationError, ClientDisconnectedError
from aserver.importer.tracebacks import waiting
from aserver.protocol.websocket.frames import head
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.serving import service_of
from tests.protocol.websocket.peers import (
    BINARY,
    CLOSE,
    MASK,
    PING,
    TEXT,
    Application,
    echo,
    frame,
    frames_of,
    listen,
    request,
    socket_of,
)
from tests.protocol.wiretap import TURNS, Tap

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("aserver.protocol.websocket.plain") is None, reason="not compiled"
)

Script = Callable[[Application], Any]
HELLO = frame(TEXT, b"hello")


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


class Side:
    """A WebSocket with or without the native handler, and what came of it."""

    def __init__(self, script: Script, *, native: bool = True, **values: Any) -> None:
        self.app = Application(script)
        self.records: list[tuple[Any, ...]] = []
        self.service = service_of(self.app, access=self._log, date_header=False, **values)
        if not native:
            self.service.context.begin_socket = None
        self.tap = Tap()

    def _log(self, record: Any) -> None:
        self.records.append((record.method, record.status, record.sent))

    async def open(self) -> None:
        self.tap.plug(self.service)
        self.tap.protocol.data_received(request())
        await turns_of_the_loop()
        assert self.tap.written.startswith(b"HTTP/1.1 101 ")
        self.tap.written = b""

    async def take(self, piece: bytes) -> None:
        """Get a piece as from the network, within no task."""
        if not self.tap.closed:
            asyncio.get_running_loop().call_soon(self.tap.protocol.data_received, piece)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def end(self) -> None:
        self.tap.protocol.connection_lost(None)
        self.app.go_on.set()
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def outcome(self, pieces: list[bytes]) -> tuple[Any, ...]:
        await self.open()
        for piece in pieces:
            await self.take(piece)
        before = self.tap.written, self.tap.closed, self.tap.half_closed, [*self.app.got]
        await self.end()
        self.service.sweep(self.service.context.now)
        error = (type(self.app.error), str(self.app.error))
        counts = self.service.meter.received, self.service.active, self.service.requests
        return *before, self.app.got, self.app.returned, error, self.records, counts


async def both(script: Script, *pieces: bytes, **values: Any) -> tuple[Any, ...]:
    """What comes of it, which is the same on both sides."""
    native, ordinary = [await Side(script, native=native, **values).outcome([*pieces]) for native in (True, False)]
    assert native == ordinary
    return native


def wide(first: int, payload: bytes, form: int) -> bytes:
    """A frame whose length may have a longer form than it needs."""
    length = len(payload)
    start: bytes | bytearray
    if form == 126:
        start = bytes((first, 0x80 | 126)) + length.to_bytes(2, "big")
    elif form == 127:
        start = bytes((first, 0x80 | 127)) + length.to_bytes(8, "big")
    else:
        start = (
            bytes((first, 0x80 | length)) if length < 126 else bytes((first, 0x80 | 126)) + length.to_bytes(2, "big")
        )
    return start + MASK + frame(TEXT, payload)[-length:] if length else start + MASK


#: The last is above the limit.
PAYLOADS = st.sampled_from([b"", b"\xc3\xa4", b"\xc3", b"x" * 125, b"y" * 126, b"z" * 9000, b"9" * 9101])
FRAMES = st.one_of(
    st.builds(
        wide,
        st.sampled_from([0x81, 0x82, 0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A, 0xC1, 0x83, 0x88]),
        st.one_of(st.binary(max_size=9), PAYLOADS),
        st.sampled_from([0, 0, 126, 127]),
    ),
    st.sampled_from([b"\x81", b"\x82\x02", head(3, 0x81) + b"abc", frame(CLOSE, b"\x03\xe8")]),
)


@given(st.lists(st.tuples(FRAMES, st.sampled_from([0, 0, 0, 1, 2, 7])), min_size=1, max_size=6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_frames_in_any_pieces(parts: list[tuple[bytes, int]], joined: bool) -> None:
    """Each frame whole, in two pieces, or all of them together; some are above the limit. Fails without `limit`."""
    pieces = [b"".join(data for data, _ in parts)] if joined else []
    for data, cut in [] if joined else parts:
        pieces += [data[:cut], data[cut:]] if 0 < cut < len(data) else [data]
    asyncio.run(both(echo, *pieces, ws_max_size=9100))


# ── applications ─────────────────────────────────────────────────────────────────────────────


async def sleeps(app: Application) -> None:
    while not isinstance(got := await app.receive(), tuple):
        await asyncio.sleep(0)
        await app.say(got)
        await asyncio.sleep(0)
        await app.say("again")


async def receives_in_tasks(app: Application) -> None:
    while not isinstance(got := await asyncio.create_task(app.receive()), tuple):
        await asyncio.create_task(app.say(got))


async def has_timeouts(app: Application) -> None:
    while True:
        async with asyncio.timeout(30):
            await app.say(await app.receive())
        message = await asyncio.wait_for(app.take(), 30)
        if message["type"] != "websocket.receive":
            return
        await asyncio.wait_for(app.say("second"), 30)


async def is_out_of_time(app: Application) -> None:
    """A message that comes with the timeout is not lost."""
    for _ in range(3):
        try:
            async with asyncio.timeout(0):
                await app.receive()
        except TimeoutError:
            await app.say("late")
        await app.say(await app.receive())


async def cancels_itself_and_receives(app: Application) -> None:
    await _cancelled(app, app.receive)
    await echo(app)


async def cancels_itself_and_sleeps(app: Application) -> None:
    await _cancelled(app, lambda: asyncio.sleep(60))
    await echo(app)


async def cancels_itself_and_waits(app: Application) -> None:
    future = asyncio.get_running_loop().create_future()
    await _cancelled(app, lambda: future)
    await app.say(f"{future.cancelled()}")
    await echo(app)


async def cancels_itself_and_returns(app: Application) -> None:
    await app.say(await app.receive())
    asyncio.current_task().cancel()  # type: ignore[union-attr]


async def _cancelled(app: Application, wait: Callable[[], Any]) -> None:
    await app.say(await app.receive())
    task = asyncio.current_task()
    assert task is not None
    task.cancel("enough")
    try:
        await wait()
    except asyncio.CancelledError as error:
        task.uncancel()
        await app.say(f"cancelled: {error}")


async def is_cancelled_by_another(app: Application) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0, task.cancel)
    try:
        await app.receive()
    except asyncio.CancelledError:
        await app.say("cancelled")
    await echo(app)


async def receives_twice_at_once(app: Application) -> None:
    first, second = await asyncio.gather(app.receive(), app.receive())
    await app.say(f"{first} and {second}")
    await echo(app)


async def receives_beside_another(app: Application) -> None:
    other = asyncio.create_task(app.receive())
    await asyncio.sleep(0)
    await app.say(await app.receive())
    await app.say(await other)
    await echo(app)


async def fails(app: Application) -> None:
    raise ValueError(await app.receive())


async def fails_later(app: Application) -> None:
    await app.receive()
    await asyncio.sleep(0)
    raise ValueError("later")


async def exits(app: Application) -> None:
    await app.receive()
    raise SystemExit(3)


async def returns(app: Application) -> None:
    await app.say(await app.receive())


async def closes(app: Application) -> None:
    await app.receive()
    await app.send({"type": "websocket.close", "code": 3000, "reason": "done"})
    with pytest.raises(ClientDisconnectedError):
        await app.say("after the end")
    await app.until_disconnected()


async def sends_much(app: Application) -> None:
    await app.receive()
    for size in (0, 125, 126, 8191, 8192, 70_000):
        await app.say("t" * size)
        await app.receive()
        await app.say(b"b" * size)
        await app.say("\xe4" * size)
    await app.until_disconnected()


async def sends_anything(app: Application) -> None:
    await app.receive()
    for message in (
        {"type": "websocket.send", "bytes": bytearray(b"array")},
        {"type": "websocket.send", "bytes": memoryview(b"view")},
        {"type": "websocket.send", "bytes": None, "text": "text"},
        {"type": "websocket.send", "bytes": b"", "text": "not this"},
        type("Message", (dict,), {})(type="websocket.send", text="of a subclass"),
    ):
        await app.send(message)
    for wrong in (
        {"type": "websocket.send"},
        {"type": "websocket.send", "bytes": "text"},
        {"type": "websocket.send", "text": b"bytes"},
        {"type": "websocket.send", "text": "\ud800"},
        {"type": "websocket.accept"},
        {"type": 5},
    ):
        with pytest.raises(ApplicationError):
            await app.send(wrong)
    with pytest.raises(KeyError):
        await app.send({})
    await app.until_disconnected()


class Awaitable:
    def __init__(self, app: Application) -> None:
        self.app = app

    def __await__(self) -> Any:
        return echo(self.app).__await__()


SCRIPTS = [
    echo,
    sleeps,
    receives_in_tasks,
    has_timeouts,
    is_out_of_time,
    cancels_itself_and_receives,
    cancels_itself_and_sleeps,
    cancels_itself_and_waits,
    cancels_itself_and_returns,
    is_cancelled_by_another,
    receives_twice_at_once,
    receives_beside_another,
    fails,
    fails_later,
    exits,
    returns,
    closes,
    sends_much,
    sends_anything,
    Awaitable,
]
MESSAGES = [HELLO, frame(BINARY, b"1"), HELLO + HELLO, frame(PING, b"p"), *[frame(TEXT, b"%d" % n) for n in range(9)]]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_any_application(script: Script) -> None:
    outcome = await both(script, *MESSAGES)
    assert outcome[0]


@pytest.mark.parametrize("script", [echo, sleeps, sends_much], ids=lambda script: script.__name__)
async def test_any_application_with_compression(script: Script) -> None:
    """Each message that is sent may be compressed. Fails without the question for a deflater."""
    extension = b"Sec-WebSocket-Extensions: permessage-deflate"
    found = []
    for native in (True, False):
        side = Side(script, native=native)
        side.tap.plug(side.service)
        side.tap.protocol.data_received(request(extension))
        await turns_of_the_loop()
        for piece in MESSAGES:
            await side.take(piece)
        await side.end()
        found.append((side.tap.written, side.app.got))
    assert found[0] == found[1]


async def test_the_application_goes_on_within_the_read() -> None:
    """In its task and its context. Fails, with no answer yet, without `Drive.step`."""
    variable = ContextVar("variable", default="of the loop")
    seen: list[Any] = []

    async def notes(app: Application) -> None:
        variable.set("of the application")
        seen.append(asyncio.current_task())
        while not isinstance(got := await app.receive(), tuple):
            seen.append((asyncio.current_task(), variable.get()))
            await app.say(got)

    def read() -> None:
        side.tap.protocol.data_received(HELLO)
        seen.append((side.tap.written, asyncio.current_task(), variable.get()))

    side = Side(notes)
    await side.open()
    asyncio.get_running_loop().call_soon(read)
    await turns_of_the_loop()
    task, within, after = seen
    assert within == (task, "of the application")
    assert after == (head(0x81, 5) + b"hello", None, "of the loop")
    await side.end()


async def test_a_message_that_comes_with_a_cancellation_is_not_lost() -> None:
    """Fails without `appendleft`."""

    async def goes_on(app: Application) -> None:
        with pytest.raises(asyncio.CancelledError):
            await app.receive()
        await echo(app)

    side = Side(goes_on)
    await side.open()
    socket: Any = socket_of(side.tap.protocol.handler)
    loop = asyncio.get_running_loop()
    loop.call_soon(side.tap.protocol.data_received, frame(TEXT, b"1") + frame(TEXT, b"2"))
    loop.call_soon(socket.owner.task.cancel)
    await side.take(frame(TEXT, b"3"))
    assert side.app.got == ["1", "2", "3"]
    await side.end()


async def test_calls_do_nothing_before_they_are_awaited() -> None:
    """And nothing twice. Fails without `begun`."""

    async def reuses(app: Application) -> None:
        app.take().close()  # type: ignore[attr-defined]
        unused = app.send({"type": "websocket.send", "text": "never"})
        unused.close()  # type: ignore[attr-defined]
        call, sending = app.take(), app.send({"type": "websocket.send", "text": "once"})
        await call
        await sending
        for used in (call, sending, unused):
            with pytest.raises(RuntimeError, match="reuse"):
                await used

    side = Side(reuses)
    await side.open()
    await side.take(HELLO)
    assert side.app.returned
    assert frames_of(side.tap.written)[0] == (0x81, b"once")
    await side.end()


async def test_a_stack_shows_where_the_application_waits() -> None:
    """Fails without `Drive` in `_is_awaited`."""
    side = Side(listen)
    await side.open()
    socket: Any = socket_of(side.tap.protocol.handler)
    assert "in until_disconnected" in waiting(socket.owner.task.get_coro())
    await side.end()


async def test_a_client_that_sends_messages_is_alive() -> None:
    """Fails without `heard`, or if it is not forgotten with the next ping."""
    side = Side(echo, ws_ping_interval=10, ws_ping_timeout=5)
    await side.open()
    now = side.service.context.now
    side.service.sweep(now + 12)
    assert side.tap.written == b"\x89\0"
    await side.take(HELLO)
    side.service.sweep(now + 19)
    assert not side.tap.closed
    side.service.sweep(now + 30)  # another ping
    assert not side.tap.closed
    side.service.sweep(now + 36)
    assert side.tap.closed
    await side.end()


async def test_nothing_is_left_of_a_websocket() -> None:
    """Without the collector. Fails if `call` stays."""

    def left() -> list[str]:
        names = [type(each).__name__ for each in gc.get_objects()]
        return sorted({"Drive", "PlainSocket", "WebSocket"} & set(names))

    gc.collect()
    gc.disable()
    try:
        side = Side(echo)
        await side.open()
        await side.take(HELLO)
        assert left() == ["Drive", "PlainSocket", "WebSocket"]
        await side.end()
        assert side.app.returned
        side.app.take = side.app.send = lambda *_: None  # type: ignore[assignment]
        await turns_of_the_loop()
        assert left() == []
    finally:
        gc.enable()
