"""Small pieces are written together: pieces of a connection, and answers of many connections in a turn.

Runs in the worker's loop. A write(2) of a small piece costs 5 us, and each wakes the client. A writer must never hold a
piece longer than the rest of the turn; in an application that blocks the loop, until it sends again. It must never
write a held piece to a connection whose end was decided.
"""

import asyncio
from time import monotonic
from typing import Final

from aserver.protocol.context import Context
from aserver.protocol.semantics.response import JOIN_LIMIT

#: Held pieces are written when they have more bytes than this.
HOLD_BYTES: Final = 65536

#: Held pieces are written with the next `send()` after this many seconds, for applications that block the loop.
HOLD_SECONDS = 0.005

#: An answer within this many seconds of the one before, on any connection, is written at the end of the turn. Between
#: two answers the kernel's code and Python's would push each other out of the CPU's caches, and a client that waits is
#: woken for each. A later answer is written at once, with those that wait: a slow application has nothing to gain.
GATHER_SECONDS: Final = 0.00025

#: The most answers that wait: with the above, no answer is later by it than 8 ms.
MOST_GATHERED: Final = 32

#: Modules of transports whose `writelines` is a single call of the kernel.
_WITH_VECTORS: Final = ("uvloop.", "aserver.protocol.transport.")


def write_pieces(transport: asyncio.Transport, pieces: list[bytes]) -> None:
    """Write pieces that are too large to be joined, in one call of the kernel if the transport can do that.

    asyncio's `writelines` joins the pieces (3.11), or does not call `pause_writing` (3.12.0 to 3.13.5).
    """
    if type(transport).__module__.startswith(_WITH_VECTORS):
        transport.writelines(pieces)
    else:
        for piece in pieces:
            transport.write(piece)


class Writer:
    """Writes to a transport: at once, or together with later pieces.

    `held` are the pieces that wait for more; None says that the next piece is written at once.
    """

    __slots__ = ("_context", "_size", "_until", "held", "stopped", "transport")

    def __init__(self, transport: asyncio.Transport, context: Context) -> None:
        self.transport = transport
        self._context = context
        self._size = 0
        self._until = 0.0
        self.held: list[bytes] | None = None
        self.stopped = False  # the connection's end was decided: held pieces are dropped

    def write(self, data: bytes) -> None:
        """Write the held pieces, then `data`, at once."""
        if self.held:
            self.flush()
        self.transport.write(data)

    def write_pieces(self, pieces: list[bytes]) -> None:
        """Write the held pieces, then `pieces`, which are too large to be joined, at once."""
        if self.held:
            self.flush()
        # writelines() of uvloop, and of ours, is a single writev(2): 44 us for 64 KB, where two write(2) take 49. Two
        # write(2) send the head in a packet of its own, which wakes the client, and halve the rate of bodies of 1 MB.
        write_pieces(self.transport, pieces)

    def write_soon(self, data: bytes | list[bytes]) -> None:
        """Write a piece that more may follow in this turn. The first is written at once, the others are held."""
        held = self.held
        if not isinstance(data, bytes):
            self.write_pieces(data)
        elif not data:
            pass
        elif held is None:
            self.hold(pipelined=False)
            self.transport.write(data)
        elif len(data) >= JOIN_LIMIT:
            self.write(data)
        else:
            held.append(data)
            self._size += len(data)
            if self._size > HOLD_BYTES or monotonic() > self._until:
                self.flush()

    def write_answer(self, data: bytes) -> None:
        """Write the last piece of an answer; hold it until the end of the turn if another answer was just written."""
        context = self._context
        now = monotonic()
        soon = now < context.gather_until
        context.gather_until = now + GATHER_SECONDS
        if soon and len(data) < JOIN_LIMIT and len(context.gathered) < MOST_GATHERED:
            self.held = [data]
            self._size = len(data)
            self._until = context.gather_until
            if not context.gathered:
                context.loop.call_soon(context.write_gathered, context=context.variables)
            context.gathered.append(self)
        else:
            if context.gathered:
                context.write_gathered()
            self.transport.write(data)

    def hold(self, *, pipelined: bool) -> None:
        """Hold pieces of `write_soon` until the end of this turn; if `pipelined`, of the first that adds none."""
        self.held = []
        self._size = 0
        self._until = monotonic() + HOLD_SECONDS
        context = self._context
        context.loop.call_soon(self._turn_over, -1 if pipelined else None, context=context.variables)

    def _turn_over(self, before: int | None) -> None:
        held = self.held
        if held is None:
            return
        if before is not None and len(held) != before:
            context = self._context
            context.loop.call_soon(self._turn_over, len(held), context=context.variables)
            return
        self.write_held()

    def write_held(self) -> None:
        """Write the held pieces, and hold no more from now on."""
        held = self.held
        self.held = None
        if held and not self.stopped:
            self.transport.write(b"".join(held))

    def flush(self) -> None:
        """Write the held pieces, and hold the next pieces again."""
        held = self.held
        if held:
            self.held = []
            self._size = 0
            self._until = monotonic() + HOLD_SECONDS
            if not self.stopped:
                self.transport.write(b"".join(held))
