"""Unmasking without the C extension of `websockets` (RFC 6455 section 5.3).

Pure, run by workers where that extension could not be built; `ws_frames` chooses.
"""

#: Below this many bytes the XOR of two integers is faster, above it its cost grows with the square of the length.
_SHORT = 512

#: For each byte of a mask what it makes of every byte.
_TABLES = [bytes(byte ^ mask for byte in range(256)) for mask in range(256)]


def apply_mask(data: bytes | bytearray | memoryview, mask: bytes | bytearray) -> bytes:
    """Return `data` XORed with the four bytes of `mask`, over and over."""
    size = len(data)
    if size < _SHORT:
        keys = (bytes(mask) * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")
    source = bytes(data)
    made = bytearray(size)
    for place in range(4):
        made[place::4] = source[place::4].translate(_TABLES[mask[place]])
    return bytes(made)
