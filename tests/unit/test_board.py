"""The board: cells in shared memory, each with one writer."""

import os
from collections.abc import Iterator

import pytest

from aserver.ipc.board import CELL_SIZE, CELLS, Board, Field


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.create()
    yield made
    made.close()


def test_what_one_process_writes_another_reads(board: Board) -> None:
    """Through a second mapping of the same file, as a zygote has it."""
    other = Board(os.dup(board.fd))
    board.clear(3)
    board.cell(3)[Field.BEAT] = 2**63 + 5
    assert other.cell(3)[Field.BEAT] == 2**63 + 5
    assert other.cell(4)[Field.BEAT] == 0
    other.close()


def test_cells_do_not_overlap(board: Board) -> None:
    for index in (1, 2, CELLS - 1):
        board.clear(index)
        for field in Field:
            board.cell(index)[field] = index * 100 + field
    assert [list(board.cell(index)[: len(Field)]) for index in (1, 2, CELLS - 1)] == [
        [index * 100 + field for field in Field] for index in (1, 2, CELLS - 1)
    ]


def test_used_are_the_cells_that_were_ever_given_out(board: Board) -> None:
    assert list(board.used()) == []
    board.clear(2)
    board.clear(1)
    assert [index for index, _ in board.used()] == [1, 2]


def test_clear_zeroes_what_a_former_process_left(board: Board) -> None:
    """Trap 34: a cell belongs to a process. Fails without the loop over the fields, and without the text."""
    board.clear(1)
    for field in Field:
        board.cell(1)[field] = 9
    board.writer(1)(b"/last")
    board.clear(1)
    assert board.read_text(1) == ""
    assert set(board.cell(1)) == {0}


def test_a_text_is_cut_escaped_and_kept_apart_from_the_words(board: Board) -> None:
    """The target of the request begun last. Fails with another offset (words or the neighbour are overwritten)."""
    board.clear(1)
    board.clear(2)
    board.writer(2)(b"/neighbour")
    board.writer(1)(b"/\n\xff" + b"x" * CELL_SIZE)
    assert board.read_text(1).startswith(r"/\n\xffxxx")
    assert "neighbour" not in board.read_text(1)
    assert board.read_text(2) == "/neighbour"
    assert list(board.cell(1)[: len(Field)]) == list(board.cell(2)[: len(Field)]) == [0] * len(Field)
    board.writer(1)(b"/short")
    assert board.read_text(1) == "/short"


def test_cells_share_no_cache_line_and_hold_every_field(board: Board) -> None:
    with board.cell(1) as cell:
        assert cell.nbytes % 64 == 0
        assert len(Field) <= len(cell)


def test_the_memory_is_not_inherited_by_programs_that_the_app_starts(board: Board) -> None:
    assert not os.get_inheritable(board.fd)
