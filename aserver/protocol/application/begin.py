"""How the exchange of a request begins, in any version of HTTP: its scope, its body, its trailers.

Runs in the worker's loop, at each request. The scope is the application's from then on: nothing here may keep it, nor
give it a value that other requests share and that an application could change.
"""

from collections.abc import Mapping
from typing import Final

from aserver.protocol.application.body import RequestBody
from aserver.protocol.application.exchange import Carrier, Exchange
from aserver.protocol.application.origin import apply_origin, with_host
from aserver.protocol.semantics import fields
from aserver.protocol.semantics.response_head import Heads
from aserver.protocol.semantics.target import decode_path, split_target
from aserver.protocol.transport.connection import Connection

# `int in bytes` is a memchr; `bytes in bytes` costs 0.1 us more, and `partition` 0.05.
_SLASH: Final = 0x2F
_QUESTION_MARK: Final = 0x3F
_PERCENT: Final = 0x25


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
    """Return the exchange of a head (see `RequestSink.on_request`). Raises ClientError for a target that is none."""
    if target[0] != _SLASH:
        path, query, host = split_target(method, target)
        headers = with_host(headers, host)  # it wins over the field (RFC 9112 section 3.2.2)
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
        "asgi": {"version": "3.0", "spec_version": "2.3"},
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
        apply_origin(link, forwarding, exchange)
    return exchange


def _apply_framing(exchange: Exchange, framing: Mapping[bytes, bytes], length: int) -> None:
    """Give an exchange a body, 100 or trailers, as its framing fields ask."""
    if length:
        expected = exchange.modern and b"expect" in framing
        exchange.request_body = RequestBody(None if length < 0 else length, continue_expected=expected)
    else:
        exchange.complete = True
    if exchange.modern:
        te = framing.get(b"te")
        if te is not None and fields.accepts_trailers(te):
            exchange.trailers_allowed = True
            exchange.scope["extensions"]["http.response.trailers"] = {}
    else:
        del exchange.scope["extensions"]["http.response.early_hint"]
