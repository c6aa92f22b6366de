"""Unmasking (RFC 6455 section 5.3): by the C extension of the `websockets` library, or in Python where it is not there.

Pure, run by workers. It loads that extension and nothing else of the library, whose import takes 21 ms, a fifth of the
time that two workers need to be ready; the extension alone takes less than 1 ms.
"""

from collections.abc import Callable
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import cast

Mask = Callable[[bytes | bytearray | memoryview, bytes], bytes]

#: Below this many bytes the XOR of two integers is faster, above it its cost grows with the square of the length.
_SHORT = 512


@cache
def _table(mask: int) -> bytes:
    """The table that translates every byte by this byte of a mask. Not made at import: 2 ms for all 256."""
    return bytes(byte ^ mask for byte in range(256))


def plain_mask(data: bytes | bytearray | memoryview, mask: bytes) -> bytes:
    """Return `data` XORed with the four bytes of `mask`, over and over: 64 KB in 114 us."""
    size = len(data)
    if size < _SHORT:
        keys = (mask * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")
    source = bytes(data)
    made = bytearray(size)
    for place in range(4):
        made[place::4] = source[place::4].translate(_table(mask[place]))
    return bytes(made)


def _compiled() -> Mask | None:
    """Return the extension's function (SIMD: 64 KB in 1.3 us), None where websockets or its extension is not there."""
    package = PathFinder.find_spec("websockets")
    if package is None or package.submodule_search_locations is None:
        return None
    spec = PathFinder.find_spec("websockets.speedups", package.submodule_search_locations)
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Mask", module.apply_mask)


apply_mask: Mask = _compiled() or plain_mask
