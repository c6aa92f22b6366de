"""PROXY headers on a transport: a `Front` reads the header, then gives the transport to a connection.

Runs in the worker's loop. Where `proxy_protocol` is off, nothing of this runs. Only a trusted peer's bytes may be read
as a header. A trusted peer whose header is broken or overdue must never be served (sections 2 and 5 of HAProxy's
doc/proxy-protocol.txt).
"""

import asyncio
import logging
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

#: The most bytes of a read. Each read makes a buffer, which must be small if a header of 64 KB comes byte by byte.
_READ = 2048


@dataclass(frozen=True, slots=True)
class Reception:
    """How a listener's connections are received. If `tls` is set, TLS begins after the header."""

    make: Callable[[], asyncio.BaseProtocol]
    mode: Mode
    trusted: Peers
    handshakes: Handshakes
    tls: Certificates | None

    def __call__(self) -> asyncio.BaseProtocol:
        """Make the protocol of a transport without TLS: the header is never encrypted."""
        return Front(self)


class Front(asyncio.BufferedProtocol):
    """Reads the header and no byte after it, then gives the transport to a connection.

    A buffered protocol limits each read, so that the bytes after the header stay in the kernel.
    """

    owes = Awaited.PROXY_HEADER

    __slots__ = ("_buffer", "_header", "_reception", "_transport")

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._header = ProxyHeader(reception.mode)
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a header if the peer is trusted. Any other peer is the client itself."""
        self._transport = cast("asyncio.Transport", transport)
        reception = self._reception
        if transport.get_extra_info("peername") in reception.trusted:
            reception.handshakes.begin(self)
        else:
            self._receive(Proxied(None, None, b""))

    def give_up(self) -> None:
        """Cut off a peer whose header has not come in time."""
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - the loop's
        """Return a buffer for bytes of the header, with no room for any after it."""
        self._buffer = bytearray(min(self._header.wanted, _READ))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read the header from the bytes in the buffer; cut off a peer whose header is broken."""
        try:
            proxied = self._header.feed(bytes(self._buffer[:nbytes]))
        except ClientError as error:
            log.warning("trusted peer %s refused: %s", self._transport.get_extra_info("peername"), error.reason)
            self._transport.abort()
            return
        if proxied is not None:
            self._receive(proxied)

    def eof_received(self) -> bool:
        """Close, because the header is not complete."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's
        """Forget the deadline."""
        self._reception.handshakes.end(self)

    def _receive(self, proxied: Proxied) -> None:
        reception, transport = self._reception, self._transport
        reception.handshakes.end(self)
        transport.pause_reading()  # the loops look at the kind of protocol only when they begin to read
        if reception.tls is None:
            self.introduce(proxied, transport)
        else:
            handshake = TlsHandshake(reception.handshakes, partial(self.introduce, proxied), reception.tls)
            become(handshake.below, transport)
        transport.resume_reading()

    def introduce(self, proxied: Proxied, transport: asyncio.Transport) -> None:
        """Make the connection, and give it the addresses in the header."""
        protocol = self._reception.make()
        become(protocol, transport)
        if proxied.source is not None:
            connection = cast("Connection", protocol)
            connection.client, connection.server = proxied.source, proxied.destination
