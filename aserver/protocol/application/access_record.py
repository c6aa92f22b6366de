"""The access log's records of WebSockets, and of requests that the server refuses. A served request is a record itself.

Pure. A WebSocket has two records. The first is made with the answer to its opening request, with that request's method
and status. The second is made at its end: the method is WEBSOCKET, the status is the close code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aserver.asgi import Scope
from aserver.log.access.record import AccessRecord
from aserver.protocol.semantics.status import plain_text


@dataclass(slots=True)
class PlainRecord:
    """An `AccessRecord` whose values are given."""

    client: tuple[str, int] | None
    method: str
    target: bytes
    version: str
    status: int
    sent: int  # at a WebSocket's end: the bytes of payload of all its messages
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
    """Return the record of a request that the server answered by itself, for example with 400.

    `exchange` is the request, or None if its head was illegal: then `client`, `line` (method, target, version) and
    `headers` are used.
    """
    sent = len(plain_text(status))
    if exchange is None:
        return PlainRecord(client, *line, status, sent, headers, (), now, 0.0)
    e = exchange
    line, age = (e.method, e.target, e.version), now - e.started
    return PlainRecord(e.client, *line, status, sent, e.headers, (), e.started, age, e.request_id, e.scope)
