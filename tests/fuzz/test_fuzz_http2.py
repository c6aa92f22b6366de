"""The fuzz target of HTTP/2 with inputs of Hypothesis: frames of the RFC's rows, mixed and broken."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aserver.protocol.http2 import frames
from tests.fuzz.fuzz_http2 import Checker
from tests.protocol.http2.rfc9113_rows import ROWS
from tests.protocol.http2.wire import OPENING, block, frame, take_apart

SHORT = [row.raw for row in ROWS if row.opening is OPENING and len(row.raw) < 500]
WHOLE = [raw for raw in SHORT if not raw.startswith(b"\0\x40\1")]
PARTS = sorted({frame(*each) for raw in WHOLE for each in take_apart(raw)})
#: Frames of any type, flags and stream that could matter.
odd = st.builds(
    frame,
    st.integers(0, 0x11),
    st.sampled_from([0, 1, 4, 5, 8, 0x0D, 0x20, 0x25, 0x2D]),
    st.sampled_from([0, 1, 1, 3, 3, 5, 2, 2**31 - 1]),
    st.one_of(st.just(block()), st.binary(max_size=30), st.just(bytes(4)), st.just(bytes(5)), st.just(bytes(8))),
)
raws = st.one_of(
    st.lists(st.one_of(st.sampled_from(PARTS), odd), max_size=10).map(b"".join),
    st.lists(st.sampled_from(SHORT), max_size=3).map(b"".join),
    st.tuples(st.sampled_from(SHORT), st.integers(0, 200), st.binary(max_size=4)).map(
        lambda mixed: mixed[0][: mixed[1]] + mixed[2] + mixed[0][mixed[1] + len(mixed[2]) :]
    ),
    st.binary(max_size=100),
)


@given(raw=raws, cuts=st.lists(st.integers(0, 400), max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes(raw: bytes, cuts: list[int]) -> None:
    Checker().check(raw, cuts)


def test_the_parts_are_of_every_type() -> None:
    assert {part[3] for part in PARTS} >= set(frames.NAMES)
