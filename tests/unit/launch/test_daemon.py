"""The first process of a detached server prints the errors of the other."""

from unittest.mock import Mock

import pytest

from aserver.launch.daemon import await_server


def test_a_character_in_two_pieces_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails with each piece decoded by itself."""
    text = "für\0".encode()
    assert await_server(Mock(recv=Mock(side_effect=[text[:2], text[2:]]))) == 0
    assert capsys.readouterr().err == "für"
