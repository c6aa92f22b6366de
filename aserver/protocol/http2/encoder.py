"""Makes the header blocks of responses (RFC 7541 section 6). Pure.

Blocks never use the client's dynamic table. So a block is good for every connection, and `Heads`
(`semantics/response_head`) remembers it. Blocks can be joined: the block of a head and that of the default fields make
the block of a response.
"""

from collections.abc import Sequence
from typing import Final

from aserver.protocol.http2.frames import FRAME_SIZE
from aserver.protocol.http2.request import CONNECTION_SPECIFIC
from aserver.protocol.http2.static_table import NAMES, STATIC
from aserver.protocol.semantics.response import Response
from aserver.protocol.semantics.response_head import REMEMBERED, Defaults, Head, Heads

Pairs = Sequence[tuple[bytes, bytes]]

_STATUSES: Final[dict[int, bytes]] = {
    int(value): bytes((128 | index,)) for index, (name, value) in enumerate(STATIC) if name == b":status"
}


class BlockEncoder:
    """Makes the header blocks of a worker's responses over HTTP/2."""

    __slots__ = ("_defaults", "_ending", "framed", "heads")

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self.heads = Heads(defaults, encode_head)
        self.framed: dict[Head, tuple[bytes, bytes]] = {}  # made by `frame`; callers look here first
        self.renew()

    def renew(self) -> None:
        """Encode the default fields again, because the date has changed."""
        self._ending = encode_fields(self._defaults.pairs)
        self.framed.clear()

    def frame(self, head: Head) -> tuple[bytes, bytes] | None:
        """Return the frames of a whole response without their streams' numbers, for `Sender.whole`.

        The number goes behind each of the two parts, and then comes the body. Return None if the head is not `ready`,
        or a frame would be too large. The parts are remembered until the date changes.
        """
        length = head.length
        block = head.block + self._ending
        if not (head.ready and length and length <= FRAME_SIZE and len(block) <= FRAME_SIZE):
            return None
        if len(self.framed) >= REMEMBERED:
            self.framed.clear()
        opening = b"\0%b\x01\x04" % len(block).to_bytes(2, "big")
        framed = self.framed[head] = (opening, b"%b\0%b\0\x01" % (block, length.to_bytes(2, "big")))
        return framed

    def block(self, response: Response) -> bytes:
        """Return the header block of a response, after its `start()` or `answer()`."""
        head = response.head
        assert head is not None
        if head.plain and head.length is not None:
            return head.block + self._ending
        length = response.length
        block = head.block
        if head.length is None and not head.bodiless and length is not None:
            block += encode_fields([(b"content-length", b"%d" % length)])
        return block + (self._ending if head.plain else encode_fields(self._defaults.beside(response.response_headers)))


def encode_head(status: int, fields: Pairs, _reason: bytes = b"") -> bytes:
    """Return the block of a status and checked fields, whose names are in lower case. HTTP/2 has no reason phrase."""
    opening = _STATUSES.get(status) or b"\x08\x03%d" % status
    return opening + encode_fields([field for field in fields if field[0] not in CONNECTION_SPECIFIC])


def encode_fields(fields: Pairs) -> bytes:
    """Return the block of checked fields, as literals that enter no dynamic table (RFC 7541 section 6.2.2)."""
    parts: list[bytes] = []
    for name, value in fields:
        index = NAMES.get(name, 0)
        parts.append(_number(index, 15))
        if not index:
            parts += (_number(len(name), 127), name)
        parts += (_number(len(value), 127), value)
    return b"".join(parts)


def _number(value: int, mask: int) -> bytes:
    """Return a number, coded with a prefix of the bits in `mask` (RFC 7541 section 5.1)."""
    if value < mask:
        return bytes((value,))
    coded = bytearray((mask,))
    value -= mask
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    coded.append(value)
    return bytes(coded)
