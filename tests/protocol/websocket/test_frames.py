"""Frames that the server sends: heads and close frames, byte for byte."""

import pytest

from aserver.protocol.websocket.frames import close_frame, head


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65535, "827effff"),
        (65536, "827f0000000000010000"),
    ],
)
def test_heads_have_the_shortest_length(length: int, expected: str) -> None:
    assert head(0x82, length).hex() == expected


def test_close_frames() -> None:
    assert close_frame(1000) == b"\x88\x02\x03\xe8"
    assert close_frame(1005) == b"\x88\x00"
    assert close_frame(1001, "é") == b"\x88\x04\x03\xe9\xc3\xa9"
    cut = close_frame(1001, "é" * 100)
    assert cut[1] == 2 + 122
    assert cut[4:].decode() == "é" * 61
