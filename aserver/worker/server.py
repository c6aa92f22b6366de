"""The server of an event loop: accept, serve, drain. The forked worker and `serve(app)` both run it.

Runs in a worker's loop or the embedding program's. It must not handle signals, use a channel, or end the process. The
listening sockets stay the caller's.
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
from aserver.metrics.page import Awaited, write_owed
from aserver.protocol.context import SWEEP_PERIOD
from aserver.protocol.drain_notice import Draining
from aserver.protocol.peer.trust import Peers
from aserver.protocol.service import Service
from aserver.protocol.transport.handshakes import Handshakes
from aserver.worker.acceptor import Acceptor, Endpoint
from aserver.worker.capacity import Capacity
from aserver.worker.drain import ServerDrain
from aserver.worker.fairness import PAUSE, Fairness
from aserver.worker.health import with_health_check
from aserver.worker.lifespan import Lifespan
from aserver.worker.native_server import SocketPoll, poll_of
from aserver.worker.relay import Relay
from aserver.wsgi.application import WSGIApplication

log = logging.getLogger("aserver.error")

#: Seconds between two heartbeats; four fit into the shortest useful `slow_callback`. A beat costs 0.3 us.
BEAT = 0.1
#: A sweep that is later than this (seconds) is late because the loop stood still: kept by an application, or halted.
STANDSTILL = 0.5


class ServingPhase(enum.Enum):
    """The phases of a server, in this order."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(slots=True)
class Server:
    """Serve `app` on `endpoints` until `drain` is called.

    `cell` is the worker's place on the board, if there is a board, and `note` writes there the request that was begun
    last. `on_beat` is called at every heartbeat, so that the process can watch its age, requests and memory. `release`
    closes the listeners for good, on a final drain: a client that connects after that is refused at once, instead of
    waiting in a queue that no process reads. `page` is the place of its counters, among them the log records that are
    lost, as `dropped` tells. `relay` takes idle connections to and from other workers (`reload`).
    `wsgi` has the threads of a WSGI app. `readiness` answers for the whole server, at `health_check`.
    """

    app: ASGIApp
    config: Config
    endpoints: Sequence[Endpoint]
    release: Callable[[], None]
    access: AccessLog | None = None
    cell: memoryview | None = None
    page: memoryview | None = None
    note: Callable[[bytes], None] | None = None
    fairness: Fairness | None = None
    on_beat: Callable[["Server"], None] | None = None
    dropped: Callable[[], int] = int
    relay: Relay | None = None
    wsgi: WSGIApplication | None = None
    readiness: Callable[[], tuple[bool, str]] | None = None
    phase: ServingPhase = ServingPhase.STARTING
    service: Service | None = None
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _capacity: Capacity = field(init=False)
    handshakes: Handshakes = field(init=False)
    acceptors: list[Acceptor] = field(default_factory=list)
    _poll: "SocketPoll | None" = None
    _drain: ServerDrain = field(init=False)
    _boot_scope: anyio.CancelScope = field(init=False)
    _timer: asyncio.TimerHandle | None = None
    beats: int = 0
    _due: float = math.inf  # when the next heartbeat is due, by the loop's clock
    _lag: float = 0.0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._capacity = Capacity.of(self.config)
        self.handshakes = Handshakes(self._loop, self.config.header_timeout)
        self._drain = ServerDrain(self.config, self._loop, self.handshakes, self.release, self.relay)
        self._boot_scope = anyio.CancelScope()

    async def run(self, ready: Callable[[], None]) -> None:
        """Lifespan startup, `ready()`, serve until told to drain, drain, lifespan shutdown.

        Raises BootError if lifespan startup fails. Being cancelled is a final drain.
        """
        lifespan = Lifespan(self.app, self.config.lifespan)
        lifespan.state["aserver.draining"] = Draining()  # for tasks that the app runs beside its requests
        self.beat()
        try:
            with self._boot_scope:
                await lifespan.startup(self.config.boot_timeout)
                await self._open(lifespan.state)
                ready()
            try:
                if self.phase is ServingPhase.SERVING:
                    await self._drain.ordered.wait()
            finally:
                with anyio.CancelScope(shield=True):
                    if not self._drain.ordered.is_set():  # cancelled by the embedding program
                        self.drain(final=True, graceful=self.config.graceful_timeout)
                        self._say_for_what_it_waits()
                    try:
                        await self._run_drain()
                    except asyncio.CancelledError:  # a second time, as by a second Ctrl-C under asyncio.run()
                        if self.service is not None:
                            await self._drain.cut_off(self.service)
                        raise
                    finally:
                        await lifespan.shutdown(self.config.lifespan_shutdown_timeout)
        finally:
            if self.wsgi is not None:
                with anyio.CancelScope(shield=True):
                    await self.wsgi.close()
            self.phase = ServingPhase.STOPPED
            self._write_counters()
            self._close_acceptors()
            if self._timer is not None:
                self._timer.cancel()
            if self._poll is not None:
                self._poll.close()

    def drain(self, *, final: bool, graceful: float) -> None:
        """Stop accepting, give requests under way `graceful` seconds, leave. Another call can only shorten the time.

        `final`: no other process accepts on these listeners, so clients in the kernel's queue are served first, and
        idle connections get `idle_grace` only.
        """
        self._drain.order(final=final, graceful=graceful)
        if self.phase is ServingPhase.STARTING:
            self._boot_scope.cancel()

    def _say_for_what_it_waits(self) -> None:
        """Warn, because a program whose logging is not set up shows nothing less."""
        waiting = self.service.tasks.describe() if self.service is not None else []
        if waiting:
            text = "cancelled: requests under way have up to %g s (cancel again to end them at once): %s"
            log.warning(text, self.config.graceful_timeout, "; ".join(waiting))

    @property
    def time_left(self) -> float:
        """Seconds of the time to drain that are left; 0 without a drain."""
        return self._drain.time_left

    @property
    def stuck(self) -> int:
        """The number of threads that do not come back from requests that were given up (`request_timeout`)."""
        return self.wsgi.stuck if self.wsgi is not None else 0

    @property
    def owed(self) -> list[Awaited]:
        """For each client that has a descriptor here, the next thing that it has to do before a deadline."""
        return [*self.handshakes.owed, *(self.service.owed if self.service is not None else ())]

    async def _open(self, state: dict[str, Any]) -> None:
        access: dict[str, Any] = {}
        if self.access is not None:
            access = {"access": self.access.write, "lines": self.access.plain, "timed": self.access.timed}
        app, path = self.app, self.config.health_check
        if path is not None:
            app = with_health_check(app, path, self.readiness or self._is_ready)
        self.service = Service(
            app,
            self.config,
            loop=self._loop,
            state=state,
            note=self.note,
            leaving=state["aserver.draining"],
            overdue=self.wsgi.overdue if self.wsgi is not None else None,
            metered=self.page is not None and self.config.metrics,
            **access,
        )
        mode = self.config.proxy_protocol
        proxy = None if mode == "off" else (mode, Peers(self.config.forwarded_allow_ips))
        self._poll = poll_of(self._loop)
        for endpoint in self.endpoints:
            if endpoint.tls is not None:
                endpoint.tls.look(patient=False)  # the zygote may have read the certificates long ago
            scheme = "https" if endpoint.tls else "http"
            factory = self.service.protocol_factory(
                scheme=scheme, tls=endpoint.tls is not None, h2c=endpoint.h2c, server=endpoint.server
            )
            factory = self._politely(factory)
            self.acceptors.append(
                Acceptor(
                    endpoint,
                    factory,
                    self.config.backlog,
                    self._loop,
                    self.handshakes,
                    proxy,
                    self._poll if proxy is None else None,
                )
            )
        for acceptor in self.acceptors:
            await acceptor.open()
        if self.relay is not None:
            self.relay.take(self._loop, self.service.protocol_factory(), self._poll)
        self.phase = ServingPhase.SERVING

    def _is_ready(self) -> tuple[bool, str]:
        ready = self.phase is ServingPhase.SERVING
        return ready, "the worker serves" if ready else "the server stops"

    def _politely(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Have each call of `factory`, so each accepted connection, compare our load with that of other workers.

        A full worker suspends its acceptors; a worker with clearly more connections than others pauses them.
        """
        service, fairness = self.service, self.fairness
        capacity = self._capacity
        assert service is not None

        def pause() -> None:
            for acceptor in self.acceptors:
                acceptor.pause(PAUSE)

        def suspend() -> None:
            if self._drain.ordered.is_set():  # after the call was scheduled
                return
            capacity.fill()
            for acceptor in self.acceptors:
                acceptor.suspend()

        def change(how: Callable[[], None]) -> None:
            # Scheduled, not called: uvloop asserts that a server which is just making a transport is open.
            self._loop.call_soon(how)
            for acceptor in self.acceptors:
                acceptor.hold()

        connections, context, handshakes = service.connections, service.context, self.handshakes.deadlines

        def make() -> asyncio.Protocol:
            clients = len(connections) + 1
            if clients + len(handshakes) >= capacity.limit:
                change(suspend)
            elif fairness is not None and fairness.crowded(clients + context.more_streams):
                change(pause)
            return factory()

        return make

    def _clients(self) -> int:
        """The number of clients that have a descriptor here: connections, and handshakes that are not over."""
        assert self.service is not None
        return len(self.service.connections) + len(self.handshakes)

    def _close_acceptors(self) -> None:
        for acceptor in self.acceptors:
            acceptor.close()
        if self.relay is not None:
            self.relay.take_no_more(self._loop)

    async def _run_drain(self) -> None:
        if self.service is None:
            return
        self.phase = ServingPhase.DRAINING
        if self.cell is not None:
            self.cell[Field.ACCEPTING] = 0
        self._close_acceptors()
        await self._drain.run(self.service, self.acceptors)

    def beat(self) -> None:
        """Write the heartbeat, and again every BEAT seconds: silence on the board means that the loop stands still."""
        self._timer = self._loop.call_later(BEAT, self.beat)
        self.beats += 1
        service = self.service
        if self.cell is not None:
            late = max(0.0, self._loop.time() - self._due)
            self._lag = max(self._lag, late)
            self._due = self._loop.time() + BEAT
            self.cell[Field.BEAT] = time.monotonic_ns()
            if service is not None:
                self.cell[Field.CONNECTIONS] = service.load
                self.cell[Field.REQUESTS] = service.requests
                self.cell[Field.ACTIVE] = service.active
                self.cell[Field.ACCEPTING] = self.phase is ServingPhase.SERVING and not self._capacity.full
                service.meter.lags.append(late)
                self._write_counters()
        if service is not None and self.phase is ServingPhase.SERVING and self._capacity.has_room(self._clients()):
            for acceptor in self.acceptors:
                acceptor.resume()
        if self.fairness is not None:
            self.fairness.look_again()
        if service is not None:
            self.sweep(service, self._loop.time())
        if self.on_beat is not None:
            self.on_beat(self)

    def _write_counters(self) -> None:
        """Put what was counted onto the page."""
        if self.page is not None and self.service is not None:
            self.service.meter.flush(self.page, self.dropped())

    def sweep(self, service: Service, now: float) -> None:
        """Look for overdue connections, once in a period.

        Timeouts are whole seconds, so a single coarse timer serves all.
        """
        late = now - service.context.now - SWEEP_PERIOD
        if late < 0:
            return
        if late > STANDSTILL:
            service.postpone(late)
            self.handshakes.postpone(late)
        if self.cell is not None:
            self.cell[Field.WEBSOCKETS] = service.websockets
            self.cell[Field.LAG], self._lag = int(self._lag * 1e9), 0.0
        if self.page is not None:
            write_owed(self.page, self.owed)
        service.sweep(now)
        self.handshakes.sweep(now)
        for acceptor in self.acceptors:
            acceptor.tend()
