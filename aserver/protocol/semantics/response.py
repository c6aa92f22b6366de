"""One response, from the ASGI messages an application sends to the bytes of HTTP/1.

Pure: no transport, no loop, no clock; `start()`, `body()` and the others check a message, and only then change the
state, and return what has to be written. The rules an editor must obey:

    START --http.response.start--> HEADED --body--> BODY --body--> DONE
      |                              (the head goes out with the first body,          ^
      +-- early_hint, any number      as the ASGI spec wants it)      TRAILERS -------+

* whatever is illegal raises ApplicationError and leaves the state as it was;
* nothing may make an unfinished response look finished: breaking it off is the connection's (`close_delimited`);
* a large body is never copied, and none is sent where none may be (HEAD, 204, 205, 304): it is dropped.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

from aserver.asgi import Message
from aserver.errors import ApplicationError
from aserver.protocol.semantics import wire
from aserver.protocol.semantics.response_head import BODILESS, RESET_CONTENT, Defaults, Head


class State(Enum):
    """What the application may send next."""

    START = "http.response.start"
    HEADED = "the first http.response.body"
    BODY = "http.response.body"
    TRAILERS = "http.response.trailers"
    DONE = "nothing: the response is complete"


# Bound once: on 3.11 each `State.X` costs 40 ns, and there are five in a request.
START: Final = State.START
HEADED: Final = State.HEADED
BODY: Final = State.BODY
TRAILERS: Final = State.TRAILERS
DONE: Final = State.DONE

#: Up to this size a body is joined to the head and written at once; above it, copying costs more than a second
#: entry in the writev that the loop makes of both anyway.
JOIN_LIMIT: Final = 16384

_CLOSE: Final = b"\r\nconnection: close"


class Response:
    """One response.

    `modern` says that the request was HTTP/1.1, `head_only` that it was HEAD. `keep_alive` may be turned off from
    outside until the head was made, never on.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_defaults",
        "_head",
        "_trailer_lines",
        "head_only",
        "keep_alive",
        "length",
        "modern",
        "response_headers",
        "sent",
        "state",
        "trailers_allowed",
    )

    # Not set before `start()`: `length` (as the application promised), `response_headers`; before the first body:
    # `_bodiless`, that the status has no body.
    _bodiless: bool
    length: int | None
    response_headers: Sequence[tuple[bytes, bytes]]

    def __init__(self, defaults: Defaults, modern: bool, head_only: bool, keep_alive: bool) -> None:  # noqa: FBT001 - by keyword it is 0.1 us more, at each request
        self._defaults = defaults
        self._head: Head | None = None
        self._chunked = False
        self._trailer_lines: bytes | None = None  # collected trailers, if any were announced
        self.modern = modern
        self.head_only = head_only
        self.keep_alive = keep_alive
        self.state = START
        self.sent = 0  # bytes of body that went out (or would have, for HEAD)
        self.trailers_allowed = False

    @property
    def status(self) -> int:
        """The status the application gave, 0 before that."""
        return 0 if self._head is None else self._head.status

    # ── http.response.start ──────────────────────────────────────────────────────────────────

    def start(self, message: Message) -> None:
        """Check and keep the head. It is written with the first body. Raises ApplicationError."""
        if self.state is not START:
            raise self._unexpected(message)
        headers = message.get("headers") or []
        if type(headers) is not list:
            headers = list(headers)
        head = self._defaults.find(message["status"], headers)
        if head is None:
            headers = wire.as_pairs(headers)
            head = self._defaults.make(message["status"], headers)
        if message.get("trailers"):
            if not self.trailers_allowed:
                raise ApplicationError("http.response.start: trailers announced, but this client takes none")
            self._trailer_lines = b""
        self._head = head
        self.length = head.length
        self.response_headers = headers
        self.state = HEADED

    # ── http.response.body ───────────────────────────────────────────────────────────────────

    def body(self, message: Message) -> bytes | list[bytes]:
        """Return what to write for a body message, in one or several pieces. Raises ApplicationError."""
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = _as_bytes(body)
        more = message.get("more_body", False)
        state = self.state
        if state is HEADED:
            head = self._head
            if (
                len(body) == self.length
                and not more
                and head is not None
                and head.plain
                and self.modern
                and not self.head_only
                and self.length < JOIN_LIMIT
            ):
                self.sent = self.length
                self.state = DONE
                if self.keep_alive:
                    return head.block + self._defaults.ending + body
                return head.block + _CLOSE + self._defaults.ending + body
            return self._first(body, more=bool(more))
        if state is not BODY:
            raise self._unexpected(message)
        if self._bodiless:
            body = self._drop(body)
        else:
            self._check_size(len(body), more=bool(more))
        self.sent += len(body)
        if not more:
            self.state = DONE if self._trailer_lines is None else TRAILERS
        if self.head_only:
            return b""
        return self._chunk(b"", body) if self._chunked else body

    def _first(self, body: bytes, *, more: bool) -> bytes | list[bytes]:
        self._bodiless = self.status in BODILESS
        if self._bodiless:
            body = self._drop(body)
        else:
            self._check_size(len(body), more=more)
        size = len(body)
        # HEAD without a body: what GET would say is not known.
        opening = self._opening(None if more else size, exact=bool(size) or not self.head_only)
        self.sent = size
        self.state = BODY if more else DONE if self._trailer_lines is None else TRAILERS
        if self.head_only:
            return opening
        if self._chunked:
            return self._chunk(opening, body)
        return opening + body if size < JOIN_LIMIT else [opening, body]

    def _drop(self, body: bytes) -> bytes:
        """Let go of a body that a client would take for the next response; other servers do so, too."""
        if body:
            self.body_dropped(len(body))
        return b""

    def body_dropped(self, size: int) -> None:
        """Hear that `size` bytes of body are not sent, since the status has none. Nothing is done about it here."""

    def _chunk(self, before: bytes, body: bytes) -> bytes | list[bytes]:
        """Frame a piece of body, and the end if this is it (RFC 9112 section 7.1)."""
        end = b"0\r\n\r\n" if self.state is DONE else b""
        if not body:
            return before + end
        if len(body) < JOIN_LIMIT:
            return b"%b%x\r\n%b\r\n%b" % (before, len(body), body, end)
        return [b"%b%x\r\n" % (before, len(body)), body, b"\r\n" + end]

    def _opening(self, size: int | None, *, exact: bool = True) -> bytes:
        """Make the head; `size` is that of the whole body (`exact`ly, or just as sent), or None if more may come."""
        head = self._head
        assert head is not None
        framing = b""
        if head.status == RESET_CONTENT:
            framing = b"\r\ncontent-length: 0"
        elif self.length is None and head.status not in BODILESS:
            if size is not None and self._trailer_lines is None:
                if exact:
                    framing = b"\r\ncontent-length: %d" % size
                    self.length = size
            elif self.modern:
                framing = b"\r\ntransfer-encoding: chunked"
                self._chunked = not self.head_only
            elif not self.head_only:
                self.keep_alive = False  # only the end of the connection can end the body (RFC 9112 section 6.3)
        if head.close:
            self.keep_alive = False
        if not self.keep_alive:
            framing += _CLOSE
        elif not self.modern:
            framing += b"\r\nconnection: keep-alive"
        lines = self._defaults.lines if head.plain else self._defaults.without(self.response_headers)
        return head.block + framing + lines + b"\r\n\r\n"

    def _check_size(self, size: int, *, more: bool) -> None:
        """Hold the application to the content-length it gave."""
        length = self.length
        if length is None or self.head_only:  # to HEAD the length may be that of a body that is not sent
            return
        total = self.sent + size
        if total > length:
            raise ApplicationError(f"http.response.body: {total} bytes of body, but content-length is {length}")
        if total < length and not more:
            raise ApplicationError(f"http.response.body: body ends at {total} bytes, but content-length is {length}")

    # ── extensions ───────────────────────────────────────────────────────────────────────────

    def trailers(self, message: Message) -> bytes:
        """Return the last chunk with all trailers, or b"" while `more_trailers`. Raises ApplicationError."""
        if self.state is not TRAILERS or self._trailer_lines is None:
            raise self._unexpected(message)
        self._trailer_lines += wire.field_lines(message.get("headers", ()))
        if message.get("more_trailers", False):
            return b""
        self.state = DONE
        # With a content-length there is no place for them, and they may be dropped (RFC 9110 section 6.5).
        return b"0%b\r\n\r\n" % self._trailer_lines if self._chunked else b""

    def early_hint(self, message: Message) -> bytes:
        """Return a 103 answer. Raises ApplicationError."""
        if self.state is not START:
            raise self._unexpected(message)
        return wire.early_hints(message.get("links", ()))

    def file(self, message: Message, size: int) -> bytes:
        """Return the head before a file of `size` bytes, which the caller then sends raw. Raises ApplicationError."""
        if self.state is not HEADED or self._trailer_lines is not None:
            raise self._unexpected(message)
        self._bodiless = self.status in BODILESS
        if self._bodiless:
            if size:
                self.body_dropped(size)
        elif self.length not in (None, size) and not self.head_only:
            raise ApplicationError(f"http.response.pathsend: {size} bytes of file, content-length is {self.length}")
        opening = self._opening(size)
        self.state = BODY
        return opening

    def file_sent(self, size: int) -> None:
        """Note that the file announced by `file()` is out to the last of its `size` bytes, if it was to be sent."""
        self.sent = 0 if self._bodiless else size
        self.state = DONE

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    @property
    def silent(self) -> bool:
        """Whether nothing follows the head; known once the head is made."""
        return self.head_only or self._bodiless

    @property
    def close_delimited(self) -> bool:
        """Whether a plain close would look like a good end of this response (RFC 9112 section 6.3, rule 8)."""
        return self.state is BODY and self.length is None and not (self._chunked or self._bodiless)

    def _unexpected(self, message: Message) -> ApplicationError:
        return ApplicationError(f"unexpected ASGI message {message['type']!r}; expected {self.state.value}")


def _as_bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise ApplicationError(f"http.response.body: body is {type(body).__name__}, must be bytes")
