"""Deadlines of clients that have connected, and whose PROXY header or TLS handshake is not complete.

Runs in the worker's loop. It must never arm a timer: a loop that stood still calls its timers before it reads the bytes
that came meanwhile. Instead the worker calls `sweep` and `postpone`, as for connections.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Protocol, cast

from aserver.metrics.page import Awaited
from aserver.protocol.context import SWEEP_PERIOD
from aserver.tls import Certificates

log = logging.getLogger("aserver.error")


class Handshake(Protocol):
    """A client for which there is no `Connection` yet."""

    owes: Awaited

    def give_up(self) -> None:
        """Cut the client off."""


class Handshakes:
    """All handshakes of a server. Each has `timeout` seconds from its beginning."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self.loop = loop
        self._timeout = timeout + SWEEP_PERIOD  # never early: see SWEEP_PERIOD
        self._deadlines: dict[Handshake, float] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    @property
    def owed(self) -> list[Awaited]:
        """The reason of each client's deadline."""
        return [handshake.owes for handshake in self._deadlines]

    def begin(self, handshake: Handshake) -> None:
        """Give a handshake its deadline, `timeout` from now; a second call renews it."""
        self._deadlines[handshake] = self.loop.time() + self._timeout

    def end(self, handshake: Handshake) -> None:
        """Forget a handshake, because it is complete or has failed. May be called twice."""
        self._deadlines.pop(handshake, None)

    def postpone(self, seconds: float) -> None:
        """Put off all deadlines by the seconds that the loop stood still."""
        for handshake in self._deadlines:
            self._deadlines[handshake] += seconds

    def sweep(self, now: float) -> None:
        """Cut off the clients whose deadline has passed. `now` is the loop's time."""
        for handshake in [each for each, deadline in self._deadlines.items() if deadline <= now]:
            log.debug("a client has not sent %s in time", handshake.owes.value)
            self.end(handshake)
            handshake.give_up()

    def give_up(self) -> None:
        """Cut off all clients."""
        self.sweep(float("inf"))


class TlsHandshake(asyncio.Protocol):
    """A client in its TLS handshake. It owns `sock` from now on, and calls `arrive` with the TLS transport.

    `task` ends with the handshake, without an exception. This is the transport's protocol until the handshake is
    complete; no bytes come before that.
    """

    owes = Awaited.TLS_HANDSHAKE

    def __init__(
        self,
        all_of_them: Handshakes,
        sock: socket.socket,
        arrive: Callable[[asyncio.Transport], None],
        tls: Certificates,
    ) -> None:
        self._all = all_of_them
        self._arrive = arrive
        self.task = all_of_them.loop.create_task(self._run(sock, tls))
        all_of_them.begin(self)

    async def _run(self, sock: socket.socket, tls: Certificates) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):  # SSLError, a reset, `give_up`
            await tls.connect(self._all.loop, lambda: self, sock)
        self._all.end(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the transport over."""
        self._all.end(self)
        self._arrive(cast("asyncio.Transport", transport))

    def give_up(self) -> None:
        """Cut the client off: the loops close a socket whose handshake is cancelled."""
        self.task.cancel()


def become(protocol: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
    """Give a transport, which had another protocol so far, to a connection."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
