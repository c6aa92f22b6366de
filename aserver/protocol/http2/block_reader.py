"""Requests out of header blocks, with a memory for blocks that come again. Pure.

A client that says the same twice says it in the same bytes, once its fields are in the table. Such a block changes no
table, so that it means the same until another does, and its request is remembered whole. Remembered is little: no
client can make it grow.
"""

from typing import Final

from aserver.errors import ClientError
from aserver.protocol.http2.errors import PROTOCOL_ERROR, StreamFaultError
from aserver.protocol.http2.hpack import Decoder
from aserver.protocol.http2.request import StreamRequest, make_request
from aserver.protocol.http2.static_table import Field
from aserver.protocol.semantics.limits import RequestLimits

#: Blocks remembered, and the bytes that a block and its fields may have to be so.
REMEMBERED: Final = 32
REMEMBERED_SIZE: Final = 4096

#: Pseudo-header fields, which do not count as fields.
PSEUDO_FIELDS: Final = 5


def header_list_limit(limits: RequestLimits) -> int:
    """Return the bytes that the fields of a request may have together: SETTINGS_MAX_HEADER_LIST_SIZE."""
    return max(65_536, limits.line + 2 * limits.field_size)


class BlockReader:
    """Decodes and checks the header blocks of one connection.

    Each block of the client's must be given to it, in order. `connect_protocol` says that extended CONNECT is offered.
    """

    __slots__ = ("_decoder", "_limits", "connect_protocol", "fields", "known", "limit")

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self.limit = header_list_limit(limits)
        self._decoder = Decoder(limits.fields + PSEUDO_FIELDS, self.limit)
        self.known: dict[bytes, StreamRequest] = {}  # by blocks that change no table; callers look here first
        self.fields: list[Field] = []  # of the last block that was decoded, as far as they are kept
        self.connect_protocol = False

    @property
    def remembered(self) -> int:
        """Blocks that are remembered."""
        return len(self.known)

    @property
    def overflowed(self) -> int:
        """The size of the fields of the last block, if it was beyond the limits; else 0."""
        return self._decoder.overflowed

    def request(self, number: int, block: bytes) -> StreamRequest:
        """Return the request.

        Raises ConnectionFaultError if the block cannot be decoded, StreamFaultError if the request is malformed,
        ClientError if it is not to be served.
        """
        decoder = self._decoder
        fields = self.decode(block)
        if decoder.overflowed:
            raise ClientError(431, f"more than {self._limits.fields} fields or {self.limit} bytes of them")
        request = make_request(number, fields, self._limits)
        if request.protocol is not None and not self.connect_protocol:
            raise StreamFaultError(number, PROTOCOL_ERROR, "extended CONNECT is not offered")
        if not decoder.changed and sum(len(n) + len(v) for n, v in fields) + len(block) <= REMEMBERED_SIZE:
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            self.known[block] = request
        return request

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a block, such as trailers. Raises ConnectionFaultError."""
        self.fields = fields = self._decoder.decode(block)
        if self._decoder.changed:
            self.known.clear()
        return fields
