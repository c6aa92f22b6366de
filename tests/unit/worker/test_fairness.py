"""Polite accept: which neighbours are waited for."""

import time

import pytest

from aserver.ipc.board import Board, BoardFile, Field
from aserver.worker.fairness import FEW, Fairness


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
    fairness.look_around()
    assert fairness.crowded(FEW + 10) is waits
    assert not fairness.crowded(FEW + 10), "after a pause some are free"
