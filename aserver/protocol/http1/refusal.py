"""The answer to a request that cannot be served, and its line in the access log."""

import logging
from time import monotonic
from typing import Final

from aserver.errors import ClientError
from aserver.protocol.application.access_record import Refusal
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.tasks import Tasks
from aserver.protocol.http1.encoder import Encoder
from aserver.protocol.http1.head import RequestHead
from aserver.protocol.semantics.response import Response
from aserver.protocol.transport.connection import Connection

log: Final = logging.getLogger("aserver.error")


def answer_refusal(
    link: Connection,
    encoder: Encoder,
    tasks: Tasks,
    error: ClientError,
    exchange: Exchange | None,
    *,
    head: RequestHead | None,
) -> None:
    """Answer a request, and end its connection; it is `exchange` if its head was good, else `head` as far as read."""
    log.debug("%s:%s is answered %d: %s", *(link.client or ("a client", "-")), error.status, error.reason)
    line = (None if head is None else head.line) or ("", b"", "")
    head_only = line[0] == "HEAD" if exchange is None else exchange.head_only
    response = Response(encoder.heads, True, head_only, False)
    link.writer.write_soon(encoder.first(response, response.answer(error.status)))
    if tasks.observed:
        fields = [] if head is None else head.fields
        tasks.finished(Refusal(error.status, exchange, client=link.client, line=line, headers=fields, now=monotonic()))
    link.linger()
