"""The values that every connection of a worker needs: settings, the clock, and the other connections.

Runs in the worker's loop. It must never hold what belongs to one connection alone, and knows nothing of the
applications' tasks (`application/tasks`).
"""

import asyncio
import contextvars
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

#: `Service.sweep` is called about this often (seconds). Deadlines are counted from a clock that may be a period old, so
#: a period is added to each: a timeout fires late by up to two periods, never early.
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


class Gathered(Protocol):
    """A connection that holds bytes back."""

    def write_held(self) -> None:
        """Write them."""


class Context:
    """The values that the connections of a worker share."""

    def __init__(self, config: Config, *, loop: asyncio.AbstractEventLoop, state: dict[str, Any]) -> None:
        self.config = config
        self.loop = loop
        self.state = state  # of the lifespan; each scope has a copy
        self.forwarding: Forwarding | None = None  # set if proxies' fields are to be believed
        if config.proxy_headers:
            self.forwarding = Forwarding(Peers(config.forwarded_allow_ips))
        self.connections: set[object] = set()  # the open `Connection`s, which know this
        self.more_streams = 0  # of HTTP/2, beside the first of each connection
        self.gathered: list[Gathered] = []  # connections whose last answer waits to be written with others'
        self.gather_until = 0.0  # of monotonic()
        self.draining = False
        self.leaving = Draining()  # the same, for applications
        self.now = loop.time()
        self.meter = Meter()
        self.metered = False  # whether the lists of `meter` are ever read
        #: Copied for every request, so that no request sees the variables of another.
        self.variables = contextvars.copy_context()
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
        """Take the clock (seconds of the loop), and renew the date field (RFC 9110 section 6.6.1) once a sweep."""
        self.now = now
        date = formatdate(usegmt=True).encode() if self.config.date_header else None
        self.defaults.renew(date)

    def write_gathered(self) -> None:
        """Write the answers that wait for the end of the turn."""
        gathered = self.gathered
        self.gathered = []
        for connection in gathered:
            connection.write_held()
