"""Small pieces written together: of a connection that sends many, and of many connections that answer at once.

Runs in the worker's loop. A write(2) of a small piece costs 5 us, and each wakes the client. A writer must never keep a
piece longer than the rest of the turn (in an application that blocks the loop: until it sends again), nor write a held
piece to a connection whose end was decided.
"""

import asyncio
from time import monotonic
from typing import Final

from aserver.protocol.context import Context
from aserver.protocol.semantics.response import JOIN_LIMIT

#: Bytes that are held at most; when more wait, they are written.
HOLD_BYTES: Final = 65536

#: Seconds after which a piece is held no longer, looked at when the next is sent: for applications that block the loop
#: between two pieces.
HOLD_SECONDS = 0.005

#: Seconds after an answer in which other connections' answers are written together, at the end of the turn: the
#: kernel's code and Python's drive each other out of the CPU's caches. The first answer is written at once, and so is
#: each where an application takes longer than this between two.
GATHER_SECONDS: Final = 0.001


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
        self.stopped = False  # the end was decided: pieces held from now on are dropped

    def write(self, data: bytes) -> None:
        """Write now, after the held pieces."""
        if self.held:
            self.flush()
        self.transport.write(data)

    def write_pieces(self, pieces: list[bytes]) -> None:
        """Write pieces now that are too large to be joined, after the held pieces."""
        if self.held:
            self.flush()
        transport = self.transport
        # uvloop's writelines() is a single writev, where two write() are two system calls (44 us for 64 KB, not 49)
        # and two packets: the client wakes for the head alone, and gets half as many bodies of 1 MB in a second.
        # asyncio's joins (3.11), or forgets to pause us (3.12.0 to 3.13.5).
        if type(transport).__module__.startswith(("uvloop.", "aiofastnet.")):
            transport.writelines(pieces)
        else:
            for piece in pieces:
                transport.write(piece)

    def write_soon(self, data: bytes | list[bytes]) -> None:
        """Write a piece that others may follow: the first of a turn at once, so that its client does not wait."""
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
        """Write the last piece of an answer, or hold it until the end of the turn if another was just written."""
        context = self._context
        now = monotonic()
        if now < context.gather_until and len(data) < JOIN_LIMIT:
            self.held = [data]
            self._size = len(data)
            self._until = context.gather_until
            if not context.gathered:
                context.loop.call_soon(context.write_gathered, context=context.variables)
            context.gathered.append(self)
        else:
            if context.gathered:
                context.write_gathered()
            context.gather_until = now + GATHER_SECONDS
            self.transport.write(data)

    def hold(self, *, pipelined: bool) -> None:
        """Hold the pieces that `write_soon` gets during this turn; if `pipelined`, as long as each turn adds some."""
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
        """Write the held pieces, and hold no more."""
        held = self.held
        self.held = None
        if held and not self.stopped:
            self.transport.write(b"".join(held))

    def flush(self) -> None:
        """Write the held pieces, and hold on."""
        held = self.held
        if held:
            self.held = []
            self._size = 0
            self._until = monotonic() + HOLD_SECONDS
            if not self.stopped:
                self.transport.write(b"".join(held))
