"""HTTP/2 on a connection: its streams, a single write for all frames of a turn, and the end of the connection.

Runs in the worker's loop. `Reader` reads frames, `Sender` makes them and keeps the windows, a `StreamCarrier` has each
exchange. When the worker drains, the connection serves the streams under way. It must never refuse a stream before the
client can know that the connection leaves.
"""

import logging
from functools import partial
from math import inf
from typing import Final, cast

from aserver.errors import ClientError
from aserver.metrics.page import Awaited
from aserver.protocol.application.body import HIGH_WATER
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.context import SWEEP_PERIOD
from aserver.protocol.http2 import frames
from aserver.protocol.http2.begin import begin, repeat
from aserver.protocol.http2.block_reader import header_list_limit
from aserver.protocol.http2.carrier import StreamCarrier, wake_owner
from aserver.protocol.http2.encoder import BlockEncoder
from aserver.protocol.http2.errors import ENHANCE_YOUR_CALM, ConnectionFaultError
from aserver.protocol.http2.rates import TIMEOUT, Patience
from aserver.protocol.http2.reader import Reader
from aserver.protocol.http2.request import StreamRequest
from aserver.protocol.http2.sender import TAKEN, Sender
from aserver.protocol.http2.streams import Stream, Streams
from aserver.protocol.http2.tunnel import StreamTunnel, open_tunnel
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.transport.connection import (
    FAREWELL,
    FIRST_REQUEST,
    HEAD,
    NEXT_REQUEST,
    NO_STREAM,
    NOTHING,
    SERVING,
    Connection,
    Handler,
)
from aserver.protocol.transport.read_gate import Pause
from aserver.protocol.websocket.connection import Socket

log: Final = logging.getLogger("aserver.error")

#: The most open streams of a connection. Clients that need more open another connection.
MOST_STREAMS: Final = 100

#: The bytes of a request's body that a client may send before the application has taken any of them.
STREAM_WINDOW: Final = 2 * HIGH_WATER

#: A connection that is to leave waits this many seconds for a moment without streams (a lull), because some clients
#: (Python's `h2`) give up their open streams at any GOAWAY. It waits again as long as the client begins no new stream.
LULL: Final = 1.0

#: Seconds that a client has to answer the PING after the first GOAWAY.
ROUND_TRIP: Final = 5.0
_LEAVING: Final = b"leaving "
_LULL: Final = b"at rest?"
_ASKED: Final = -1  # as `_begun`: the PING of `_ask` was sent


class Http2Connection(Handler):
    """HTTP/2 on a connection, its `link`: the handler of its bytes, and the connection of carriers."""

    __slots__ = (
        "_awaited",
        "_begun",
        "_client_leaves",
        "_deadline",
        "_leaving",
        "_more",
        "_parted",
        "_patience",
        "context",
        "encoder",
        "flush_due",
        "link",
        "logged",
        "reader",
        "sender",
        "streams",
        "tasks",
    )

    def __init__(self, link: Connection, tasks: Tasks, encoder: BlockEncoder, limits: RequestLimits) -> None:
        self.link = link
        self.context = link.context
        self.tasks = tasks
        self.encoder = encoder
        self.logged: tuple[object, ...] | None = None  # set by the access log: fields that it has formatted
        self.streams = Streams(STREAM_WINDOW, partial(StreamCarrier, self))
        self._patience = patience = Patience(self.context.now)
        self.sender = Sender(self.streams, patience, wake_owner)
        self.reader = Reader(self, self.streams, self.sender, patience, limits, MOST_STREAMS)
        self._awaited = FIRST_REQUEST  # the reason of `_deadline`
        self._deadline = link.deadline  # the connection's own; `link.deadline` is the first of this and the streams'
        self.flush_due = False
        self._begun = 0  # the last stream when the wait for a lull began
        self._leaving = False  # `leave` was called
        self._parted = False  # the last GOAWAY was sent: new streams are ignored
        self._more = 0  # this connection's part of `Context.more_streams`
        self._client_leaves = False  # the client has sent GOAWAY
        self.reader.blocks.connect_protocol = True
        self.sender.begin(
            {
                frames.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                frames.MAX_HEADER_LIST_SIZE: header_list_limit(limits),
                frames.NO_RFC7540_PRIORITIES: 1,
                frames.ENABLE_CONNECT_PROTOCOL: 1,
            }
        )

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Read the bytes, and write the frames that this calls for. Answers follow when applications have made them."""
        try:
            self.reader.feed(data, self.context.now)
        except ConnectionFaultError as fault:
            self._fail(fault)
            return
        awaited = self._awaited
        if self.reader.in_head:
            if awaited is NOTHING or awaited is NEXT_REQUEST:
                self._await(HEAD, self.context.header_timeout)
        elif awaited is FIRST_REQUEST or awaited is HEAD:
            self._await_nothing()
        if self.context.draining:
            self.leave()
        self.flush()

    def on_spent(self) -> None:
        """Let other connections go on first. Until then nothing is read, because the bytes would have to be kept."""
        self.link.gate.pause(Pause.TURN)
        self.context.fair_queue.wait(self._take_turn)

    def _take_turn(self) -> None:
        if self.link.stage is SERVING:
            self.reader.refill()
            self.data_received(b"")
            if not self.reader.spent and self.link.stage is SERVING:
                self.link.gate.resume(Pause.TURN)

    def _fail(self, fault: ConnectionFaultError) -> None:
        """End the connection because of a client's fault (RFC 9113 section 5.4.1)."""
        log.debug("%s: HTTP/2 connection ended: %s", self.link, fault.reason)
        self.sender.goaway(fault.code, debug=fault.reason.encode("ascii", "replace"))
        self._write()
        self.lost()
        self.link.linger()

    # ── calls of the reader ──────────────────────────────────────────────────────────────────

    def on_request(self, stream: Stream, request: StreamRequest) -> None:
        """Start the application for a request whose head is complete."""
        self._await_nothing()
        if request.protocol is not None:
            open_tunnel(self, stream, request)
            return
        self.tasks.start(begin(self, cast("StreamCarrier", stream), request))

    def on_repeated(self, number: int, request: StreamRequest) -> None:
        """Start the application for a request that was remembered."""
        if self._awaited is NEXT_REQUEST:
            self._await_nothing()
        self.tasks.start(repeat(self, number, request))

    def on_refused(self, stream: Stream, error: ClientError, request: StreamRequest | None) -> None:
        """Answer a request that cannot be served."""
        self._await_nothing()
        log.debug("%s is answered %d: %s", self.link, error.status, error.reason)
        if stream.owner is None:
            cast("StreamCarrier", stream).turn_away(error, request)
        else:
            stream.owner.refuse(error)

    def on_body(self, stream: Stream, data: bytes) -> None:
        """Give a piece of a body to the stream's owner."""
        stream.owner.take_body(data)

    def on_end(self, stream: Stream) -> None:
        """Tell the stream's owner that the body has ended."""
        stream.owner.take_end()

    def on_reset(self, stream: Stream, code: int, reason: str) -> None:
        """Tell the stream's owner that the stream was reset."""
        if reason:
            log.debug("%s: stream %d reset with %d: %s", self.link, stream.id, code, reason)
        stream.owner.lost()

    def on_goaway(self, code: int, debug: bytes) -> None:  # noqa: ARG002 - the reader's
        """Note that the connection is to close after its last stream."""
        self._client_leaves = True

    def on_pong(self, data: bytes) -> None:
        """Take the next step of leaving, because the client has answered the PING of the step before."""
        if data == _LULL and self._awaited is NO_STREAM and not self.streams.open:
            self._announce()
        elif data == _LEAVING and self._awaited is FAREWELL:
            self._part()

    # ── bytes out ────────────────────────────────────────────────────────────────────────────

    @property
    def write_paused(self) -> bool:
        """Whether the client reads too slowly; set by the connection."""
        return self.sender.held

    @write_paused.setter
    def write_paused(self, paused: bool) -> None:
        self.sender.held = paused

    def write_soon(self) -> None:
        """Write the sender's frames: at once if no stream is open, else at the end of the turn, with other answers."""
        if self.streams.open:
            self._write_at_the_end()
        elif not self.flush_due:
            self.flush()

    def _write_at_the_end(self) -> None:
        if not self.flush_due:
            self.flush_due = True
            self.context.loop.call_soon(self.flush, context=self.context.variables)

    def flush(self) -> None:
        """Write the sender's frames. If no stream is open, wait for the next request, or end."""
        self.flush_due = False
        sender = self.sender
        if sender.out or sender.order.waiting:
            self._write()
        under_way = len(self.streams.open)
        if under_way > 1 or self._more:
            self._count(under_way)
        if not under_way:
            self._rest()

    def _count(self, under_way: int) -> None:
        self.context.more_streams -= self._more
        self._more = under_way - 1 if under_way else 0
        self.context.more_streams += self._more

    def _write(self) -> None:
        writer = self.link.writer
        if self.link.stage is not SERVING:
            return
        data = self.sender.take()
        if writer.held is not None:
            writer.write_soon(data)
        elif data:
            writer.write_answer(data)
        if len(data) > TAKEN:  # there may be more, but other connections go first
            self._write_at_the_end()

    def writable(self) -> None:
        """Write the frames that have waited for the client to read."""
        self.flush()

    @property
    def open(self) -> bool:
        """Whether answers can be sent."""
        return self.link.stage is SERVING

    # ── deadlines ────────────────────────────────────────────────────────────────────────────

    def watch(self, deadline: float, awaited: Awaited) -> None:
        """See `StreamConnection`."""
        link = self.link
        if deadline < link.deadline:
            link.awaited = awaited
            link.deadline = deadline

    def _await(self, awaited: Awaited, seconds: float) -> None:
        """Give the client a deadline in `seconds` for `awaited`, which is no stream's."""
        self._awaited = awaited
        self._deadline = self.context.now + seconds
        self.watch(self._deadline, awaited)

    def _await_nothing(self) -> None:
        if self._awaited is not NO_STREAM and self._awaited is not FAREWELL:
            self._awaited = NOTHING
            self._deadline = inf
            if len(self.streams.open) <= 1:  # the new stream, or none: no stream has a deadline
                self.link.await_nothing()

    def expire(self) -> None:
        """React to deadlines that have passed, and set the next."""
        now, link = self.context.now, self.link
        link.await_nothing()
        if self._deadline <= now:
            self._deadline = inf
            if self._awaited is FAREWELL:
                self._part()
            elif self._awaited is NO_STREAM:
                self._look_again()
            elif self._awaited is NEXT_REQUEST:
                self.leave()
            else:
                reason = f"client did not send {self._awaited.value} in time"
                self._fail(ConnectionFaultError(ENHANCE_YOUR_CALM, reason))
        self.watch(self._deadline, self._awaited)
        slow = sum([stream.owner.expire(now) for stream in list(self.streams.open.values())])
        if slow:
            try:
                self._patience.spend(slow * TIMEOUT, now)
            except ConnectionFaultError as fault:
                self._fail(fault)

    def postpone(self, seconds: float) -> None:
        """Put off the deadlines."""
        self._deadline += seconds
        for stream in self.streams.open.values():
            stream.owner.postpone(seconds)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def leave(self) -> None:
        """Begin to leave. The steps: a lull, GOAWAY that allows new streams, a PING and its answer, the last GOAWAY."""
        if self._leaving or self.link.stage is not SERVING:
            return
        self._leaving = True
        self._begun = self.streams.last
        self._await(NO_STREAM, LULL)
        if not self.streams.open:
            self._ask()

    def _look_again(self) -> None:
        """Announce the end; or wait again, if the client waits for answers and has begun no stream since."""
        begun, self._begun = self._begun, self.streams.last
        if self.streams.open and begun in (_ASKED, self._begun):
            self._await(NO_STREAM, LULL)
        else:
            self._announce()

    def _ask(self) -> None:
        """Send a PING, whose answer shows that all was read: `h2` loses answers that it reads with a GOAWAY."""
        self._begun = _ASKED
        self.sender.ping(_LULL)
        self._await(NO_STREAM, LULL + SWEEP_PERIOD)
        self._write()

    def _announce(self) -> None:
        self.sender.goaway(last=frames.LARGEST_STREAM)
        self.sender.ping(_LEAVING)
        self._await(FAREWELL, ROUND_TRIP + SWEEP_PERIOD)
        self._write()

    def _part(self) -> None:
        """Take no more streams, and end when the open streams have ended."""
        self._parted = True
        self._awaited = NOTHING
        self._deadline = inf
        self.sender.goaway()
        self.flush()

    def _rest(self) -> None:
        """Wait for the next request, or end, because no stream is open."""
        link = self.link
        if link.stage is not SERVING:
            return
        if self._parted or self._client_leaves:
            link.linger()
        elif self._awaited is NO_STREAM:
            if self._begun != _ASKED:
                self._ask()
        elif self._awaited is NOTHING:
            self._awaited = link.awaited = NEXT_REQUEST
            self._deadline = link.deadline = self.context.now + self.context.keep_alive

    def eof_received(self) -> bool:
        """Close, after what waits for the end of the turn: a client that sends no more cannot open windows either."""
        self.flush()
        return False

    def cut(self) -> None:
        """Do nothing before `lost`, which follows."""

    def lost(self) -> None:
        """Tell the applications, and let go of the reader and of `streams.make`, which refer to this handler."""
        self.reader.close()
        self.streams.make = Stream
        streams = self.streams.open
        self.streams.open = {}
        self._count(0)
        for stream in streams.values():
            if stream.owner is not None:
                stream.owner.lost()
                stream.owner = None

    @property
    def sockets(self) -> list[Socket]:
        """The WebSockets on its streams."""
        owners = [stream.owner for stream in self.streams.open.values()]
        return [each.handler for each in owners if isinstance(each, StreamTunnel) and isinstance(each.handler, Socket)]

    @property
    def idle(self) -> bool:
        """Whether no request is under way, also none half received."""
        return not (self.streams.open or self.reader.unread or self._awaited is HEAD)
