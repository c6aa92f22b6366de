"""The values that all connections of a worker share: settings, the clock, and the set of connections.

Runs in the worker's loop. It must never hold a value of a single connection. The application's tasks are not here, but
in `application/tasks`.
"""

import asyncio
import contextvars
import logging
import warnings
from email.utils import formatdate
from typing import Any, Final, Protocol

from aserver.config import Config
from aserver.metrics.meter import Meter
from aserver.protocol.drain_notice import Draining
from aserver.protocol.fair_queue import FairQueue
from aserver.protocol.peer.forwarded import Forwarding
from aserver.protocol.peer.trust import Peers
from aserver.protocol.semantics import fields
from aserver.protocol.semantics.response_head import Defaults

log = logging.getLogger("aserver.error")

#: Seconds between two calls of `Service.sweep`. Deadlines are counted from `Context.now`, which may be a period old. So
#: a period is added to each, and a timeout is late by up to two periods, but never early.
SWEEP_PERIOD: Final = 1.0

#: Whether mypyc has compiled this module, and the others that pyproject.toml lists (hooks.mypyc).
COMPILED = not __file__.endswith(".py")
if COMPILED:
    # mypyc 2.4 calls `throw` in a way that Python 3.12 deprecates. With -W error no task could be cancelled.
    warnings.filterwarnings("ignore", r"the \(type, exc, tb\) signature of throw", DeprecationWarning)

#: The ASGI extensions of every request. `begin` adds trailers if the client takes them. An extension must not change
#: what a framework does unasked. So `http.response.pathsend`, with which files go past middleware, needs the setting
#: `pathsend`, and `http.response.debug` is never there. Early hints are safe: applications send them by name.
EXTENSIONS: Final[dict[str, dict[str, Any]]] = {"http.response.early_hint": {}}


class Gathered(Protocol):
    """A connection that holds bytes back until the end of the turn."""

    def write_held(self) -> None:
        """Write the bytes that are held back."""


class Context:
    """The values that the connections of a worker share."""

    def __init__(self, config: Config, *, loop: asyncio.AbstractEventLoop, state: dict[str, Any]) -> None:
        self.config = config
        self.loop = loop
        self.state = state  # the lifespan's; each scope has a copy
        self.forwarding: Forwarding | None = None  # None if no proxy is believed
        if config.proxy_headers:
            self.forwarding = Forwarding(Peers(config.forwarded_allow_ips))
        self.connections: set[object] = set()  # open `Connection`s, which add themselves
        self.more_streams = 0  # HTTP/2's open streams, without the first of each connection
        self.gathered: list[Gathered] = []  # connections whose answers are written at the end of this turn
        self.gather_until = 0.0  # by monotonic(); see GATHER_SECONDS
        self.draining = False
        self.leaving = Draining()  # `draining`, as applications see it
        self.now = loop.time()
        self.meter = Meter()
        self.metered = False  # whether anything reads the lists of `meter`
        self.variables = contextvars.copy_context()  # copied for each request
        self.fair_queue = FairQueue(loop, self.variables)
        configured = [fields.parse_header_setting(setting) for setting in config.header]
        if config.server_header:
            configured.append((b"server", b"aserver"))
        self.defaults = Defaults(configured, None)
        self.tick(self.now)
        self.extensions = EXTENSIONS | {"http.response.pathsend": {}} if config.pathsend else EXTENSIONS
        self.root_path = config.root_path.rstrip("/")
        self.raw_root_path = self.root_path.encode("ascii", "replace")
        self.keep_alive = config.keep_alive + SWEEP_PERIOD
        self.header_timeout = config.header_timeout + SWEEP_PERIOD
        self.body_timeout = config.body_timeout + SWEEP_PERIOD
        self.write_timeout = config.write_timeout + SWEEP_PERIOD

    def tick(self, now: float) -> None:
        """Set `now`, the loop's time, and renew the date field (RFC 9110 section 6.6.1) and the level of the log."""
        self.now = now
        self.verbose = log.isEnabledFor(logging.DEBUG)  # connections do not ask the log: 0.2 us each time
        date = formatdate(usegmt=True).encode() if self.config.date_header else None
        self.defaults.renew(date)

    def write_gathered(self) -> None:
        """Write the answers that were held back until the end of the turn."""
        gathered = self.gathered
        self.gathered = []
        for connection in gathered:
            connection.write_held()
