"""The body of a request on its way to the application: pieces that wait, and when reading pauses.

Runs in the worker's loop. Made only for requests that have a body. It must never hold more than `HIGH_WATER` bytes
and a read of the transport.
"""

from math import inf
from typing import Final, Protocol

#: Bytes kept for an application that does not take them, before reading pauses.
HIGH_WATER: Final = 65536

#: Bytes up to which pieces are joined at once, so that a body in tiny ones takes no more memory than another.
SMALL: Final = 1024


def append_piece(pieces: list[bytes], data: bytes) -> None:
    """Add a piece of a body to those that wait; a tiny one to the one before, as a piece of two bytes would hold 56."""
    if pieces and len(pieces[-1]) + len(data) <= SMALL:
        pieces[-1] += data
    else:
        pieces.append(data)


class Source(Protocol):
    """The connection that a body comes from."""

    def pause_body(self) -> None:
        """Read nothing until `resume_body` is called, because the application does not keep up."""

    def resume_body(self) -> None:
        """Read on."""


class RequestBody:
    """Pieces of a body that the application has not taken yet."""

    __slots__ = ("_pieces", "continue_expected", "length", "paused", "received", "size")

    def __init__(self, length: int | None, *, continue_expected: bool) -> None:
        self.length = length  # of Content-Length; None if chunked
        self.received = 0
        self.continue_expected = continue_expected  # the client waits for 100 before it sends
        self._pieces: list[bytes] = []
        self.size = 0  # bytes that wait
        self.paused = False  # reading, because the application does not keep up

    def add(self, data: bytes, source: Source) -> None:
        """Keep a piece; pause reading if the application does not keep up."""
        append_piece(self._pieces, data)
        self.size += len(data)
        if self.size > HIGH_WATER and not self.paused:
            self.paused = True
            source.pause_body()

    def take(self, source: Source) -> bytes:
        """Return the pieces that wait, possibly none, and go on reading."""
        pieces = self._pieces
        self._pieces = []
        self.size = 0
        if self.paused:
            self.paused = False
            source.resume_body()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def missing(self) -> float:
        """Bytes still to come; infinite if the client has not said how many."""
        if self.length is None or self.continue_expected:
            return inf
        return self.length - self.received
