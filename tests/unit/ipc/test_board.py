"""The board: cells in shared memory, each with one writer; the master reads and clears them unmapped."""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from aserver import unix
from aserver.ipc.board import CELL_SIZE, CELLS, Board, BoardFile, Field
from aserver.metrics.page import WORDS


@pytest.fixture
def master() -> Iterator[BoardFile]:
    made = BoardFile.create()
    yield made
    made.close()


@pytest.fixture
def board(master: BoardFile) -> Iterator[Board]:
    """A worker's mapping of the master's board."""
    made = Board(os.dup(master.fd))
    yield made
    made.close()


def test_what_one_process_writes_another_reads(board: Board, master: BoardFile) -> None:
    """Through a second mapping of the same file, as a zygote has it, and in the file, as the master has it."""
    other = Board(os.dup(board.fd))
    master.clear(3)
    board.cell(3)[Field.BEAT] = 2**63 + 5
    assert other.cell(3)[Field.BEAT] == master.beat(3) == 2**63 + 5
    assert other.cell(4)[Field.BEAT] == master.beat(4) == 0
    other.close()


def test_cells_do_not_overlap(board: Board, master: BoardFile) -> None:
    for index in (1, 2, CELLS - 1):
        master.clear(index)
        for field in Field:
            board.cell(index)[field] = index * 100 + field
    assert [list(board.cell(index)[: len(Field)]) for index in (1, 2, CELLS - 1)] == [
        [index * 100 + field for field in Field] for index in (1, 2, CELLS - 1)
    ]


def test_used_are_the_cells_that_were_ever_given_out(board: Board, master: BoardFile) -> None:
    assert list(board.used()) == []
    master.clear(2)
    master.clear(1)
    assert [index for index, _ in board.used()] == [1, 2]


def test_pages_of_counters_overlap_with_nothing_and_are_cleared(board: Board, master: BoardFile) -> None:
    """Fails with a wrong offset, or if `clear` leaves a page to the next worker of a cell."""
    for index in (1, CELLS - 1):
        board.page(index)[0], board.page(index)[WORDS - 1] = 5, 6
    assert not any(any(board.cell(index)) for index in (0, 1, CELLS - 1))
    assert master.page(1) == master.page(CELLS - 1)
    assert struct.unpack_from("=Q", master.page(1)) == (5,)
    master.clear(1)
    assert not any(master.page(1))
    assert any(master.page(CELLS - 1))


@pytest.mark.parametrize("nonsense", [CELLS, 2**64 - 1])
def test_a_count_of_cells_that_a_worker_overwrote_harms_nobody(board: Board, master: BoardFile, nonsense: int) -> None:
    """Fails without the bound in `used` (the neighbours' heartbeat ends in IndexError, or never) and in `clear`."""
    master.clear(1)
    board.cell(0)[0] = nonsense
    assert all(len(cell) for _, cell in board.used())
    assert len(list(board.used())) == CELLS - 1
    master.clear(5)
    assert board.cell(0)[0] == CELLS - 1
    board.cell(0)[0] = 0
    master.clear(5)
    assert board.cell(0)[0] == 5


@pytest.mark.skipif(not unix.LINUX, reason="there are no seals")
@pytest.mark.parametrize("size", [0, CELL_SIZE, 1 << 30])
def test_nobody_can_change_the_boards_size(board: Board, size: int) -> None:
    """ftruncate(2) by a worker ended the master, and every sibling, by SIGBUS. Fails without F_ADD_SEALS."""
    with pytest.raises(PermissionError):
        os.ftruncate(board.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(board.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_board_that_could_not_be_sealed_and_was_cut_does_not_end_the_master() -> None:
    """Where there are no seals. Fails with a master that maps the file: SIGBUS, and the test run with it."""
    file = unix.memory_file("plain")
    os.ftruncate(file, CELL_SIZE * CELLS)
    master = BoardFile(file)
    master.clear(3)
    os.ftruncate(file, 10)
    assert master.beat(3) == 0
    assert master.read_text(3) == ""
    master.clear(3)
    os.ftruncate(file, 0)
    master.clear(4)
    assert master.beat(4) == 0
    master.close()


@pytest.mark.skipif(not unix.LINUX, reason="looks at /proc")
def test_the_master_does_not_map_the_board(master: BoardFile) -> None:
    """Fails with an mmap in BoardFile."""
    master.clear(1)
    master.beat(1)
    with open("/proc/self/maps") as maps:
        mapped = [line for line in maps if "aserver-board" in line]
    assert not mapped
    with mmap.mmap(master.fd, CELL_SIZE), open("/proc/self/maps") as maps:
        assert "aserver-board" in maps.read(), "the premise: a mapping would be seen"


def test_clear_zeroes_what_a_former_process_left(board: Board, master: BoardFile) -> None:
    """A cell belongs to a process. Fails without the words, and without the text."""
    master.clear(1)
    for field in Field:
        board.cell(1)[field] = 9
    board.writer(1)(b"/last")
    master.clear(1)
    assert master.read_text(1) == ""
    assert set(board.cell(1)) == {0}


def test_a_text_is_cut_escaped_and_kept_apart_from_the_words(board: Board, master: BoardFile) -> None:
    """The target of the request begun last. Fails with another offset (words or the neighbour are overwritten)."""
    master.clear(1)
    master.clear(2)
    board.writer(2)(b"/neighbour")
    board.writer(1)(b"/\n\xff" + b"x" * CELL_SIZE)
    assert master.read_text(1).startswith(r"/\n\xffxxx")
    assert "neighbour" not in master.read_text(1)
    assert master.read_text(2) == "/neighbour"
    assert list(board.cell(1)[: len(Field)]) == list(board.cell(2)[: len(Field)]) == [0] * len(Field)
    board.writer(1)(b"/short")
    assert master.read_text(1) == "/short"


def test_cells_share_no_cache_line_and_hold_every_field(board: Board) -> None:
    with board.cell(1) as cell:
        assert cell.nbytes % 64 == 0
        assert len(Field) <= len(cell)


def test_the_memory_is_not_inherited_by_programs_that_the_app_starts(board: Board) -> None:
    assert not os.get_inheritable(board.fd)


def test_readiness_is_the_masters_word_for_all(board: Board, master: BoardFile) -> None:
    """Fails with the text of a cell, which goes with its worker, or with a text that is not cut."""
    assert board.readiness() == (False, "the server boots")
    master.tell_readiness(ready=True, reason="2 of 2 workers serve")
    master.clear(1)
    assert board.readiness() == (True, "2 of 2 workers serve")
    assert list(board.used()) != []
    master.tell_readiness(ready=False, reason="x" * 1000)
    ready, reason = board.readiness()
    assert (ready, set(reason)) == (False, {"x"})
    assert len(reason) < CELL_SIZE
