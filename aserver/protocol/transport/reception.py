"""PROXY headers: a `Front` has the transport until the header is read, and then hands it over to the connection.

Runs in the worker's loop. It must never hand on a connection whose header is broken or overdue.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from aserver.errors import ClientError
from aserver.metrics.page import Awaited
from aserver.protocol.peer.proxy_protocol import Mode, Proxied, ProxyHeader
from aserver.protocol.peer.trust import Peers
from aserver.protocol.transport.connection import Connection
from aserver.protocol.transport.handshakes import Handshakes, TlsHandshake, become
from aserver.tls import Certificates

log = logging.getLogger("aserver.error")

#: Bytes read at once: a header of 64 KB that comes byte by byte must not clear a buffer of 64 KB for each.
_READ = 2048


@dataclass(frozen=True, slots=True)
class Reception:
    """How a listener's connections are received; with TLS after the header if `tls` is there."""

    make: Callable[[], asyncio.BaseProtocol]
    mode: Mode
    trusted: Peers
    handshakes: Handshakes
    tls: Certificates | None

    def __call__(self) -> asyncio.BaseProtocol:
        """Be the protocol factory of a listener, which is plain also with TLS: the header is never encrypted."""
        return Front(self)


class Front(asyncio.BufferedProtocol):
    """Reads the header, byte for byte and no further, then gives the transport to the connection it was meant for.

    A buffered protocol says how many bytes it takes, so the bytes behind the header stay in the kernel. No loop can
    begin TLS with bytes that were read already.
    """

    owes = Awaited.PROXY_HEADER

    __slots__ = ("_buffer", "_header", "_reception", "_transport")

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._header = ProxyHeader(reception.mode)
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a header from a trusted peer; any other peer is the client itself."""
        self._transport = cast("asyncio.Transport", transport)
        reception = self._reception
        if transport.get_extra_info("peername") in reception.trusted:
            reception.handshakes.begin(self)
        else:
            self._receive(Proxied(None, None, b""))

    def give_up(self) -> None:
        """Cut off a peer whose header does not come."""
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - the loop's
        """Return room for the rest of the header, and for no byte more."""
        self._buffer = bytearray(min(self._header.wanted, _READ))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that have come."""
        try:
            proxied = self._header.feed(bytes(self._buffer[:nbytes]))
        except ClientError as error:
            log.warning("trusted peer %s refused: %s", self._transport.get_extra_info("peername"), error.reason)
            self._transport.abort()
            return
        if proxied is not None:
            self._receive(proxied)

    def eof_received(self) -> bool:
        """Close, because half a header is none."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's
        """Wait no longer."""
        self._reception.handshakes.end(self)

    def _receive(self, proxied: Proxied) -> None:
        reception, transport = self._reception, self._transport
        reception.handshakes.end(self)
        if reception.tls is None:
            transport.pause_reading()  # the loops choose the way to read when reading begins
            self.introduce(proxied, transport)
            transport.resume_reading()
            return
        # A transport of its own for TLS, on a duplicate, so that closing the first does not close the connection.
        # `loop.start_tls` was tried: uvloop reads, and drops, bytes before it begins, and both loops may hand over the
        # bytes behind the handshake before the connection can take them.
        duplicate = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        duplicate.setblocking(False)
        transport.abort()
        TlsHandshake(reception.handshakes, duplicate, partial(self.introduce, proxied), reception.tls)

    def introduce(self, proxied: Proxied, transport: asyncio.Transport) -> None:
        """Make the connection, and give it the client's address."""
        protocol = self._reception.make()
        become(protocol, transport)
        if proxied.source is not None:
            connection = cast("Connection", protocol)
            connection.client, connection.server = proxied.source, proxied.destination
