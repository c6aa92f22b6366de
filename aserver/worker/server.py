"""One server in one event loop: accept, serve, drain. The forked worker and `serve(app)` both run it.

Runs in a worker's loop or the embedding program's. It knows nothing of processes: no signals, no channel, no
exit. The listening sockets stay the caller's.
"""

import asyncio
import enum
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from aserver.asgi import ASGIApp
from aserver.config import Config
from aserver.ipc.board import Field
from aserver.log.access.recorder import AccessLog
from aserver.protocol.context import SWEEP_PERIOD
from aserver.protocol.drain_notice import Draining
from aserver.protocol.peer.trust import Peers
from aserver.protocol.service import Service
from aserver.protocol.transport.handshakes import Handshakes
from aserver.worker.acceptor import Acceptor, Endpoint
from aserver.worker.capacity import Capacity
from aserver.worker.fairness import PAUSE, Fairness
from aserver.worker.lifespan import Lifespan

log = logging.getLogger("aserver.error")

#: Seconds between two heartbeats; four fit into the shortest useful `slow_callback`. One costs 0.3 us.
BEAT = 0.1
#: A sweep that is later than this (seconds) is late because the loop stood still: kept by an application, or halted.
STANDSTILL = 0.5
#: While draining, how often (seconds) to look whether the last connection has gone.
DRAIN_POLL = 0.02
#: Seconds for the handshakes of those who were in the accept queue at a final stop.
LAST_HANDSHAKES = 1.0
#: Seconds for an idle TLS client to answer our close_notify, which it has nothing to gain from.
GOODBYE = 0.5
#: Seconds that a cancelled request gets to unwind before its connection is cut off.
UNWIND = 1.0


#: Part of graceful_timeout, and of stream_grace, in which WebSockets are closed.
WEBSOCKET_WINDOW = 0.25


class Phase(enum.Enum):
    """Of the server."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(slots=True)
class Server:
    """Serve `app` on `endpoints` until `drain` is called.

    `cell` is the worker's place on the board, if it has one, and `note` writes there which request was begun last.
    `on_beat` is called at every heartbeat, for what the process wants to watch (age, requests, memory). `release`
    closes the listeners for good, on a final drain: what connects after that is refused at once rather than left in a
    queue that nobody reads.
    """

    app: ASGIApp
    config: Config
    endpoints: Sequence[Endpoint]
    release: Callable[[], None]
    access: AccessLog | None = None
    cell: memoryview | None = None
    note: Callable[[bytes], None] | None = None
    fairness: Fairness | None = None
    on_beat: Callable[["Server"], None] | None = None
    phase: Phase = Phase.STARTING
    service: Service | None = None
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _capacity: Capacity = field(init=False)
    _handshakes: Handshakes = field(init=False)
    _acceptors: list[Acceptor] = field(default_factory=list)
    _final: bool = False
    _deadline: float = 0.0
    _wanted: anyio.Event = field(init=False)
    _boot_scope: anyio.CancelScope = field(init=False)
    _timer: asyncio.TimerHandle | None = None
    beats: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._capacity = Capacity.of(self.config)
        self._handshakes = Handshakes(self._loop, self.config.header_timeout)
        self._wanted = anyio.Event()
        self._boot_scope = anyio.CancelScope()

    async def run(self, ready: Callable[[], None]) -> None:
        """The whole life: lifespan startup, `ready()`, serve until told to drain, drain, lifespan shutdown.

        Raises BootError if lifespan startup fails. Being cancelled is a final drain.
        """
        lifespan = Lifespan(self.app, self.config.lifespan)
        lifespan.state["aserver.draining"] = Draining()  # for what the app runs beside its requests
        self._beat()
        try:
            with self._boot_scope:
                await lifespan.startup(self.config.boot_timeout)
                await self._open(lifespan.state)
                ready()
            try:
                if self.phase is Phase.SERVING:
                    await self._wanted.wait()
            finally:
                with anyio.CancelScope(shield=True):
                    if not self._wanted.is_set():  # cancelled by whoever embeds us
                        self.drain(final=True, graceful=self.config.graceful_timeout)
                    await self._drain()
                    await lifespan.shutdown(self.config.lifespan_shutdown_timeout)
        finally:
            self.phase = Phase.STOPPED
            self._close_acceptors()
            if self._timer is not None:
                self._timer.cancel()

    def drain(self, *, final: bool, graceful: float) -> None:
        """Stop accepting, give requests under way `graceful` seconds, leave. Called again it can only shorten.

        `final`: no other process accepts on these listeners, so what the kernel has queued is taken first, and idle
        connections get `idle_grace` only.
        """
        deadline = self._loop.time() + graceful
        self._deadline = min(self._deadline, deadline) if self._wanted.is_set() else deadline
        self._final = self._final or final
        self._wanted.set()
        if self.phase is Phase.STARTING:
            self._boot_scope.cancel()

    @property
    def time_left(self) -> float:
        """Seconds of the time to drain that are left; 0 without a drain."""
        return max(0.0, self._deadline - self._loop.time())

    async def _open(self, state: dict[str, Any]) -> None:
        access: dict[str, Any] = {}
        if self.access is not None:
            access = {"access": self.access.write, "timed": self.access.timed}
        leaving = state["aserver.draining"]
        self.service = Service(
            self.app, self.config, loop=self._loop, state=state, note=self.note, leaving=leaving, **access
        )
        mode = self.config.proxy_protocol
        proxy = None if mode == "off" else (mode, Peers(self.config.forwarded_allow_ips))
        for endpoint in self.endpoints:
            if endpoint.tls is not None:
                endpoint.tls.look(patient=False)  # the zygote has read them long ago
            scheme = "https" if endpoint.tls else "http"
            factory = self.service.protocol_factory(scheme=scheme, tls=endpoint.tls is not None, server=endpoint.server)
            factory = self._politely(factory)
            self._acceptors.append(
                Acceptor(endpoint, factory, self.config.backlog, self._loop, self._handshakes, proxy)
            )
        for acceptor in self._acceptors:
            await acceptor.open()
        self.phase = Phase.SERVING

    def _politely(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Look at our load, and at the others', whenever a connection has been accepted."""
        service, fairness = self.service, self.fairness
        capacity = self._capacity
        assert service is not None

        def pause() -> None:
            for acceptor in self._acceptors:
                acceptor.pause(PAUSE)

        def hold() -> None:
            if self._wanted.is_set():  # the drain was ordered after this
                return
            capacity.fill()
            for acceptor in self._acceptors:
                acceptor.hold()

        def make() -> asyncio.Protocol:
            # Neither from here: uvloop asserts that a server which is just making a transport is open.
            if self._held() + 1 >= capacity.limit:
                self._loop.call_soon(hold)
            elif fairness is not None and fairness.crowded(len(service.connections) + 1):
                self._loop.call_soon(pause)
            return factory()

        return make

    def _held(self) -> int:
        """How many clients have a descriptor here: connections, and handshakes that are not over."""
        assert self.service is not None
        return len(self.service.connections) + len(self._handshakes)

    def _close_acceptors(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()

    async def _drain(self) -> None:
        service = self.service
        if service is None:
            return
        self.phase = Phase.DRAINING
        if self.cell is not None:
            self.cell[Field.ACCEPTING] = 0
        self._close_acceptors()
        await asyncio.sleep(0)  # asyncio's loop closes its servers a turn later (worker/acceptor.py, _close)
        if self._final:
            rest = [(acceptor, acceptor.take_rest()) for acceptor in self._acceptors]
            self.release()  # before anything is awaited: who connects from here on is refused, not reset (trap 60)
            until = self._loop.time() + LAST_HANDSHAKES
            for acceptor, taken in rest:
                await acceptor.serve_rest(taken, until)
        service.drain()
        await asyncio.sleep(0)  # connections that the loop had accepted already are made now
        # WebSockets run on for most of the time, and leave one after the other in the last part of it.
        window = WEBSOCKET_WINDOW * (self._deadline - self._loop.time())
        if not self._final:  # the sweep closes what is idle for longer than `keep_alive`
            await self._until(lambda: self._final or self._is_empty(), self._deadline - window)
        if self._final:
            await self._end_idle_and_streams(service)
            await self._until(self._is_empty, self._deadline - window)
        departure = service.close_websockets(self._deadline - window / 4)  # the rest is for closing handshakes
        await self._until(self._is_empty)
        departure.cancel()
        await self._close_idle(service)
        if service.active:
            for request in service.cancel("the time to drain is over"):
                log.warning("request cancelled, the time to drain is over: %s", request)
            self._deadline = self._loop.time() + UNWIND
            await self._until(lambda: not service.active)
        self._handshakes.give_up()
        service.abort()
        await asyncio.sleep(0)

    async def _end_idle_and_streams(self, service: Service) -> None:
        """On a final stop, also on one that comes while this worker drains: end what may never end by itself.

        Idle connections have `idle_grace`, streams and WebSockets `stream_grace`. An application that has not even
        looked by the end of a second `stream_grace` is cancelled (HTTP: `Service.sweep`). Others still have their time.
        """
        began, grace = self._loop.time(), self.config.stream_grace
        self.release()
        service.stop_streams()
        await self._until(self._is_empty, began + self.config.idle_grace)
        self._handshakes.give_up()  # a client that says nothing must not hold up the stop
        await self._close_idle(service)
        await self._until(self._is_empty, began + (1 - WEBSOCKET_WINDOW) * grace)
        departure = service.close_websockets(began + grace)
        await self._until(self._is_empty, began + grace)
        departure.cancel()
        service.end_streams(self._loop.time())
        await self._until(self._is_empty, began + 2 * grace)
        service.end_websockets()

    def _is_empty(self) -> bool:
        """Whether nothing is left to wait for: connections, handshakes, and apps that work on after their answer."""
        service = self.service
        assert service is not None
        return not (service.connections or service.active or self._handshakes)

    async def _close_idle(self, service: Service) -> None:
        """Close what is idle, without waiting for TLS clients, who may not look at a pooled connection for hours."""
        silent = [connection for connection in service.connections if connection.tls and connection.idle]
        service.close_idle()
        await self._until(lambda: service.connections.isdisjoint(silent), self._loop.time() + GOODBYE)
        for connection in silent:
            if connection in service.connections:
                connection.abort()

    async def _until(self, done: Callable[[], bool], end: float = math.inf) -> None:
        """Wait for `done`, at most until `end` and the deadline, which a second `drain` may move meanwhile.

        `end` is for clients, so it is put off by as long as the loop stands still: what they have sent is not read yet.
        """
        now = self._loop.time()
        while not done() and now < min(end, self._deadline):
            await asyncio.sleep(DRAIN_POLL)  # an event to wait on would have to be set by every request
            before, now = now, self._loop.time()
            end += max(0.0, now - before - DRAIN_POLL)

    def _beat(self) -> None:
        """The heart: beats as long as the loop turns, so that silence means that it does not."""
        self._timer = self._loop.call_later(BEAT, self._beat)
        self.beats += 1
        service = self.service
        if self.cell is not None:
            self.cell[Field.BEAT] = time.monotonic_ns()
            if service is not None:
                self.cell[Field.CONNECTIONS] = len(service.connections)
                self.cell[Field.REQUESTS] = service.requests
                self.cell[Field.ACTIVE] = service.active
                self.cell[Field.ACCEPTING] = self.phase is Phase.SERVING and not self._capacity.full
        if service is not None and self.phase is Phase.SERVING and self._capacity.has_room(self._held()):
            for acceptor in self._acceptors:
                acceptor.resume()
        if self.fairness is not None:
            self.fairness.look_around()
        if service is not None:
            self._sweep(service, self._loop.time())
        if self.on_beat is not None:
            self.on_beat(self)

    def _sweep(self, service: Service, now: float) -> None:
        """Look for overdue connections, once in a period: timeouts are whole seconds, one coarse timer serves all."""
        late = now - service.now - SWEEP_PERIOD
        if late < 0:
            return
        if late > STANDSTILL:
            service.postpone(late)
            self._handshakes.postpone(late)
        service.sweep(now)
        self._handshakes.sweep(now)
        for acceptor in self._acceptors:
            acceptor.tend()
