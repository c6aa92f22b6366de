"""Sums of counters only grow, whatever workers write and whenever they die."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from aserver.metrics.page import PAGE_SIZE, WORDS
from aserver.metrics.totals import LARGEST, Totals


def page(*words: int) -> bytes:
    return struct.pack(f"={len(words)}Q", *words).ljust(PAGE_SIZE, b"\0")


def test_the_counters_of_a_dead_worker_stay_when_its_cell_is_used_again() -> None:
    """Fails without `fold`, and where a cell's next worker is measured by the words of the last."""
    totals = Totals()
    totals.look(1, page(5))
    totals.fold(1, page(7))
    assert totals.sums()[0] == 7
    totals.look(1, page(2))
    totals.look(2, page(10))
    assert totals.sums()[0] == 19


def test_a_word_that_shrinks_or_cannot_be_a_count_is_not_taken_in() -> None:
    """Fails without the bounds in `look`."""
    totals = Totals()
    totals.look(1, page(5, 5, 5))
    totals.look(1, page(4, LARGEST + 1, 6))
    totals.look(1, b"cut")
    assert totals.sums()[:3] == [5, 5, 6]


pages = st.lists(st.integers(0, 2**64 - 1), max_size=3).map(lambda words: page(*words)) | st.binary(max_size=PAGE_SIZE)


@given(st.lists(st.tuples(st.sampled_from(["look", "fold"]), st.integers(1, 3), pages)))
def test_no_sum_ever_goes_backwards(steps: list[tuple[str, int, bytes]]) -> None:
    totals = Totals()
    before = totals.sums()
    for step, index, words in steps:
        getattr(totals, step)(index, words)
        after = totals.sums()
        assert len(after) == WORDS
        assert all(a <= b for a, b in zip(before, after, strict=True))
        before = after
