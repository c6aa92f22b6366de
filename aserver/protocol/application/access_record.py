"""The access log's record of a request that the server refuses; a served request's is its `Exchange`.

Pure; runs where the connection runs.
"""

from collections.abc import Sequence

from aserver.asgi import Scope
from aserver.log.access.record import AccessRecord
from aserver.protocol.semantics.status import plain_text


class Refusal:
    """The record of a request that the server answered by itself, such as with 400.

    `exchange` is the request's record if its head was good; else what is known of it is `line` (method, target,
    version) and `headers`.
    """

    #: See `AccessRecord`.
    connection = None

    __slots__ = (
        "client",
        "duration",
        "headers",
        "method",
        "request_id",
        "response_headers",
        "scope",
        "sent",
        "started",
        "status",
        "target",
        "version",
    )

    def __init__(
        self,
        status: int,
        exchange: AccessRecord | None,
        *,
        client: tuple[str, int] | None,
        line: tuple[str, bytes, str],
        headers: Sequence[tuple[bytes, bytes]],
        now: float,
    ) -> None:
        self.client = exchange.client if exchange is not None else client
        self.status = status
        self.sent = len(plain_text(status))
        self.response_headers: Sequence[tuple[bytes, bytes]] = ()
        self.method = exchange.method if exchange is not None else line[0]
        self.target = exchange.target if exchange is not None else line[1]
        self.version = exchange.version if exchange is not None else line[2]
        self.headers = exchange.headers if exchange is not None else headers
        self.request_id = exchange.request_id if exchange is not None else None
        self.started = exchange.started if exchange is not None else now
        self.duration = now - self.started
        self.scope: Scope | None = exchange.scope if exchange is not None else None
