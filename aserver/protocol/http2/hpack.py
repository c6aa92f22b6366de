"""Decodes header blocks (RFC 7541). Pure.

`Decoder` has the dynamic table of a connection. A block is always decoded to its end, because later blocks rely on the
table, but fields beyond the limits are not kept. It must never hold a larger table than TABLE_SIZE, nor more fields of
a block than the limits allow: a single byte may stand for a field of 4 KB.
"""

from typing import Final

from aserver.protocol.http2 import huffman
from aserver.protocol.http2.errors import COMPRESSION_ERROR, ConnectionFaultError
from aserver.protocol.http2.static_table import STATIC, Field

#: The size of the dynamic table in bytes. It is the initial size of every peer, and this server asks for no other.
TABLE_SIZE: Final = 4096

#: The bytes that are counted for a field beside its name and value (RFC 7541 section 4.1, RFC 9113 section 6.5.2).
OVERHEAD: Final = 32

_DYNAMIC: Final = len(STATIC)  # the first index of the dynamic table


class Decoder:
    """Decodes the blocks of a connection. After ConnectionFaultError it must not be used.

    Of a block, `most_fields` fields with together `most_bytes` (as RFC 9113 section 6.5.2 counts) are kept. If there
    are more, `overflowed` is the size of all fields, else 0. `changed` says that the last block has changed the table,
    so that the same bytes may have another meaning now.
    """

    __slots__ = ("_limit", "_most_bytes", "_most_fields", "_size", "_table", "changed", "overflowed")

    def __init__(self, most_fields: int, most_bytes: int) -> None:
        self._most_fields = most_fields
        self._most_bytes = most_bytes
        self._table: list[Field] = []  # the newest is the last, and has index 62
        self._size = 0
        self._limit = TABLE_SIZE
        self.changed = False
        self.overflowed = 0

    @property
    def size(self) -> int:
        """The bytes of the dynamic table, as RFC 7541 section 4.1 counts them."""
        return self._size

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a block. Raises ConnectionFaultError(COMPRESSION_ERROR)."""
        self.changed = False
        self.overflowed = 0
        try:
            return self._decode(block)
        except IndexError:
            raise ConnectionFaultError(COMPRESSION_ERROR, "header block ends inside a field") from None

    def _decode(self, block: bytes) -> list[Field]:
        fields: list[Field] = []
        at = 0
        end = len(block)
        size = resized = 0
        while at < end:
            first = block[at]
            if first >= 128:  # an indexed field (RFC 7541 section 6.1)
                index = first & 127
                at += 1
                if index == 127:
                    index, at = _number(block, at, 127)
                field = self._field(index)
            elif 32 <= first < 64:  # a size of the table (section 6.3): at most two, before all fields (section 4.2)
                size_now, at = self._prefixed(block, at, 31)
                resized += 1
                if fields or size or size_now > TABLE_SIZE or resized > 2:
                    raise ConnectionFaultError(COMPRESSION_ERROR, f"table size {size_now} is out of place or too large")
                self._resize(size_now)
                continue
            else:  # a literal (section 6.2), which is added to the table if the bit 64 is set
                index, at = self._prefixed(block, at, 63 if first >= 64 else 15)
                if index:
                    name = self._field(index)[0]
                else:
                    name, at = self._string(block, at)
                value, at = self._string(block, at)
                field = (name, value)
                if first >= 64:
                    self._add(field)
            size += len(field[0]) + len(field[1]) + OVERHEAD
            if size <= self._most_bytes and len(fields) < self._most_fields:
                fields.append(field)
            else:
                self.overflowed = size
        return fields

    def _field(self, index: int) -> Field:
        if index < _DYNAMIC:
            if index:
                return STATIC[index]
        elif index < _DYNAMIC + len(self._table):
            return self._table[_DYNAMIC - 1 - index]
        raise ConnectionFaultError(COMPRESSION_ERROR, f"index {index} is in no table")

    def _prefixed(self, block: bytes, at: int, mask: int) -> tuple[int, int]:
        """Return the number whose prefix is in the byte at `at`, and where it ends (RFC 7541 section 5.1)."""
        value = block[at] & mask
        if value < mask:
            return value, at + 1
        return _number(block, at + 1, mask)

    def _string(self, block: bytes, at: int) -> tuple[bytes, int]:
        first = block[at]
        length = first & 127
        at += 1
        if length == 127:
            length, at = _number(block, at, 127)
        end = at + length
        if end > len(block):
            raise ConnectionFaultError(COMPRESSION_ERROR, f"string of {length} bytes in a block of {len(block)}")
        raw = block[at:end]
        return (huffman.decode(raw) if first >= 128 else raw), end

    def _add(self, field: Field) -> None:
        self.changed = True
        self._table.append(field)
        self._size += len(field[0]) + len(field[1]) + OVERHEAD
        if self._size > self._limit:
            self._evict()

    def _resize(self, limit: int) -> None:
        self.changed = True
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        """Drop the oldest fields until the others fit. A field larger than the table leaves the table empty."""
        table = self._table
        gone = 0
        while self._size > self._limit:
            name, value = table[gone]
            self._size -= len(name) + len(value) + OVERHEAD
            gone += 1
        del table[:gone]


def _number(block: bytes, at: int, value: int) -> tuple[int, int]:
    """Return a number whose prefix was `value` and whose next byte is at `at`, and where the number ends.

    Raises ConnectionFaultError above four bytes. Leading zeros (0x80) count, because they could go on for ever.
    """
    for shift in (0, 7, 14, 21):
        byte = block[at]
        at += 1
        value += (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ConnectionFaultError(COMPRESSION_ERROR, "number in a header block is too long")
