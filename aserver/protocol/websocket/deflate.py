"""permessage-deflate (RFC 7692): negotiation, compression, and inflation within limits.

Pure. A WebSocket's two contexts are made at their first use. They must never take more than about 40 KB, whatever the
client offers. Inflation must never make more bytes than it may, because a megabyte may stand for a gigabyte.
"""

import zlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple

from aserver.protocol.websocket.frames import INVALID_DATA, TOO_BIG, ViolationError

#: Binary logarithm of the window of both sides in bytes, and zlib's `memLevel`. A compressor needs
#: 2**(bits+2) + 2**(level+9) bytes: 32 KB with these two. zlib's defaults need 256 KB, and make JSON a fifth smaller.
WINDOW_BITS = 12
MEMORY_LEVEL = 5

#: Messages below this many bytes are not compressed: it takes 10 us for each and saves a few bytes.
LEAST_SIZE = 64

#: The most bytes of a message that are compressed in a turn of the loop: 0.2 ms of JSON, 3 ms of the slowest texts
#: (long, of two letters).
DEFLATED_AT_ONCE: Final = 16384

#: The last bytes of every compressed message, which are not sent (RFC 7692 section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"

#: The most bytes that a call makes by inflating: 0.05 to 0.09 ms. It must not be less than the largest window.
STEP: Final = 32768

#: The most final blocks (BFINAL) in a message. The RFC allows them and clients do not need them; each costs a new
#: context.
FINAL_BLOCKS = 8

#: The most offers that are read. Clients make a few.
MOST_OFFERS = 32

_NAME = b"permessage-deflate"
_FLAGS = (b"server_no_context_takeover", b"client_no_context_takeover")
_WINDOWS = (b"server_max_window_bits", b"client_max_window_bits")
_MOST_PARAMETERS = len(_FLAGS + _WINDOWS)  # each at most once


class Agreement(NamedTuple):
    """The negotiated parameters: the logarithms of windows, and whether a context is kept from message to message."""

    server_bits: int
    client_bits: int
    server_keeps: bool
    client_keeps: bool
    answer: bytes  # the value of Sec-WebSocket-Extensions


def negotiate(offers: Iterable[bytes]) -> Agreement | None:
    """Accept the first acceptable offer in the values of Sec-WebSocket-Extensions; return None if there is none."""
    # A quoted value has no comma, since it must be a token (RFC 6455 section 9.1).
    each = (offer for value in offers for offer in value.split(b",", MOST_OFFERS))
    for offer in islice(each, MOST_OFFERS):
        name, *parameters = (part.strip() for part in offer.split(b";", _MOST_PARAMETERS + 1))
        if name.lower() == _NAME and (found := _parameters(parameters)) is not None:
            return _agree(found)
    return None


def _parameters(parts: list[bytes]) -> dict[bytes, bytes | None] | None:
    """Return an offer's parameters, or None if the offer must be declined (RFC 7692 section 7.1)."""
    found: dict[bytes, bytes | None] = {}
    for part in parts:
        name, equals, text = part.partition(b"=")
        name = name.strip().lower()
        value = text.strip().strip(b'"') if equals else None
        if name in found:
            return None
        if name in _FLAGS:
            valid = value is None
        elif value is None:
            valid = name == b"client_max_window_bits"
        else:
            valid = name in _WINDOWS and value in {b"%d" % bits for bits in range(8, 16)}
        if not valid:
            return None
        found[name] = value
    return found


def _agree(offer: Mapping[bytes, bytes | None]) -> Agreement:
    server_bits = min(WINDOW_BITS, int(offer.get(b"server_max_window_bits") or 15))
    # A client may be told to use a smaller window only if it has offered that (section 7.1.2.2).
    hinted = b"client_max_window_bits" in offer
    client_bits = min(WINDOW_BITS, int(offer[b"client_max_window_bits"] or 15)) if hinted else 15
    server_keeps, client_keeps = (flag not in offer for flag in _FLAGS)
    answer = [_NAME]
    answer += [flag for flag in _FLAGS if flag in offer]
    answer.append(b"server_max_window_bits=%d" % server_bits)
    if hinted:
        answer.append(b"client_max_window_bits=%d" % client_bits)
    return Agreement(server_bits, client_bits, server_keeps, client_keeps, b"; ".join(answer))


class Deflater:
    """Compresses messages."""

    __slots__ = ("_bits", "_context", "_keeps")

    def __init__(self, agreement: Agreement) -> None:
        # zlib cannot compress for a window of 256 bytes. With 512 it refers back 250 bytes at most (512 less its
        # MIN_LOOKAHEAD, 262), so a client with a window of 256 can read it.
        self._bits = max(9, agreement.server_bits)
        self._keeps = agreement.server_keeps
        self._context: zlib._Compress | None = None

    def message(self, data: bytes) -> bytes:
        """Return the payload of a message."""
        return self.feed(data) + self.end()

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take a part of a message, and return the next bytes of its payload. `end` or `forget` must follow."""
        context = self._context
        if context is None:
            context = self._context = zlib.compressobj(wbits=-self._bits, memLevel=MEMORY_LEVEL)
        return context.compress(data)

    def end(self) -> bytes:
        """Return the last bytes of a payload."""
        context = self._context
        assert context is not None
        if not self._keeps:
            self._context = None
        return context.flush(zlib.Z_SYNC_FLUSH)[: -len(_TAIL)]

    def forget(self) -> None:
        """Drop an unfinished message, and the context: the next message must not refer to bytes that are never sent."""
        self._context = None


class Inflater:
    """Inflates messages piece by piece: see `reader.Inflater`."""

    __slots__ = ("_bits", "_context", "_finals", "_keeps", "_recent", "rest")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = agreement.client_bits
        self._keeps = agreement.client_keeps
        self._context: zlib._Decompress | None = None
        self._finals = 0
        self._recent = b""  # the last inflated bytes of this message
        self.rest = b""

    def feed(self, data: bytes, most: int) -> bytes:
        """See `reader.Inflater`."""
        step = min(most + 1, STEP)
        context = self._context
        if context is None:
            context = self._context = zlib.decompressobj(wbits=-self._bits)
        try:
            made = context.decompress(data, step)
            rest = context.unconsumed_tail
            while context.eof and len(made) <= most:
                rest = context.unused_data
                context = self._after_final_block(self._recent + made)
                if len(made) == step:
                    break
                made += context.decompress(rest, step - len(made))
                rest = context.unconsumed_tail
        except zlib.error as error:
            raise ViolationError(INVALID_DATA, f"not deflate: {error}") from None
        if len(made) > most:
            raise ViolationError(TOO_BIG, "message too big when inflated")
        self.rest = rest
        self._recent = (self._recent + made)[-STEP:] if self._recent and len(made) < STEP else made
        return made

    def end(self, most: int) -> bytes:
        """See `reader.Inflater`."""
        made = self.feed(_TAIL, most)  # no second call: zlib holds back 64 bits, which make 8 KB at most
        self._finals = 0
        self._recent = b""
        if not self._keeps:
            self._context = None
        return made

    def _after_final_block(self, made: bytes) -> "zlib._Decompress":
        """Return a context that continues after BFINAL, which ends a context of zlib (RFC 7692 section 7.2.3.4).

        It has the window of this message alone, because Python cannot read zlib's window. If a client refers further
        back, its message is refused as malformed.
        """
        self._finals += 1
        if self._finals > FINAL_BLOCKS:
            raise ViolationError(INVALID_DATA, f"more than {FINAL_BLOCKS} final deflate blocks in a message")
        window = made[-(1 << self._bits) :]
        self._context = zlib.decompressobj(wbits=-self._bits, zdict=window)
        return self._context
