"""The body of a request: the pieces that wait for the application, and when reading from the client pauses.

Runs in the worker's loop, for requests that have a body. It must never hold more than `HIGH_WATER` bytes and those of
a read.
"""

from math import inf
from typing import Final, Protocol

#: Reading pauses when more bytes than this wait for the application.
HIGH_WATER: Final = 65536

#: Pieces are joined until they have this many bytes: a piece of two bytes takes 56 in memory.
SMALL: Final = 1024


def append_piece(pieces: list[bytes], data: bytes) -> None:
    """Add a piece of a body to those that wait, or join it to the last of them if both are short (SMALL)."""
    if pieces and len(pieces[-1]) + len(data) <= SMALL:
        pieces[-1] += data
    else:
        pieces.append(data)


class Source(Protocol):
    """The connection, or stream, from which a body comes."""

    def pause_body(self) -> None:
        """Stop reading until `resume_body` is called: the application takes the body more slowly than it comes."""

    def resume_body(self) -> None:
        """Read again."""


class RequestBody:
    """Pieces of a body that the application has not taken yet."""

    __slots__ = ("_pieces", "continue_expected", "length", "paused", "received", "size")

    def __init__(self, length: int | None, *, continue_expected: bool) -> None:
        self.length = length  # of Content-Length; None if chunked
        self.received = 0  # bytes, also those that were dropped
        self.continue_expected = continue_expected  # the client waits for 100 before it sends
        self._pieces: list[bytes] = []
        self.size = 0  # bytes that wait
        self.paused = False  # by `pause_body`

    def add(self, data: bytes, source: Source) -> None:
        """Keep a piece; pause reading if more than HIGH_WATER bytes wait."""
        append_piece(self._pieces, data)
        self.size += len(data)
        if self.size > HIGH_WATER and not self.paused:
            self.paused = True
            source.pause_body()

    def take(self, source: Source) -> bytes:
        """Return all that waits, joined (b"" for nothing), and resume reading."""
        pieces = self._pieces
        self._pieces = []
        self.size = 0
        if self.paused:
            self.paused = False
            source.resume_body()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def missing(self) -> float:
        """The bytes still to come; infinite if their number is not known, or the client waits for 100 to send them."""
        if self.length is None or self.continue_expected:
            return inf
        return self.length - self.received
