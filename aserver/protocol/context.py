"""What all connections of one worker share: the application, the limits, the clock, and who is there.

Runs in the worker's loop. It starts the applications of requests; it must never read or change what one connection
alone has, and knows nothing of HTTP but the fields that every answer carries.
"""

import asyncio
import contextvars
import sys
import warnings
from collections.abc import Callable
from email.utils import formatdate
from math import inf
from typing import Any, Final, Protocol

from aserver.asgi import ASGIApp
from aserver.config import Config
from aserver.protocol.drain_notice import Draining
from aserver.protocol.dropped import DroppedBodies
from aserver.protocol.fair_queue import FairQueue
from aserver.protocol.peer.forwarded import Forwarding
from aserver.protocol.semantics import wire
from aserver.protocol.semantics.response_head import Defaults

#: `Service.sweep` is called about this often (seconds). Deadlines are counted from a clock that may be one period
#: old, so one period is added to each: a timeout fires late by up to two periods, never early.
SWEEP_PERIOD: Final = 1.0

#: Whether mypyc has compiled this module and its like (pyproject.toml, hooks.mypyc).
COMPILED = not __file__.endswith(".py")
if COMPILED:
    # mypyc 2.4 hands a cancellation on in a way that Python 3.12 deprecates: with -W error nothing could be cancelled.
    warnings.filterwarnings("ignore", r"the \(type, exc, tb\) signature of throw", DeprecationWarning)

#: ASGI extensions that every request can have; trailers only where the client takes them. None may change what a
#: framework does unless its application asks for it: so `http.response.pathsend`, which sends files past middleware, is
#: there only if it was set, and `http.response.debug` never. An application asks for early hints by name.
EXTENSIONS: Final[dict[str, dict[str, Any]]] = {"http.response.early_hint": {}}

#: Whether a task can begin without a turn of the loop of its own.
EAGER: Final = sys.version_info >= (3, 12)


class Running(Protocol):
    """A request whose application runs, as the service sees it."""

    task: asyncio.Task[None] | None

    async def run(self) -> None:
        """Call the application."""

    def describe(self, now: float) -> str:
        """Return `GET /x, 31.2 s`."""

    def cancel(self, reason: str) -> None:
        """Cancel the application's task."""

    @property
    def open_ended(self) -> bool:
        """Whether it is a stream: an HTTP answer that has begun, of no known length."""

    def end_stream(self) -> None:
        """End it, if it is one, as if its client had left."""


class Writer(Protocol):
    """A connection that holds bytes back."""

    def write_held(self) -> None:
        """Write them."""


class Context:
    """What all connections of one worker share: the application, the limits, the clock, who is there."""

    def __init__(
        self,
        app: ASGIApp,
        config: Config,
        *,
        loop: asyncio.AbstractEventLoop,
        state: dict[str, Any],
        access: Callable[..., None] | None = None,
        timed: bool = True,
        on_limit: Callable[[], None] | None = None,
    ) -> None:
        self.app = app
        self.config = config
        self.loop = loop
        self.state = state
        self.access = access
        self.timed = timed and access is not None  # somebody wants durations
        self.on_limit = on_limit
        #: Called with the target of each request whose application begins.
        self.note: Callable[[bytes], None] | None = None
        self.exchange: Callable[..., Any]  # makes the requests; see `choose`
        self.forwarding: Forwarding | None = None  # set if proxies' fields are to be believed
        self.connections: set[Any] = set()  # open ones; of Connection, whose module imports this one
        self.running: set[Running] = set()
        #: Running ones whose client has gone, and when they are cancelled (seconds of the loop's clock); infinite until
        #: their answer has begun.
        self.abandoned: dict[Any, float] = {}
        self.patience = config.disconnect_grace
        self._ready: list[Running] = []  # running ones that `_start_ready` has yet to start
        self.gathered: list[Writer] = []  # those whose last answer waits to be written with others'
        self.gather_until = 0.0  # of monotonic()
        self.requests = 0
        self.good_host: bytes | None = None  # the last Host that any connection found well-formed
        self.known: Any = None  # the last head that any connection served
        self.dropped = DroppedBodies()
        self.draining = False
        self.stopping = False  # draining, and no other process will serve these clients
        self._streams: dict[Running, float] = {}  # since when each has been one, as far as we have looked
        self.leaving = Draining()  # the same, for applications
        self.now = loop.time()
        #: Copied for every request, so that nothing one of them sets is seen by another.
        self.variables = contextvars.copy_context()
        self.fair_queue = FairQueue(loop, self.variables)
        self._header_pairs = [wire.parse_header_setting(setting) for setting in config.header]
        if config.server_header:
            self._header_pairs.append((b"server", b"aserver"))
        self.defaults = Defaults((), None)
        self.tick_date()
        self.extensions = EXTENSIONS | {"http.response.pathsend": {}} if config.pathsend else EXTENSIONS
        self.root_path = config.root_path.rstrip("/")
        self.raw_root_path = self.root_path.encode("ascii", "replace")
        self.keep_alive = config.keep_alive + SWEEP_PERIOD
        self.header_timeout = config.header_timeout + SWEEP_PERIOD
        self.body_timeout = config.body_timeout + SWEEP_PERIOD
        self.write_timeout = config.write_timeout + SWEEP_PERIOD
        self.limit_request_line = config.limit_request_line
        self.limit_request_fields = config.limit_request_fields
        self.limit_request_field_size = config.limit_request_field_size
        self.limit_request_body = config.limit_request_body or inf
        self.limit_concurrency = config.limit_concurrency or inf
        #: A head of at most so many bytes breaks no limit of size.
        self.small_head = min(self.limit_request_line, self.limit_request_field_size)
        self.choose(config)

    def choose(self, config: Config) -> None:
        """Set `exchange` and `forwarding` as the settings want it: their modules import this one."""
        raise NotImplementedError

    def start(self, request: Running) -> None:
        """Start a request's application in a context of its own, with the next turn of the loop.

        Not at once, though Python 3.12 could: a task started inside `data_received` makes an answer before the loop
        has read the next connection, and these small turns cost 20 % more CPU per request under load. Starting all
        of a turn eagerly from one callback saves 6 % (3.12) to 10 % (3.13) over a scheduled task each.
        """
        self.running.add(request)
        if EAGER:
            self._ready.append(request)
            if len(self._ready) == 1:
                self.loop.call_soon(self._start_ready, context=self.variables)
        else:
            request.task = self.loop.create_task(request.run(), context=self.variables.copy())

    def _start_ready(self) -> None:
        ready = self._ready
        self._ready = []
        loop = self.loop
        # A task factory of the application's (tracing) is obeyed.
        if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
            for request in ready:
                request.task = asyncio.Task(request.run(), loop=loop, context=self.variables.copy(), eager_start=True)
        else:
            for request in ready:
                request.task = loop.create_task(request.run(), context=self.variables.copy())

    def write_gathered(self) -> None:
        """Write the answers that wait for the end of the turn."""
        gathered = self.gathered
        self.gathered = []
        for connection in gathered:
            connection.write_held()

    def tick_date(self) -> None:
        """Renew the cached Date line (RFC 9110 section 6.6.1); cheap enough to be called at every sweep."""
        date = formatdate(usegmt=True).encode() if self.config.date_header else None
        self.defaults.update(self._header_pairs, date)
