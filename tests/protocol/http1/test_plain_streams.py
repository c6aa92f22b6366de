"""Streamed answers to plain requests: natively (`http1/plain.pyx`) the same bytes, faults and ends as ordinarily."""

import asyncio
import gc
import importlib.util
import sys
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aserver.asgi import Receive, Scope, Send
from aserver.errors import ApplicationError, ClientDisconnectedError
from aserver.protocol.semantics.response import JOIN_LIMIT
from aserver.protocol.transport.writer import HOLD_BYTES
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.narrows import HIGH, Narrows
from tests.protocol.serving import GET, LAST_GET, answer, body_of, serving
from tests.protocol.sides import Side, cancel_itself, exit_process, message, script
from tests.protocol.wiretap import TURNS, Lenient, Tap, Written

pytestmark = pytest.mark.skipif(importlib.util.find_spec("aserver.protocol.http1.plain") is None, reason="not compiled")

HEAD = b"HEAD / HTTP/1.1\r\nHost: t\r\n\r\n"
CHUNKED = message("start", status=200, headers=[(b"x", b"y")])


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough for most: the transport is our own."""
    return ("asyncio", {"use_uvloop": False})


def of(length: int) -> Any:
    return message("start", status=200, headers=[(b"content-length", b"%d" % length)])


def piece(body: Any = b"", *, more: bool = True) -> Any:
    return message("body", body=body, more_body=more)


def pieces(*sizes: int) -> tuple[Any, ...]:
    return tuple(piece(bytes([97 + place % 26]) * size) for place, size in enumerate(sizes))


async def _turn(*_: Any) -> None:
    await asyncio.sleep(0)


async def _raise(*_: Any) -> None:
    raise ValueError("of the application")


async def _hear(receive: Receive, _: Send) -> None:
    await receive()


def refused(fault: str, each: Any) -> Any:
    async def send_it(_: Receive, send: Send) -> None:
        with pytest.raises(ApplicationError, match=fault):
            await send(each)

    return send_it


END = piece(more=False)
SIZES = (1, 0, JOIN_LIMIT - 1, JOIN_LIMIT, 70_000, 5, 100_000, 0, 17, 15, 16, 255, 256, 4095, 4096, 2)
SCRIPTS: dict[str, tuple[Any, ...]] = {
    "chunks": (CHUNKED, *pieces(1, 2, 3), END),
    "chunks to a last with a body": (CHUNKED, *pieces(1, 2), piece(b"abc", more=False)),
    "a known length": (of(6), *pieces(1, 2, 3), END),
    "a known length to the last": (of(6), *pieces(1, 2), piece(b"abc", more=False)),
    "the last byte before the end": (of(2), piece(b"ok"), piece(), END),
    "a length of nothing": (of(0), piece(), END),
    "more_body left out": (CHUNKED, *pieces(1, 2), message("body")),
    "more_body that is no bool": (CHUNKED, message("body", body=b"a", more_body=1), message("body", more_body=None)),
    "no body in the first": (CHUNKED, message("body", more_body=True), *pieces(3), END),
    "nothing but an end": (CHUNKED, piece(), END),
    "mixed sizes": (CHUNKED, *pieces(*SIZES), END),
    "mixed sizes of a known length": (of(sum(SIZES)), *pieces(*SIZES), END),
    "mixed sizes, the last large": (CHUNKED, *pieces(*SIZES), piece(b"l" * JOIN_LIMIT, more=False)),
    "the first large": (CHUNKED, *pieces(JOIN_LIMIT, 1), END),
    "the first large, of a known length": (of(JOIN_LIMIT + 1), *pieces(JOIN_LIMIT, 1), END),
    "more than is held": (CHUNKED, *pieces(*[1000] * 150), END),
    "exactly what is held": (of(2 * HOLD_BYTES), *pieces(*[1024] * 128), END),
    "a bytearray": (CHUNKED, piece(bytearray(b"ab")), piece(bytearray(b"cd")), piece(bytearray(b"e"), more=False)),
    "a memoryview": (CHUNKED, piece(memoryview(b"ab")), piece(memoryview(b"cd")), piece(memoryview(b"e"), more=False)),
    "a str": (CHUNKED, piece(b"a"), refused("body", piece("b")), piece(b"c"), END),
    "a str at first": (CHUNKED, refused("body", piece("b")), piece(b"c"), END),
    "None": (CHUNKED, piece(b"a"), refused("body", piece(None)), END),
    "a str at last": (CHUNKED, piece(b"a"), piece("b", more=False)),
    "more than declared": (of(3), *pieces(2), refused("4 bytes", piece(b"cd")), piece(b"c", more=False)),
    "more than declared at first": (of(3), refused("4 bytes", piece(b"abcd")), *pieces(3), END),
    "more than declared at last": (of(3), *pieces(2), piece(b"cd", more=False)),
    "less than declared": (of(3), *pieces(2), END),
    "less than declared, then the rest": (of(3), *pieces(2), refused("ends at 2", END), piece(b"c", more=False)),
    "a length beyond all numbers": (of(10**30), *pieces(2, 3), END),
    "a length beyond all numbers, not kept": (of(10**30), *pieces(2, 3)),
    "raises": (CHUNKED, *pieces(1, 2), _raise),
    "raises within a length": (of(9), *pieces(1, 2), _raise),
    "raises after a turn": (CHUNKED, *pieces(1, 2), _turn, *pieces(3, 4), _raise),
    "exits": (CHUNKED, *pieces(1, 2), exit_process),
    "is cancelled": (CHUNKED, *pieces(1, 2), cancel_itself),
    "returns": (CHUNKED, *pieces(1, 2)),
    "returns within a length": (of(9), *pieces(1, 2)),
    "a second head": (CHUNKED, *pieces(1, 2), refused("unexpected", CHUNKED), *pieces(3), END),
    "trailers": (CHUNKED, *pieces(1, 2), refused("unexpected", message("trailers", headers=[])), END),
    "a file": (CHUNKED, *pieces(1, 2), refused("unexpected", message("pathsend", path="/")), END),
    "another type": (CHUNKED, *pieces(1, 2), refused("unknown", message("unheard-of")), *pieces(3), END),
    "a hint": (CHUNKED, *pieces(1), refused("unexpected", message("early_hint", links=[b"</a>"])), *pieces(3), END),
    "more after the end": (CHUNKED, *pieces(1, 2), END, refused("unexpected", piece(b"a"))),
    "raises after the end": (CHUNKED, *pieces(1, 2), END, _raise),
    "hears, and after the end": (CHUNKED, _hear, *pieces(1, 2), END, _hear),
    "turns": (CHUNKED, _turn, *pieces(1), _turn, *pieces(2, 3, 0), _turn, _turn, *pieces(4), _turn, END),
    "a turn before the end": (of(3), *pieces(1, 2), _turn, END),
    "a status without a body": (message("start", status=204, headers=[]), *pieces(1, 2), END),
    "close": (message("start", status=200, headers=[(b"connection", b"close")]), *pieces(1, 2), END),
    "a field of ours": (message("start", status=200, headers=[(b"server", b"mine")]), *pieces(1, 2), END),
    "announced trailers": (message("start", status=200, headers=[], trailers=True), *pieces(1, 2), END),
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("raw", [GET, LAST_GET, HEAD], ids=["kept", "last", "HEAD"])
@pytest.mark.parametrize("draining", [False, True])
async def test_any_stream_has_the_same_bytes_and_end(name: str, raw: bytes, draining: bool) -> None:
    """Fails without any of the native checks."""
    outcomes: list[list[Any]] = []
    for native in (True, False):
        side = Side(script(*SCRIPTS[name]), native=native, header=["x-h: 1"], metered=True)
        if draining:
            side.service.drain()
        outcomes.append([await side.ask(raw, raw), await side.ask(raw, raw)])  # the second knows the heads
        await turns_of_the_loop()
        outcomes[-1].append(side.service.meter.sent)
    assert outcomes[0] == outcomes[1]


SENT = st.one_of(st.integers(0, 40), st.sampled_from([JOIN_LIMIT - 1, JOIN_LIMIT, 30_000, HOLD_BYTES]))
STREAMS = st.lists(st.tuples(SENT, st.sampled_from([bytes, bytearray, memoryview]), st.booleans()), max_size=9)


@given(STREAMS, st.sampled_from([None, 0, 0, 0, -1, 1]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_pieces_are_the_same_bytes(stream: list[Any], off: int | None, filled: bool) -> None:
    total = sum(size for size, _, _ in stream)
    messages = [CHUNKED if off is None else of(max(0, total + off))]
    for place, (size, kind, pause) in enumerate(stream):
        body = kind(bytes([97 + place]) * size)
        messages.append(piece(body, more=not filled or place + 1 < len(stream)))
        if pause:
            messages.append(_turn)
    if not (filled and stream):
        messages.append(END)

    async def compare() -> None:
        outcomes = []
        for native in (True, False):
            side = Side(script(*messages), native=native)
            outcomes.append([await side.ask(GET), await side.ask(GET, LAST_GET)])
        assert outcomes[0] == outcomes[1]

    asyncio.run(compare())


# ── where it is written ──────────────────────────────────────────────────────────────────────


async def native_side(*messages: Any, **values: Any) -> Side:
    """A side that has sent these once, and so knows the head."""
    side = Side(script(*messages), native=True, **values)
    await side.ask(GET)
    return side


async def writes_of(side: Side, *, gathering: bool) -> list[bytes]:
    """Each write of a stream, whose pieces come soon after others' or long after them."""
    plain = side.service.plain
    assert plain is not None
    tap = Written().plug(side.service)
    tap.protocol.data_received(GET)
    while side.service.active:
        plain.gather_until = time.monotonic() + 60 if gathering else 0.0
        await asyncio.sleep(0)
    await turns_of_the_loop(2)
    return tap.writes


async def test_pieces_of_a_turn_are_few_writes(stays_native: Callable[[], None]) -> None:
    """The first at once, so that the client can begin; and no exchange is made for a stream. Fails without `hold`."""
    side = await native_side(CHUNKED, *pieces(*[1000] * 100), END)
    stays_native()
    writes = await writes_of(side, gathering=False)
    assert writes[0].startswith(b"HTTP/1.1 200 OK")
    assert writes[0].endswith(b"\r\n3e8\r\n" + b"a" * 1000 + b"\r\n")
    assert 60_000 < len(writes[1]) <= HOLD_BYTES
    assert writes[2].endswith(b"\r\n0\r\n\r\n")
    assert len(writes) == 3


async def test_soon_after_another_answer_the_first_piece_waits_too(stays_native: Callable[[], None]) -> None:
    """So does the last of a short answer, but no longer than the turn. Fails without `gathers`."""
    whole = [await native_side(CHUNKED, *pieces(*[1000] * 100), END), await native_side(of(6), *pieces(3, 2, 1), END)]
    parts = await native_side(CHUNKED, *pieces(1, 1), _turn, _turn, *pieces(1), _turn, _turn, END)
    stays_native()
    writes = await writes_of(whole[0], gathering=True)
    assert len(writes) == 2
    assert 60_000 < len(writes[0]) <= HOLD_BYTES
    assert [body_of(each) for each in await writes_of(whole[1], gathering=True)] == [b"aaabbc"]
    first, *rest = await writes_of(parts, gathering=True)
    assert body_of(first) == b"1\r\na\r\n1\r\nb\r\n"
    assert rest == [b"1\r\na\r\n", b"0\r\n\r\n"]


async def test_a_turn_between_pieces_writes_what_is_there(stays_native: Callable[[], None]) -> None:
    """Fails where pieces stay held after `flush`."""
    pause = [_turn] * 3
    side = await native_side(CHUNKED, *pieces(1, 1, 1), *pause, *pieces(1), *pause, *pieces(1, 1), *pause, END)
    stays_native()
    writes = await writes_of(side, gathering=False)
    framed = b"1\r\n%b\r\n"
    assert writes[0].endswith(b"\r\n\r\n" + framed % b"a")
    assert writes[1:] == [
        framed % b"b" + framed % b"c",
        framed % b"a",
        framed % b"a",
        framed % b"b",
        b"0\r\n\r\n",
    ]


async def test_an_application_that_blocks_the_loop_holds_no_piece_back(stays_native: Callable[[], None]) -> None:
    """Fails without `hold_until`."""
    sent: list[int] = []

    async def block(*_: Any) -> None:
        sent.append(len(tap.written))
        time.sleep(0.03)

    bodies = [step for each in pieces(1, 1, 1, 1) for step in (each, block)]
    side = Side(script(of(4), *bodies, END), native=True)
    tap = Written().plug(side.service)
    for _ in range(2):
        sent.clear()
        before = len(tap.written)
        tap.protocol.data_received(GET)
        await turns_of_the_loop(TURNS)
        stays_native()
        head = tap.written.index(b"\r\n\r\n", before) + 4
        assert [size - head for size in sent] == [1, 2, 3, 4]


async def test_streams_of_many_connections_are_flushed_together(stays_native: Callable[[], None]) -> None:
    side = await native_side(CHUNKED, *pieces(1, 2, 3), _turn, _turn, *pieces(4, 5), END)
    stays_native()
    taps = [Written().plug(side.service) for _ in range(5)]
    for tap in taps:
        tap.protocol.data_received(GET)
    while side.service.active:
        await asyncio.sleep(0)
    await turns_of_the_loop(2)
    assert len({tap.written for tap in taps}) == 1
    assert body_of(taps[0].written).endswith(b"\r\n5\r\nbbbbb\r\n0\r\n\r\n")


# ── clients ──────────────────────────────────────────────────────────────────────────────────


def endless(faults: list[BaseException], *, hears: bool) -> Any:
    """A stream that goes on until it is stopped; if `hears`, another task waits for the client to leave."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        async def hear() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        listener = asyncio.ensure_future(hear()) if hears else None
        try:
            await send(CHUNKED)
            while listener is None or not listener.done():
                await send(piece(b"abc"))
                await asyncio.sleep(0)
        except BaseException as error:
            faults.append(error)
            raise
        finally:
            if listener is not None:
                listener.cancel()

    return app


async def cut(app: Any, how: Callable[[Side, Tap], Awaitable[None]], **values: Any) -> list[Any]:
    """What comes of a stream that is ended in the middle, natively and not."""
    outcomes: list[Any] = []
    for native in (True, False):
        side = Side(app, native=native, **values)
        tap = Lenient()
        for _ in range(2):
            tap = Lenient().plug(side.service)
            tap.protocol.data_received(GET)
            await turns_of_the_loop(6)
            side.records.clear()
            await how(side, tap)
            for _ in range(1000):
                if not side.service.active:
                    break
                await asyncio.sleep(0.001)
            assert not side.service.active
        records = [(record[4], record[5] > 0) for record in side.records]
        outcomes.append((records, side.service.requests, tap.closed, len(side.service.connections)))
    assert outcomes[0] == outcomes[1]
    return outcomes


async def _leave(_: Side, tap: Tap) -> None:
    tap.protocol.connection_lost(None)


@pytest.mark.parametrize("hears", [False, True])
async def test_a_client_that_leaves_in_the_middle(hears: bool) -> None:
    """It is told by `send()`, or by `receive()` if that waits, without an exception. The record has the bytes."""
    faults: list[BaseException] = []
    outcomes = await cut(endless(faults, hears=hears), _leave)
    assert outcomes[0][0] == [(200, True)]
    assert [type(each) for each in faults] == ([] if hears else [ClientDisconnectedError] * 4)


async def test_a_client_that_is_cut_off_in_the_middle() -> None:
    async def abort(_: Side, tap: Tap) -> None:
        tap.protocol.abort()
        await turns_of_the_loop(3)
        tap.protocol.connection_lost(None)

    faults: list[BaseException] = []
    await cut(endless(faults, hears=False), abort)
    assert [type(each) for each in faults] == [ClientDisconnectedError] * 4


async def test_nothing_that_was_held_is_written_after_the_connection_was_cut_off(
    stays_native: Callable[[], None],
) -> None:
    """Fails without `drop` in `cut`: `Tap` asserts it."""
    gate = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for each in (CHUNKED, *pieces(1, 2, 3)):
            await send(each)
        if side.service.requests:
            tap.protocol.abort()
        else:
            await send(END)
        await gate.wait()

    side = Side(app, native=True)
    gate.set()
    await side.ask(GET)
    gate.clear()
    stays_native()
    tap = Tap().plug(side.service)
    tap.protocol.data_received(GET)
    await turns_of_the_loop(TURNS)
    assert tap.written.endswith(b"\r\n1\r\na\r\n")
    gate.set()


@pytest.mark.parametrize("cause", ["half-close", "another request", "the stop"])
async def test_the_ordinary_exchange_goes_on_with_a_stream_that_hears(cause: str) -> None:
    """Its waiting `receive()` is told, and counts as waiting. Fails if futures are not handed over in `ordinary`."""

    async def how(side: Side, tap: Tap) -> None:
        if cause == "half-close":
            tap.protocol.eof_received()
            await turns_of_the_loop(2)
            tap.protocol.connection_lost(None)
        elif cause == "another request":
            tap.protocol.data_received(GET)
            await turns_of_the_loop(2)
            tap.protocol.connection_lost(None)
        else:
            side.service.tasks.stop_streams(10.0)
            side.service.tasks.end_streams(1000.0)

    faults: list[BaseException] = []
    await cut(endless(faults, hears=True), how)
    assert faults == []


async def test_a_stream_that_the_ordinary_exchange_takes_over_has_no_more_time() -> None:
    """`stream_grace` counts from the first sweep that saw it. Fails without `Tasks.replace`."""

    async def how(side: Side, tap: Tap) -> None:
        side.service.tasks.stop_streams(1000.0)
        tap.protocol.data_received(GET)
        side.service.tasks.end_streams(1000.0 + side.service.context.config.stream_grace)
        assert tap.closed
        tap.protocol.connection_lost(None)

    await cut(endless([], hears=False), how)


async def test_an_application_that_hears_is_told_of_the_end_of_its_answer(stays_native: Callable[[], None]) -> None:
    """As Starlette's streams do, in a task of their own. Fails without `wake`."""
    heard: list[Any] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        async def hear() -> None:
            heard.extend([await receive(), await receive()])

        listeners = [asyncio.ensure_future(hear()) for _ in range(2)]
        await send(CHUNKED)
        await send(piece(b"abc"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await send(END)
        await asyncio.gather(*listeners)

    side = Side(app, native=True)
    await side.ask(GET)
    heard.clear()
    stays_native()
    await side.ask(GET)
    assert sorted(each["type"] for each in heard) == ["http.disconnect"] * 3 + ["http.request"]


async def test_an_application_may_wait_for_its_client_no_longer(stays_native: Callable[[], None]) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(3):
            listener = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            listener.cancel()
            await asyncio.wait([listener])
            assert listener.cancelled()
        await answer(send, b"ok")

    side = Side(app, native=True)
    for _ in range(2):
        tap = Tap().plug(side.service)
        tap.protocol.data_received(GET)
        while side.service.active:
            await asyncio.sleep(0)
        await turns_of_the_loop(2)
        assert tap.written.endswith(b"\r\n\r\nok")
        stays_native()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("known", [False, True])
async def test_a_slow_reader_is_waited_for(seed: int, known: bool, stays_native: Callable[[], None]) -> None:
    """Fails without `until_writable`: all that is sent would pile up."""
    rng = Random(seed)
    sizes = [rng.choice((0, 1, 100, 1024, 1024, 1024, 5000, JOIN_LIMIT, 40_000)) for _ in range(300)]
    bodies = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    start = of(sum(sizes)) if known else CHUNKED
    side = await native_side(start, *(piece(body) for body in bodies), END)
    stays_native()
    transport = Narrows(side.service, rng)
    got = body_of(await transport.carry(GET))
    if not known:
        rest, got = got, b""
        while rest:
            line, _, rest = rest.partition(b"\r\n")
            size = int(line, 16)
            got, end, rest = got + rest[:size], rest[size : size + 2], rest[size + 2 :]
            assert end == b"\r\n"
    assert got == b"".join(bodies)
    assert transport.most <= HIGH + HOLD_BYTES + 40_000 + 1000
    assert side.records[-1][5] == sum(sizes)
    transport.lose()


async def test_a_slow_reader_that_leaves() -> None:
    """The application waits in `send()` at the time, and is told by its next message."""
    for native in (True, False):
        faults: list[BaseException] = []
        side = Side(endless(faults, hears=False), native=native)
        for _ in range(2):
            transport = Narrows(side.service, Random(0))
            transport.protocol.data_received(GET)
            while not transport.protocol.handler.write_paused:
                await asyncio.sleep(0)
            await turns_of_the_loop()
            before = transport.get_write_buffer_size()
            await turns_of_the_loop(TURNS)
            assert transport.get_write_buffer_size() == before
            transport.lose()
            while side.service.active:
                await asyncio.sleep(0)
        assert [type(each) for each in faults] == [ClientDisconnectedError] * 2


async def test_counts_of_references_do_not_grow() -> None:
    sizes = (1, 0, 100, JOIN_LIMIT, 5, 1000)
    messages = (of(sum(sizes)), *pieces(*sizes), _turn, *pieces(0), END)
    side = Side(script(_hear, *messages), native=True)
    await side.ask(*[GET] * 50)
    shared = (GET, *(each["body"] for each in messages if isinstance(each, dict) and each.get("body")))
    counts = []
    for _ in range(2):
        tap = Lenient().plug(side.service)
        for _ in range(500):
            tap.protocol.data_received(GET)
            while side.service.active:
                await asyncio.sleep(0)
        side.scopes.clear()
        side.records.clear()
        gc.collect()
        counts.append(([sys.getrefcount(each) for each in shared], sys.getallocatedblocks()))
    (before, blocks), (after, more) = counts
    assert max(new - old for new, old in zip(after, before, strict=True)) < 50
    assert more - blocks < 250


@pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": True}), ("asyncio", {"use_uvloop": False})],
    ids=["native", "asyncio"],
)
async def test_over_a_real_socket(anyio_backend: object) -> None:
    """Several times what the sockets take, to a client that reads late."""
    bodies = [bytes([number % 256]) * (number * 37 % 20_000) for number in range(1500)]

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(of(sum(map(len, bodies))))
        for body in bodies:
            await send(piece(body))
        await send(END)

    async with serving(app) as server:
        for raw in (GET, GET, LAST_GET):
            client = await server.connect(limit=1000)
            await client.send(raw)
            await turns_of_the_loop(100)
            await client.until(b"\r\n\r\n")
            assert await client.exactly(sum(map(len, bodies))) == b"".join(bodies)
            client.close()
