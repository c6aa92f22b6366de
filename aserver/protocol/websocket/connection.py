"""The client's side of a WebSocket: messages that wait for the application, pings, and the end of the WebSocket.

Runs in the worker's loop. `reader` reads frames; the application's side is `session`. It must never hold more messages
for a slow application than `ws_max_queue`. It must never arm a timer: pings are sent when the sweep calls `expire`,
because `deadline` has passed.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Final, Protocol

from aserver.asgi import Message
from aserver.protocol.application.body import HIGH_WATER
from aserver.protocol.context import SWEEP_PERIOD
from aserver.protocol.transport.connection import CLOSE_FRAME, SIGN_OF_LIFE, Handler
from aserver.protocol.transport.read_gate import Pause
from aserver.protocol.websocket import frames
from aserver.protocol.websocket.frames import FIN, PING, PONG, ViolationError
from aserver.protocol.websocket.reader import FrameReader, Inflater
from aserver.protocol.websocket.tunnel import Tunnel

#: Seconds that a client has to answer the server's close frame. The `websockets` library has the same limit.
CLOSE_TIMEOUT: Final = 10.0

#: Reading pauses when the waiting messages have more bytes than this, even if they are few: 32 messages of
#: `ws_max_size` would be half a gigabyte.
QUEUE_BYTES: Final = 4 * HIGH_WATER

#: The reason that is sent with 1012, a code of IANA's registry: the client may connect again.
RESTART_REASON: Final = "service restart"


class SocketPhase(Enum):
    """The messages that the application may send."""

    CONNECTING = "websocket.accept, websocket.close or websocket.http.response.start"
    DENYING = "websocket.http.response.body"
    ACCEPTED = "websocket.send or websocket.close"
    CLOSED = "nothing: it has closed or denied the WebSocket"
    ENDED = "nothing: the client or the server has ended the WebSocket"


# Module constants, because on 3.11 each `SocketPhase.X` costs 40 ns.
CONNECTING: Final = SocketPhase.CONNECTING
DENYING: Final = SocketPhase.DENYING
ACCEPTED: Final = SocketPhase.ACCEPTED
APP_CLOSED: Final = SocketPhase.CLOSED
ENDED: Final = SocketPhase.ENDED


class Owner(Protocol):
    """The application's side of a `Socket`."""

    def lost(self, code: int, *, accepted: bool) -> None:
        """Called at the end of the tunnel. `code` is that of the disconnect; `accepted`: it was open once."""


class Socket(Handler):
    """A WebSocket as its client sees it: the handler of its `tunnel`."""

    __slots__ = (
        "_disconnect",
        "_feed",
        "_next_ping",
        "_silent_since",
        "context",
        "early",
        "messages",
        "owner",
        "phase",
        "ping_owed",
        "queued",
        "reader",
        "streak",
        "told",
        "tunnel",
        "waiter",
        "writer",
    )

    def __init__(self, tunnel: Tunnel, owner: Owner) -> None:
        self.tunnel = tunnel
        self.context = tunnel.context
        self.writer = tunnel.writer
        self.write_paused = False
        self.phase = CONNECTING
        self.told = False  # `receive()` or `send()` has told the application of the end
        self.owner: Owner | None = owner
        self.early = bytearray()  # bytes that came before the application has accepted
        self.reader: FrameReader | None = None  # made by `open`
        #: Messages that wait for the application, with their sizes.
        self.messages: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self.queued = 0  # sum of the sizes
        self.waiter: asyncio.Future[Message] | None = None
        self.streak = False  # the application has sent a message since it last waited for one
        self._disconnect: tuple[int, str] | None = None  # code and reason for websocket.disconnect
        self.ping_owed: bytes | None = None  # the last ping of a client that does not read; to be answered
        self._silent_since = inf  # time of the first ping after which nothing has come
        self._next_ping = inf
        self._feed: Callable[[bytes], None] = self._keep_early  # then `reader.feed`, then `_drop`

    def open(self, inflater: Inflater | None) -> None:
        """Read frames from now on. Call it after the answer that opens the WebSocket was sent."""
        config = self.context.config
        self.phase = ACCEPTED
        reader = self.reader = FrameReader(self, config.ws_max_size, inflater)
        self._feed = reader.feed
        if config.ws_ping_interval:
            self.tunnel.awaited = SIGN_OF_LIFE
            self.tunnel.deadline = self._next_ping = self.context.now + config.ws_ping_interval
        if self.early:
            early, self.early = bytes(self.early), bytearray()
            reader.paused = True
            reader.feed(early)
            self.resume()

    # ── messages for the application ─────────────────────────────────────────────────────────

    def _keep(self, message: Message, size: int) -> None:
        if self.phase is ACCEPTED:
            messages = self.messages
            messages.append((message, size))
            self.queued += size
            if len(messages) >= self.context.config.ws_max_queue or self.queued > QUEUE_BYTES:
                assert self.reader is not None
                self.reader.paused = True
                self.tunnel.gate.pause(Pause.MESSAGES)

    async def receive(self) -> Message:
        """ASGI `receive()`."""
        while self.messages or self._disconnect is not None or self.waiter is not None:
            if self.messages:
                message, size = self.messages.popleft()
                self.queued -= size
                if self.reader is not None and self.reader.paused:
                    self.go_on_reading()
                return message
            if self._disconnect is not None:
                return self._tell(self._disconnect)
            assert self.waiter is not None  # another task waits already, and gets the first message
            await asyncio.wait([self.waiter])
        self.streak = False
        waiter: asyncio.Future[Message] = self.context.loop.create_future()
        self.waiter = waiter
        try:
            return await waiter
        except BaseException:
            if self.waiter is waiter:
                self.waiter = None
            elif waiter.done() and not waiter.cancelled():  # the task was cancelled: its message must not be lost
                self.messages.appendleft((waiter.result(), 0))
            raise

    def go_on_reading(self) -> None:
        """Read again when half of the queue is free."""
        reader = self.reader
        if (
            self.phase is ACCEPTED
            and reader is not None
            and not reader.spent
            and len(self.messages) <= self.context.config.ws_max_queue // 2
            and self.queued <= QUEUE_BYTES // 2
        ):
            self.resume()

    def resume(self) -> None:
        """Parse the bytes that the reader has kept. Then read again, unless the reader has paused again."""
        reader = self.reader
        assert reader is not None
        if self.tunnel.open:
            reader.paused = False
            self.data_received(b"")
            if not reader.paused and self.tunnel.open:
                self.tunnel.gate.open()

    def on_spent(self) -> None:
        """Let other connections go on first. Until then nothing is read, because the bytes would have to be kept."""
        self.tunnel.gate.pause(Pause.TURN)
        self.context.fair_queue.wait(self._take_turn)

    def _take_turn(self) -> None:
        if self.reader is not None:
            self.reader.refill()
            self.resume()

    def _wake(self) -> None:
        """Give the disconnect to an application that waits in `receive()`."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            self.waiter = None
            assert self._disconnect is not None
            waiter.set_result(self._tell(self._disconnect))

    def _tell(self, disconnect: tuple[int, str]) -> Message:
        self.told = True
        return {"type": "websocket.disconnect", "code": disconnect[0], "reason": disconnect[1]}

    # ── frames in ────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Feed the reader, which calls the methods below. A rule that the client breaks ends the WebSocket."""
        self.context.meter.received += len(data)
        self._silent_since = inf
        try:
            self._feed(data)
        except ViolationError as error:
            self._finish(error.code, error.reason, frames.close_frame(error.code, error.reason))

    def _keep_early(self, data: bytes) -> None:
        """Keep bytes that come before the application has accepted. Only hostile clients send many of them."""
        self.early += data
        if len(self.early) > HIGH_WATER:
            self.tunnel.gate.pause(Pause.MESSAGES)

    def on_message(self, kind: str, data: str | bytes) -> None:
        """Give a message to the application if it waits, else keep it."""
        waiter, self.waiter = self.waiter, None
        message: Message = {"type": "websocket.receive", kind: data}
        if waiter is None:
            self._keep(message, len(data))
            return
        try:
            waiter.set_result(message)
        except asyncio.InvalidStateError:  # the task was cancelled, and has not run since
            self._keep(message, len(data))

    def on_ping(self, data: bytes) -> None:
        """Answer a ping. If the client does not read, remember the last ping instead (RFC 6455 section 5.5.3)."""
        if self.phase is ACCEPTED:
            if self.write_paused:
                self.ping_owed = data
            else:
                self.writer.write_soon(frames.head(FIN | PONG, len(data)) + data)

    def on_pong(self, data: bytes) -> None:
        """Do nothing: `data_received` takes any byte as a sign of life."""

    def on_close(self, code: int, reason: str) -> None:
        """Complete the closing handshake, which the client or the server has begun."""
        self._finish(code, reason, frames.close_frame(code))

    def writable(self) -> None:
        """Answer the ping that has waited until the client reads."""
        if self.ping_owed is not None and self.phase is ACCEPTED:
            data, self.ping_owed = self.ping_owed, None
            self.on_ping(data)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def leave(self) -> None:
        """Close with 1012, because the worker leaves. The application gets the disconnect, and is not cancelled."""
        if self.phase is ACCEPTED:
            self.end(frames.SERVICE_RESTART, RESTART_REASON)

    @property
    def over(self) -> bool:
        """Whether the WebSocket was closed or denied, by either side."""
        return self.phase in (APP_CLOSED, ENDED)

    def end(self, code: int, reason: str, phase: SocketPhase = ENDED) -> None:
        """Begin the closing handshake."""
        self.tunnel.awaited = CLOSE_FRAME
        self.tunnel.deadline = self.context.now + CLOSE_TIMEOUT + SWEEP_PERIOD
        self._close(code, reason, frames.close_frame(code, reason), phase)
        reader = self.reader
        assert reader is not None
        if phase is APP_CLOSED:
            self.messages.clear()
        if reader.paused and not reader.spent:  # the client's close frame may come after messages that wait
            self.resume()

    def _close(self, code: int, reason: str, frame: bytes, phase: SocketPhase = ENDED) -> None:
        """Send a close frame, and give `code` and `reason` to the application."""
        self.phase = phase
        self._disconnect = (code, reason)
        self.writer.write(frame)
        self._wake()

    def _finish(self, code: int, reason: str, frame: bytes) -> None:
        """End, because the client has closed, or broken a rule (RFC 6455 sections 5.5.1 and 7.1.7)."""
        if self.phase is ACCEPTED:
            self._close(code, reason, frame)
            self.tunnel.linger()
        else:
            self.tunnel.close()

    def deny(self) -> None:
        """End after an HTTP answer that has refused the WebSocket."""
        self._disconnect = (frames.ABNORMAL, "")
        self._wake()
        self.tunnel.linger()

    def cut(self) -> None:
        """Tell the application of an end without a close frame: it gets 1006, and its next `send()` raises."""
        if self._disconnect is None:
            self._disconnect = (frames.ABNORMAL, "")
        if self.phase is not APP_CLOSED:
            self.phase = ENDED
        self._wake()

    def lost(self) -> None:
        """Tell the application, and let go of the reader and the owner, which refer to this object."""
        self.cut()
        owner, reader = self.owner, self.reader
        self.owner = self.reader = None
        self._feed = _drop
        if owner is not None and self._disconnect is not None:
            owner.lost(self._disconnect[0], accepted=reader is not None)

    def expire(self) -> None:
        """Send a ping, or give up a silent client; cut a client that has not answered the close frame."""
        awaited = self.tunnel.awaited
        if awaited is SIGN_OF_LIFE:
            self._keep_alive()
        elif awaited is CLOSE_FRAME:
            self.tunnel.abort()

    def postpone(self, seconds: float) -> None:
        """Count the seconds that the loop stood still as no silence of the client."""
        self._silent_since += seconds

    def _keep_alive(self) -> None:
        """Send a ping if it is time. Close if nothing has come for `ws_ping_timeout` after a ping."""
        context, config, reader = self.context, self.context.config, self.reader
        assert reader is not None
        timeout = config.ws_ping_timeout or inf
        if reader.paused:
            self._silent_since = inf  # the client is not silent: nothing is read
        if context.now - self._silent_since >= timeout:
            reason = "ping timeout"
            self._close(frames.ABNORMAL, reason, frames.close_frame(frames.INTERNAL_ERROR, reason))
            self.tunnel.close()
            return
        if self._next_ping <= context.now:
            self._next_ping = context.now + config.ws_ping_interval
            if not self.write_paused:  # if it is paused, the client has `write_deadline`
                self.writer.write(frames.head(FIN | PING, 0))
                self._silent_since = min(self._silent_since, context.now)
        self.tunnel.deadline = min(self._next_ping, self._silent_since + timeout)


def _drop(data: bytes) -> None:
    """Drop bytes that come after the end. It is a function, since a bound method would make a cycle."""
