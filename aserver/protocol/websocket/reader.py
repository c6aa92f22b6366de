"""Reads a client's WebSocket frames: bytes in, messages out (RFC 6455 section 5).

Pure: no transport, no loop, no clock. `FrameReader` is fed the bytes that arrive, wherever the network has cut them,
and calls its sink. It must never hold more than a message, give a part of a message to its sink, or read more than
PORTION_FRAMES in a call. Most frames come whole and short, and have a path of their own at the beginning of `feed`.
The payload of others is unmasked, inflated, counted and decoded as it arrives, so that a bad byte is refused at once,
and not megabytes later.
"""

import codecs
from typing import Any, Final, Protocol

from aserver.protocol.websocket import frames
from aserver.protocol.websocket.frames import BINARY, CLOSE, FIN, MASKED, PING, PONG, RSV, RSV1, TEXT, ViolationError
from aserver.protocol.websocket.mask import apply_mask

#: So many pieces of a message are joined to a block. Otherwise a message in fragments of two bytes would take twenty
#: times its size.
PIECES: Final = 1024

#: The most frames that are read before the reader asks for another turn of the loop: 0.15 ms of the shortest messages,
#: 0.2 to 0.3 of fragments. They are counted, not timed, so that results are deterministic. Frames are counted and not
#: bytes, because Python has small numbers ready-made: a sum in bytes took 5 % of an echo.
PORTION_FRAMES: Final = 160

#: Other work is counted as frames of about 1 us. A compressed message counts as INFLATED_COST frames, because it may
#: need eight new contexts (see `deflate`). INFLATED_BYTES inflated bytes (1.5 to 2.6 ns each) count as a frame, and so
#: do TEXT_BYTES of text (up to 0.7 ns each). Binary payload is not counted: to unmask it is 20 times faster.
INFLATED_COST: Final = 5
INFLATED_BYTES: Final = 400
TEXT_BYTES: Final = 1024

#: The most compressed bytes that the inflater gets at once. It returns the bytes that it has not used.
INFLATED_AT_ONCE: Final = 16384

_WHOLE_TEXT: Final = FIN | TEXT
_WHOLE_BINARY: Final = FIN | BINARY
_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


class MessageSink(Protocol):
    """The receiver of the messages that a `FrameReader` reads."""

    def on_message(self, kind: str, data: str | bytes) -> None:
        """Take a message; `kind` is "text" or "bytes"."""

    def on_ping(self, data: bytes) -> None:
        """Take a ping, which is to be answered by a pong with the same data."""

    def on_pong(self, data: bytes) -> None:
        """Take a pong."""

    def on_close(self, code: int, reason: str) -> None:
        """Take the close frame, after which nothing is read. `code` is 1005 if it has no code."""

    def on_spent(self) -> None:
        """Arrange that the reader is refilled and resumed after other connections had their turn."""


class Inflater(Protocol):
    """Undoes permessage-deflate (`deflate.Inflater`)."""

    rest: bytes  # bytes that `feed` has not used, because their result would be too long; feed them again

    def feed(self, data: bytes, most: int) -> bytes:
        """Inflate a piece. Raises ViolationError if it makes more than `most` bytes, or is malformed."""

    def end(self, most: int) -> bytes:
        """Inflate the rest at the end of a message. Raises as `feed` does."""


class FrameReader:
    """Reads a client's frames. `limit` is the most bytes of a message, all fragments together, after inflation.

    While `paused`, nothing is parsed, and bytes that come are kept; the sink may set it inside a call. `feed(b"")` goes
    on with them. After PORTION_FRAMES since bytes last came, or since `refill`, the reader pauses itself and is
    `spent`. Then only the caller of `refill` may resume it. After ViolationError it must not be used.
    """

    __slots__ = (
        "_blocks",
        "_decoder",
        "_fin",
        "_held",
        "_held_from",
        "_inflater",
        "_inflating",
        "_kind",
        "_left",
        "_limit",
        "_mask",
        "_pieces",
        "_room",
        "_short",
        "_sink",
        "_size",
        "paused",
        "spent",
    )

    def __init__(self, sink: MessageSink, limit: int, inflater: Inflater | None = None) -> None:
        self.paused = False
        self.spent = False
        self._room = PORTION_FRAMES  # frames that may still be read
        self._sink = sink
        self._limit = limit
        self._short = 6 + min(limit, 125)  # the longest frame with a head of 6 bytes
        self._inflater = inflater
        self._held = b""  # kept bytes; those from `_held_from` on are not parsed yet
        self._held_from = 0
        # The message that is being read:
        self._kind = 0  # TEXT or BINARY; 0 between messages
        self._fin = False  # its last frame has begun
        self._left = 0  # bytes of the frame's payload that are missing
        self._mask = b""
        self._size = 0
        self._inflating = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._pieces: list[Any] = []  # str for text, bytes for binary
        self._blocks: list[Any] = []  # each is PIECES pieces, joined

    @property
    def kept(self) -> int:
        """The number of pieces and blocks in which the message is kept."""
        return len(self._blocks) + len(self._pieces)

    def feed(self, data: bytes) -> None:
        """Parse bytes that have arrived; call the sink for each message and control frame. Raises ViolationError."""
        try:
            size = len(data)
            # A single masked frame with at most 125 bytes of payload:
            if (
                6 <= size <= self._short
                and data[1] == MASKED + size - 6
                and not (self._kind or self._held or self.paused)
            ):
                first = data[0]
                if first == _WHOLE_BINARY:
                    self._sink.on_message("bytes", apply_mask(data[6:], data[2:6]))
                    return
                if first == _WHOLE_TEXT:
                    self._sink.on_message("text", apply_mask(data[6:], data[2:6]).decode())
                    return
            self._feed(data)
        except UnicodeDecodeError as error:
            raise ViolationError(frames.INVALID_DATA, f"text is not UTF-8: {error.reason}") from None

    def _feed(self, data: bytes) -> None:
        if data and not self.paused:
            self._room = PORTION_FRAMES
        at = 0
        if self._held:
            if data:
                data = self._held[self._held_from :] + data
            else:
                data, at = self._held, self._held_from
            self._held = b""
        if self._left and not self.paused:
            at = self._payload(data, at)
        at = self._parse(data, at)
        if self._room <= 0 and not self.paused:
            self.paused = self.spent = True
            self._sink.on_spent()
        if at < len(data):
            # Not copied while paused, because a packet of tiny messages is read in many parts.
            self._held, self._held_from = (data, at) if self.paused else (data[at:], 0)

    def _parse(self, data: bytes, at: int) -> int:
        """Parse complete frames from `at` on, and the beginning of a long frame; return where to go on."""
        size = len(data)
        room = self._room
        last = size - 1
        while at < last and room > 0 and not self.paused:
            first = data[at]
            length = data[at + 1] - MASKED
            if length < 126:
                if length < 0:
                    raise ViolationError(frames.PROTOCOL_ERROR, "frame is not masked")
                start = at + 6
            elif length == 126:
                start = at + 8
                if start > size:
                    break
                length = data[at + 2] << 8 | data[at + 3]
            else:
                start = at + 14
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : at + 10], "big")
            end = start + length
            if (
                end <= size
                and (first == _WHOLE_TEXT or first == _WHOLE_BINARY)  # noqa: PLR1714, SIM109 - two compares take 40 ns less
                and not self._kind
                and length <= self._limit
            ):
                masked = data[start:end] if length < 4096 else memoryview(data)[start:end]
                payload = apply_mask(masked, data[start - 4 : start])
                at = end
                room -= 1
                if first == _WHOLE_BINARY:
                    self._sink.on_message("bytes", payload)
                else:
                    room -= length // TEXT_BYTES
                    self._sink.on_message("text", payload.decode())
            else:
                self._room = room - 1
                after = self._frame(data, at, start, length)
                if after == at:
                    break
                room = self._room
                at = after
        self._room = room
        return at

    @property
    def unread(self) -> int:
        """The number of bytes that are kept and not parsed yet."""
        return len(self._held) - self._held_from

    def refill(self) -> None:
        """Allow another PORTION_FRAMES. The reader is still `paused`, but no longer `spent`."""
        self.spent = False
        self._room = PORTION_FRAMES

    def _frame(self, data: bytes, at: int, start: int, length: int) -> int:
        """Read a frame that begins at `at`; return where to go on. It is `at` if more bytes are needed."""
        if start > len(data):
            return at
        first = data[at]
        opcode = first & 15
        if opcode >= CLOSE:
            frames.check_control(first, opcode, length)
            end = start + length
            if end > len(data):
                return at
            self._control(opcode, apply_mask(data[start:end], data[start - 4 : start]))
            return end
        self._check_data(first, opcode, length)
        if opcode:
            self._begin(opcode, inflating=bool(first & RSV1))
        self._fin = first >= FIN
        self._left = length
        self._mask = data[start - 4 : start]
        return self._payload(data, start)

    def _check_data(self, first: int, opcode: int, length: int) -> None:
        reserved = first & RSV
        if opcode > BINARY:
            raise ViolationError(frames.PROTOCOL_ERROR, f"reserved opcode {opcode}")
        if opcode == 0:
            if not self._kind:
                raise ViolationError(frames.PROTOCOL_ERROR, "continuation of no message")
        elif self._kind:
            raise ViolationError(frames.PROTOCOL_ERROR, "new message inside a fragmented one")
        elif reserved == RSV1 and self._inflater is not None:  # RFC 7692 section 6: on a message's first frame
            reserved = 0
        if reserved:
            raise ViolationError(frames.PROTOCOL_ERROR, "reserved bit is set")
        if length >> 63:  # RFC 6455 section 5.2
            raise ViolationError(frames.PROTOCOL_ERROR, "frame length has its highest bit set")
        inflating = bool(first & RSV1) if opcode else self._inflating
        size = self._size if opcode == 0 else 0
        if not inflating and size + length > self._limit:
            raise ViolationError(frames.TOO_BIG, f"message above {self._limit} bytes")

    def _begin(self, opcode: int, *, inflating: bool) -> None:
        self._kind = opcode
        self._size = 0
        self._inflating = inflating
        if inflating:
            self._room -= INFLATED_COST
        self._decoder = _new_decoder() if opcode == TEXT else None

    def _payload(self, data: bytes, at: int) -> int:
        """Read the frame's payload from `at` on, up to the end of `data` or of the portion; return where to go on."""
        take = min(self._left, len(data) - at)
        if self._inflating:
            end = at + take
            while at < end and self._room > 0:
                at += self._inflate(memoryview(data)[at : min(end, at + INFLATED_AT_ONCE)])
        elif take:
            piece = apply_mask(memoryview(data)[at : at + take], self._mask)
            at += take
            self._left -= take
            if turn := take & 3:
                self._mask = self._mask[turn:] + self._mask[:turn]
            self._keep(piece)
        if self._fin and not self._left:
            self._finish()
        return at

    def _inflate(self, masked: memoryview) -> int:
        """Inflate the first of these bytes; return how many were used."""
        inflater = self._inflater
        assert inflater is not None
        made = inflater.feed(apply_mask(masked, self._mask), self._limit - self._size)
        take = len(masked) - len(inflater.rest)
        self._left -= take
        if turn := take & 3:
            self._mask = self._mask[turn:] + self._mask[:turn]
        self._room -= len(made) // INFLATED_BYTES
        self._keep(made)
        return take

    def _keep(self, piece: bytes, *, final: bool = False) -> None:
        self._size += len(piece)
        kept: str | bytes = piece
        if self._decoder is not None:
            self._room -= len(piece) // TEXT_BYTES
            kept = self._decoder.decode(piece, final)
        if kept:
            self._pieces.append(kept)
            if len(self._pieces) == PIECES:
                self._blocks.append(kept[:0].join(self._pieces))
                self._pieces.clear()

    def _finish(self) -> None:
        if self._inflating:
            assert self._inflater is not None
            self._keep(self._inflater.end(self._limit - self._size))
        if self._decoder is not None:
            self._keep(b"", final=True)
        kind, self._kind = self._kind, 0
        self._fin = False
        self._decoder = None
        pieces = self._blocks + self._pieces if self._blocks else self._pieces
        self._pieces = []
        self._blocks = []
        if kind == TEXT:
            self._sink.on_message("text", "".join(pieces))
        else:
            self._sink.on_message("bytes", b"".join(pieces))

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._sink.on_ping(payload)
        elif opcode == PONG:
            self._sink.on_pong(payload)
        else:
            code, reason = frames.parse_close(payload)
            self.paused = True  # RFC 6455 section 1.4: data after a close frame is discarded
            self._sink.on_close(code, reason)
