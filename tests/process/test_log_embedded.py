"""The access log of `serve(app)`: from the caller's process and loop, without a touch on the caller's logging."""

import asyncio
import contextlib
import logging
import os
import re
from pathlib import Path

import anyio
import pytest

import aserver
from aserver.asgi import Receive, Scope, Send
from aserver.errors import ConfigError
from tests.apps.lifecycle import lifespans
from tests.process.embedding import Footprint, _in_repository, anyio_backend, get, served

__all__ = ["_in_repository", "anyio_backend"]  # fixtures

pytestmark = pytest.mark.process

LINE = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "GET (/\S*) HTTP/1\.1" 200 \d+ "-" "-"\n')


def handlers() -> list[object]:
    """All of the caller's logging that could have been changed."""
    names = ("", "aserver", "aserver.error", "aserver.access")
    loggers = [logging.getLogger(name) for name in names]
    return [(logger.handlers.copy(), logger.level, logger.propagate) for logger in loggers]


async def test_requests_of_an_embedded_app_are_logged(tmp_path: Path) -> None:
    """Fails if `serve_here` gives its server no access log."""
    before, logging_before = Footprint(), handlers()
    path = tmp_path / "access.log"
    async with served(lifespans.good, accesslog=str(path), access_log_exclude="/health") as address:
        for target in ("/one", "/health", "/two"):
            await get(address, target)
        assert handlers() == logging_before
    assert LINE.findall(path.read_text()) == ["/one", "/two"]
    before.check()


async def test_standard_output_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    async with served(lifespans.good, accesslog="-") as address:
        await get(address, "/here")
    assert LINE.fullmatch(capfd.readouterr().out)


async def socket_app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})


async def test_durations_of_websockets_are_exact(tmp_path: Path) -> None:
    """Fails with the loop's clock, which has whole milliseconds under uvloop. One in a thousand ends so by chance."""
    path = tmp_path / "access.log"
    settings = {"accesslog": str(path), "access_log_format": "%(m)s %(L)s", "lifespan": "off"}
    async with served(socket_app, **settings) as address:
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await reader.readuntil(b"\x88\x02\x03\xe8")  # a close frame with 1000
            writer.close()
    logged = [line.split() for line in path.read_text().splitlines()]
    assert [method for method, _ in logged].count("GET") == 3
    assert any(not seconds.endswith("000") for _, seconds in logged)


def fill(fifo: Path) -> None:
    fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * 4096)
    os.close(fd)


async def test_the_last_lines_wait_for_a_slow_reader_and_the_loop_does_not(tmp_path: Path) -> None:
    """The reader is in the same loop: were that blocked meanwhile, it would never read."""
    path = tmp_path / "access.fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    got = b""

    async def read_late() -> None:
        nonlocal got
        await asyncio.sleep(0.1)
        while piece := os.read(reader, 1 << 20):
            got += piece
            await asyncio.sleep(0.01)

    try:
        fill(path)
        async with anyio.create_task_group() as group, served(lifespans.good, accesslog=str(path)) as address:
            await get(address, "/last")
            group.start_soon(read_late)
    finally:
        os.close(reader)
    assert LINE.findall(got.lstrip(b"x").decode()) == ["/last"]


async def test_a_reader_that_never_reads_costs_a_second_of_the_callers_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aserver.launch.embedded.LAST_LINES", 0.05)
    before = Footprint()
    path = tmp_path / "access.fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fill(path)
    async with served(lifespans.good, accesslog=str(path)) as address:
        await get(address)
    os.close(reader)
    before.check()


async def test_an_access_log_that_cannot_be_opened(tmp_path: Path) -> None:
    before = Footprint()
    with pytest.raises(ConfigError, match=r"accesslog .*/no/log cannot be opened: No such file"):
        await aserver.serve(lifespans.good, bind="127.0.0.1:0", accesslog=str(tmp_path / "no" / "log"))
    before.check()
