"""TLS: a transport that encrypts, on top of a transport that does not, by the objects of the ssl module.

Runs in the worker's loop or the embedding program's, on any transport of any loop. It is the protocol of the transport
below and the transport of the protocol above. It must never give bytes to the protocol above before the handshake is
complete, and arms no timer: `Handshakes` and `Connection.write_expired` have the deadlines.
"""

import logging
import ssl
from asyncio import AbstractEventLoop, BaseProtocol, BaseTransport, Transport
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, cast

from aserver.protocol.transport.writer import write_pieces

log = logging.getLogger("aserver.error")

#: The most bytes of plaintext in a record (RFC 8446 section 5.1). OpenSSL's buffers keep the size of the largest piece
#: that they ever had: so no larger piece is given to them.
RECORD: Final = 16384


class TlsPhase(Enum):
    """The phases of a TLS connection, in this order."""

    UNCONNECTED = "without a transport below"
    HANDSHAKE = "handshake"
    OPEN = "open"
    LINGERING = "this side has sent its last bytes, and hears no more"
    OVER = "closed by either side"


# Module constants, because on 3.11 each `TlsPhase.X` costs 40 ns.
UNCONNECTED: Final = TlsPhase.UNCONNECTED
HANDSHAKE: Final = TlsPhase.HANDSHAKE
OPEN: Final = TlsPhase.OPEN
LINGERING: Final = TlsPhase.LINGERING
OVER: Final = TlsPhase.OVER


class TlsTransport:
    """A connection with TLS, seen by both of its sides.

    `protocol` is the one above: its `connection_made` is called when the handshake is complete, its `connection_lost`
    at the end, also if the handshake has failed. A close does not wait for the client's close_notify. After `write_eof`
    the bytes that come are dropped until the transport below ends: TLS 1.2 has no half-close.
    """

    __slots__ = (
        "_below",
        "_decrypt",
        "_deliver",
        "_encrypt",
        "_error",
        "_feed",
        "_held",
        "_incoming",
        "_loop",
        "_outgoing",
        "_phase",
        "_protocol",
        "_reading_paused",
        "_rest",
        "_ssl",
        "_take",
    )

    _below: Transport

    def __init__(self, loop: AbstractEventLoop, context: ssl.SSLContext, protocol: BaseProtocol) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # The methods are kept, because looking one up costs as much as a call. Those of `SSLObject` are Python's, and
        # pass calls on to an object of C, which is asked itself if it is there: 5 % of a request.
        self._feed, self._take = self._incoming.write, self._outgoing.read
        inner: ssl.SSLObject = getattr(self._ssl, "_sslobj", self._ssl)
        self._decrypt, self._encrypt, self._held = inner.read, inner.write, inner.pending
        self._rest = False  # OpenSSL may have kept a part of a record
        self._loop = loop
        self._phase = UNCONNECTED
        self._reading_paused = False
        self._error: Exception | None = None
        self._protocol: Any = protocol
        self._deliver: Callable[[bytes], object] = _drop  # until the handshake is complete, and after the end

    # ── calls of the transport below ─────────────────────────────────────────────────────────

    def connection_made(self, transport: BaseTransport) -> None:
        """Wait for the client's first flight."""
        self._below = cast("Transport", transport)
        if self._phase is OVER:  # given up before
            self._below.abort()
        else:
            self._phase = HANDSHAKE

    def data_received(self, data: bytes) -> None:
        """Decrypt, and give what was read to the protocol."""
        if self._phase is LINGERING or self._phase is OVER:
            return
        for position in range(0, len(data), RECORD):
            self._feed(data[position : position + RECORD])
            self._go_on()

    def eof_received(self) -> bool:
        """Close: a client that is gone without a close_notify reads no answers."""
        return False

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._deliver is not _drop:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._deliver is not _drop:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol, and let go of all."""
        self._phase = OVER
        protocol, self._protocol = self._protocol, None
        self._deliver = _drop
        protocol.connection_lost(self._error or exc)

    # ── reading ──────────────────────────────────────────────────────────────────────────────

    def _go_on(self) -> None:
        """Read on from the bytes that have come."""
        try:
            if self._phase is HANDSHAKE:
                self._shake_hands()
            if self._phase is OPEN:
                self._read()
        except ssl.SSLError as error:
            log.debug("a TLS connection failed: %s", error)
            self._flush()  # the alert
            self._error = error
            self.abort()

    def _shake_hands(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return
        finally:
            self._flush()
        self._phase = OPEN
        self.set_protocol(self._protocol)
        self._protocol.connection_made(self)

    def _read(self) -> None:
        """Read the records that are complete, until the protocol reads no more. Raises SSLError."""
        while not self._reading_paused:
            # Never less than the next record has, so that OpenSSL keeps nothing; a short one makes no large object.
            size = self._incoming.pending
            if self._rest:
                size += self._held()
            if not size:
                self._rest = False
                break
            try:
                data = self._decrypt(min(size, RECORD))
            except ssl.SSLWantReadError:
                self._rest = True
                break
            if not data:  # close_notify
                self._protocol.eof_received()
                self.close()
                return
            self._deliver(data)
            if self._phase is not OPEN:
                return
        if self._outgoing.pending:  # the answer to a change of keys
            self._flush()

    def _flush(self) -> None:
        """Send what OpenSSL has written."""
        if self._outgoing.pending:
            self._below.write(self._take())

    # ── the transport of the protocol above ──────────────────────────────────────────────────

    def set_protocol(self, protocol: BaseProtocol) -> None:
        """Call another protocol from now on; `data_received` is looked up here."""
        self._protocol = protocol
        self._deliver = protocol.data_received  # type: ignore[attr-defined]

    def get_protocol(self) -> BaseProtocol | None:
        """The protocol; None after the end."""
        return cast("BaseProtocol | None", self._protocol)

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._phase is OPEN:
            if len(data) <= RECORD:
                self._encrypt(data)
                self._below.write(self._take())
            else:
                self.writelines([data])

    def writelines(self, pieces: Iterable[bytes]) -> None:
        """Encrypt pieces, and send all records in one call."""
        if self._phase is not OPEN:
            return
        records: list[bytes] = []
        for piece in pieces:
            view = memoryview(piece)
            for position in range(0, len(view), RECORD):
                self._encrypt(view[position : position + RECORD])
                records.append(self._take())
        write_pieces(self._below, records)

    def close(self) -> None:
        """Send a close_notify after all that was written, and close."""
        if self._phase is HANDSHAKE or self._phase is UNCONNECTED:
            self.abort()
        elif self._phase is not OVER:
            self._notify()
            self._phase = OVER
            self._below.close()

    def write_eof(self) -> None:
        """Send a close_notify after all that was written, then half-close. Raises OSError if the client is gone."""
        if self._phase is OPEN:
            self._notify()
            self._phase = LINGERING
            self._below.write_eof()

    def _notify(self) -> None:
        if self._phase is OPEN:
            with suppress(ssl.SSLError):  # the client's close_notify is not there, and not waited for
                self._ssl.unwrap()
            self._flush()

    def abort(self) -> None:
        """Close now."""
        before, self._phase = self._phase, OVER
        if before is not UNCONNECTED:
            self._below.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._phase is OVER

    def pause_reading(self) -> None:
        """Read no more."""
        self._reading_paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Read again, first what has come before."""
        if self._reading_paused:
            self._reading_paused = False
            self._below.resume_reading()
            if self._incoming.pending or self._held():
                self._loop.call_soon(self._go_on)

    def is_reading(self) -> bool:
        """Whether bytes that come are read."""
        return not self._reading_paused and self._phase is not OVER

    def get_write_buffer_size(self) -> int:
        """How many encrypted bytes wait."""
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The limits of flow control: low, high."""
        return self._below.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio's."""
        self._below.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's: `ssl_object`, and what the transport below has."""
        return self._ssl if name == "ssl_object" else self._below.get_extra_info(name, default)


def _drop(data: bytes) -> None:
    """Drop bytes that come after the end."""
