"""Reads frames and requests from a client's bytes, wherever the network has cut them (RFC 9113). Pure.

`Reader` is fed the bytes that arrive, from the client's preface on. It tells its sink of each request, of its body and
of the body's end. It checks the rules of streams, flow control and header blocks. Through the `Sender` it answers
SETTINGS, PING and streams that are refused. A fault of a stream resets the stream; a fault of the connection is raised.
It must never hold more than a header block or a frame, nor read more than FRAMES_PER_TURN in a call.
"""

from struct import Struct
from typing import Any, Final, cast

from aserver.errors import ClientError
from aserver.protocol.http2 import frames, rates
from aserver.protocol.http2.block_reader import BlockReader
from aserver.protocol.http2.control import ControlReader
from aserver.protocol.http2.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFaultError,
    StreamFaultError,
)
from aserver.protocol.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    HEAD_SIZE,
    HEADERS,
    LARGEST_STREAM,
    PADDED,
)
from aserver.protocol.http2.request import StreamRequest, check_trailers, read_leniently
from aserver.protocol.http2.sender import Sender
from aserver.protocol.http2.sink import StreamSink
from aserver.protocol.http2.streams import DATA_IN, END_IN, HEADERS_IN, Stream, Streams
from aserver.protocol.semantics.limits import RequestLimits

#: The most frames that a call reads. The rest waits for another turn of the loop.
FRAMES_PER_TURN: Final = 400

#: Type and flags of a HEADERS frame that is a whole request, as most are.
WHOLE: Final = HEADERS << 8 | END_STREAM | END_HEADERS

#: A frame's head: the length's first byte, its other two, type and flags, the stream.
_FRAME_HEAD: Final = Struct(">BHHL").unpack_from


class Reader:
    """Reads the frames of a connection. After ConnectionFaultError it reads nothing more.

    `most_streams` may be open at once. After FRAMES_PER_TURN frames a call leaves the reader `spent`, and keeps the
    rest. Then call `refill`, and `feed(b"", now)` to go on. `now` is in seconds of any clock, and may be some seconds
    old.
    """

    __slots__ = (
        "_block",
        "_block_end",
        "_block_size",
        "_block_stream",
        "_control",
        "_greeted",
        "_held",
        "_limits",
        "_now",
        "_over",
        "_patience",
        "_sender",
        "_settled",
        "_sink",
        "_streams",
        "blocks",
        "most_streams",
        "spent",
    )

    def __init__(  # noqa: PLR0917 - the parts of a connection
        self,
        sink: StreamSink,
        streams: Streams,
        sender: Sender,
        patience: rates.Patience,
        limits: RequestLimits,
        most_streams: int,
    ) -> None:
        self._sink = sink
        self._streams = streams
        self._sender = sender
        self._patience = patience
        self._limits = limits
        # `Any`, because `close` sets it to None, which compiled code would not allow.
        self._control: Any = ControlReader(sink, streams, sender, patience)
        self.blocks = BlockReader(limits)
        self.most_streams = most_streams
        self.spent = False
        self._over = False
        self._greeted = False  # the preface was read
        self._settled = False  # the client's first SETTINGS frame was read
        self._held = b""  # bytes that are not read yet
        self._now = 0.0
        # The header block that is not complete: CONTINUATION frames follow.
        self._block: list[bytes] = []
        self._block_size = 0
        self._block_stream = 0
        self._block_end = False

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────

    def feed(self, data: bytes, now: float) -> None:
        """Read the bytes that have arrived. Raises ConnectionFaultError: then call `Sender.goaway`, write and close."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._over:
            return
        if self.spent:
            self._held = data
            return
        self._now = now
        try:
            at = 0 if self._greeted else self._greet(data)
            at = self._read(data, at) if at >= 0 else 0
        except ConnectionFaultError:
            self._over = True
            raise
        if at < len(data):
            self._held = data[at:]

    def close(self) -> None:
        """Read nothing more, and let go of the sink, which refers to the reader."""
        self._over = True
        self._sink = self._control = cast("Any", None)

    def refill(self) -> None:
        """Allow another FRAMES_PER_TURN frames; then call `feed(b"", now)`."""
        self.spent = False

    @property
    def unread(self) -> int:
        """The number of bytes that are kept and not read yet."""
        return len(self._held)

    @property
    def in_head(self) -> bool:
        """Whether the preface or a header block is not complete, or a frame other than DATA has begun."""
        if self._block_stream or not self._settled:
            return True
        held = self._held
        return bool(held) and not self.spent and (len(held) < HEAD_SIZE or held[3] != DATA)

    def _greet(self, data: bytes) -> int:
        """Read the preface; return its end, or -1 if it is not complete."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            raise ConnectionFaultError(PROTOCOL_ERROR, "not the preface of HTTP/2")
        if len(data) < len(frames.PREFACE):
            return -1
        self._greeted = True
        return len(frames.PREFACE)

    def _read(self, data: bytes, at: int) -> int:
        """Read complete frames from `at` on; return where the rest begins."""
        size = len(data)
        room = FRAMES_PER_TURN
        streams, known = self._streams, self.blocks.known
        while at + HEAD_SIZE <= size:
            start = at + HEAD_SIZE
            high, low, kind, number = _FRAME_HEAD(data, at)
            if high or low > FRAME_SIZE:
                length = high << 16 | low
                raise ConnectionFaultError(FRAME_SIZE_ERROR, f"frame of {length} bytes, limit is {FRAME_SIZE}")
            end = start + low
            if end > size:
                return at
            if not room:
                self.spent = True
                self._sink.on_spent()
                return at
            room -= 1
            payload = data[start:end]
            at = end
            try:
                if kind == WHOLE and not self._block_stream:
                    request = known.get(payload)
                    if (
                        request is not None
                        and request.scope  # all is known except the stream's number
                        and streams.last < number <= streams.largest
                        and number & 1
                        and len(streams.open) < self.most_streams
                    ):
                        streams.last = number
                        self._sink.on_repeated(number, request)
                        continue
                self._frame(kind >> 8, kind & 0xFF, number & LARGEST_STREAM, payload)
            except StreamFaultError as fault:
                self._reset(fault)
        return at

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Read a frame. Raises ConnectionFaultError, StreamFaultError."""
        if self._block_stream:
            if kind != CONTINUATION or number != self._block_stream:
                raise ConnectionFaultError(PROTOCOL_ERROR, f"frame of type {kind} inside a header block")
            self._continue(flags, payload)
            return
        if not self._settled:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFaultError(PROTOCOL_ERROR, "the first frame is no SETTINGS")
            self._settled = True
        if kind == HEADERS:
            self._headers(flags, number, payload)
        elif kind == DATA:
            self._data(flags, number, payload)
        else:
            frames.check_head(kind, number, len(payload), flags)
            self._control.take(kind, flags, number, payload, self._now)

    def _reset(self, fault: StreamFaultError) -> None:
        """Reset a stream because of its fault. It has a cost, or a peer could cause any number (MadeYouReset)."""
        self._patience.spend(rates.REFUSED, self._now)
        stream = self._streams.open.get(fault.stream)
        if stream is None:
            self._streams.remember_reset(fault.stream)
            self._sender.control(frames.rst_stream(fault.stream, fault.code))
        else:
            self._sender.reset(stream, fault.code)
            if stream.owner is not None:
                self._sink.on_reset(stream, fault.code, fault.reason)

    # ── header blocks ────────────────────────────────────────────────────────────────────────

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & (PADDED | frames.PRIORITIZED):
            frames.check_head(HEADERS, number, len(payload), flags)
            if flags & PADDED:
                payload = frames.unpadded(HEADERS, payload)
            if flags & frames.PRIORITIZED:
                if len(payload) < 5:
                    raise ConnectionFaultError(FRAME_SIZE_ERROR, "HEADERS without its priority")
                if frames.number(payload) == number:
                    raise ConnectionFaultError(PROTOCOL_ERROR, f"stream {number} depends on itself")
                payload = payload[5:]
        if flags & END_HEADERS:
            self._take_block(number, payload, flags & END_STREAM != 0)
            return
        frames.check_head(HEADERS, number, len(payload), flags)
        self._block = [payload]
        self._block_size = len(payload)
        self._block_stream = number
        self._block_end = flags & END_STREAM != 0

    def _continue(self, flags: int, payload: bytes) -> None:
        self._patience.spend(rates.CONTROL, self._now)
        self._block.append(payload)
        self._block_size += len(payload)
        if self._block_size > self.blocks.limit:
            raise ConnectionFaultError(ENHANCE_YOUR_CALM, f"header block above {self.blocks.limit} bytes")
        if flags & END_HEADERS:
            number, block = self._block_stream, b"".join(self._block)
            self._block = []
            self._block_stream = 0
            self._take_block(number, block, self._block_end)

    def _take_block(self, number: int, block: bytes, end: bool) -> None:  # noqa: FBT001 - at each request
        streams = self._streams
        if not number & 1:
            raise ConnectionFaultError(PROTOCOL_ERROR, f"client begins stream {number}")
        if number <= streams.last:
            self._take_trailers(number, block, end)
            return
        if number > streams.largest or len(streams.open) >= self.most_streams:
            self._refuse_stream(number, block)
            return
        streams.last = number
        stream = request = None
        try:
            request = self.blocks.known.get(block) or self.blocks.request(number, block)
            if end and request.length > 0:
                raise StreamFaultError(number, PROTOCOL_ERROR, f"no body, content-length is {request.length}")
            stream = streams.begin(number, end)
            if stream.incoming is not None:
                stream.incoming.expected = request.length
            if request.priority is not None:
                stream.urgency, stream.incremental = request.priority
            self._sink.on_request(stream, request)
        except ClientError as error:
            if request is None:
                self._pay_for_overflow()
                request = read_leniently(self.blocks.fields)
            self._refuse(stream or streams.begin(number, end), error, request)

    def _refuse_stream(self, number: int, block: bytes) -> None:
        """Refuse a stream. After our GOAWAY nothing is sent for it, because that has told the client."""
        self.blocks.decode(block)
        self._pay_for_overflow()
        if number <= self._streams.largest:
            self._streams.last = number
            raise StreamFaultError(number, REFUSED_STREAM, f"more than {self.most_streams} streams")

    def _pay_for_overflow(self) -> None:
        self._patience.spend(self.blocks.overflowed // rates.BOMB_BYTES, self._now)

    def _refuse(self, stream: Stream, error: ClientError, request: StreamRequest | None) -> None:
        if stream.incoming is not None:
            stream.incoming.refused = True
        self._sink.on_refused(stream, error, request)

    def _take_trailers(self, number: int, block: bytes, end: bool) -> None:  # noqa: FBT001
        fields = self.blocks.decode(block)
        self._pay_for_overflow()
        stream = self._streams.open.get(number)
        if stream is None:
            self._patience.spend(rates.CONTROL, self._now)
            self._streams.check_absent(number, HEADERS_IN)
            return
        self._streams.change(stream, HEADERS_IN)
        if not end:
            raise StreamFaultError(number, PROTOCOL_ERROR, "trailers that do not end the stream")
        check_trailers(number, fields)
        self._end(stream)

    # ── bodies ───────────────────────────────────────────────────────────────────────────────

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        streams = self._streams
        size = len(payload)
        frames.check_head(DATA, number, size, flags)
        streams.count_received(size)
        self._sender.renew_connection_window()
        if flags & PADDED:
            payload = frames.unpadded(DATA, payload)
        stream = streams.open.get(number)
        if stream is None:
            self._patience.spend(rates.CONTROL, self._now)
            streams.check_absent(number, DATA_IN)
            return
        streams.change(stream, DATA_IN)
        incoming = stream.incoming
        assert incoming is not None
        incoming.window -= size
        if incoming.window < 0:
            raise StreamFaultError(number, FLOW_CONTROL_ERROR, "more DATA than the stream's window")
        if payload:
            self._patience.gained += rates.RECEIVED
            incoming.received += len(payload)
            if incoming.refused:
                return
            if incoming.received > self._limits.body and not incoming.tunnel:
                self._refuse(stream, ClientError(413, f"body above {self._limits.body} bytes"), None)
                return
            if 0 <= incoming.expected < incoming.received:
                raise StreamFaultError(number, PROTOCOL_ERROR, f"body above its content-length {incoming.expected}")
            self._sink.on_body(stream, payload)
        elif not flags & END_STREAM:
            self._patience.spend(rates.CONTROL, self._now)
        if size > len(payload):
            self._sender.credit(stream, size - len(payload))
        if flags & END_STREAM and not stream.closed:
            self._end(stream)

    def _end(self, stream: Stream) -> None:
        incoming = stream.incoming
        assert incoming is not None
        if 0 <= incoming.expected != incoming.received:
            reason = f"body of {incoming.received} bytes, content-length is {incoming.expected}"
            raise StreamFaultError(stream.id, PROTOCOL_ERROR, reason)
        self._streams.change(stream, END_IN)
        if not incoming.refused:
            self._sink.on_end(stream)
