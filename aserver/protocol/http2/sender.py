"""Frames out: answers, flow control in both directions, and the order of writes (RFC 9113 sections 5.2 and 6). Pure.

`Sender` makes the frames of one connection and keeps them until `take`. Bodies wait in their stream's queue while the
windows, or the transport, have no room; heads never wait. It must never send beyond a window, and never make an
unfinished response look finished.
"""

from collections.abc import Callable
from typing import Final

from aserver.protocol.application.body import append_piece
from aserver.protocol.http2 import frames
from aserver.protocol.http2.errors import NO_ERROR
from aserver.protocol.http2.frames import DATA, END_STREAM, FRAME_SIZE, LARGEST_STREAM
from aserver.protocol.http2.priority import WriteOrder
from aserver.protocol.http2.rates import ANSWERED, SENT, SENT_BYTES, Patience
from aserver.protocol.http2.streams import CLOSED, END_OUT, RESET_OUT, Stream, Streams

#: Bytes of one stream that wait, above which its application pauses, and below which it goes on.
HIGH_WATER: Final = 65_536
LOW_WATER: Final = 16_384

#: Bytes above which `take` adds no more DATA: what is more urgent can then overtake.
TAKEN: Final = 131_072

#: The connection's window for what clients send. It is given back at once: the windows of streams bound what is held,
#: so that no stream can keep others waiting. Renewed when half is used.
CONNECTION_WINDOW: Final = 2**30


class Sender:
    """Sends on the streams of one connection.

    While `held`, because the transport's buffer is full, bodies wait. The caller
    writes what `take` returns, after each call of a method and of `Reader.feed`. `on_progress` is called with a stream
    that was `write_paused` and may go on, and with a stream whose last byte had to wait and is out.
    """

    __slots__ = ("_on_progress", "_patience", "_size", "_streams", "_taken", "held", "order", "out")

    def __init__(self, streams: Streams, patience: Patience, on_progress: Callable[[Stream], None]) -> None:
        self._streams = streams
        self._patience = patience
        self._on_progress = on_progress
        self.order = WriteOrder()
        self.held = False
        self.out: list[bytes] = []  # frames that may go now
        self._size = 0  # bytes of DATA in it
        self._taken = 0  # and before

    # ── the connection ───────────────────────────────────────────────────────────────────────

    def begin(self, settings: dict[int, int]) -> None:
        """Send the server's preface: our settings, and the connection's window (RFC 9113 section 3.4)."""
        self.out.append(frames.settings({**settings, frames.INITIAL_WINDOW_SIZE: self._streams.window}))
        self.renew_connection_window()

    def control(self, frame: bytes) -> None:
        """Send a ready-made frame of the connection."""
        self.out.append(frame)

    def ping(self, data: bytes) -> None:
        """Send a PING; `StreamSink.on_pong` gets the same eight bytes back."""
        self.out.append(frames.ping(data, ack=False))

    def goaway(self, code: int = NO_ERROR, *, last: int | None = None, debug: bytes = b"") -> None:
        """Take no stream above `last`, by default the last that was taken (RFC 9113 section 6.8).

        To drain: `last=LARGEST_STREAM` announces it, a ping waits for the round trip, and then `goaway()` ends it.
        """
        streams = self._streams
        if last is None or last < LARGEST_STREAM:
            last = streams.largest = min(streams.largest, streams.last if last is None else last)
        self.out.append(frames.goaway(last, code, debug))

    def renew_connection_window(self) -> None:
        """Let the client send on, whatever stream it is for."""
        room = self._streams.receive_window
        if room < CONNECTION_WINDOW // 2:
            self._streams.receive_window = CONNECTION_WINDOW
            self.out.append(frames.window_update(0, CONNECTION_WINDOW - room))

    # ── a stream ─────────────────────────────────────────────────────────────────────────────

    def head(self, stream: Stream, block: bytes, body: bytes, *, end: bool) -> None:
        """Send the head of a response, or an interim one, with the first piece of the body, the last if `end`."""
        if stream.closed:
            return
        size = len(body)
        self.out.append(frames.headers(stream.id, block, end=end and not size))
        if end and size <= FRAME_SIZE and self._may_send(stream, size):
            if size:
                self.out += (frames.head(size, DATA, END_STREAM, stream.id), body)
            self._finish(stream)
        else:
            self.data(stream, body, end=end)

    def _may_send(self, stream: Stream, size: int) -> bool:
        """Take so many bytes out of the windows, unless they have to wait."""
        streams = self._streams
        if size and (self.held or self._size > TAKEN or size > stream.send_window or size > streams.send_window):
            return False
        stream.send_window -= size
        streams.send_window -= size
        self._size += size
        return True

    def whole(self, stream: Stream, framed: tuple[bytes, bytes], body: bytes) -> bool:
        """Send a whole response to a whole request (see `BlockEncoder.frame`); return False if it has to wait."""
        streams = self._streams
        size = len(body)
        if self.held or self._size > TAKEN or size > stream.send_window or size > streams.send_window:
            return False
        streams.send_window -= size  # not the stream's: it ends here
        self._size += size
        number = stream.id.to_bytes(4, "big")
        self.out += (framed[0], number, framed[1], number, body)
        self._patience.gained += ANSWERED
        stream.state = CLOSED  # by the table: HALF_CLOSED_REMOTE, END_OUT
        del streams.open[stream.id]
        return True

    def data(self, stream: Stream, body: bytes, *, end: bool) -> None:
        """Send a piece of the body, the last if `end`. Above HIGH_WATER the stream is `write_paused`."""
        if stream.closed or not (body or end):
            return
        stream.ending = end
        if body:
            if stream.queue is None:
                stream.queue = []
                stream.offset = 0
            append_piece(stream.queue, body)
            stream.queued += len(body)
            stream.write_paused = stream.queued > HIGH_WATER
            if stream.send_window > 0:
                self.order.add(stream)
        elif not stream.queued:
            self._send_end(stream)

    def trailers(self, stream: Stream, block: bytes) -> None:
        """Send trailers behind the body, which end the response."""
        if stream.closed:
            return
        stream.trailers = block
        stream.ending = True
        if not stream.queued:
            self._send_end(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """Reset a stream, and drop what waits of it (RFC 9113 section 6.4)."""
        if not stream.closed:
            self.order.remove(stream)
            self._streams.change(stream, RESET_OUT)
            self.out.append(frames.rst_stream(stream.id, code))

    def credit(self, stream: Stream, size: int) -> None:
        """Let the client send `size` bytes more on a stream; called when the application has taken as many."""
        incoming = stream.incoming
        if incoming is None or stream.complete:
            return
        incoming.credit += size
        if incoming.credit >= self._streams.window // 2 or incoming.window <= 0:
            incoming.window += incoming.credit
            self.out.append(frames.window_update(stream.id, incoming.credit))
            incoming.credit = 0

    def forget(self, stream: Stream) -> None:
        """Drop what waits of a stream that the client has reset."""
        self.order.remove(stream)

    # ── bytes out ────────────────────────────────────────────────────────────────────────────

    @property
    def sent(self) -> int:
        """Bytes of bodies that were sent."""
        return self._taken + self._size

    def take(self) -> bytes:
        """Return the frames that may go now, of bodies about TAKEN bytes; empty if there is nothing to write."""
        if not self.held and self.order.waiting:
            self._send_waiting()
        out = self.out
        if not out:
            return b""
        self.out = []
        self._taken += self._size
        self._size = 0
        return out[0] if len(out) == 1 else b"".join(out)

    def widened(self, stream: Stream) -> None:
        """Note that a stream's window has room again."""
        if stream.queued and stream.send_window > 0:
            self.order.add(stream)

    def _send_waiting(self) -> None:
        """Make frames of what waits, the most urgent first."""
        streams = self._streams
        order = self.order
        while self._size < TAKEN and streams.send_window > 0:
            stream = order.next()
            if stream is None:
                return
            room = min(streams.send_window, stream.send_window, FRAME_SIZE)
            if room > 0:
                self._send_piece(stream, room)
            else:
                order.remove(stream)  # until its window is widened

    def _send_piece(self, stream: Stream, room: int) -> None:
        piece = _cut(stream, room)
        size = len(piece)
        stream.send_window -= size
        self._streams.send_window -= size
        self._size += size
        self._patience.gained += SENT + size // SENT_BYTES
        done = not stream.queued
        last = done and stream.ending and stream.trailers is None
        self.out += (frames.head(size, DATA, END_STREAM if last else 0, stream.id), piece)
        if not done:
            self.order.sent(stream)
            if not stream.write_paused or stream.queued > LOW_WATER:
                return
        else:
            self.order.remove(stream)
            if last:
                self._finish(stream)
            elif stream.ending:
                self._send_end(stream)
        if stream.write_paused or stream.closed:
            stream.write_paused = False
            self._on_progress(stream)

    def _send_end(self, stream: Stream) -> None:
        if stream.trailers is None:
            self.out.append(frames.head(0, DATA, END_STREAM, stream.id))
        else:
            self.out.append(frames.headers(stream.id, stream.trailers, end=True))
        self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """Our last byte is out."""
        self._patience.gained += ANSWERED
        self._streams.change(stream, END_OUT)
        if not (stream.closed or (stream.incoming is not None and stream.incoming.patient)):
            self.reset(stream, NO_ERROR)  # the rest of the request is not wanted (RFC 9113 section 8.1)


def _cut(stream: Stream, room: int) -> bytes:
    """Take up to `room` bytes out of a stream's queue."""
    queue = stream.queue
    assert queue
    piece = queue[0]
    begin = stream.offset
    if len(piece) - begin > room:
        stream.offset = begin + room
        piece = piece[begin : begin + room]
    else:
        del queue[0]
        stream.offset = 0
        if begin:
            piece = piece[begin:]
    stream.queued -= len(piece)
    return piece
