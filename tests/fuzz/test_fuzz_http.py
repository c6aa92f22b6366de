"""The fuzz target with inputs of Hypothesis: pieces of the framing table, mixed and broken."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzz_http import Checker
from tests.protocol.http1.framing_rows import BEHIND, rows

SHORT = [row.raw for row in rows() if len(row.raw) < 500] + [raw for raw in BEHIND if len(raw) < 500]
LINES = sorted({line + b"\r\n" for raw in SHORT for line in raw.split(b"\r\n")})
BITS = [
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"1",
    b"\r\n",
    b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"Host: t\r\n",
]

raws = st.one_of(
    st.lists(st.sampled_from(SHORT), min_size=1, max_size=3).map(b"".join),
    st.lists(st.sampled_from(LINES + BITS), max_size=12).map(b"".join),
    st.tuples(st.sampled_from(SHORT), st.integers(0, 500), st.integers(0, 4), st.sampled_from(BITS)).map(
        lambda mixed: mixed[0][: mixed[1]] + mixed[3] + mixed[0][mixed[1] + mixed[2] :]
    ),
    st.binary(max_size=200),
)


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    made = Checker()
    yield made
    made.close()


@given(raw=raws, cuts=st.lists(st.integers(0, 700), max_size=4))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes(checker: Checker, raw: bytes, cuts: list[int]) -> None:
    checker.check(raw, cuts)
