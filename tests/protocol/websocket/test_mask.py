"""Unmasking in C and in Python, and how little is loaded for it."""

import os
import subprocess
import sys

import pytest

from aserver.protocol.websocket import mask


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 63, 64, 511, 512, 513, 4095, 65537])
def test_the_masks_in_python_and_c_agree(size: int) -> None:
    assert mask.apply_mask is not mask.plain_mask
    data, key = os.urandom(size), os.urandom(4)
    masked = mask.plain_mask(data, key)
    assert masked == mask.apply_mask(data, key)
    assert mask.plain_mask(memoryview(masked), key) == data


def test_no_more_of_websockets_is_loaded_than_its_extension_and_an_application_may_load_the_rest() -> None:
    code = """if True:
        import sys
        from aserver.protocol.websocket.mask import apply_mask
        assert [name for name in sys.modules if "websockets" in name] == ["websockets.speedups"]
        import websockets.asyncio.server
        from websockets.frames import apply_mask as theirs
        assert theirs(b"abc", b"1234") == apply_mask(b"abc", b"1234") == b"PPP"
        assert theirs.__module__ != "websockets.utils"  # not theirs in Python
    """
    subprocess.run([sys.executable, "-c", code], check=True)
