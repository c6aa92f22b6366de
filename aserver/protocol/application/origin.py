"""The original request that a trusted proxy reports, put into the scope of the request that the proxy made of it.

Runs in the worker's loop, for requests with forwarding fields only. It must never be given fields of an untrusted peer.
"""

from aserver.protocol.application.exchange import Exchange
from aserver.protocol.peer.forwarded import Origin, with_port
from aserver.protocol.semantics.target import decode_path


def apply_origin(origin: Origin, exchange: Exchange) -> None:
    """Set client, scheme, host and path of a request to those that its client has used."""
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
            exchange.headers = [(b"host", host), *[pair for pair in headers if pair[0] != b"host"]]
            scope["headers"] = exchange.headers.copy()
    if origin.prefix is not None and scope["path"] != "*":
        raw = origin.prefix.encode("ascii")
        prefix = decode_path(raw)
        scope["root_path"] = prefix + scope["root_path"]
        scope["path"] = prefix + scope["path"]
        scope["raw_path"] = raw + scope["raw_path"]
