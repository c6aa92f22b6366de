"""Our connection and nghttp2's, given the same frames, judge alike, but for what is written down."""

from collections import Counter

import pytest

pytest.importorskip("ngh2", reason="ngh2 has no wheel for this Python")

from tests.fuzz.fuzz_against_nghttp2 import ALLOWED, Difference, compare

SERIES = 10_000


def test_the_verdicts_are_those_of_nghttp2() -> None:
    """Fails without the look at `te` in check_trailers, and the one at NO_RFC7540_PRIORITIES in ControlReader."""
    found: Counter[str] = Counter()
    for seed in range(SERIES):
        verdict = compare(seed)
        assert not isinstance(verdict, Difference), (seed, verdict)
        if verdict is not None:
            found[verdict] += 1
    assert found.keys() == ALLOWED.keys(), "a row of the table is not needed any more"
    assert found.total() < SERIES / 3, "most series have to go to their end"
