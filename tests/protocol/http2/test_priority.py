"""Priorities of streams (RFC 9218)."""

import pytest

from aserver.protocol.http2.priority import parse_priority


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"u=1", (1, False)),
        (b"i", (3, True)),
        (b"u=7, i", (7, True)),
        (b"i=?1,u=0", (0, True)),
        (b"i=?0", (3, False)),
        (b"u=2;x=y, z=1, i", (2, True)),
        (b"u=8", (3, False)),
        (b"u=-1, i=yes", (3, False)),
        (b"", (3, False)),
        (b"u=1," * 10_000, (1, False)),
    ],
)
def test_the_priority_field(value: bytes, expected: tuple[int, bool]) -> None:
    assert parse_priority(value, 3, incremental=False) == expected
