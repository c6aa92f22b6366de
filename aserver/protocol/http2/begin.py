"""How the exchange of a request begins on a stream, whether its head is new or says the same as one before it.

Runs in the worker's loop, at each request. It must never give two requests a value that an application could change.
"""

from collections.abc import Mapping

from aserver.protocol.application.begin import ASGI, begin_exchange
from aserver.protocol.application.exchange import Carrier, Exchange
from aserver.protocol.http2.carrier import StreamCarrier, StreamConnection
from aserver.protocol.http2.request import StreamRequest
from aserver.protocol.http2.streams import HALF_CLOSED_REMOTE


def begin(connection: StreamConnection, carrier: StreamCarrier, request: StreamRequest) -> Exchange:
    """Return the exchange of a request, to which its stream belongs from now on. Raises ClientError."""
    framing = request.framing
    complete = carrier.incoming is None
    bodiless = complete and b"te" not in framing
    exchange = exchange_of(
        connection, carrier, request, None if bodiless else framing, 0 if complete else request.length
    )
    if request.scope is None:
        request.scope = {}  # most never come again, so that only the second is remembered
    elif complete and not (framing or request.forwarding):
        request.scope = {**exchange.scope}
    if carrier.incoming is not None:
        carrier.incoming.patient = True
    carrier.exchange = exchange
    carrier.owner = carrier
    exchange.launched = True
    return exchange


def repeat(connection: StreamConnection, number: int, request: StreamRequest) -> Exchange:
    """Return the exchange of a request whose scope `begin` has remembered, on a new stream.

    The values inside the scope are copied, too, because an application may change them.
    """
    scope = request.scope
    assert scope is not None
    streams = connection.streams
    carrier = StreamCarrier(connection, number, streams.peer_window)
    streams.open[number] = carrier
    carrier.owner = carrier
    carrier.state = HALF_CLOSED_REMOTE
    if request.priority is not None:
        carrier.urgency, carrier.incremental = request.priority
    link = connection.link
    headers = request.headers
    again = {**scope}
    again["asgi"] = ASGI.copy()
    again["headers"] = headers.copy()
    again["state"] = link.context.state.copy()
    again["extensions"] = link.extensions.copy()
    exchange = carrier.exchange = Exchange(
        carrier, connection.encoder.heads, again, request.target, request.method, "2", headers, True
    )
    exchange.complete = exchange.launched = True
    return exchange


def exchange_of(
    connection: StreamConnection,
    carrier: Carrier,
    request: StreamRequest,
    framing: Mapping[bytes, bytes] | None,
    length: int,
) -> Exchange:
    """Return the exchange of a request (see `begin_exchange`). Raises ClientError."""
    return begin_exchange(  # by position, see there
        carrier,
        connection.link,
        connection.encoder.heads,
        request.method,
        request.target,
        "2",
        request.headers,
        True,
        request.forwarding,
        framing,
        length,
    )
