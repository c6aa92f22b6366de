"""HTTP/1.0 and 1.1 on a connection: from httptools' callbacks to exchanges, in order.

Runs in the worker's loop. `Intake` feeds the parser and starts the application when the parser has returned; it must
never start inside a callback. llhttp (in its strict mode) does the syntax; what it lets through and RFC 9110 or 9112
does not is refused by `rules`.
"""

import logging
from collections.abc import Mapping
from math import inf
from time import monotonic
from typing import Final

from aserver.asgi import Scope
from aserver.errors import ClientError
from aserver.protocol.application.access_record import Refusal
from aserver.protocol.application.body import RequestBody
from aserver.protocol.application.exchange import Exchange
from aserver.protocol.application.parting import HEAR_OUT
from aserver.protocol.http1 import rules
from aserver.protocol.http1.careful import END_OF_HEAD, PIPELINE_LIMIT, REMEMBERED_SIZE, DoubtError
from aserver.protocol.http1.intake import Intake, drop
from aserver.protocol.peer.forwarded import with_port
from aserver.protocol.semantics import wire
from aserver.protocol.semantics.response import DONE, HEADED, START
from aserver.protocol.semantics.wire import METHODS
from aserver.protocol.transport.connection import LINGERING, OPEN

log: Final = logging.getLogger("aserver.error")

# `int in bytes` is a memchr; `bytes in bytes` costs 0.1 us more.
SLASH: Final = 0x2F
QUESTION_MARK: Final = 0x3F
HASH: Final = 0x23
CR: Final = 0x0D

#: What most clients say who say anything.
KEEP_ALIVE: Final = (b"keep-alive", b"Keep-Alive")


class HttpConnection(Intake):
    """One client's HTTP/1 connection."""

    __slots__ = ()

    # ── callbacks of the parser ──────────────────────────────────────────────────────────────────

    def on_headers_complete(self) -> None:
        """Make an exchange of the head that was collected. Raises ClientError through the parser."""
        context = self.context
        data = self._data
        target = self.url
        headers = self.headers
        special = self.special
        host = special.get(b"host")
        common = host is not None and (len(special) == 1 or (len(special) == 2 and b"connection" in special))
        plain = (
            common
            and data.startswith(b"GET /")
            and data.startswith(b" HTTP/1.1\r\n", 4 + len(target))
            # The head ends where the data ends, and begins no second time behind an empty line.
            and data.endswith(END_OF_HEAD)
            and data[-5] > CR
            and HASH not in target
        )
        if plain:
            method, version = "GET", "1.1"
            keep_alive = (
                len(special) == 1
                or special[b"connection"] in KEEP_ALIVE
                or wire.keeps_alive(special[b"connection"], "1.1")
            )
        else:
            method, target, version = self._vouch_for(data, target)
            keep_alive = wire.keeps_alive(special.get(b"connection"), version)
        if (
            not common
            or host != self._good_host
            or version != "1.1"
            or len(data) > context.small_head
            or len(headers) > context.limit_request_fields
        ):
            rules.examine(context, method=method, version=version, target=target, headers=headers, special=special)
            self._good_host = context.good_host = host if version == "1.1" else None  # 1.0 may have an empty one
        if plain and len(data) <= REMEMBERED_SIZE:
            self._learnt = (data[4 + len(target) :], headers.copy(), self.told, keep_alive)
        exchange = self.begin(method, target, version, headers, keep_alive=keep_alive)
        if common and version == "1.1":
            exchange.complete = True
        else:
            self.receiving = exchange
            self._prepare(exchange)
        self._final = not keep_alive
        self._data = b""
        self.headers = []
        self.special = {}
        if self.told:
            self.believe(self.told, exchange.scope)
            self.told = {}
        self._partial = False

    def begin(
        self, method: str, target: bytes, version: str, headers: list[tuple[bytes, bytes]], *, keep_alive: bool
    ) -> Exchange:
        """Make an exchange of a head that was found good, and put it behind those that wait."""
        context = self.context
        if target[0] != SLASH:
            path, query, authority = wire.split_target(method, target)
            if authority is not None:  # it wins over Host (RFC 9112 section 3.2.2)
                headers = [(b"host", authority), *[pair for pair in headers if pair[0] != b"host"]]
        elif QUESTION_MARK in target:
            path, _, query = target.partition(b"?")
        else:
            path = target
            query = b""
        text = path.decode("ascii")
        if "%" in text:
            text = wire.decode_path(path)
        if context.root_path and target != b"*":
            text = context.root_path + text
            path = context.raw_root_path + path
        exchange = Exchange(
            self,
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": version,
                "server": self.server,
                "client": self.client,
                "scheme": self.scheme,
                "root_path": context.root_path,
                "method": method,
                "path": text,
                "raw_path": path,
                "query_string": query,
                "headers": headers,
                "state": context.state.copy(),
                "extensions": context.extensions.copy()
                if self.tls_told is None
                else {**context.extensions, "tls": self.tls_told},
            },
            target,
            version == "1.1",
            method == "HEAD",
            keep_alive,
        )
        if self.current is None:
            self.current = exchange
            self.deadline = inf
        else:
            self._queue.append(exchange)
            if len(self._queue) == PIPELINE_LIMIT:
                self.transport.pause_reading()
        return exchange

    def _vouch_for(self, data: bytes, target: bytes) -> tuple[str, bytes, str]:
        """Return method, target and version of a head that is not of the plainest kind. Raises DoubtError if unsure."""
        line = self._request_line
        if line is not None:
            self._request_line = None
            self._fields_before = self._growth = 0
            self.url = line[1]
            return line
        name = self._parser.get_method()
        special = self.special
        if (
            name in METHODS
            and data.startswith(name + b" /")
            and data.startswith(b" HTTP/1.1\r\n", len(name) + 1 + len(target))
            and HASH not in target
            and b"transfer-encoding" not in special
            and b"upgrade" not in special
        ):
            length = wire.content_length(special.get(b"content-length", b"0"))
            end = data.index(END_OF_HEAD) + len(END_OF_HEAD) + length
            if end == len(data) or (length and end > len(data)):
                return METHODS[name], target, "1.1"
        raise DoubtError

    def believe(self, told: Mapping[bytes, bytes], scope: Scope) -> None:
        """Take from a trusted proxy what the client and its request were."""
        forwarding = self.context.forwarding
        if forwarding is None or not forwarding.trusts(self.client):
            return
        origin = forwarding.read(told)
        if origin.client is not None:
            scope["client"] = origin.client
        if origin.scheme is not None:
            scope["scheme"] = origin.scheme
        if origin.host is not None or origin.port is not None:
            host = origin.host or next((value for name, value in scope["headers"] if name == b"host"), None)
            if host:
                host = with_port(host, origin.port, scope["scheme"])
                scope["headers"] = [(b"host", host), *[pair for pair in scope["headers"] if pair[0] != b"host"]]
        if origin.prefix is not None and scope["path"] != "*":
            raw = origin.prefix.encode("ascii")
            prefix = wire.decode_path(raw)
            scope["root_path"] = prefix + scope["root_path"]
            scope["path"] = prefix + scope["path"]
            scope["raw_path"] = raw + scope["raw_path"]

    def _prepare(self, exchange: Exchange) -> None:
        """Set what the less usual fields ask for."""
        special = self.special
        length = special.get(b"content-length")
        if length is not None:
            if size := int(length):
                exchange.request_body = RequestBody(size, continue_expected=exchange.modern and b"expect" in special)
        elif b"transfer-encoding" in special:
            exchange.request_body = RequestBody(None, continue_expected=b"expect" in special)
        if exchange.modern:
            te = special.get(b"te")
            if te is not None and wire.accepts_trailers(te):
                exchange.trailers_allowed = True
                exchange.scope["extensions"]["http.response.trailers"] = {}
        else:
            del exchange.scope["extensions"]["http.response.early_hint"]
        if b"upgrade" in special and self._parser.should_upgrade():
            self._upgrading = exchange.request_body is not None

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body on."""
        exchange = self.receiving
        if exchange is None or exchange.request_body is None:
            return
        context = self.context
        exchange.request_body.received += len(data)
        if exchange.request_body.received > context.limit_request_body:
            raise ClientError(413, f"body above {context.limit_request_body} bytes")
        if exchange is self.current:
            self.deadline = context.now + context.body_timeout
        exchange.body_received(data)

    def on_message_complete(self) -> None:
        """Note the end of the request that was being read."""
        exchange = self.receiving
        if exchange is None or self._upgrading:
            return
        self.receiving = None
        exchange.complete = True
        if self.headers:  # trailers
            self._forget_head()
        if exchange is self.current:
            self.deadline = inf
            if exchange.state is DONE:
                self._next()
            elif exchange.launched:
                exchange.wake()

    # ── requests in order ────────────────────────────────────────────────────────────────────

    def launch(self, exchange: Exchange) -> None:
        """Start the application for a request whose turn has come."""
        tasks = self.tasks
        exchange.launched = True
        if tasks.timed:
            exchange.started = monotonic()  # uvloop's clock, but in full: that has milliseconds
        if not tasks.start(exchange):
            exchange.refuse(503)

    def answered(self, exchange: Exchange) -> None:
        """Go on after a complete response."""
        context = self.context
        tasks = self.tasks
        if tasks.access is not None:
            if tasks.timed:
                exchange.duration = monotonic() - exchange.started
            tasks.access(exchange)
        if exchange.waiters:
            exchange.wake()
        if not exchange.keep_alive:
            self.current = None
            if self._final and exchange.complete and self.last():
                self.close()
            else:
                self.linger()
        elif exchange.complete:
            if exchange.request_body is not None:
                exchange.drop_body()  # for as long as the application has left it there, nothing is read
            self.current = None
            self.deadline = context.now + context.keep_alive
            if self._queue or self._refusal is not None or self.eof:
                self._next()
        elif exchange.discardable:
            self.deadline = context.now + context.body_timeout
            exchange.drop_body()
        else:
            self.linger()

    def _next(self) -> None:
        """Begin what waits behind the request that was answered."""
        self.current = None
        queue = self._queue
        if queue:
            exchange = self.current = queue.pop(0)
            if self.held is None:
                self.hold(pipelined=True)
            self.deadline = inf
            if len(queue) == PIPELINE_LIMIT - 1:
                self.read_on()
            elif len(queue) == PIPELINE_LIMIT // 2 and self.feed == self._await_room:
                # Not from here: this may be a callback of the parser, or deep in an application.
                self.context.loop.call_soon(self.feed_unfed, context=self.context.variables)
            if exchange is self._offered:
                self.hand_over_soon(exchange)
            elif not self.write_paused:
                self.launch(exchange)
            if self.eof:
                self._hear_out(exchange)
        elif self._refusal is not None:
            self._answer_refusal(self._refusal, self._refused)
        elif self.eof and not self._unfed:
            self.close()
        else:
            self.deadline = self.context.now + self.context.keep_alive

    def writable(self) -> None:
        """Start what had to wait for the client to read."""
        current = self.current
        if current is not None and not current.launched:
            self.launch(current)

    def last(self) -> bool:
        """Tell whether no request waits behind the current one."""
        return not self._queue and not self._unfed

    # ── ends ─────────────────────────────────────────────────────────────────────────────────

    def refuse(self, error: ClientError) -> None:
        """Answer a request that cannot be served, when its turn comes, and read no other."""
        if self.stage is not OPEN:
            return
        self.feed = self._discard
        broken, self.receiving = self.receiving, None
        if broken is not None:
            if broken is not self.current:
                self._refused = self._queue.pop()  # only the last one parsed can be incomplete
            elif broken.state in (START, HEADED):
                broken.disconnect()
                self.current = None
                self._answer_refusal(error, broken)
                return
            elif broken.state is DONE:
                self.linger()
                return
            else:
                self.broken(broken)
                return
        if self.current is None:
            self._answer_refusal(error)
        else:
            self._refusal = error

    def _answer_refusal(self, error: ClientError, exchange: Exchange | None = None) -> None:
        context = self.context
        log.debug("%s:%s is answered %d: %s", *(self.client or ("a client", "-")), error.status, error.reason)
        line = self._first_line or ("", self.url, "")
        head_only = line[0] == "HEAD" if exchange is None else exchange.head_only
        self.write(wire.plain_answer(error.status, context.defaults.lines, keep_alive=False, head_only=head_only))
        if self.tasks.access is not None:
            self.tasks.access(
                Refusal(
                    error.status,
                    exchange,
                    client=self.client,
                    line=line,
                    headers=self.headers,
                    now=monotonic(),
                )
            )
        self.linger()

    def broken(self, exchange: Exchange) -> None:
        """End the connection, because this response cannot be completed."""
        self._log(exchange)
        exchange.disconnect()
        self.current = None
        if exchange.close_delimited:
            self.reset()
        else:
            self.close()

    def eof_received(self) -> bool:
        """Take the client's half-close: what it has asked for completely is still answered."""
        current = self.current
        if self.stage is not OPEN or self.tls or self.receiving is not None or current is None:
            return False
        self.eof = True
        self._hear_out(current)
        return True

    def _hear_out(self, exchange: Exchange) -> None:
        """Let a client that has stopped sending have its answer, and tell the application if that takes long."""
        context = self.context
        context.loop.call_later(HEAR_OUT, exchange.half_closed, context=context.variables)

    def lost(self) -> None:
        """Tell the application, and let go of the parser, which holds us."""
        current, self.current = self.current, None
        self.receiving = None
        self._queue.clear()
        self._offered = None
        self._unfed = b""
        self.feed = drop
        self._parser = None
        self._unstopped = drop
        if current is not None:
            current.disconnect()
            if current.state is not DONE and current.launched:
                self._log(current)

    def _log(self, exchange: Exchange) -> None:
        """Write to the access log, if there is one, what ended before its time."""
        if self.tasks.access is not None:
            exchange.duration = monotonic() - exchange.started
            self.tasks.access(exchange)

    def expire(self) -> None:
        """React to `deadline` having passed."""
        if self.stage is LINGERING:
            self.close()
        elif not self.transport.is_reading() and self.feed != self._await_turn:
            self.deadline = inf  # it is the application that is late
        elif self.receiving is not None and self.receiving is self.current:
            self.refuse(ClientError(408, "request body timed out"))
        elif self._partial:
            self.refuse(ClientError(408, "request head timed out"))
        elif self.current is None:
            self.close()
        else:
            self.deadline = inf

    @property
    def idle(self) -> bool:
        """Whether no request is under way, also none half received."""
        return self.current is None and self.stage is OPEN and not self._partial and not self._unfed
