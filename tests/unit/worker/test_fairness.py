"""Polite accept: which neighbours are waited for."""

import time

import pytest

from aserver.ipc.board import Board, BoardFile, Field
from aserver.worker.fairness import FEW, MOST, Fairness


@pytest.mark.parametrize(("silent", "accepting", "waits"), [(0.0, 1, True), (10.0, 1, False), (0.0, 0, False)])
def test_trap_68_nobody_waits_for_a_neighbour_that_does_not_accept(silent: float, accepting: int, waits: bool) -> None:
    """Fails without its heartbeat looked at: a stopped neighbour has the least connections, and stays so."""
    file = BoardFile.create()
    for index in (1, 2):
        file.clear(index)
    board = Board(file.fd)
    neighbour = board.cell(2)
    neighbour[Field.BEAT] = time.monotonic_ns() - int(silent * 1e9)
    neighbour[Field.ACCEPTING] = accepting
    fairness = Fairness(board, 1)
    assert fairness.crowded(FEW + 10) is waits
    assert not fairness.crowded(FEW + 10), "after a pause some are free"


class Counted(Board):
    """A board that counts how often a cell is looked at."""

    looks = 0

    def cell(self, index: int) -> memoryview:
        self.looks += 1
        return super().cell(index)


def test_of_many_neighbours_some_are_looked_at_and_each_in_its_turn() -> None:
    """Fails with all of them looked at by each of 500 workers, ten times a second: the work of more than two CPUs.

    A worker without load looks at none.
    """
    file, many = BoardFile.create(), 10 * MOST
    board = Counted(file.fd)
    for index in range(1, many + 1):
        file.clear(index)
        cell = board.cell(index)
        cell[Field.BEAT], cell[Field.ACCEPTING], cell[Field.CONNECTIONS] = time.monotonic_ns() + 10**12, 1, 1000
    board.cell(many // 2)[Field.CONNECTIONS] = 0
    fairness, waited = Fairness(board, 1), 0
    for _ in range(100):
        board.looks = 0
        fairness.look_again()
        assert not fairness.crowded(FEW)
        assert not board.looks
        waited += fairness.crowded(FEW + 500)
        assert board.looks <= MOST
    assert waited
