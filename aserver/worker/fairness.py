"""Polite accept: a worker with clearly more connections than the least loaded worker lets others go first.

Runs in the worker's loop, at each accept. uvloop accepts a single connection per wake-up, and the kernel chooses the
worker that wakes: a burst over 4 workers ended at max/mean 1.2 to 2.8. With this rule it ended at 1.06 to 1.24. It
reads the numbers that the other workers write on the board, and never waits for a worker.
"""

import time

from aserver.ipc.board import CELLS, Board, Field

#: A worker is crowded with more connections than SHARE times those of the least loaded worker, plus FEW.
SHARE, FEW = 1.125, 4
#: Seconds of pause; 0.3 ms is too short (max/mean 2.04), 4 ms would slow a burst down.
PAUSE = 0.001
#: Accepts without a pause after each pause, so that a stopped neighbour cannot stall the others.
FREE = 2
#: A neighbour without a heartbeat for so many seconds is blocked or stopped, and does not count.
SILENT = 0.5
#: Neighbours that are looked at, others after each heartbeat, and only by a worker with more than FEW connections.
#: To look at all of 500 ten times a second cost each a hundredth of a CPU: a server on two CPUs never became ready.
MOST = 16

_CONNECTIONS = int(Field.CONNECTIONS)  # an index, looked up at each accept: an enum's member costs 0.2 us there


class Fairness:
    """The view of a worker on its neighbours, the other workers of the server."""

    def __init__(self, board: Board, own: int) -> None:
        self._board = board
        self._own = own
        self._cell = board.cell(own)
        self._neighbours: list[memoryview] = []
        self._free = 0
        self._begin = 0
        self._stale = True

    def look_again(self) -> None:
        """Have the next accept look at other neighbours, if it needs to; called at each heartbeat."""
        self._stale = True

    def _look_around(self) -> None:
        """Find neighbours that accept and are alive."""
        self._stale = False
        self._begin = (self._begin + MOST) % CELLS
        oldest = time.monotonic_ns() - int(SILENT * 1e9)
        self._neighbours = [
            cell
            for index, cell in self._board.used(self._begin, MOST)
            if index != self._own and cell[Field.ACCEPTING] and cell[Field.BEAT] > oldest
        ]

    def crowded(self, connections: int) -> bool:
        """Should a worker with so many `connections` pause? Writes the number on the board."""
        self._cell[_CONNECTIONS] = connections
        if self._free:
            self._free -= 1
            return False
        if connections <= FEW:
            return False
        if self._stale:
            self._look_around()
        neighbours = self._neighbours
        if not neighbours:
            return False
        lowest = min([cell[_CONNECTIONS] for cell in neighbours])
        if connections <= lowest * SHARE + FEW:
            return False
        self._free = FREE
        return True
