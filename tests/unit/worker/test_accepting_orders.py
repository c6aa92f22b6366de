"""Accepting begins, rests and ends in any order: no client is lost, and a closed acceptor stays closed.

Every callback of an acceptor (the end of a pause, the server that is being made, the connections that the loop has
taken from the queue) may run after the phase has changed that it was scheduled in. Whatever the order, each client is
served or is still in the listener's queue, where another worker finds it.
"""

import asyncio
import errno
import itertools
import logging
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from aserver.protocol.transport.handshakes import Handshakes
from aserver.tls import Certificates
from aserver.worker.acceptor import Acceptor, AcceptorState, Endpoint
from aserver.worker.native_server import SocketPoll, poll_of
from tests.harness.waiting import turns_of_the_loop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
#: Compiled, also with transports of our own on uvloop's loop.
KINDS = [*LOOPS, *(["native"] if SocketPoll is not None else [])]
STEPS = ("connect", "pause", "resume", "suspend", "close", "turn")
#: Turns of the loop after which nothing is on its way any more; the longest way has four.
SETTLED = 8
LONG = bool(os.environ.get("TEST_LONG"))
LENGTH = 6 if LONG else 4


class _Client(asyncio.Protocol):
    """A connection that was made."""

    def __init__(self, books: "Books") -> None:
        self._books = books

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._books.made.append(transport)


class Books:
    """One acceptor, its clients, and what became of them. With TLS they stay in their handshake."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, tls: Certificates | None, *, native: bool
    ) -> None:
        self.made: list[asyncio.BaseTransport] = []
        self._listener = listener
        self._clients: list[socket.socket] = []
        self._handshakes = Handshakes(loop, 10)
        endpoint = Endpoint(listener, "here", tls)
        self._poll = poll_of(loop) if native else None
        self._acceptor = Acceptor(endpoint, lambda: _Client(self), 100, loop, self._handshakes, poll=self._poll)

    @property
    def accepted(self) -> int:
        """How many clients are not in the listener's queue any more."""
        return len(self.made) + len(self._handshakes)

    async def play(self, order: tuple[str, ...]) -> None:
        """Take the steps, then compare with what they say."""
        acceptor = self._acceptor
        await acceptor.open()
        rests = ended = False
        for step in order:
            if step == "connect":
                self._connect()
            elif step == "turn":
                await asyncio.sleep(0)
            elif step == "pause":
                acceptor.pause(0)
            elif step == "close":
                acceptor.close()
                ended = True
            else:
                getattr(acceptor, step)()
                rests = step == "suspend"
        await turns_of_the_loop(SETTLED)
        accepted = self.accepted
        self._connect()  # comes when everything is over
        await turns_of_the_loop(SETTLED)
        waiting = self._take_queue()
        assert self.accepted + waiting == len(self._clients), "clients are neither connected nor in the queue"
        assert not any(transport.is_closing() for transport in self.made)
        if ended or rests:
            assert acceptor.state is (AcceptorState.CLOSED if ended else AcceptorState.SUSPENDED)
            assert self.accepted == accepted, "it accepts, though it was told not to"
        else:
            assert acceptor.state is AcceptorState.OPEN
            assert not waiting, "it does not accept, though nothing suspends it"

    def _connect(self) -> None:
        self._clients.append(socket.create_connection(self._listener.getsockname()))

    def _take_queue(self) -> int:
        waiting = 0
        while True:
            try:
                self._listener.accept()[0].close()
            except BlockingIOError:
                return waiting
            waiting += 1

    async def end(self) -> None:
        """Leave nothing behind."""
        self._acceptor.close()
        self._handshakes.give_up()
        for transport in self.made:
            transport.close()
        for client in self._clients:
            client.close()
        await turns_of_the_loop(SETTLED)
        if self._poll is not None:
            self._poll.close()


async def _play(
    listener: socket.socket, order: tuple[str, ...], tls: Certificates | None = None, *, native: bool = False
) -> None:
    books = Books(asyncio.get_running_loop(), listener, tls, native=native)
    try:
        await books.play(order)
    except AssertionError as error:
        error.add_note(f"order: {', '.join(order)}")
        raise
    finally:
        await books.end()


def _run(loop: str, main: Callable[[socket.socket], Any]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.setblocking(False)
        with asyncio.Runner(loop_factory=LOOPS.get(loop, uvloop.new_event_loop)) as runner:
            runner.run(main(listener))


@pytest.fixture(scope="module", params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Certificates | None:
    if request.param == "plain":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return cast("Certificates", SimpleNamespace(context=context))


@pytest.mark.parametrize("loop", KINDS)
def test_all_orders_of_accepting(loop: str, tls: Certificates | None) -> None:
    """All of four steps (six in the long run) after the beginning.

    Fails with `state = OPEN` at the beginning of what a pause's end schedules, whose `close()` or `suspend()` came in
    the same turn: pause, turn, close accepts again. On asyncio's loop fails with `server.close()` in the turn in which
    a client was taken from the queue: connect, turn, turn, close loses it.
    """

    async def main(listener: socket.socket) -> None:
        for order in itertools.product(STEPS, repeat=LENGTH):
            await _play(listener, order, tls, native=loop == "native")

    _run(loop, main)


@pytest.mark.parametrize("loop", KINDS)
def test_longer_orders_of_accepting(loop: str, tls: Certificates | None) -> None:
    """Fails as the one above, and with two servers being made at once: the first is forgotten, and accepts for ever."""

    @settings(deadline=None, max_examples=3000 if LONG else 150, derandomize=not LONG)
    @given(st.lists(st.sampled_from(STEPS), min_size=LENGTH, max_size=14).map(tuple))
    def play(order: tuple[str, ...]) -> None:
        _run(loop, partial(_play, order=order, tls=tls, native=loop == "native"))

    play()


class _Scarce(socket.socket):
    """A listener that cannot be duplicated at the second attempt: out of descriptors."""

    attempts = 0

    def dup(self) -> Self:
        self.attempts += 1
        if self.attempts == 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().dup()


def test_a_pause_that_ends_without_a_descriptor_left_ends_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails without the retry: the worker never accepts again, while its heart beats and the board says it accepts."""
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    monkeypatch.setattr("aserver.worker.acceptor.RETRY", 0.001)

    async def main(listener: socket.socket) -> None:
        with _Scarce(fileno=os.dup(listener.fileno())) as scarce:
            loop = asyncio.get_running_loop()
            acceptor = Acceptor(Endpoint(scarce, "here"), asyncio.Protocol, 100, loop, Handshakes(loop, 10))
            scarce.attempts = 0
            await acceptor.open()
            acceptor.pause(0)
            while acceptor.state is not AcceptorState.OPEN or not acceptor.listens:
                await asyncio.sleep(0)
            acceptor.close()

    _run("uvloop", main)
    assert caplog.messages[0].startswith("cannot accept on here: [Errno 24]")
