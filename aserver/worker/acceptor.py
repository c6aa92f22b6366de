"""Accepting on a listener that other workers accept on, too: begin, pause, stop, and empty the queue.

Runs in the worker's loop or the embedding program's. It accepts on a duplicate of the listening socket, because a loop
closes the socket that it is given, and because closing a duplicate stops accepting here and leaves the listeners of
other workers alone. It must never close or shut down the listener itself.
"""

import asyncio
import enum
import inspect
import ipaddress
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aserver.protocol.peer.proxy_protocol import Mode
from aserver.protocol.peer.trust import Peers
from aserver.protocol.transport.connection import server_of
from aserver.protocol.transport.handshakes import Handshakes, TlsHandshake, become
from aserver.protocol.transport.reception import Reception
from aserver.tls import Certificates
from aserver.worker.native_server import NativeServer, SocketPoll

log = logging.getLogger("aserver.error")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A listening socket, the name of its address, and the certificates for connections to it, if they use TLS."""

    sock: socket.socket
    name: str
    tls: Certificates | None = None

    @property
    def server(self) -> tuple[str, int | None] | None:
        """The local address of every connection, for `scope["server"]`; None if each connection has its own."""
        name = self.sock.getsockname()
        if self.sock.family in (socket.AF_INET, socket.AF_INET6):
            address = ipaddress.ip_address(name[0])
            # A link-local address has its interface only in Python's spelling. A connection through a transparent proxy
            # has the address that the client meant (ip(7), IP_TRANSPARENT).
            if address.is_unspecified or address.is_link_local or _is_transparent(self.sock):
                return None
        elif self.name.startswith("unix:"):  # the kernel knows only the hidden name that the socket was bound to
            return self.name.removeprefix("unix:"), None
        return server_of(name)

    @property
    def h2c(self) -> bool:
        """Whether HTTP/2 may begin in the clear, by prior knowledge: the address says so."""
        return self.name.startswith("h2c://")


#: Seconds until an acceptor that cannot listen or accept, for example without descriptors, tries again, as in asyncio.
RETRY = 1.0


class AcceptorState(enum.Enum):
    """The states of an acceptor."""

    CLOSED = "closed"
    OPEN = "open"
    PAUSED = "paused"
    SUSPENDED = "suspended"  # the worker is full


@dataclass(slots=True)
class Acceptor:
    """Accepts on an endpoint, in this loop.

    A callback may run after the state in which it was scheduled: a pause can end and a drain begin in the same turn of
    the loop. So each state has a number. A callback keeps the number of its own state, and does nothing if another
    state has come meanwhile.
    """

    endpoint: Endpoint
    factory: Callable[[], asyncio.BaseProtocol]
    backlog: int
    loop: asyncio.AbstractEventLoop
    handshakes: Handshakes
    #: The version of the PROXY protocol to read, and the trusted peers; None: no PROXY protocol.
    proxy: tuple[Mode, Peers] | None = None
    #: Has the sockets of plain connections; None: the loop has them, as always with the PROXY protocol.
    poll: "SocketPoll | None" = None
    state: AcceptorState = AcceptorState.CLOSED
    _number: int = 0  # of the state, counted from 1
    _server: asyncio.AbstractServer | NativeServer | None = None
    _resumption: asyncio.Task[None] | None = None

    @property
    def listens(self) -> bool:
        """Whether there is a server: an open acceptor may still be making it."""
        return self._server is not None

    async def open(self) -> None:
        """Begin to accept. Raises OSError if the loop cannot listen."""
        self._enter(AcceptorState.OPEN)
        await self._listen()

    def close(self) -> None:
        """Stop accepting; connections and the listener itself stay."""
        self._enter(AcceptorState.CLOSED)

    def hold(self) -> None:
        """Accept no more clients in this turn of the loop."""
        if isinstance(self._server, NativeServer):  # others accept a single one
            self._server.hold()

    def pause(self, seconds: float) -> None:
        """Let other workers accept for so many seconds."""
        if self.state is AcceptorState.OPEN and self.listens:
            self._enter(AcceptorState.PAUSED)
            self.loop.call_later(seconds, self._resume, self._number)

    def suspend(self) -> None:
        """Accept no more until `resume`."""
        if self.state is not AcceptorState.CLOSED:
            self._enter(AcceptorState.SUSPENDED)

    def resume(self) -> None:
        """Accept again after `suspend`."""
        if self.state is AcceptorState.SUSPENDED:
            self._resume(self._number)

    def _enter(self, state: AcceptorState) -> None:
        """Change the state. Callbacks that were scheduled in the state before do nothing any more."""
        self.state = state
        self._number += 1
        server, self._server = self._server, None
        if server is not None:
            _close(server, self.loop)

    def _resume(self, number: int) -> None:
        if number == self._number:
            self._enter(AcceptorState.OPEN)
            self._resumption = self.loop.create_task(self._listen_again(self._number))

    async def _listen_again(self, number: int) -> None:
        if number != self._number:
            return
        try:
            await self._listen()
        except OSError as error:
            if number == self._number:
                self._retry_later(error)

    def _retry_later(self, error: OSError) -> None:
        log.error("cannot accept on %s: %s; trying again in %g s", self.endpoint.name, error, RETRY)
        self._enter(AcceptorState.PAUSED)
        self.loop.call_later(RETRY, self._resume, self._number)

    async def _listen(self) -> None:
        """Make a server, and remember it before it begins, so that a change of the state from then on closes it.

        Neither loop waits while it makes a server that does not begin at once. The backlog is passed because a loop
        calls listen(2) again, by default with 100.
        """
        duplicate = self.endpoint.sock.dup()
        options: dict[str, Any] = {"sock": duplicate, "backlog": self.backlog, "start_serving": False}
        server: asyncio.AbstractServer | NativeServer
        if self.poll is not None:
            server = NativeServer(self.poll, duplicate, self.backlog, self._maker, self._retry_later)
        elif duplicate.family == socket.AF_UNIX:
            # Only create_unix_server takes a unix socket on both loops. From Python 3.13 on it would remove the path at
            # close; only the master may do that.
            server = await self.loop.create_unix_server(self._maker, **options, **_keep_path(self.loop))
        else:
            server = await self.loop.create_server(self._maker, **options)
        self._server = server
        await server.start_serving()

    def tend(self) -> None:
        """Take up changed certificates. Call it about once a second."""
        if self.endpoint.tls is not None:
            self.endpoint.tls.look()

    def take_queued(self) -> list[socket.socket]:
        """Accept all clients in the kernel's queue, because closing the listener would reset their connections.

        All at once: under load new clients come in every turn of the loop, so that a queue is never emptied in turns.
        """
        taken: list[socket.socket] = []
        while len(taken) < 2 * self.backlog:  # under a flood the queue would never be empty
            try:
                connection, _ = self.endpoint.sock.accept()
            except OSError:  # EAGAIN: the queue is empty; ECONNABORTED and the like: that client is gone anyway
                break
            connection.setblocking(False)
            taken.append(connection)
        return taken

    async def serve_queued(self, taken: list[socket.socket], until: float) -> None:
        """Make connections of the sockets `taken`. A handshake has time until `until` (seconds of the loop's clock)."""
        begun: list[TlsHandshake] = []
        connecting: list[asyncio.Task[Any]] = []

        def begin() -> asyncio.BaseProtocol:
            begun.append(self._handshake())
            return begun[-1].below

        make = begin if self._handshake_first else self._maker
        for connection in taken:
            if self.poll is not None:
                self.poll.adopt(connection, make)
            else:
                connect = self.loop.connect_accepted_socket(make, connection)
                connecting.append(self.loop.create_task(connect))
        await asyncio.gather(*connecting, return_exceptions=True)
        if begun:  # side by side: a client may never finish its handshake
            await asyncio.wait([each.over for each in begun], timeout=max(0.0, until - self.loop.time()))
            for handshake in begun:
                if not handshake.over.done():
                    handshake.give_up()

    @property
    def _handshake_first(self) -> bool:
        """Whether a connection begins with a TLS handshake. With the PROXY protocol it follows the header."""
        return self.endpoint.tls is not None and self.proxy is None

    @property
    def _maker(self) -> Callable[[], asyncio.BaseProtocol]:
        """The factory of the protocols of clients' transports."""
        if self._handshake_first:
            return lambda: self._handshake().below
        if self.proxy is None:
            return self.factory
        mode, trusted = self.proxy
        return Reception(self.factory, mode, trusted, self.handshakes, self.endpoint.tls)

    def _handshake(self) -> TlsHandshake:
        assert self.endpoint.tls is not None
        # The protocol is made now, because its factory counts the clients.
        return TlsHandshake(self.handshakes, partial(become, self.factory()), self.endpoint.tls)


def _close(server: asyncio.AbstractServer | NativeServer, loop: asyncio.AbstractEventLoop) -> None:
    """Accept no more from now on.

    asyncio's own loop makes a connection a turn after it has taken the client from the queue, and loses the client if
    its server is closed by then. So with that loop the server stops listening at once, and is closed a turn later.
    """
    if isinstance(server, asyncio.Server):
        for each in server.sockets:
            loop.remove_reader(each.fileno())
        loop.call_soon(server.close)
    else:
        server.close()


def _is_transparent(sock: socket.socket) -> bool:
    option = getattr(socket, "IP_TRANSPARENT", None)  # Linux; the same flag for both families
    return option is not None and bool(sock.getsockopt(socket.IPPROTO_IP, option))


def _keep_path(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    parameters = inspect.signature(loop.create_unix_server).parameters
    return {"cleanup_socket": False} if "cleanup_socket" in parameters else {}
