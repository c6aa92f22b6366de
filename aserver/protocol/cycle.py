"""One response, from the ASGI messages an application sends to the bytes of HTTP/1.

Pure: no transport, no loop, no clock; `start()`, `body()` and the others check a message, and only then change the
state, and return what has to be written. The rules an editor must obey:

    START --http.response.start--> HEADED --body--> BODY --body--> DONE
      |                              (the head goes out with the first body,          ^
      +-- early_hint, any number      as the ASGI spec wants it)      TRAILERS -------+

* whatever is illegal raises ApplicationError and leaves the state as it was;
* nothing may make an unfinished response look finished: that is the connection's to break off (`broken`);
* a body is never copied if it is large, and never sent where none may be (HEAD, 204, 304).
"""

from collections.abc import Iterable, Sequence
from enum import Enum

from aserver.asgi import Message
from aserver.errors import ApplicationError
from aserver.protocol import wire
from aserver.protocol.wire import RESPONSE_PREFIXES, STATUS_LINES


class State(Enum):
    """What the application may send next."""

    START = "http.response.start"
    HEADED = "the first http.response.body"
    BODY = "http.response.body"
    TRAILERS = "http.response.trailers"
    DONE = "nothing: the response is complete"


# Bound once: on 3.11 each `State.X` costs 40 ns, and there are five in a request.
START, HEADED, BODY, TRAILERS, DONE = State

#: Up to this size a body is joined to the head and written at once; above it, copying costs more than a second
#: entry in the writev that the loop makes of both anyway.
JOIN_LIMIT = 16384


class Defaults:
    """The fields the server adds where the application set none; one for all responses of a worker."""

    __slots__ = ("always", "ending", "lines", "pairs")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]], date: bytes | None) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []
        self.always = False  # whether the pairs hold more than what `_EXAMINED` would notice
        self.lines = b""
        self.ending = b"\r\n\r\n"
        self.update(pairs, date)

    def update(self, pairs: Iterable[tuple[bytes, bytes]], date: bytes | None) -> None:
        """Take the configured fields and, unless None, the value of the date field."""
        self.pairs = [*pairs, *([(b"date", date)] if date is not None else [])]
        self.always = any(name not in (b"date", b"server") for name, _ in self.pairs)
        self.lines = wire.field_lines(self.pairs)
        self.ending = self.lines + b"\r\n\r\n"

    def without(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the lines of those fields that are not among `headers`."""
        names = {name.lower() for name, _ in headers}
        return wire.field_lines(pair for pair in self.pairs if pair[0] not in names)


class Cycle:
    """One response; `modern` says that the request was HTTP/1.1, `head_only` that it was HEAD.

    `keep_alive` may be turned off from outside until the head was made, never on.
    """

    __slots__ = (
        "_block",
        "_chunked",
        "_defaults",
        "_lines",
        "_promised_trailers",
        "head_only",
        "keep_alive",
        "length",
        "modern",
        "response_headers",
        "sent",
        "state",
        "status",
        "trailers_allowed",
    )

    def __init__(self, defaults: Defaults, *, modern: bool, head_only: bool, keep_alive: bool) -> None:
        self._defaults = defaults
        self.modern = modern
        self.head_only = head_only
        self.keep_alive = keep_alive
        self.state = START
        self.status = 0
        self.sent = 0  # bytes of body that went out (or would have, for HEAD)
        self.length: int | None = None  # as the application promised
        self.response_headers: Sequence[tuple[bytes, bytes]] = ()
        self.trailers_allowed = False
        self._lines: bytes | None = None  # default fields, where the application set one of them itself
        self._chunked = False
        self._promised_trailers = False

    # ── http.response.start ──────────────────────────────────────────────────────────────────

    def start(self, message: Message) -> None:
        """Check and keep the head. It is written with the first body. Raises ApplicationError."""
        if self.state is not START:
            raise self._unexpected(message)
        status = message["status"]
        line = STATUS_LINES.get(status) or wire.status_line(status)
        headers = message.get("headers", ())
        if type(headers) is not list:
            headers = list(headers)
        parts = [line]
        examined: list[tuple[bytes, bytes]] | None = None
        length: int | None = None
        lines = 0
        try:
            for name, value in headers:
                prefix = RESPONSE_PREFIXES.get(name)
                if prefix is None:
                    if name == b"content-length" and length is None and value.isdigit():
                        length = int(value)
                        prefix = b"\r\ncontent-length: "
                    else:
                        if examined is None:
                            examined = []
                        examined.append((name, value))
                        continue
                parts.append(prefix)
                parts.append(value)
                lines += 1
            block = b"".join(parts)
        except (TypeError, ValueError, AttributeError) as error:
            wire.check_fields(headers)
            raise ApplicationError(f"http.response.start: headers must be pairs of bytes: {error}") from error
        # One look at the whole block instead of one at each value: a CR or LF more than the lines have, or a NUL.
        if block.count(b"\n") != lines or block.count(b"\r") != lines or b"\0" in block:
            wire.check_fields(headers)
        if message.get("trailers") and not self.trailers_allowed:
            raise ApplicationError("http.response.start: trailers were announced, but the client takes none")
        if examined is not None:
            block, length = self._examine(examined, block, length)
        if examined is not None or self._defaults.always:
            self._lines = self._defaults.without(headers)
        if status == 204 and length is not None:  # RFC 9110 section 8.6: never with 204
            block = block.replace(b"\r\ncontent-length: %d" % length, b"")
            length = None
        self.status = status
        self.response_headers = headers
        self.length = length
        self._block = block
        self._promised_trailers = bool(message.get("trailers"))
        self.state = HEADED

    def _examine(self, pairs: list[tuple[bytes, bytes]], block: bytes, length: int | None) -> tuple[bytes, int | None]:
        """Take the fields that are not plain: our own business, illegal, or just not common."""
        wire.check_fields(pairs)
        keep_alive = self.keep_alive
        for name, value in pairs:
            lowered = name.lower()
            if lowered == b"content-length":
                if not value.isdigit() or (length is not None and int(value) != length):
                    raise ApplicationError(f"http.response.start: content-length {value!r} is no number or the second")
                if length is None:
                    length = int(value)
                    block += b"\r\ncontent-length: %d" % length
            elif lowered == b"connection":
                # The connection is the server's; of what the application says only `close` has a meaning.
                keep_alive = keep_alive and b"close" not in wire.tokens(value)
            elif lowered not in (b"transfer-encoding", b"keep-alive"):  # ASGI: "the server must ignore it"
                block += wire.field_lines([(lowered, value)])
        self.keep_alive = keep_alive
        return block, length

    # ── http.response.body ───────────────────────────────────────────────────────────────────

    def body(self, message: Message) -> bytes | list[bytes]:
        """Return what to write for a body message. Raises ApplicationError."""
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = _as_bytes(body)
        more = message.get("more_body", False)
        size = len(body)
        state = self.state
        if state is HEADED:
            if (
                size == self.length
                and not more
                and self.keep_alive
                and self.modern
                and size < JOIN_LIMIT
                and not self.head_only
                and self._lines is None
                and self.status != 304
            ):
                self.sent = size
                self.state = DONE
                return self._block + self._defaults.ending + body
            return self._first(body, size, more=more)
        if state is not BODY:
            raise self._unexpected(message)
        self._check_size(size, more=more)
        self.sent += size
        if not more:
            self.state = TRAILERS if self._promised_trailers else DONE
        if self.head_only:
            return b""
        if not self._chunked:
            return body
        if self.state is DONE:
            return b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if size else wire.LAST_CHUNK
        if size < JOIN_LIMIT:
            return b"%x\r\n%b\r\n" % (size, body) if size else b""
        return [b"%x\r\n" % size, body, b"\r\n"]

    def head(self, size: int | None) -> bytes:
        """Return the head for a body of which `size` bytes are known to be all, or None if more may come."""
        framing = b""
        bodiless = self.status in (204, 304)
        if self.length is None and not bodiless:
            if size is not None and not self._promised_trailers:
                if not (self.head_only and size == 0):  # HEAD: what GET would say is not known
                    framing = b"\r\ncontent-length: %d" % size
                    self.length = size
            elif self.modern:
                framing = b"\r\ntransfer-encoding: chunked"
                self._chunked = not self.head_only
            elif not self.head_only:
                self.keep_alive = False  # the end of the body is the end of the connection (RFC 9112 section 6.3)
        if not self.keep_alive:
            framing += b"\r\nconnection: close"
        elif not self.modern:
            framing += b"\r\nconnection: keep-alive"
        lines = self._defaults.lines if self._lines is None else self._lines
        return self._block + framing + lines + b"\r\n\r\n"

    def _first(self, body: bytes, size: int, *, more: bool) -> bytes | list[bytes]:
        if self.status in (204, 304) and size:
            raise ApplicationError(f"http.response.body: status {self.status} takes no body, got {size} bytes")
        self._check_size(size, more=more)
        head = self.head(None if more else size)
        self.sent = size
        if more:
            self.state = BODY
        else:
            self.state = TRAILERS if self._promised_trailers else DONE
        if self.head_only or (not size and not self._chunked):
            return head
        if self._chunked:
            end = wire.LAST_CHUNK if self.state is DONE else b""
            if not size:
                return head + end
            return [head, b"%x\r\n" % size, body, b"\r\n" + end]
        return head + body if size < JOIN_LIMIT else [head, body]

    def _check_size(self, size: int, *, more: bool) -> None:
        """Hold the application to the content-length it gave."""
        length = self.length
        if length is None or (self.head_only and not self.sent + size) or self.status == 304:
            return  # HEAD and 304: the length describes a body that is not sent
        total = self.sent + size
        if total > length:
            raise ApplicationError(f"http.response.body: {total} bytes of body, but content-length is {length}")
        if total < length and not more:
            raise ApplicationError(f"http.response.body: body ends at {total} bytes, but content-length is {length}")

    # ── extensions ───────────────────────────────────────────────────────────────────────────

    def trailers(self, message: Message) -> bytes:
        """Return the last chunk with the trailers, or b"" while `more_trailers`. Raises ApplicationError."""
        if self.state is not TRAILERS:
            raise self._unexpected(message)
        lines = wire.field_lines(message.get("headers", ()))
        self._block = (b"" if self._block.startswith(b"HTTP/") else self._block) + lines
        if message.get("more_trailers", False):
            return b""
        self.state = DONE
        return b"0%b\r\n\r\n" % self._block if self._chunked else b""

    def early_hint(self, message: Message) -> bytes:
        """Return a 103 answer. Raises ApplicationError."""
        if self.state is not START:
            raise self._unexpected(message)
        return wire.early_hints(message.get("links", ()))

    def file(self, message: Message, size: int) -> bytes:
        """Return the head before a file of `size` bytes, which the caller then sends raw. Raises ApplicationError."""
        if self.state is not HEADED or self._promised_trailers:
            raise self._unexpected(message)
        if self.status in (204, 304) and size:
            raise ApplicationError(f"http.response.pathsend: status {self.status} takes no body")
        if self.length is not None and self.length != size and not self.head_only:
            raise ApplicationError(f"http.response.pathsend: {size} bytes in the file, content-length {self.length}")
        head = self.head(size)
        self.sent = 0
        self.state = BODY
        return head

    def file_sent(self, size: int) -> None:
        """Note that the file announced by `file()` is out to the last of its `size` bytes."""
        self.sent = size
        self.state = DONE

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    @property
    def close_delimited(self) -> bool:
        """Whether a plain close would look like a good end of this response (RFC 9112 section 6.3, rule 8)."""
        return self.state is BODY and self.length is None and not self._chunked

    def _unexpected(self, message: Message) -> ApplicationError:
        return ApplicationError(f"unexpected ASGI message {message['type']!r}; expected {self.state.value}")


def _as_bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise ApplicationError(f"http.response.body: body is {type(body).__name__}, must be bytes")
