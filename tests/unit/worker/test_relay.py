"""Idle connections on their way to a successor. HTTP/2's, which stay, are in tests/protocol/http2/test_leaving.py."""

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from aserver.worker.relay import Relay
from tests.harness.waiting import eventually, turns_of_the_loop

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

Pair = tuple[socket.socket, socket.socket]


class Idle:
    """The parts of a connection that a relay looks at."""

    def __init__(self, sock: socket.socket, *, tls: bool = False, idle: bool = True, portable: bool = True) -> None:
        self.tls, self.idle, self.handler = tls, idle, SimpleNamespace(portable=portable)
        self.writer = self
        self.transport: Any = self
        self.sock, self.unwritten, self.flushed, self.aborted = sock, 0, False, False

    def flush(self) -> None:
        self.flushed = True

    def get_write_buffer_size(self) -> int:
        return self.unwritten

    def get_extra_info(self, _: str) -> socket.socket:
        return self.sock

    def abort(self) -> None:
        self.aborted = True
        self.sock.close()


class Heard(asyncio.Protocol):
    """The successor's half of a connection."""

    def __init__(self, heard: list[bytes]) -> None:
        self.heard = heard

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        self.transport.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    relay = Relay()
    yield relay
    for sock in vars(relay).values():
        sock.close()


async def test_the_next_request_is_the_successors(relay: Relay, pair: Pair) -> None:
    """Fails where the connection is closed instead of aborted here, or not accepted there."""
    ours, client = pair
    connection = Idle(ours)
    relay.hand_on([connection])  # type: ignore[list-item]
    assert connection.flushed
    assert connection.aborted
    client.sendall(b"next")
    heard: list[bytes] = []
    loop = asyncio.get_running_loop()
    relay.take(loop, lambda: Heard(heard))
    await eventually(lambda: heard)
    relay.take_no_more(loop)
    assert heard == [b"next"]


@pytest.mark.parametrize("why", ["tls", "busy", "bound to its state", "unwritten"])
async def test_what_cannot_be_handed_on_stays(relay: Relay, pair: Pair, why: str) -> None:
    """Fails without the look for each: an answer would be cut off, or the successor reads a cipher."""
    connection = Idle(pair[0], tls=why == "tls", idle=why != "busy", portable=why != "bound to its state")
    connection.unwritten = int(why == "unwritten")
    relay.hand_on([connection])  # type: ignore[list-item]
    assert not connection.aborted


async def test_a_full_queue_keeps_the_rest_where_it_is(relay: Relay) -> None:
    """The kernel takes so many and no more. Fails with the error that it raises."""
    pairs = [socket.socketpair() for _ in range(600)]
    connections = [Idle(ours) for ours, _ in pairs]
    relay.hand_on(connections)  # type: ignore[arg-type]
    kept = [each for each in connections if not each.aborted]
    assert 0 < len(kept) < 600
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_a_worker_that_takes_no_more_leaves_them_to_the_next(relay: Relay, pair: Pair) -> None:
    """Fails with a reader that stays in the loop."""
    heard: list[bytes] = []
    loop = asyncio.get_running_loop()
    relay.take(loop, lambda: Heard(heard))
    relay.take_no_more(loop)
    pair[1].sendall(b"next")
    relay.hand_on([Idle(pair[0])])  # type: ignore[list-item]
    await turns_of_the_loop()
    assert not heard
    relay.take(loop, lambda: Heard(heard))
    await eventually(lambda: heard)
    relay.take_no_more(loop)
