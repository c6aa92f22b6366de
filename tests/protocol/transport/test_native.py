"""Transports of our own (`transport/native.pyx`) do as uvloop's do; the tests of accepting and watching are ours.

Each docstring says how the test was seen to fail; names are of `native.pyx`.
"""

import asyncio
import errno
import gc
import importlib.util
import os
import resource
import socket
import struct
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aserver.worker.native_server import NativeServer, poll_of
from tests.harness.waiting import PATIENCE, eventually, turns_of_the_loop

COMPILED = importlib.util.find_spec("aserver.protocol.transport.native") is not None
pytestmark = pytest.mark.anyio
native = pytest.mark.skipif(not COMPILED, reason="not compiled")
NATIVE = pytest.param(True, id="native", marks=native)
#: More than the buffers of both sockets take.
MUCH = bytes(range(256)) * 65536


@pytest.fixture
def anyio_backend() -> object:
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(params=[pytest.param(False, id="uvloop"), NATIVE])
def ours(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def troubles() -> Iterator[list[dict[str, Any]]]:
    """What the loop was told of; nothing by the end, unless the test takes it."""
    found: list[dict[str, Any]] = []
    yield found
    assert not found


class Ear(asyncio.Protocol):
    """A connection that notes its events; `react` is called with each piece."""

    def __init__(self, stage: "Stage") -> None:
        self.stage = stage
        self.events: list[Any] = []
        self.keep = True
        stage.ears.append(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.stage.on_made(self)

    def data_received(self, data: bytes) -> None:
        self.events.append(data)
        self.stage.react(self, data)

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.keep

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(exc if exc is None else type(exc))
        self.lost = True

    lost = False

    @property
    def heard(self) -> bytes:
        return b"".join(event for event in self.events if isinstance(event, bytes))


class Stage:
    """A server of one kind, and its clients."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.ears: list[Ear] = []
        self.clients: list[socket.socket] = []
        self.troubles: list[OSError] = []
        self.react: Callable[[Ear, bytes], object] = lambda _ear, _data: None
        self.on_made: Callable[[Ear], object] = lambda _: None
        self.server: Any = None

    def dial(self) -> socket.socket:
        client = socket.socket(self.listener.family)
        client.connect(self.listener.getsockname())
        client.setblocking(False)
        self.clients.append(client)
        return client

    async def connect(self) -> tuple[socket.socket, Ear]:
        client, number = self.dial(), len(self.ears)
        await eventually(lambda: len(self.ears) > number and hasattr(self.ears[-1], "transport"))
        return client, self.ears[-1]


@asynccontextmanager
async def stage_of(ours: bool, troubles: list[dict[str, Any]], family: int = socket.AF_INET) -> AsyncIterator[Stage]:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.create_server((address, 0), family=family) as listener:
        stage = Stage(listener)
        poll = poll_of(loop) if ours else None
        if poll is None:
            stage.server = await loop.create_server(lambda: Ear(stage), sock=listener.dup())
        else:
            stage.server = NativeServer(poll, listener.dup(), 100, lambda: Ear(stage), stage.troubles.append)
            await stage.server.start_serving()
        try:
            yield stage
        finally:
            for client in stage.clients:
                client.close()
            stage.server.close()
            for ear in stage.ears:
                if hasattr(ear, "transport"):
                    ear.transport.abort()
            await eventually(lambda: all(ear.lost for ear in stage.ears if hasattr(ear, "transport")))
            if poll is not None:
                poll.close()


@pytest.fixture
async def stage(ours: bool, troubles: list[dict[str, Any]], anyio_backend: object) -> AsyncIterator[Stage]:
    async with stage_of(ours, troubles) as stage:
        yield stage


@pytest.fixture
async def own(troubles: list[dict[str, Any]], anyio_backend: object) -> AsyncIterator[Stage]:
    """With our transports, whatever they cost uvloop's."""
    async with stage_of(True, troubles) as stage:
        yield stage


async def rest_of(client: socket.socket) -> bytes:
    """All until the end."""
    found = bytearray()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        while data := await loop.sock_recv(client, 1 << 20):
            found += data
    return bytes(found)


async def exactly(client: socket.socket, size: int) -> bytes:
    found = bytearray()
    async with asyncio.timeout(PATIENCE):
        while len(found) < size:
            data = await asyncio.get_running_loop().sock_recv(client, size - len(found))
            assert data, f"the end after {len(found)} bytes"
            found += data
    return bytes(found)


def reset(client: socket.socket) -> None:
    """Leave without a good-bye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def watched(fd: int) -> bool:
    """Whether an epoll instance of this process waits for something from the descriptor."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                lines = Path(f"/proc/self/fdinfo/{name}").read_text().splitlines()
                if any(line.split()[:2] == ["tfd:", str(fd)] for line in lines):
                    return True
        except FileNotFoundError:
            pass
    return False


# ── writing ──────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_reads_late_gets_all_in_order(stage: Stage) -> None:
    """The protocol is paused once, and resumed once. Fails without `del pending[:i]`, `offset`, or `pause_if_full`."""
    client, ear = await stage.connect()
    for start in range(0, len(MUCH), 1 << 20):
        ear.transport.write(MUCH[start : start + (1 << 20)])
        ear.transport.writelines([b"<", b"", bytearray(b"="), memoryview(b">")])
    await eventually(lambda: "pause" in ear.events)
    assert ear.transport.get_write_buffer_size() > 65536
    sent = b"".join(MUCH[start : start + (1 << 20)] + b"<=>" for start in range(0, len(MUCH), 1 << 20))
    assert await exactly(client, len(sent)) == sent
    await eventually(lambda: "resume" in ear.events)
    assert ear.events == ["pause", "resume"]
    assert ear.transport.get_write_buffer_size() == 0


async def test_many_pieces_are_more_than_one_call_takes(stage: Stage) -> None:
    """Fails without the minimum of PIECES in `send_pending`, `interest` in `writelines`, or `again` in `flush`."""
    client, ear = await stage.connect()
    pieces = [bytes([number % 256]) * (number % 7 * 1000) for number in range(1000)]
    ear.transport.writelines(pieces)
    ear.transport.close()
    assert await rest_of(client) == b"".join(pieces)


@native
async def test_a_buffer_may_be_changed_after_the_write(own: Stage) -> None:
    """Fails with `memoryview(data)` in `bytes_of`. uvloop keeps it, as does asyncio before 3.12."""
    client, ear = await own.connect()
    ear.transport.write(MUCH)
    data = bytearray(b"first")
    ear.transport.write(data)
    data[:] = b"other"
    await exactly(client, len(MUCH))
    assert await exactly(client, 5) == b"first"


@native
@pytest.mark.parametrize("data", ["text", 5, None, [1]])
async def test_only_bytes_are_written(own: Stage, data: Any) -> None:
    """Fails with `bytes(data)` alone: 5 would be five zeros."""
    _, ear = await own.connect()
    with pytest.raises(TypeError):
        ear.transport.write(data)


async def test_a_close_waits_for_what_is_written(stage: Stage) -> None:
    """Fails without the end in `flush`, or with one in `close`."""
    client, ear = await stage.connect()
    ear.transport.write(MUCH)
    ear.transport.close()
    ear.transport.close()
    assert ear.transport.is_closing()
    await turns_of_the_loop()
    assert not ear.lost
    assert await exactly(client, len(MUCH)) == MUCH
    await eventually(lambda: ear.lost)
    assert [event for event in ear.events if event not in ("pause", "resume")] == [None]


@native
async def test_the_last_bytes_wait_for_the_end_and_leave_with_it(own: Stage) -> None:
    """In one packet. Fails without MSG_MORE; with close(2) in place of shutdown(2) the bytes are lost, by "more"."""

    def answer(ear: Ear, _: bytes) -> None:
        ear.transport.write_last(b"answer")
        with pytest.raises(BlockingIOError):
            client.recv(100)
        client.send(b"more")
        ear.transport.close()

    own.react = answer
    client = own.dial()
    client.send(b"request")
    assert await exactly(client, 6) == b"answer"
    await eventually(lambda: own.ears[0].lost)
    assert own.ears[0].events == [b"request", None]


@native
async def test_last_bytes_that_are_many(own: Stage) -> None:
    """A part is pending when the end is asked for. Fails with a shutdown(2) in `close`."""
    client, ear = await own.connect()
    ear.transport.write_last(MUCH)
    ear.transport.close()
    assert await rest_of(client) == MUCH
    await eventually(lambda: ear.lost)


async def test_a_client_that_sends_after_a_close_is_not_heard(stage: Stage) -> None:
    """The kernel resets it then, so that the last bytes may be lost. Fails without the look at `closing` in `reads`."""
    client, ear = await stage.connect()
    ear.transport.write(MUCH)
    ear.transport.close()
    client.send(b"more")
    await turns_of_the_loop()
    assert not ear.lost
    client.close()
    await eventually(lambda: ear.lost)
    assert ear.heard == b""


async def test_a_half_close_waits_for_what_is_written(stage: Stage) -> None:
    """And the other half goes on. Fails without `shutdown` in `flush` or in `write_eof`."""
    for pending in (b"", MUCH):
        client, ear = await stage.connect()
        ear.transport.write(pending)
        assert ear.transport.can_write_eof()
        ear.transport.write_eof()
        ear.transport.write_eof()
        with pytest.raises(RuntimeError):
            ear.transport.write(b"too late")
        assert await rest_of(client) == pending
        client.send(b"heard")
        await eventually(lambda ear=ear: ear.heard == b"heard")  # type: ignore[misc]
        ear.keep = False
        client.close()
        await eventually(lambda ear=ear: ear.lost)  # type: ignore[misc]


async def test_limits_of_flow_control(stage: Stage) -> None:
    """Fails without `pause_if_full` in `set_write_buffer_limits` (ours)."""
    client, ear = await stage.connect()
    with pytest.raises(ValueError, match="high"):
        ear.transport.set_write_buffer_limits(high=1, low=2)
    ear.transport.set_write_buffer_limits(high=len(MUCH) + 1, low=0)
    ear.transport.write(MUCH)
    await turns_of_the_loop()
    assert "pause" not in ear.events
    ear.transport.set_write_buffer_limits(high=0)
    await eventually(lambda: "pause" in ear.events)
    await exactly(client, len(MUCH))
    await eventually(lambda: "resume" in ear.events)


# ── reading ──────────────────────────────────────────────────────────────────────────────────


async def test_a_paused_transport_reads_nothing_and_costs_nothing(stage: Stage) -> None:
    """Fails without `reads` in `ready`; the last line but two without `interest` there: the loop turns for ever."""
    client, ear = await stage.connect()
    await eventually(lambda: watched(ear.transport.get_extra_info("socket").fileno()))
    for _ in range(2):
        ear.transport.pause_reading()
        assert not ear.transport.is_reading()
        client.send(b"later")
        await eventually(lambda: not watched(ear.transport.get_extra_info("socket").fileno()))
        assert ear.heard == b""
        ear.transport.resume_reading()
        await eventually(lambda: ear.heard == b"later")
        ear.events.clear()


@pytest.mark.parametrize("end", ["eof", "reset"])
async def test_all_is_read_before_and_after_large_pieces(stage: Stage, end: str) -> None:
    """Fails without `_PyBytes_Resize` or the copy in `beginning`, which are of reads after a large one; or `full`."""
    client, ear = await stage.connect()
    sent = bytearray()
    for size in (100_000, 1, 70_000, 90_000, 300, 32_767, 32_768, 500_000, 100_000):
        piece = os.urandom(size)
        sent.extend(piece[: client.send(piece)])  # in the kernel before anything of it is read
        await eventually(lambda: len(ear.heard) == len(sent))
        assert ear.heard == sent
    assert max(map(len, ear.events)) > 32_768
    if end == "eof":
        client.shutdown(socket.SHUT_WR)
        await eventually(lambda: ear.events[-1] == "eof")
    else:
        reset(client)
        await eventually(lambda: ear.lost)
    assert ear.heard == sent


async def test_a_pause_within_a_read_holds(stage: Stage) -> None:
    """Fails where a readable socket is read until it is empty."""
    stage.react = lambda ear, _: ear.transport.pause_reading()
    client, ear = await stage.connect()
    await asyncio.get_running_loop().sock_sendall(client, bytes(1_000_000))
    await eventually(lambda: ear.heard)
    before = len(ear.heard)
    await turns_of_the_loop(20)
    assert len(ear.heard) == before < 1_000_000
    stage.react = lambda _ear, _data: None
    ear.transport.resume_reading()
    await eventually(lambda: len(ear.heard) == 1_000_000)


@native
async def test_a_turn_reads_some_connections_and_leaves_the_others(own: Stage) -> None:
    """So no answer waits for hundreds of tasks. Fails with EVENTS of 256."""
    pairs = [await own.connect() for _ in range(50)]
    await eventually(lambda: all(watched(ear.transport.get_extra_info("socket").fileno()) for _, ear in pairs))
    for client, _ in pairs:
        client.send(b"1")
    counts: list[int] = []
    while not counts or counts[-1] < len(pairs):
        await turns_of_the_loop(1)
        counts.append(sum(bool(ear.heard) for _, ear in pairs))
    assert 32 in counts


@native
async def test_a_pause_costs_nothing_until_more_comes(own: Stage) -> None:
    """Most are over by then: a body's, in its turn. Fails without `reading` in `ready`."""
    own.react = lambda ear, _: ear.transport.pause_reading()
    client, ear = await own.connect()
    number = ear.transport.get_extra_info("socket").fileno()
    await eventually(lambda: watched(number))
    client.send(b"1")
    await eventually(lambda: ear.heard)
    await turns_of_the_loop()
    assert watched(number)
    client.send(b"2")
    await eventually(lambda: not watched(number))
    ear.transport.resume_reading()
    await eventually(lambda: ear.heard == b"12")


@pytest.mark.parametrize("keep", [True, False])
async def test_a_clients_half_close(stage: Stage, keep: bool) -> None:
    """Fails without `at_eof` (the loop turns for ever), the close, or EPOLLRDHUP: both come in one event."""
    client, ear = await stage.connect()
    ear.keep = keep
    client.send(b"last")
    client.shutdown(socket.SHUT_WR)
    await eventually(lambda: "eof" in ear.events)
    assert ear.events[:2] == [b"last", "eof"]
    if keep:
        await eventually(lambda: not watched(ear.transport.get_extra_info("socket").fileno()))
        ear.transport.write(b"answer")
        assert await exactly(client, 6) == b"answer"
        assert not ear.lost
        ear.transport.close()
    assert await rest_of(client) == b""
    await eventually(lambda: ear.lost)
    assert ear.events == [b"last", "eof", None]


async def test_a_protocol_takes_over(stage: Stage) -> None:
    """Also in the middle of a piece. Fails without `receive` in `set_protocol`."""
    other = Ear(stage)

    def hand_over(ear: Ear, _: bytes) -> None:
        ear.transport.set_protocol(other)
        other.transport = ear.transport

    stage.react = hand_over
    client, ear = await stage.connect()
    client.send(b"1")
    await eventually(lambda: ear.heard)
    stage.react = lambda _ear, _data: None
    client.send(b"2")
    await eventually(lambda: other.heard)
    assert ear.transport.get_protocol() is other
    client.close()
    await eventually(lambda: "eof" in other.events)
    assert ear.events == [b"1"]
    ear.transport.abort()
    await eventually(lambda: other.lost)
    ear.lost = True


# ── ends ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["reading", "writing", "paused and writing"])
async def test_a_reset_is_no_crash(stage: Stage, state: str) -> None:
    """It is lost, for that reason, and nothing is logged. Fails without `end` in `read` or `send_pending`."""
    client, ear = await stage.connect()
    if state != "reading":
        ear.transport.write(MUCH)
    if state.startswith("paused"):
        ear.transport.pause_reading()
    reset(client)
    await eventually(lambda: ear.lost)
    assert ear.events[-1] in (ConnectionResetError, BrokenPipeError)


@native
@pytest.mark.parametrize("end", ["abort", "close"])
async def test_nothing_is_written_after_the_end(own: Stage, end: str) -> None:
    """Its socket is open until the next turn. Fails without the looks at `ended` in `write` and `writelines`."""
    client, ear = await own.connect()
    getattr(ear.transport, end)()
    ear.transport.write(b"late")
    ear.transport.writelines([b"too", b"late"])
    assert await rest_of(client) == b""


@native
async def test_a_lost_transport_takes_calls(own: Stage) -> None:
    """The application may be about to answer. Fails without the look at `fd` in `get_extra_info`."""
    client, ear = await own.connect()
    reset(client)
    await eventually(lambda: ear.lost)
    ear.transport.write(b"into the void")
    ear.transport.writelines([b"into", b"the void"])
    ear.transport.write_eof()
    ear.transport.pause_reading()
    ear.transport.resume_reading()
    ear.transport.close()
    ear.transport.abort()
    assert ear.transport.get_extra_info("socket") is None
    await turns_of_the_loop()
    assert ear.events == [ConnectionResetError]


@native
async def test_a_write_to_a_client_that_has_gone(own: Stage) -> None:
    """The loss is told in a turn of its own, not from within `write`. Fails with `finish` in `end`."""
    client, ear = await own.connect()
    ear.transport.pause_reading()
    reset(client)
    await eventually(lambda: not watched(ear.transport.get_extra_info("socket").fileno()))
    ear.transport.write(b"x")
    ear.transport.write(b"x")
    assert not ear.lost
    await eventually(lambda: ear.lost)


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_an_end_within_a_read(stage: Stage, end: str) -> None:
    """Of a connection whose next bytes are there. Fails without `closing` in `reads`, or an `ended` that is asked."""
    stage.react = lambda ear, _: getattr(ear.transport, end)()
    client, ear = await stage.connect()
    await asyncio.get_running_loop().sock_sendall(client, bytes(600_000))
    await eventually(lambda: ear.lost)
    assert len(ear.events) == 2
    assert ear.events[1] is None


async def test_an_end_by_another_connection_that_is_ready_too(stage: Stage) -> None:
    """Fails without `closing` in `reads`: bytes come after the end."""
    ears = [(await stage.connect())[1] for _ in range(2)]
    await turns_of_the_loop()
    stage.react = lambda ear, _: ears[ears[0] is ear].transport.abort()
    for client in stage.clients:
        client.send(b"x")
    await eventually(lambda: any(ear.lost for ear in ears))
    await turns_of_the_loop()
    assert sorted(len(ear.events) for ear in ears) == [1, 1]


async def test_a_number_that_is_given_again_has_nothing_of_the_client_before(stage: Stage) -> None:
    """Whose socket lives on, as a duplicate. Fails without EPOLL_CTL_DEL and `serial`; the look without the former."""
    client, ear = await stage.connect()
    await turns_of_the_loop()
    number = ear.transport.get_extra_info("socket").fileno()
    duplicate = os.dup(number)
    try:
        spare = [socket.socket() for _ in range(5)]
        stage.clients += spare
        ear.transport.abort()
        await eventually(lambda: ear.lost and not watched(number))
        for each in spare:
            each.connect(stage.listener.getsockname())
        await eventually(lambda: len(stage.ears) == 6)
        others = stage.ears[1:]
        assert number in [other.transport.get_extra_info("socket").fileno() for other in others]
        await turns_of_the_loop()
        client.send(b"not for others")
        await turns_of_the_loop(20)
        assert not any(other.events for other in others)
    finally:
        os.close(duplicate)


async def test_a_reset_of_ours(stage: Stage) -> None:
    """`Connection.reset` does so. Fails with a `shutdown` in `finish`."""
    client, ear = await stage.connect()
    sock = ear.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ear.transport.abort()
    with pytest.raises(ConnectionResetError):
        await rest_of(client)


async def test_a_mistake_of_a_protocol_ends_its_connection(stage: Stage, troubles: list[dict[str, Any]]) -> None:
    """With a line in the log, and no other connection. Fails without `crash`."""

    def fail(_ear: Ear, _data: bytes) -> None:
        raise ValueError("mistaken")

    stage.react = fail
    (client, ear), (_, other) = await stage.connect(), await stage.connect()
    client.send(b"x")
    await eventually(lambda: ear.lost)
    assert ear.events == [b"x", ValueError]
    assert [str(context["exception"]) for context in troubles] == ["mistaken"]
    assert not other.lost
    troubles.clear()


@native
async def test_an_ended_connection_leaves_no_cycle(own: Stage) -> None:
    """Fails without `protocol = receive = None` in `finish`, or without the look at `fd` in `set_protocol`."""
    own.react = lambda ear, _: ear.transport.close()
    client = own.dial()
    gc.collect()
    gc.disable()
    try:
        client.send(b"x")
        await eventually(lambda: own.ears and own.ears[0].lost)
        ear = own.ears.pop()
        gone = weakref.ref(ear)
        ear.transport.set_protocol(ear)  # as `Connection.abort` does, whenever it is called
        del ear
        assert gone() is None
    finally:
        gc.enable()


# ── what else a transport tells ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_addresses(ours: bool, troubles: list[dict[str, Any]], family: int) -> None:
    """As Python's sockets have them. Fails without `ntohs`."""
    async with stage_of(ours, troubles, family) as stage:
        client, ear = await stage.connect()
        await turns_of_the_loop()
        assert ear.transport.get_extra_info("peername") == client.getsockname()
        assert ear.transport.get_extra_info("sockname") == client.getpeername()
        sock = ear.transport.get_extra_info("socket")
        assert sock.family == family
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert ear.transport.get_extra_info("nothing", 5) == 5


@native
@pytest.mark.parametrize("bound", [False, True])
async def test_addresses_of_unix_sockets(tmp_path: Path, bound: bool) -> None:
    """Fails with "" for all."""
    poll = poll_of(asyncio.get_running_loop())
    assert poll is not None
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "server"))
        stage = Stage(listener)
        server = NativeServer(poll, listener.dup(), 10, lambda: Ear(stage), stage.troubles.append)
        await server.start_serving()
        if bound:
            client.bind(str(tmp_path / "client"))
        client.connect(listener.getsockname())
        await eventually(lambda: stage.ears)
        transport = stage.ears[0].transport
        assert transport.get_extra_info("peername") == client.getsockname()
        assert transport.get_extra_info("sockname") == str(tmp_path / "server")
        server.close()
        transport.abort()
        await eventually(lambda: stage.ears[0].lost)
        assert transport.get_extra_info("socket") is None
        poll.close()


# ── accepting and watching ───────────────────────────────────────────────────────────────────


@native
async def test_a_request_is_read_with_its_connection_which_is_watched_later(own: Stage) -> None:
    """One request needs no epoll_ctl. Fails with `interest` in `begin`; the end without `watch_soon`."""
    seen = []
    own.react = lambda ear, _: seen.append(watched(ear.transport.get_extra_info("socket").fileno()))
    own.dial().send(b"request")
    await eventually(lambda: seen)
    assert seen == [False]
    number = own.ears[0].transport.get_extra_info("socket").fileno()
    await eventually(lambda: watched(number))


@native
async def test_a_client_that_is_answered_at_once_is_never_watched(own: Stage) -> None:
    """Fails without the look at `ended` in `interest`: it would watch a socket that is about to be closed."""

    def answer(ear: Ear, _: bytes) -> None:
        ear.transport.write(b"answer")
        ear.transport.close()

    own.react = answer
    client = own.dial()
    client.send(b"request")
    assert await rest_of(client) == b"answer"
    await eventually(lambda: own.ears[0].lost)
    assert own.ears[0].events == [b"request", None]


@native
@pytest.mark.parametrize(("held", "most"), [(False, 16), (True, 1)])
async def test_a_turn_takes_some_clients_and_leaves_the_others(own: Stage, held: bool, most: int) -> None:
    """For other workers. Fails without ACCEPTED, or without the look at `held`."""
    turns: list[int] = []
    loop = asyncio.get_running_loop()
    began = False

    def made(_: Ear) -> None:
        nonlocal began
        if not began:
            began = True
            turns.append(0)
            loop.call_soon(over)
        turns[-1] += 1
        if held:
            own.server.hold()

    def over() -> None:
        nonlocal began
        began = False

    own.on_made = made
    for _ in range(40):
        own.dial()
    await eventually(lambda: len(own.ears) == 40)
    assert max(turns) == most


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let `spare` more be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for _ in range(spare):
        os.close(opened.pop())
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in opened:
            os.close(fd)


@native
async def test_without_descriptors_the_server_is_told_and_the_others_are_served(own: Stage) -> None:
    """Fails with EMFILE among the errors that are passed over, or without `watch_soon` after an error."""
    own.react = lambda ear, data: ear.transport.write(data)
    clients = [own.dial() for _ in range(5)]
    for client in clients:
        client.send(b"x")
    with few_descriptors(2):
        await eventually(lambda: own.troubles)
        own.server.close()
        assert own.troubles[0].errno == errno.EMFILE
        await eventually(lambda: [ear.heard for ear in own.ears] == [b"x", b"x"])
    assert await exactly(clients[0], 1) == b"x"


@native
async def test_a_factory_that_fails_costs_its_client_alone(troubles: list[dict[str, Any]]) -> None:
    """Fails without `crash` in `begin`: the others of the turn are not read."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    poll = poll_of(loop)
    assert poll is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stage = Stage(listener)
        made = iter([ValueError("no protocol"), None])

        def make() -> Ear:
            error = next(made)
            if error is not None:
                raise error
            return Ear(stage)

        server = NativeServer(poll, listener.dup(), 10, make, stage.troubles.append)
        clients = [stage.dial(), stage.dial()]
        clients[1].send(b"x")
        await server.start_serving()
        assert await rest_of(clients[0]) == b""
        await eventually(lambda: stage.ears and stage.ears[0].heard)
        assert [str(context["exception"]) for context in troubles] == ["no protocol"]
        troubles.clear()
        server.close()
        stage.ears[0].transport.abort()
        await eventually(lambda: stage.ears[0].lost)
        for client in clients:
            client.close()
        poll.close()


@native
async def test_a_socket_is_adopted_and_its_object_lets_go(own: Stage) -> None:
    """From a predecessor, or of the listener's queue. Fails without `detach`: both close it."""
    poll = poll_of(asyncio.get_running_loop())
    assert poll is not None
    ours, client = socket.socketpair()
    ours.setblocking(False)
    client.send(b"x")
    poll.adopt(ours, lambda: Ear(own))
    assert ours.fileno() == -1
    assert own.ears[0].heard == b"x"
    client.close()
    own.ears[0].transport.abort()
    await eventually(lambda: own.ears[0].lost)
    poll.close()


@native
async def test_a_forked_child_leaves_its_parents_connections_alone(own: Stage) -> None:
    """Both have the same epoll instance. Fails without `getpid`: the parent never hears of the client again."""
    client, ear = await own.connect()
    number = ear.transport.get_extra_info("socket").fileno()
    await eventually(lambda: watched(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads
        child = os.fork()
    if child == 0:
        try:
            ear.transport.abort()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert watched(number)
    client.send(b"x")
    await eventually(lambda: ear.heard)


@native
async def test_an_end_is_not_watched_where_a_child_has_the_socket(own: Stage) -> None:
    """close(2) takes it from the epoll instance only if no other has it. Fails without the look at FORKS in `end`."""
    client, ear = await own.connect()
    number = served_at(client)
    await eventually(lambda: watched(number))
    ends = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads
        child = os.fork()
    if child == 0:
        try:
            os.close(ends[1])
            os.read(ends[0], 1)  # until the parent closes its end
        finally:
            os._exit(0)
    try:
        ear.transport.abort()
        await eventually(lambda: ear.lost)
        assert not watched(number)
    finally:
        for end in ends:
            os.close(end)
        os.waitpid(child, 0)


def served_at(client: socket.socket) -> int:
    """The number of the socket that a client speaks with, without a word to its transport."""
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.getpeername() == client.getsockname():
                    return int(name)
        except OSError:
            pass
    raise AssertionError("not found")
