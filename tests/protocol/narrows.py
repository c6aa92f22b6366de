"""A transport with little room in both directions, and a client that sends and reads in any order."""

import asyncio
from random import Random

from aserver.protocol.service import Service
from tests.harness.waiting import turns_of_the_loop
from tests.protocol.wiretap import Tap

#: Turns of the loop without a byte in either direction after which the server is said to wait for something that will
#: not come. Its applications here wait for nothing but the client, and need about ten.
TURNS = 40

#: Marks of the transport's buffer (bytes): small, so that `send()` is suspended often.
HIGH, LOW = 8192, 2048

#: Sizes of what arrives at once.
PIECES = (1, 100, 10_000, 70_000, 200_000)


class StalledError(AssertionError):
    """The client has sent what it may and read what there was, and the server does nothing."""


class Narrows(Tap):
    """Gives what is sent only while the server reads, and lets it write no more than a client takes."""

    def __init__(self, service: Service, rng: Random) -> None:
        super().__init__()
        self.closing = False
        self.most = 0  # bytes that ever waited for the client
        self._rng = rng
        self._out = bytearray()
        self._paused = False
        self.plug(service)

    # ── for the server ───────────────────────────────────────────────────────────────────────

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing
        self._out += data
        self.most = max(self.most, len(self._out))
        if len(self._out) > HIGH and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._out)

    def write_eof(self) -> None:
        """The client sees the end when it has read all; see `ended`."""
        self.closing = True

    def close(self) -> None:
        self.closing = True
        self.reading = False

    def abort(self) -> None:
        self.close()

    # ── for the client ───────────────────────────────────────────────────────────────────────

    @property
    def ended(self) -> bool:
        """Whether the client has seen the end."""
        return self.closing and not self._out

    def _take(self, most: int) -> bytes:
        taken = bytes(self._out[:most])
        del self._out[:most]
        if self._paused and len(self._out) <= LOW:
            self._paused = False
            self.protocol.resume_writing()
        return taken

    async def carry(self, data: bytes) -> bytes:
        """Send `data` and read, in pieces and by turns as the dice fall; return what was read when nothing moves.

        Raises StalledError if the server does not take all, unless it has ended the connection.
        """
        rng, got, at, quiet = self._rng, [], 0, 0
        while quiet < TURNS:
            moved = False
            talks, listens = rng.choice(((True, False), (False, True), (True, True)))
            for _ in range(rng.choice((1, 5, 50))):
                if talks and self.reading and at < len(data):
                    piece = data[at : at + rng.choice(PIECES)]
                    at += len(piece)
                    self.protocol.data_received(piece)
                    moved = True
                if listens and self._out:
                    got.append(self._take(rng.choice((1, 1000, 5000, 100_000))))
                    moved = True
                await turns_of_the_loop(rng.choice((0, 1, 4)))
            idle = not self._out and (not self.reading or at == len(data))
            quiet = quiet + 1 if idle and not moved else 0
            if quiet:
                await asyncio.sleep(0)
        if at < len(data) and not self.closing:
            raise StalledError(f"the server has read {at} bytes of {len(data)} and does not read on")
        return b"".join(got)

    def lose(self) -> None:
        """End the connection, as a transport does at last."""
        self.closing = True
        self.protocol.connection_lost(None)
