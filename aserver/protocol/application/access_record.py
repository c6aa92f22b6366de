"""What a finished response tells an access log.

Pure shapes; runs where the connection runs. Nothing here is made unless there is an access log, except by a refusal.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from aserver.asgi import Scope
from aserver.protocol.semantics import wire


class AccessRecord(Protocol):
    """What an access log gets of a finished response; `exchange.Exchange` and `Refusal` have this shape.

    It is kept until the tick of the loop ends, when the lines are made; nothing that is in it may change any more.
    """

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port; None over unix sockets."""

    @property
    def method(self) -> str:
        """Such as "GET"; "" if the request line could not be read."""

    @property
    def target(self) -> bytes:
        """The request target as sent, with its query; b"" if it could not be read."""

    @property
    def version(self) -> str:
        """Such as "1.1"; "" if it could not be read."""

    @property
    def status(self) -> int:
        """0 if the connection ended before the application gave one."""

    @property
    def sent(self) -> int:
        """Bytes of body, without framing; for HEAD what GET would have sent."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Of the request, names in lower case."""

    @property
    def response_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """As the application gave them; the server's own additions are not in it."""

    @property
    def started(self) -> float:
        """When the head was complete: seconds of the loop's clock (monotonic)."""

    @property
    def duration(self) -> float:
        """Seconds from `started` until the last byte was handed to the transport."""

    @property
    def scope(self) -> Scope | None:
        """The ASGI scope; None for a refusal."""

    @property
    def connection(self) -> Any:
        """What the request came on, whose `logged` is the access log's, of an exchange; else None."""


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
        self.client = client
        self.status = status
        self.sent = len(wire.plain_text(status))
        self.response_headers: Sequence[tuple[bytes, bytes]] = ()
        self.method = exchange.method if exchange is not None else line[0]
        self.target = exchange.target if exchange is not None else line[1]
        self.version = exchange.version if exchange is not None else line[2]
        self.headers = exchange.headers if exchange is not None else headers
        self.started = exchange.started if exchange is not None else now
        self.duration = now - self.started
        self.scope: Scope | None = exchange.scope if exchange is not None else None
