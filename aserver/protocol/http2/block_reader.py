"""Reads requests from header blocks, and remembers blocks that come again. Pure.

Once its fields are in the dynamic table, a client sends the same request in the same bytes. Such a block does not
change the table. It means the same until another block changes the table, so its request is remembered. The memory has
a limit, so that no client can make it grow.
"""

from typing import Final

from aserver.errors import ClientError
from aserver.protocol.http2.errors import PROTOCOL_ERROR, StreamFaultError
from aserver.protocol.http2.hpack import Decoder
from aserver.protocol.http2.request import StreamRequest, make_request
from aserver.protocol.http2.static_table import Field
from aserver.protocol.semantics.limits import RequestLimits

#: The most blocks that are remembered, and the most bytes of a remembered block with its fields.
REMEMBERED: Final = 32
REMEMBERED_SIZE: Final = 4096

#: The most pseudo-header fields of a request, which do not count against the limit of fields.
PSEUDO_FIELDS: Final = 5


def header_list_limit(limits: RequestLimits) -> int:
    """Return the most bytes of all fields of a request: SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 section 6.5.2)."""
    return max(65_536, limits.line + 2 * limits.field_size)


class BlockReader:
    """Decodes and checks the header blocks of a connection.

    It must get all blocks of the client, in order. `connect_protocol`: extended CONNECT is offered (RFC 8441).
    """

    __slots__ = ("_decoder", "_limits", "connect_protocol", "fields", "known", "limit")

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self.limit = header_list_limit(limits)
        self._decoder = Decoder(limits.fields + PSEUDO_FIELDS, self.limit)
        self.known: dict[bytes, StreamRequest] = {}  # by block; callers look here first
        self.fields: list[Field] = []  # of the last block that was decoded, within the limits
        self.connect_protocol = False

    @property
    def remembered(self) -> int:
        """The number of blocks that are remembered."""
        return len(self.known)

    @property
    def overflowed(self) -> int:
        """The size of the last block's fields if they were beyond the limits, else 0."""
        return self._decoder.overflowed

    def request(self, number: int, block: bytes) -> StreamRequest:
        """Decode a block, and return its request.

        Raises ConnectionFaultError if it cannot be decoded, StreamFaultError if the request is malformed, ClientError
        if the request is refused.
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
        """Return the fields of a block, which may be trailers. Raises ConnectionFaultError."""
        self.fields = fields = self._decoder.decode(block)
        if self._decoder.changed:
            self.known.clear()
        return fields
