"""Deadlines of clients that have connected, and whose PROXY header or TLS handshake is not complete.

Runs in the worker's loop. It must never arm a timer: a loop that stood still calls its timers before it reads the bytes
that came meanwhile. Instead the worker calls `sweep` and `postpone`, as for connections.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, cast

from aserver.metrics.page import Awaited
from aserver.protocol.context import SWEEP_PERIOD
from aserver.protocol.transport.tls import TlsTransport
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
        self.deadlines: dict[Handshake, float] = {}

    def __len__(self) -> int:
        return len(self.deadlines)

    @property
    def owed(self) -> list[Awaited]:
        """The reason of each client's deadline."""
        return [handshake.owes for handshake in self.deadlines]

    def begin(self, handshake: Handshake) -> None:
        """Give a handshake its deadline, `timeout` from now; a second call renews it."""
        self.deadlines[handshake] = self.loop.time() + self._timeout

    def end(self, handshake: Handshake) -> None:
        """Forget a handshake, because it is complete or has failed. May be called twice."""
        self.deadlines.pop(handshake, None)

    def postpone(self, seconds: float) -> None:
        """Put off all deadlines by the seconds that the loop stood still."""
        for handshake in self.deadlines:
            self.deadlines[handshake] += seconds

    def sweep(self, now: float) -> None:
        """Cut off the clients whose deadline has passed. `now` is the loop's time."""
        for handshake in [each for each, deadline in self.deadlines.items() if deadline <= now]:
            log.debug("a client has not sent %s in time", handshake.owes.value)
            self.end(handshake)
            handshake.give_up()

    def give_up(self) -> None:
        """Cut off all clients."""
        self.sweep(float("inf"))


class TlsHandshake(asyncio.Protocol):
    """A client in its TLS handshake. `below` is to be the protocol of the client's transport.

    `arrive` is called with the TLS transport when the handshake is complete. `over` is done then, or when it failed.
    """

    owes = Awaited.TLS_HANDSHAKE

    def __init__(
        self, all_of_them: Handshakes, arrive: Callable[[asyncio.Transport], None], certificates: Certificates
    ) -> None:
        self._all = all_of_them
        self._arrive = arrive
        loop = all_of_them.loop
        self.over: asyncio.Future[None] = loop.create_future()
        self._transport = TlsTransport(loop, certificates.context, self)
        self.below = cast("asyncio.BaseProtocol", self._transport)
        all_of_them.begin(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the transport over."""
        self._end()
        self._arrive(cast("asyncio.Transport", transport))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Forget the client: the handshake has failed."""
        self._end()

    def give_up(self) -> None:
        """Cut the client off."""
        self._transport.abort()

    def _end(self) -> None:
        self._all.end(self)
        if not self.over.done():
            self.over.set_result(None)


def become(protocol: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
    """Give a transport, which had another protocol so far, to a connection."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
