from collections.abc import Callable

from aserver.protocol.application.tasks import Tasks
from aserver.protocol.context import Context
from aserver.protocol.semantics.limits import RequestLimits
from aserver.protocol.semantics.response_head import Heads
from aserver.protocol.transport.connection import Connection, Handler

class PlainRequests:
    gather_until: float
    @property
    def requests(self) -> int: ...
    def __init__(
        self, tasks: Tasks, context: Context, heads: Heads, limits: RequestLimits, make: Callable[[Connection], Handler]
    ) -> None: ...
    def begin(self, link: Connection) -> Handler: ...
    def renew(self) -> None: ...
