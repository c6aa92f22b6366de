"""Hostile clients of HTTP/2 against the real command: each kind ends with ENHANCE_YOUR_CALM, and others are served."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from aserver.protocol.http2 import errors, frames
from tests.harness import ServerProcess
from tests.harness.waiting import PATIENCE
from tests.protocol.http2.attacks import ATTACKS
from tests.protocol.http2.rfc9113_rows import setting
from tests.protocol.http2.wire import OPENING, block, data, take_apart

pytestmark = pytest.mark.process

Start = Callable[..., ServerProcess]

H2C = ("h2c://127.0.0.1:0",)
SECOND = ("--header-timeout", "1s", "--body-timeout", "1s", "--write-timeout", "1s")


def heads(path: bytes, method: bytes, *, end: bool) -> bytes:
    return b"".join(frames.headers(n, block(path=path, method=method), end=end) for n in range(1, 201, 2))


#: What a client begins and does not go on with; it is given the time that the timeouts say.
SLOW = {
    "a head": frames.head(1, frames.HEADERS, 0, 1) + b"\x82",
    "the preface": b"",
    "bodies": heads(b"/upload", b"POST", end=False) + b"".join(data(n, b"x") for n in range(1, 201, 2)),
    "windows of 0": setting(frames.INITIAL_WINDOW_SIZE, 0) + heads(b"/download", b"GET", end=True),
    "streams that are answered and not ended": heads(b"/", b"POST", end=False),
}


class Bystander:
    """An honest client that asks all the time."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.durations: list[float] = []
        self.failures: list[str] = []
        self.done = threading.Event()

    def ask(self) -> None:
        try:
            with self.server.connect() as connection:
                while not self.done.is_set():
                    began = time.monotonic()
                    response = connection.request()
                    self.durations.append(time.monotonic() - began)
                    if response.status != 200:
                        self.failures.append(f"status {response.status}")
                    self.done.wait(0.002)
        except (AssertionError, OSError) as error:
            self.failures.append(repr(error))


@contextmanager
def bystander(server: ServerProcess) -> Iterator[Bystander]:
    client = Bystander(server)
    thread = threading.Thread(target=client.ask)
    thread.start()
    try:
        yield client
        before = len(client.durations)
        server.wait_for(lambda: client.failures or len(client.durations) > before + 20, what="the bystander's answers")
    finally:
        client.done.set()
        thread.join()
    assert not client.failures, client.failures[:3]


def memory(server: ServerProcess) -> int:
    (worker,) = server.workers()
    with open(f"/proc/{worker.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def attack(server: Any, opening: bytes, pieces: Iterator[bytes]) -> list[int]:
    """Send as long as the server takes it; return the codes of its GOAWAY frames."""
    with socket.create_connection(server.where, timeout=PATIENCE) as sock:
        said: list[bytes] = []

        def listen() -> None:
            with suppress(ConnectionError):
                while piece := sock.recv(65_536):
                    said.append(piece)

        listener = threading.Thread(target=listen)
        listener.start()
        with suppress(ConnectionError):
            sock.sendall(opening)
            for piece in pieces:
                sock.sendall(piece)
        listener.join()
    raw = b"".join(said)
    return [int.from_bytes(p[4:8], "big") for kind, _, _, p in take_apart(raw) if kind == frames.GOAWAY]


def many(series: Callable[[int], bytes], most: int) -> Iterator[bytes]:
    """More than enough of a series, a packet at a time."""
    for first in range(0, 4 * most + 40, 20):
        yield b"".join(series(i) for i in range(first, first + 20))


def test_floods(server: Start) -> None:
    """Each series of the reader's own table. Fails without its cost in rates.py."""
    running: Any = server("tests.apps.seen:app", bind=H2C)
    with bystander(running) as client:
        running.wait_for(lambda: len(client.durations) > 50, what="the first answers")
        before = memory(running)
        for name, opening, series, most in ATTACKS:
            began = time.monotonic()
            assert attack(running, OPENING + opening, many(series, most)) == [errors.ENHANCE_YOUR_CALM], name
            assert time.monotonic() - began < PATIENCE / 2, name
        assert memory(running) - before < 30 * 2**20
    assert sorted(client.durations)[int(len(client.durations) * 0.99)] < 0.5


def test_slow_clients(server: Start) -> None:
    """A hundred streams each. Fails without TIMEOUT in rates.py, and with another code in Http2Connection.expire."""
    running: Any = server("tests.apps.raw:app", *SECOND, bind=H2C)
    with bystander(running) as client:
        running.wait_for(lambda: len(client.durations) > 50, what="the first answers")
        before = memory(running)
        for name, frames_of_it in SLOW.items():
            opening = frames.PREFACE if name == "the preface" else OPENING + frames_of_it
            assert attack(running, opening, iter(())) == [errors.ENHANCE_YOUR_CALM], name
        assert memory(running) - before < 60 * 2**20
    assert sorted(client.durations)[int(len(client.durations) * 0.99)] < 0.5
