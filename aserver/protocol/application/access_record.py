"""The access log's records of a WebSocket, and of a request that the server refuses; a served request is its own.

Pure; runs where the connection runs. A WebSocket has two: at the answer (its method and status are HTTP's), and at the
end (method WEBSOCKET, the close code as status).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aserver.asgi import Scope
from aserver.log.access.record import AccessRecord
from aserver.protocol.semantics.status import plain_text


@dataclass(slots=True)
class PlainRecord:
    """See `AccessRecord`."""

    client: tuple[str, int] | None
    method: str
    target: bytes
    version: str
    status: int
    sent: int  # of a WebSocket's end: bytes of payload, of all messages
    headers: Sequence[tuple[bytes, bytes]]
    response_headers: Sequence[tuple[bytes, bytes]]
    started: float
    duration: float
    request_id: str | None = None
    scope: Scope | None = None
    connection: None = None


def refusal(
    status: int,
    exchange: AccessRecord | None,
    *,
    client: tuple[str, int] | None,
    line: tuple[str, bytes, str],
    headers: Sequence[tuple[bytes, bytes]],
    now: float,
) -> PlainRecord:
    """Return the record of a request that the server answered by itself, such as with 400.

    `exchange` is the request if its head was good; else `line` (method, target, version) and `headers` are known of it.
    """
    sent = len(plain_text(status))
    if exchange is None:
        return PlainRecord(client, *line, status, sent, headers, (), now, 0.0)
    e, started = exchange, exchange.started
    return PlainRecord(
        e.client,
        e.method,
        e.target,
        e.version,
        status,
        sent,
        e.headers,
        (),
        started,
        now - started,
        e.request_id,
        e.scope,
    )
