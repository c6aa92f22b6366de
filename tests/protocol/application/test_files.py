"""`http.response.pathsend` by sendfile(2): where it is used, where not, its deadline, and descriptors under threads.

What holds for reads as well stands in test_exchange.py.
"""

import asyncio
import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.protocol.application.files import CHUNK
from tests.harness.waiting import PATIENCE, eventually
from tests.protocol.serving import GET, answer, body_of, serving

START = {"type": "http.response.start", "status": 200, "headers": []}
SIZE = (8 << 20) + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "file"
    found.write_bytes(os.urandom(SIZE))
    return found


def sends(path: Path) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(path)})

    return app


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each sendfile(2) has sent."""
    found: list[int] = []
    real = os.sendfile

    def sendfile(*arguments: int) -> int:
        found.append(0)
        found[-1] = real(*arguments)
        return found[-1]

    monkeypatch.setattr(os, "sendfile", sendfile)
    return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each pread(2) has read."""
    found: list[int] = []
    real = os.pread

    def pread(*arguments: int) -> bytes:
        data = real(*arguments)
        found.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", pread)
    return found


async def test_a_file_goes_from_the_kernel_to_the_socket(path: Path, sent: list[int], reads: list[int]) -> None:
    """Nothing of it is read. Fails without `pass_on`."""
    async with serving(sends(path)) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(GET)
            assert (await client.response())[1] == path.read_bytes()
    assert sum(sent) == 2 * SIZE
    assert not reads


async def test_a_small_file_is_read(path: Path, sent: list[int]) -> None:
    """One hop to a thread instead of two. Fails without the look at CHUNK."""
    os.truncate(path, CHUNK)
    async with serving(sends(path)) as server:
        client = await server.connect()
        await client.send(GET)
        assert (await client.response())[1] == path.read_bytes()
    assert not sent


@pytest.mark.parametrize("fault", [errno.EINVAL, errno.ENOSYS, errno.EIO])
@pytest.mark.parametrize("calls", [0, 1])
async def test_where_the_kernel_refuses_the_file_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, calls: int
) -> None:
    """Also half-way, and it is not tried again. Fails without `_passes = False`."""
    made: list[int] = []
    real = os.sendfile

    def sendfile(out: int, source: int, offset: int, size: int) -> int:
        made.append(offset)
        if len(made) > calls:
            raise OSError(fault, os.strerror(fault))
        return real(out, source, offset, 100_000)

    monkeypatch.setattr(os, "sendfile", sendfile)
    async with serving(sends(path)) as server:
        client = await server.connect()
        await client.send(GET)
        assert (await client.response())[1] == path.read_bytes()
    assert len(made) == calls + 1


async def test_a_client_that_does_not_read_has_write_timeout(tmp_path: Path) -> None:
    """As with other bodies. Fails without `pause_writing` in `_until_writable`: the connection stays for ever."""
    path, ended = tmp_path / "file", asyncio.Event()
    with path.open("wb") as file:
        file.truncate(256 << 20)
    inner = sends(path)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await inner(scope, receive, send)
        finally:
            ended.set()

    async with serving(app, write_timeout=60) as server:
        before = descriptors()
        client = await server.connect(limit=1 << 16)
        await client.send(GET)
        (connection,) = server.connections
        await eventually(lambda: connection.handler.write_paused and connection.write_deadline < float("inf"))
        server.service.sweep(server.service.context.now + 59)
        assert server.service.connections

        def over() -> bool:  # again and again, as the kernel may have taken some more at the first time
            server.service.sweep(server.service.context.now + 61)
            return not server.service.connections

        await eventually(over)
        await asyncio.wait_for(ended.wait(), PATIENCE)
        client.close()
        await eventually(lambda: descriptors() <= before)


def descriptors() -> int:
    """How many are open, without libuv's of /dev/null, which it opens for the first stream of a loop."""
    nothing, found = os.stat(os.devnull), 0
    for fd in os.listdir("/dev/fd"):
        with suppress(OSError):  # that of the directory itself
            found += not os.path.samestat(os.fstat(int(fd)), nothing)
    return found


async def test_no_number_of_a_descriptor_is_free_while_a_thread_uses_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the request. Fails with os.close in `close`: another connection would get the file."""
    entered, leave = threading.Event(), threading.Event()
    used: list[int] = []

    def sendfile(out: int, source: int, offset: int, size: int) -> int:
        used[:] = [out, source]
        entered.set()
        assert leave.wait(PATIENCE)
        return 0

    monkeypatch.setattr(os, "sendfile", sendfile)
    inner = sends(path)
    tasks: list[asyncio.Task[Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/other":
            await answer(send)
            return
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await inner(scope, receive, send)

    try:
        async with serving(app) as server:
            client = await server.connect()
            await client.send(GET)
            await eventually(entered.is_set)
            tasks[0].cancel()
            await eventually(tasks[0].done)
            assert [os.fstat(number).st_nlink >= 0 for number in used] == [True, True]
            other = await server.connect()
            await other.send(GET.replace(b" / ", b" /other "))
            assert b" 200 " in (await other.response())[0]
            leave.set()
            await eventually(lambda: not any(os.path.exists(f"/dev/fd/{number}") for number in used))
    finally:
        leave.set()


@pytest.mark.parametrize(
    ("method", "answer"), [("get_extra_info", None), ("get_write_buffer_size", 1)], ids=["no socket", "bytes before"]
)
async def test_transports_beside_which_nothing_may_be_sent(
    path: Path, sent: list[int], method: str, answer: object
) -> None:
    """Fails without the except for AttributeError, or the look at the buffer: bytes would be out of order."""
    async with serving(sends(path)) as server:
        client = await server.connect()
        await eventually(lambda: len(server.connections) == 1)
        (connection,) = server.connections
        real = connection.transport

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                return (lambda *_: answer) if name == method else getattr(real, name)

        connection.transport = Wrapped()
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert body_of(await client.rest()) == path.read_bytes()
    assert not sent
