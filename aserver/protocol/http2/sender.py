"""Makes frames: answers, flow control in both directions, and the order of bodies (RFC 9113 sections 5.2 and 6). Pure.

`Sender` makes the frames of a connection and keeps them until `take`. Bodies wait in their stream's queue while the
windows or the transport have no room; heads never wait. It must never send beyond a window, nor let an unfinished
response look complete.
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

#: An application pauses when more than PAUSE_ABOVE bytes of its stream wait, and goes on at RESUME_BELOW.
PAUSE_ABOVE: Final = 65_536
RESUME_BELOW: Final = 16_384

#: `take` adds no more DATA above this many bytes, so that a more urgent stream need not wait long.
TAKEN: Final = 131_072

#: The window of a connection for bodies of requests, renewed when half is used. It never stops a client. The windows of
#: streams limit what is held, so that no stream can keep others waiting.
CONNECTION_WINDOW: Final = 2**30


class Sender:
    """Makes the frames of a connection.

    After each call of a method, and of `Reader.feed`, the caller writes the bytes that `take` returns. While `held`,
    because the transport's buffer is full, bodies wait. `on_progress` is called with a stream that was `write_paused`
    and may go on, and with a stream whose last byte had to wait and was sent.
    """

    __slots__ = ("_on_progress", "_patience", "_size", "_streams", "_taken", "held", "order", "out")

    def __init__(self, streams: Streams, patience: Patience, on_progress: Callable[[Stream], None]) -> None:
        self._streams = streams
        self._patience = patience
        self._on_progress = on_progress
        self.order = WriteOrder()
        self.held = False
        self.out: list[bytes] = []  # frames for the next `take`
        self._size = 0  # bytes of DATA in `out`
        self._taken = 0  # bytes of DATA that were taken

    # ── the connection ───────────────────────────────────────────────────────────────────────

    def begin(self, settings: dict[int, int]) -> None:
        """Send the server's preface: its settings, and the connection's window (RFC 9113 section 3.4)."""
        self.out.append(frames.settings({**settings, frames.INITIAL_WINDOW_SIZE: self._streams.window}))
        self.renew_connection_window()

    def control(self, frame: bytes) -> None:
        """Send a frame that was made already."""
        self.out.append(frame)

    def ping(self, data: bytes) -> None:
        """Send a PING; `StreamSink.on_pong` gets the same eight bytes back."""
        self.out.append(frames.ping(data, ack=False))

    def goaway(self, code: int = NO_ERROR, *, last: int | None = None, debug: bytes = b"") -> None:
        """Send GOAWAY: streams above `last`, by default the last stream so far, will be ignored (RFC 9113 section 6.8).

        To drain, announce it by `last=LARGEST_STREAM`, wait for the answer to a ping, and then call `goaway()`.
        """
        streams = self._streams
        if last is None or last < LARGEST_STREAM:
            last = streams.largest = min(streams.largest, streams.last if last is None else last)
        self.out.append(frames.goaway(last, code, debug))

    def renew_connection_window(self) -> None:
        """Send a WINDOW_UPDATE of the connection, if half of its window is used."""
        room = self._streams.receive_window
        if room < CONNECTION_WINDOW // 2:
            self._streams.receive_window = CONNECTION_WINDOW
            self.out.append(frames.window_update(0, CONNECTION_WINDOW - room))

    # ── a stream ─────────────────────────────────────────────────────────────────────────────

    def head(self, stream: Stream, block: bytes, body: bytes, *, end: bool) -> None:
        """Send the head of a response, final or interim, and the first piece of the body; the last if `end`."""
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
        """Take `size` bytes out of the windows; return False if they have to wait."""
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
        streams.send_window -= size  # the stream's window is not used again
        self._size += size
        number = stream.id.to_bytes(4, "big")
        self.out += (framed[0], number, framed[1], number, body)
        self._patience.gained += ANSWERED
        stream.state = CLOSED  # as TRANSITIONS has it for END_OUT in HALF_CLOSED_REMOTE
        del streams.open[stream.id]
        return True

    def data(self, stream: Stream, body: bytes, *, end: bool) -> None:
        """Send a piece of the body, the last if `end`. Above PAUSE_ABOVE the stream is `write_paused`."""
        if stream.closed or not (body or end):
            return
        stream.ending = end
        if body:
            if stream.queue is None:
                stream.queue = []
                stream.offset = 0
            append_piece(stream.queue, body)
            stream.queued += len(body)
            stream.write_paused = stream.queued > PAUSE_ABOVE
            if stream.send_window > 0:
                self.order.add(stream)
        elif not stream.queued:
            self._send_end(stream)

    def trailers(self, stream: Stream, block: bytes) -> None:
        """Send trailers after the body. They end the response."""
        if stream.closed:
            return
        stream.trailers = block
        stream.ending = True
        if not stream.queued:
            self._send_end(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """Reset a stream, and drop its bytes that wait (RFC 9113 section 6.4)."""
        if not stream.closed:
            self.order.remove(stream)
            self._streams.change(stream, RESET_OUT)
            self.out.append(frames.rst_stream(stream.id, code))

    def credit(self, stream: Stream, size: int) -> None:
        """Let the client send `size` more bytes on a stream. Call it when the application has taken as many."""
        incoming = stream.incoming
        if incoming is None or stream.complete:
            return
        incoming.credit += size
        if incoming.credit >= self._streams.window // 2 or incoming.window <= 0:
            incoming.window += incoming.credit
            self.out.append(frames.window_update(stream.id, incoming.credit))
            incoming.credit = 0

    def forget(self, stream: Stream) -> None:
        """Drop the bytes that wait of a stream that the client has reset."""
        self.order.remove(stream)

    # ── bytes out ────────────────────────────────────────────────────────────────────────────

    @property
    def sent(self) -> int:
        """The number of bytes of DATA so far."""
        return self._taken + self._size

    def take(self) -> bytes:
        """Return frames to be written, with about TAKEN bytes of bodies at most; b"" if there is nothing to write."""
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
        """Let a stream send again, if its window has room."""
        if stream.queued and stream.send_window > 0:
            self.order.add(stream)

    def _send_waiting(self) -> None:
        """Make frames of the bytes that wait, the most urgent first."""
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
            if not stream.write_paused or stream.queued > RESUME_BELOW:
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
        """End the response. If the rest of the request is not wanted, reset the stream (RFC 9113 section 8.1)."""
        self._patience.gained += ANSWERED
        self._streams.change(stream, END_OUT)
        if not (stream.closed or (stream.incoming is not None and stream.incoming.patient)):
            self.reset(stream, NO_ERROR)


def _cut(stream: Stream, room: int) -> bytes:
    """Take up to `room` bytes of the first piece out of a stream's queue."""
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
