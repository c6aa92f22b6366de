"""Reads a client's WebSocket frames: bytes in, messages out (RFC 6455 section 5).

Pure: no transport, no loop, no clock. `FrameReader` is fed the bytes that arrive, however they were cut, and calls its
sink. It must never hold more than a message, hand on a part of a message that breaks a rule later, or work for long
at a time (see PORTION_FRAMES). Most frames come whole and short, and have a path of their own at the top of `feed`. All
others take the long path: a frame's payload is unmasked, inflated, counted and decoded as it arrives, so that a bad
byte is refused when it is read and not megabytes later.
"""

import codecs
from typing import Any, Final, Protocol

from aserver.protocol.websocket import frames
from aserver.protocol.websocket.frames import BINARY, CLOSE, FIN, MASKED, PING, PONG, RSV, RSV1, TEXT, ViolationError
from aserver.protocol.websocket.mask import apply_mask

#: Pieces of a message after which they are joined: a message in two-byte fragments would else need twenty times
#: its size. The joined blocks are few enough to wait for the end.
PIECES: Final = 1024

#: Frames that a reader works through before it stops and asks for another turn of the loop: 0.15 ms of the shortest
#: messages, 0.2 to 0.3 of fragments. Counted, not timed, so that results are deterministic; counted in small numbers,
#: which Python has ready-made (a sum in bytes took 5 % of an echo).
PORTION_FRAMES: Final = 160

#: Other work counts as frames, each about 1 us. A compressed message is INFLATED_COST frames, because it may need eight
#: new contexts (see `deflate`). INFLATED_BYTES inflated (1.5 to 2.6 ns each) are a frame, and so are TEXT_BYTES of text
#: (up to 0.7 ns). Binary payload is only unmasked, 20 times faster than that.
INFLATED_COST: Final = 5
INFLATED_BYTES: Final = 400
TEXT_BYTES: Final = 1024

#: Compressed bytes given to the inflater at once, which returns those that it has not used.
INFLATED_AT_ONCE: Final = 16384

_WHOLE_TEXT: Final = FIN | TEXT
_WHOLE_BINARY: Final = FIN | BINARY
_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


class MessageSink(Protocol):
    """The receiver of the messages that a `FrameReader` reads."""

    def on_message(self, kind: str, data: str | bytes) -> None:
        """Take a message; `kind` is "text" or "bytes"."""

    def on_ping(self, data: bytes) -> None:
        """Take a ping; a pong with the same data is due."""

    def on_pong(self, data: bytes) -> None:
        """Take a pong."""

    def on_close(self, code: int, reason: str) -> None:
        """Take the close frame; nothing is read after it. `code` is 1005 if it had none."""

    def on_spent(self) -> None:
        """See to it that the reader is refilled and resumed when others have had their turn."""


class Inflater(Protocol):
    """Undoes permessage-deflate (`deflate.Inflater`)."""

    rest: bytes  # the part that `feed` has not used, because it would make too much at once: to be fed again

    def feed(self, data: bytes, most: int) -> bytes:
        """Inflate a piece. Raises ViolationError if it makes more than `most` bytes or is no deflate."""

    def end(self, most: int) -> bytes:
        """Inflate the rest at the end of a message; as `feed`."""


class FrameReader:
    """Reads the client's frames. `limit` bounds a message, over its fragments and after inflation (bytes).

    While `paused`, which a sink may set from inside a call, nothing is parsed and bytes that come are kept; `feed(b"")`
    goes on with them. The reader pauses itself, and is `spent`, when it has worked through PORTION_FRAMES since bytes
    last came or `refill` was called; then only the caller of `refill` may resume it. After ViolationError it is over.
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
        self._room = PORTION_FRAMES  # the rest of it
        self._sink = sink
        self._limit = limit
        self._short = 6 + min(limit, 125)  # the longest frame with a head of 6 bytes
        self._inflater = inflater
        self._held = b""  # not parsed yet: a head or control frame that is not complete, or anything while paused
        self._held_from = 0
        # the message under way
        self._kind = 0  # TEXT, BINARY, 0 between messages
        self._fin = False  # its last frame is being read
        self._left = 0  # payload bytes missing of the frame being read
        self._mask = b""
        self._size = 0
        self._inflating = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._pieces: list[Any] = []  # of str for text, of bytes for binary
        self._blocks: list[Any] = []  # of the same, `PIECES` of them joined

    @property
    def kept(self) -> int:
        """In how many pieces the message under way is kept."""
        return len(self._blocks) + len(self._pieces)

    def feed(self, data: bytes) -> None:
        """Parse bytes that have arrived; call the sink for each message and control frame. Raises ViolationError."""
        try:
            size = len(data)
            # All that came is a short frame: masked, of this very length, a whole message.
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
            # While paused without a copy: a full packet of tiny messages goes on a few at a time.
            self._held, self._held_from = (data, at) if self.paused else (data[at:], 0)

    def _parse(self, data: bytes, at: int) -> int:
        """Parse whole frames from `at` on, and the beginning of a long frame; return where to go on."""
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
        """Bytes that are kept and not parsed yet."""
        return len(self._held) - self._held_from

    def refill(self) -> None:
        """Allow another portion: no longer `spent`, and to be resumed as after any other pause."""
        self.spent = False
        self._room = PORTION_FRAMES

    def _frame(self, data: bytes, at: int, start: int, length: int) -> int:
        """Take a frame of which the head at `at` is complete; return where to go on, `at` if more is needed."""
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
        """Take as much of the frame's payload as there is from `at` on, and as there is room; return where it ends."""
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
        """Inflate as many bytes as a turn allows; return how many."""
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
