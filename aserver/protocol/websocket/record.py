"""The records of a WebSocket for the access log (`AccessRecord`): the first at the answer, the second at the end.

Pure shape; made only if there is an access log.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aserver.asgi import Scope


@dataclass(frozen=True, slots=True)
class SocketRecord:
    """Of the answer: `method` is the request's, `status` of HTTP. Of the end: WEBSOCKET, the close code as status."""

    method: str
    status: int
    client: tuple[str, int] | None
    target: bytes
    sent: int  # bytes of payload, of all messages (of the body, if denied)
    headers: Sequence[tuple[bytes, bytes]]
    response_headers: Sequence[tuple[bytes, bytes]]
    started: float
    duration: float  # seconds since the request was complete
    request_id: str | None
    scope: Scope | None
    version: str
    connection: None = None
