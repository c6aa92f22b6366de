"""The start of an exchange, in any version of HTTP: the scope of a request, its body, and its trailers.

Runs in the worker's loop, for each request. It must never believe the forwarding fields of an untrusted peer. An
application may change its scope, so no value in it may be shared with another request, unless it is immutable.
"""

import time
from collections.abc import Mapping
from typing import Final

from aserver.asgi import VERSIONS
from aserver.protocol.application.body import RequestBody
from aserver.protocol.application.exchange import Carrier, Exchange
from aserver.protocol.peer.forwarded import with_port
from aserver.protocol.peer.queue_time import FIELD, queue_time
from aserver.protocol.semantics.fields import accepts_trailers
from aserver.protocol.semantics.response_head import Heads
from aserver.protocol.semantics.target import decode_path, split_target
from aserver.protocol.transport.connection import Connection

# Numbers, because `int in bytes` is a memchr(3). `bytes in bytes` costs 0.1 us more, `partition` 0.05.
_SLASH: Final = 0x2F
_QUESTION_MARK: Final = 0x3F
_PERCENT: Final = 0x25

ASGI: Final = VERSIONS.copy()  # a copy, because compiled code finds a module's own names faster


def begin_exchange(  # noqa: PLR0917 - by keyword it is 0.3 us more, at each request
    carrier: Carrier,
    link: Connection,
    heads: Heads,
    method: str,
    target: bytes,
    version: str,
    headers: list[tuple[bytes, bytes]],
    keep_alive: bool,  # noqa: FBT001
    forwarding: Mapping[bytes, bytes],
    framing: Mapping[bytes, bytes] | None,
    length: int,
) -> Exchange:
    """Return the exchange of a request (see `RequestSink.on_request`). Raises ClientError for an illegal target."""
    if target[0] != _SLASH:
        path, query, host = split_target(method, target)
        headers = _with_host(headers, host)  # the target's host replaces the field (RFC 9112 section 3.2.2)
    elif _QUESTION_MARK in target:
        path, _, query = target.partition(b"?")
    else:
        path, query = target, b""
    text = decode_path(path) if _PERCENT in path else path.decode("ascii")
    context = link.context
    if context.root_path and target != b"*":
        text = context.root_path + text
        path = context.raw_root_path + path
    scope = {
        "type": "http",
        "asgi": ASGI.copy(),
        "http_version": version,
        "server": link.server,
        "client": link.client,
        "scheme": link.scheme,
        "root_path": context.root_path,
        "method": method,
        "path": text,
        "raw_path": path,
        "query_string": query,
        "headers": headers.copy(),  # the application may change its list
        "state": context.state.copy(),
        "extensions": link.extensions.copy(),
    }
    exchange = Exchange(carrier, heads, scope, target, method, version, headers, keep_alive)
    if framing is None:
        exchange.complete = True
    else:
        _apply_framing(exchange, framing, length)
    if forwarding:
        _apply_origin(link, forwarding, exchange)
    return exchange


def _apply_framing(exchange: Exchange, framing: Mapping[bytes, bytes], length: int) -> None:
    """Set the body and its `100 Continue`, and whether trailers may be sent, by the framing fields of the request."""
    if length:
        expected = exchange.modern and b"expect" in framing
        exchange.request_body = RequestBody(None if length < 0 else length, continue_expected=expected)
    else:
        exchange.complete = True
    if exchange.modern:
        te = framing.get(b"te")
        if te is not None and accepts_trailers(te):
            exchange.trailers_allowed = True
            exchange.scope["extensions"]["http.response.trailers"] = {}
    else:
        del exchange.scope["extensions"]["http.response.early_hint"]


def _apply_origin(connection: Connection, fields: Mapping[bytes, bytes], exchange: Exchange) -> None:
    """If the peer is trusted, set client, scheme, host and path to those of the original request."""
    forwarding = connection.context.forwarding
    if forwarding is None or not forwarding.trusts(connection.client):
        return
    if FIELD in fields:
        waited = queue_time(fields[FIELD], time.clock_gettime(time.CLOCK_REALTIME))
        if waited is not None and connection.context.metered:
            connection.context.meter.queues.append(waited)
        fields = {name: value for name, value in fields.items() if name != FIELD}  # `read` would remember it
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
            exchange.headers = _with_host(headers, host)
            scope["headers"] = exchange.headers.copy()
    if origin.prefix is not None and scope["path"] != "*":
        raw = origin.prefix.encode("ascii")
        prefix = decode_path(raw)
        scope["root_path"] = prefix + scope["root_path"]
        scope["path"] = prefix + scope["path"]
        scope["raw_path"] = raw + scope["raw_path"]


def _with_host(headers: list[tuple[bytes, bytes]], host: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the headers with `host` as their Host; unchanged if `host` is None."""
    return headers if host is None else [(b"host", host), *[pair for pair in headers if pair[0] != b"host"]]
