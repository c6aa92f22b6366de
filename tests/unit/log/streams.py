"""Loops, lines and streams for tests of sinks."""

import asyncio
import contextlib
import os
import socket
import termios
import tty
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from tests.harness import PATIENCE, eventually

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
both_loops = pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])


def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Awaitable[None]]) -> None:
    async def wrapped() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(wrapped())


def read_all(reader: int) -> bytes:
    """What is there now, without waiting; `reader` is non-blocking."""
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(reader, 1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


async def read_until(reader: int, enough: Callable[[int], bool]) -> bytes:
    """What comes until it is `enough` (by its bytes), while the loop turns, and what is there then."""
    got = b""

    def finished() -> bool:
        nonlocal got
        got += read_all(reader)
        return enough(len(got))

    await eventually(finished)
    return got + read_all(reader)


def lines(count: int, start: int = 0, width: int = 100) -> list[bytes]:
    return [(b"%07d " % number).ljust(width - 1, b".") + b"\n" for number in range(start, start + count)]


def make_stream(kind: str, tmp_path: Path, descriptors: list[int]) -> tuple[int, int]:
    """A (reader, writer) pair like an inherited standard output, blocking."""
    if kind == "pipe":
        pair = os.pipe()
    elif kind == "terminal":
        pair = os.openpty()
        tty.setraw(pair[1], termios.TCSANOW)
    elif kind == "socket":
        pair = tuple(end.detach() for end in socket.socketpair())  # type: ignore[assignment]
    else:
        path = tmp_path / "out"
        writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        pair = (os.open(path, os.O_RDONLY), writer)
    descriptors += pair
    os.set_blocking(pair[0], False)
    return pair
