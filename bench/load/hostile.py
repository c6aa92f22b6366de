"""Hostile clients, as a program: `python -m bench.load.hostile KIND HOST PORT SECONDS`.

Runs in a process of its own on the load's CPUs. It must never delay the honest clients, which are measured, except
through the server. It prints `ready` when all its connections are open, and ends by itself.
"""

import asyncio
import contextlib
import os
import random
import socket
import sys
import time

from bench.load import hostile_streams
from bench.load.hostile_streams import Doing

_HEAD = b"GET / HTTP/1.1\r\nHost: bench.local\r\n"
_FLOOD = _HEAD + b"X-Field: %s\r\n" % (b"x" * 1000) * 200


async def slow_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a byte of a head each second, for ever (Slowloris)."""
    writer.write(_HEAD + b"X-Slow: ")
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5))
        writer.write(b"x")


async def slow_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a byte of a body each second."""
    writer.write(b"POST /upload HTTP/1.1\r\nHost: bench.local\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5))
        writer.write(b"x")


async def slow_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for a megabyte, and read 1 KB of it each second."""
    writer.write(b"GET /blob HTTP/1.1\r\nHost: bench.local\r\n\r\n")
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5))
        await reader.read(1024)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send 200 KB of fields, again and again; each head is refused."""
    writer.write(_FLOOD)
    await reader.read()
    await asyncio.sleep(random.uniform(0.02, 0.08))  # so that the four connections do not act in step


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a request, and then nothing."""
    writer.write(_HEAD + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.Event().wait()


KINDS: dict[str, tuple[Doing, int]] = {
    "slow-head": (slow_head, 1000),
    "slow-body": (slow_body, 500),
    "slow-reader": (slow_reader, 200),
    "flood": (flood, 4),
    "idle": (idle, 10_000),
}


async def attack(kind: str, host: str, port: int, seconds: float) -> None:
    """Keep the connections of a kind open: each is opened again when the server ends it."""
    doing, count = (KINDS | hostile_streams.KINDS)[kind]
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    standing = asyncio.Semaphore(0)
    few = asyncio.Semaphore(64)  # connect at once, so that the accept queue does not fill up

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with few:
                    sock = socket.socket()
                    sock.setblocking(False)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    await loop.sock_connect(sock, (host, port))
                    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
                standing.release()
                try:
                    await doing(reader, writer)
                finally:
                    writer.close()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(count)]
        for _ in range(count):
            await standing.acquire()
        print("ready", time.monotonic(), flush=True)
        await asyncio.sleep(max(0.0, until - loop.time()))
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    _, _kind, _host, _port, _seconds = sys.argv
    # SCHED_IDLE: every other process that wakes up preempts this one, so the honest clients never wait for it. With
    # nice(19) they would wait for the end of its time slice.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(attack(_kind, _host, int(_port), float(_seconds)))
