"""Header blocks that come again."""

from aserver.protocol.http2.block_reader import BlockReader
from tests.protocol.http2.wire import ROOMY, block, literal

# ── blocks that come again ───────────────────────────────────────────────────────────────────


def test_a_block_is_remembered_until_the_table_changes() -> None:
    """Fails without the memory, and with one that outlives a change of the table."""
    reader = BlockReader(ROOMY)
    reader.request(1, block() + literal(b"x", b"1"))
    again = block() + b"\xbe"
    request = reader.request(3, again)
    assert request.headers[-1] == (b"x", b"1")
    assert reader.known[again] is request
    reader.request(7, block() + literal(b"x", b"2"))
    assert reader.request(9, again).headers[-1] == (b"x", b"2")


def test_little_is_remembered() -> None:
    reader = BlockReader(ROOMY)
    for number in range(1000):
        reader.request(1, block((b"x", b"%d" % number)))
        assert reader.remembered <= 32
    large = block((b"x", b"y" * 5000))
    assert reader.request(1, large) is not reader.request(3, large)
