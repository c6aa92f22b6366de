"""Unmasks payload (RFC 6455 section 5.3): by the C extension of the `websockets` library, else in Python.

Pure; runs in the worker. It loads the extension alone, in less than 1 ms. The whole library would take 21 ms, a fifth
of the time until two workers are ready.
"""

from collections.abc import Callable
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import cast

Mask = Callable[[bytes | bytearray | memoryview, bytes], bytes]

#: Below this many bytes the XOR of two integers is faster than a table; its cost grows with the length's square.
_SHORT = 512


@cache
def _table(mask: int) -> bytes:
    """Return the table for `bytes.translate` that XORs with a byte of a mask. To make all 256 would take 2 ms."""
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
    """Return the extension's function (64 KB in 1.3 us), or None if websockets or its extension is not installed."""
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
