"""Decodes the Huffman code of HPACK strings (RFC 7541 section 5.2 and appendix B). Pure.

The code is canonical: it follows from the lengths. Each byte is a step from a node of the code's tree to another node.
A step is remembered when it is first taken.
"""

from typing import Final

from aserver.protocol.http2.errors import COMPRESSION_ERROR, ConnectionFaultError

#: The number of bits in the code of each byte; the last is EOS's.
LENGTHS: Final = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
)  # fmt: skip

EOS: Final = 256

#: The most steps that the process remembers. Text needs some hundred; all 65,536 would be 14 MB. When the table is
#: full, all are forgotten.
REMEMBERED: Final = 8192


def _make_tree() -> tuple[list[list[int]], list[int]]:
    """Return for each node its children (for bit 0, for bit 1; -1: none) and its symbol (-1: an inner node)."""
    children = [[-1, -1]]
    symbols = [-1]
    code = length = 0
    for size, symbol in sorted((size, symbol) for symbol, size in enumerate(LENGTHS)):
        code <<= size - length
        length = size
        node = 0
        for place in range(size - 1, -1, -1):
            bit = code >> place & 1
            if children[node][bit] < 0:
                children[node][bit] = len(children)
                children.append([-1, -1])
                symbols.append(-1)
            node = children[node][bit]
        symbols[node] = symbol
        code += 1
    return children, symbols


_CHILDREN, _SYMBOLS = _make_tree()

#: `node << 8 | byte` -> the next node, and the decoded bytes that the step completes.
_STEPS: Final[dict[int, tuple[int, bytes]]] = {}


def _make_paddings() -> frozenset[int]:
    """Return the nodes at which a string may end: at most seven bits of padding, all 1 (RFC 7541 section 5.2)."""
    found = [0]
    for _ in range(7):
        found.append(_CHILDREN[found[-1]][1])
    return frozenset(found)


_PADDINGS: Final = _make_paddings()


def _step(key: int) -> tuple[int, bytes]:
    """Take a step that is not remembered, and remember it. Raises ConnectionFaultError."""
    node = key >> 8
    decoded = bytearray()
    for place in range(7, -1, -1):
        node = _CHILDREN[node][key >> place & 1]
        symbol = _SYMBOLS[node]
        if symbol == EOS:
            raise ConnectionFaultError(COMPRESSION_ERROR, "EOS in a Huffman string")
        if symbol >= 0:
            decoded.append(symbol)
            node = 0
    found = (node, bytes(decoded))
    if len(_STEPS) >= REMEMBERED:
        _STEPS.clear()
    _STEPS[key] = found
    return found


def decode(data: bytes) -> bytes:
    """Return the decoded string. Raises ConnectionFaultError(COMPRESSION_ERROR)."""
    node = 0
    parts: list[bytes] = []
    for byte in data:
        step = _STEPS.get(node << 8 | byte) or _step(node << 8 | byte)
        node = step[0]
        parts.append(step[1])
    if node not in _PADDINGS:
        raise ConnectionFaultError(COMPRESSION_ERROR, "padding of a Huffman string is not the beginning of EOS")
    return b"".join(parts)


def remembered() -> int:
    """Return the number of steps that are remembered."""
    return len(_STEPS)
