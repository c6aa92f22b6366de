"""The body of a request, as its bytes come: how many there are, and which go to the parser next.

Pure. Made for a request that has a body, and dropped at the body's end. It must never take a byte of the next request.
"""

from aserver.errors import ClientError
from aserver.protocol.http1.framing import ChunkWalk
from aserver.protocol.semantics.limits import RequestLimits


class BodyReader:
    """Finds where a body lies; llhttp decodes it."""

    __slots__ = ("_limits", "_received", "_walk", "keep_alive", "length", "skipped")

    def __init__(self, length: int, limits: RequestLimits, *, keep_alive: bool, skipped: bool) -> None:
        self.length = length  # or CHUNKED
        self.keep_alive = keep_alive  # another request may follow
        self.skipped = skipped  # by llhttp, which believes that the protocol changes
        self._limits = limits
        self._received = 0
        self._walk: ChunkWalk | None = None  # along it, if it is chunked

    def count(self, size: int) -> None:
        """Note that `size` bytes were decoded. Raises ClientError."""
        self._received += size
        if self._received > self._limits.body:
            raise ClientError(413, f"body above {self._limits.body} bytes")

    def part(self, data: bytes, position: int, most: int) -> tuple[list[bytes | memoryview], int, int]:
        """Return the pieces from `position` on that the parser is to be fed, where they end, and their cost.

        It stops at the body's end, or where it has cost `most` (see `ChunkWalk`). Raises ClientError.
        """
        pieces: list[bytes | memoryview] = []
        cost = 0
        if self.length >= 0:
            end = until = min(len(data), position + self.length - self._received)
        else:
            walk = self._walk
            if walk is None:
                walk = self._walk = ChunkWalk(self._limits.fields, self._limits.field_size)
            end = walk.advance(data, position, most)
            cost = walk.spent
            pieces += walk.pieces
            position, until = walk.plain_from, walk.plain_to
        # Not a slice: copying 64 KB of body twice costs as much as the rest of the request.
        pieces.append(data if until - position == len(data) else memoryview(data)[position:until])
        return pieces, end, cost
