"""Polite accept: who holds clearly more connections than the least loaded worker lets the others go first.

Runs in the worker's loop, at each accept. uvloop accepts one connection per wake-up, and which worker wakes is the
kernel's choice: a burst over 4 workers ended at max/mean 1.2 to 2.8. With this rule it ended at 1.06 to 1.24. It reads
what the others wrote on the board and never waits for anybody.
"""

import time

from aserver.ipc.board import Board, Field

#: How much more than the least loaded worker is too much: a share for large counts, a few for small ones.
SHARE, FEW = 1.125, 4
#: Seconds of pause; 0.3 ms is too short (max/mean 2.04), 4 ms would slow a burst down.
PAUSE = 0.001
#: Accepts that are free after a pause, so that a stopped neighbour cannot stall everybody.
FREE = 2
#: A neighbour whose heart was silent this long (seconds) is blocked or stopped: nobody waits for it (trap 68).
SILENT = 0.5

_CONNECTIONS = int(Field.CONNECTIONS)  # an index, looked up at each accept: an enum's member costs 0.2 us there


class Fairness:
    """One worker's view of its neighbours."""

    def __init__(self, board: Board, own: int) -> None:
        self._board = board
        self._own = own
        self._cell = board.cell(own)
        self._neighbours: list[memoryview] = []
        self._free = 0

    def look_around(self) -> None:
        """Find the neighbours that accept and are alive; called at each heartbeat."""
        oldest = time.monotonic_ns() - int(SILENT * 1e9)
        self._neighbours = [
            cell
            for index, cell in self._board.used()
            if index != self._own and cell[Field.ACCEPTING] and cell[Field.BEAT] > oldest
        ]

    def crowded(self, connections: int) -> bool:
        """Whether a worker with so many `connections` should pause; publishes the count."""
        self._cell[_CONNECTIONS] = connections
        if self._free:
            self._free -= 1
            return False
        neighbours = self._neighbours
        if not neighbours or connections <= FEW:
            return False
        lowest = min([cell[_CONNECTIONS] for cell in neighbours])
        if connections <= lowest * SHARE + FEW:
            return False
        self._free = FREE
        return True
