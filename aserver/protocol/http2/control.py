"""Acts on frames that carry neither heads nor bodies, such as SETTINGS and RST_STREAM (RFC 9113 section 6). Pure.

The cost of each frame is counted (`rates.Patience`). A frame of an unknown type does nothing else.
"""

from aserver.protocol.http2 import frames, rates
from aserver.protocol.http2.errors import PROTOCOL_ERROR, ConnectionFaultError, StreamFaultError
from aserver.protocol.http2.priority import parse_priority
from aserver.protocol.http2.sender import Sender
from aserver.protocol.http2.sink import StreamSink
from aserver.protocol.http2.streams import HALF_CLOSED_LOCAL, RESET_IN, WINDOW_IN, Streams, widen


class ControlReader:
    """Acts on the control frames of a connection."""

    __slots__ = ("_no_priorities", "_patience", "_sender", "_sink", "_streams")

    def __init__(self, sink: StreamSink, streams: Streams, sender: Sender, patience: rates.Patience) -> None:
        self._sink = sink
        self._streams = streams
        self._sender = sender
        self._patience = patience
        self._no_priorities: int | None = None  # SETTINGS_NO_RFC7540_PRIORITIES; None before the first SETTINGS

    def take(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> None:
        """Act on a frame that `frames.check_head` has checked. Raises ConnectionFaultError, StreamFaultError."""
        if kind == frames.WINDOW_UPDATE:
            self._patience.spend(rates.UPDATE, now)
            self._window_update(number, frames.number(payload))
            return
        self._patience.spend(rates.CONTROL, now)
        if kind == frames.RST_STREAM:
            self._rst_stream(number, int.from_bytes(payload, "big"), now)
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._settings(payload, now)
        elif kind == frames.PING:
            if flags & frames.ACK:
                self._sink.on_pong(payload)
            else:
                self._sender.control(frames.ping(payload, ack=True))
        elif kind == frames.GOAWAY:
            self._sink.on_goaway(int.from_bytes(payload[4:8], "big"), payload[8:])
        elif kind == frames.PRIORITY:
            if frames.number(payload) == number:
                raise StreamFaultError(number, PROTOCOL_ERROR, "stream depends on itself")
        elif kind == frames.PRIORITY_UPDATE:
            self._priority_update(frames.number(payload), payload[4:])

    def _window_update(self, number: int, increment: int) -> None:
        if not number:
            self._streams.widen(increment)
            return
        stream = self._streams.open.get(number)
        if stream is None:
            self._streams.check_absent(number, WINDOW_IN)
            return
        widen(stream, increment)
        self._sender.widened(stream)

    def _rst_stream(self, number: int, code: int, now: float) -> None:
        stream = self._streams.open.get(number)
        if stream is None:
            self._streams.check_absent(number, RESET_IN)
            self._streams.forget_reset(number)
            return
        if stream.state != HALF_CLOSED_LOCAL:  # in that state the client has its whole answer
            self._patience.spend(rates.RESET, now)
        self._sender.forget(stream)
        self._streams.change(stream, RESET_IN)
        if stream.owner is not None:
            self._sink.on_reset(stream, code, "")

    def _settings(self, payload: bytes, now: float) -> None:
        self._patience.spend(rates.SETTINGS_FRAME + len(payload) // 6, now)
        values = frames.parse_settings(payload)
        before = self._no_priorities
        self._no_priorities = values.get(frames.NO_RFC7540_PRIORITIES, before or 0)
        if before is not None and before != self._no_priorities:  # RFC 9218 section 2.1
            raise ConnectionFaultError(PROTOCOL_ERROR, "SETTINGS_NO_RFC7540_PRIORITIES has changed")
        window = values.get(frames.INITIAL_WINDOW_SIZE)
        if window is not None:
            self._streams.resize(window)
            for stream in self._streams.open.values():
                self._sender.widened(stream)
        self._sender.control(frames.SETTINGS_ACK)

    def _priority_update(self, number: int, value: bytes) -> None:
        if not number or not number & 1:
            raise ConnectionFaultError(PROTOCOL_ERROR, f"PRIORITY_UPDATE of stream {number}")
        stream = self._streams.open.get(number)
        if stream is not None:
            urgency, incremental = parse_priority(value, 3, incremental=False)
            self._sender.order.change(stream, urgency, incremental=incremental)
