"""Huffman coding of header blocks is worked off in bounded steps."""

import contextlib

from aserver.protocol.http2 import huffman
from aserver.protocol.http2.errors import ConnectionFaultError


def test_huffman_steps_are_bounded() -> None:
    """Bytes like these leave 9,600 steps behind. Fails without REMEMBERED."""
    most = 0
    for second in range(0, 256, 2):
        for third in range(256):
            with contextlib.suppress(ConnectionFaultError):
                huffman.decode(bytes((0xFF, second, third)))
        most = max(most, huffman.remembered())
    assert huffman.REMEMBERED - 300 < most <= huffman.REMEMBERED
