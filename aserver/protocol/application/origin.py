"""The original request that a trusted proxy reports, put into the scope of the request that the proxy made of it.

Runs in the worker's loop, for requests with forwarding fields only. It must never believe an untrusted peer.
"""

import time
from collections.abc import Mapping

from aserver.protocol.application.exchange import Exchange
from aserver.protocol.peer.forwarded import with_port
from aserver.protocol.peer.queue_time import FIELD, queue_time
from aserver.protocol.semantics.target import decode_path
from aserver.protocol.transport.connection import Connection


def apply_origin(connection: Connection, fields: Mapping[bytes, bytes], exchange: Exchange) -> None:
    """Set client, scheme, host and path of a request to those that its client has used, if its peer is trusted."""
    forwarding = connection.context.forwarding
    if forwarding is None or not forwarding.trusts(connection.client):
        return
    if FIELD in fields:
        waited = queue_time(fields[FIELD], time.clock_gettime(time.CLOCK_REALTIME))
        if waited is not None and connection.context.metered:
            connection.context.meter.queues.append(waited)
        fields = {name: value for name, value in fields.items() if name != FIELD}  # `read` remembers what comes again
    origin = forwarding.read(fields)
    scope = exchange.scope
    if origin.client is not None:
        exchange.client = scope["client"] = origin.client
    if origin.scheme is not None:
        scope["scheme"] = origin.scheme
    if origin.host is not None or origin.port is not None:
        headers = exchange.headers
        host = origin.host or next((value for name, value in headers if name == b"host"), None)
        if host:
            host = with_port(host, origin.port, scope["scheme"])
            exchange.headers = with_host(headers, host)
            scope["headers"] = exchange.headers.copy()
    if origin.prefix is not None and scope["path"] != "*":
        raw = origin.prefix.encode("ascii")
        prefix = decode_path(raw)
        scope["root_path"] = prefix + scope["root_path"]
        scope["path"] = prefix + scope["path"]
        scope["raw_path"] = raw + scope["raw_path"]


def with_host(headers: list[tuple[bytes, bytes]], host: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the headers with another Host, if there is one."""
    return headers if host is None else [(b"host", host), *[pair for pair in headers if pair[0] != b"host"]]
