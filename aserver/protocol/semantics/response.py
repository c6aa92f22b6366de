"""A response: the legal order of an application's ASGI messages, and the number of bytes in its body.

Pure, and the same for every version of HTTP. `start()`, `body()` and the others check a message, then change the
state, and return the body to be sent. An encoder (`http1/encoder`) turns the response into bytes of a version.

    START --http.response.start--> HEADED --first body--> BODY --last body--> DONE, or TRAILERS

* The head is sent with the first body (ASGI spec, "Response Start"). Early hints may come before `start()`.
* An illegal message raises ApplicationError and leaves the state as it was.
* TRAILERS comes before DONE if `http.response.start` has announced trailers.
* The body is dropped where none may be sent (HEAD, 204, 205, 304).
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

from aserver.asgi import Message
from aserver.errors import ApplicationError
from aserver.protocol.semantics import fields
from aserver.protocol.semantics.response_head import Head, Heads
from aserver.protocol.semantics.status import plain_fields, plain_text

#: Pieces below this many bytes are joined before they are written. Copying a larger piece costs more than giving the
#: loop's writev(2) another buffer.
JOIN_LIMIT: Final = 16384


class State(Enum):
    """The message that the application may send next."""

    START = "http.response.start"
    HEADED = "the first http.response.body"
    BODY = "http.response.body"
    TRAILERS = "http.response.trailers"
    DONE = "nothing: the response is complete"


# Module constants, because on 3.11 each `State.X` costs 40 ns, and a request needs five.
START: Final = State.START
HEADED: Final = State.HEADED
BODY: Final = State.BODY
TRAILERS: Final = State.TRAILERS
DONE: Final = State.DONE


class Response:
    """The response to a request.

    `modern`: the client speaks a later version than HTTP/1.0. `head_only`: the request was HEAD. `keep_alive` may be
    turned off until the head is sent. In HTTP/1 the connection then ends with this response.
    """

    __slots__ = (
        "_trailers",
        "head",
        "head_only",
        "heads",
        "keep_alive",
        "length",
        "modern",
        "response_headers",
        "sent",
        "state",
        "status",
        "trailers_allowed",
    )

    # Both are set by `start()` or `answer()`:
    length: int | None  # as the application promised, or as a whole body has; None if neither is known
    response_headers: Sequence[tuple[bytes, bytes]]

    def __init__(self, heads: Heads, modern: bool, head_only: bool, keep_alive: bool) -> None:  # noqa: FBT001 - by keyword it is 0.1 us more, at each request
        self.heads = heads
        self.head: Head | None = None
        self.status = 0  # of the final response, as the application has given it
        self._trailers: list[tuple[bytes, bytes]] | None = None  # received so far; None if none were announced
        self.modern = modern
        self.head_only = head_only
        self.keep_alive = keep_alive
        self.state = START
        self.sent = 0  # bytes of body that went out (or would have, for HEAD)
        self.trailers_allowed = False

    # ── http.response.start ──────────────────────────────────────────────────────────────────

    def start(self, message: Message) -> None:
        """Check `http.response.start` and keep its head, which is sent with the first body. Raises ApplicationError."""
        if self.state is not START:
            raise self._unexpected(message)
        headers = message.get("headers") or []
        if type(headers) is not list:
            headers = list(headers)
        status = message["status"]
        heads = self.heads
        head = heads.last
        if head is not None and heads.given == headers and heads.status == status:
            headers = heads.given
        else:
            try:
                head = heads.made.get((status, *headers))
            except TypeError:  # pairs that are lists, or values that are no bytes
                head = None
            if head is None:
                headers = fields.as_pairs(headers)
                head = heads.make(status, headers)
            else:
                heads.last, heads.status, heads.given = head, status, headers.copy()
        if message.get("trailers"):
            if not self.trailers_allowed:
                raise ApplicationError("http.response.start: trailers announced, but this client takes none")
            self._trailers = []
        self.head = head
        self.status = head.status
        self.length = head.length
        self.response_headers = headers
        self.state = HEADED

    def answer(self, status: int, *extra: tuple[bytes, bytes]) -> bytes:
        """Answer instead of the application: return the whole body, and be DONE. `extra` are further fields."""
        headers = [*plain_fields(status), *extra]
        self.head = head = self.heads.made.get((status, *headers)) or self.heads.make(status, headers)
        self.status = status
        self.length = head.length
        self.response_headers = ()
        text = plain_text(status)
        self.sent = len(text)
        self.state = DONE
        return b"" if self.head_only else text

    # ── http.response.body ───────────────────────────────────────────────────────────────────

    def body(self, message: Message) -> bytes:
        """Return the bytes of a body message that are to be sent. Raises ApplicationError."""
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = fields.as_bytes("http.response.body: body", body)
        more = message.get("more_body", False)
        state = self.state
        head = self.head
        size = len(body)
        if state is HEADED and head is not None and head.ready and size == head.length and not more:  # the usual case
            self.sent = size
            self.state = DONE if self._trailers is None else TRAILERS
            return b"" if self.head_only else body
        if (state is not HEADED and state is not BODY) or head is None:
            raise self._unexpected(message)
        if head.bodiless:
            if body:
                self.body_dropped(size)
            body = b""
        else:
            length = self.length
            total = self.sent + size
            if length is None:
                if state is HEADED and not more and self._trailers is None and (size or not self.head_only):
                    self.length = size
            elif total != length and (total > length or not more) and not self.head_only:
                raise _wrong_size(total, length)  # not for HEAD: its content-length is that of GET's body
            self.sent = total
        if more:
            self.state = BODY
        else:
            self.state = DONE if self._trailers is None else TRAILERS
        return b"" if self.head_only else body

    def body_dropped(self, size: int) -> None:
        """Called when `size` bytes of body are dropped, because the status has no body. A subclass may report it."""

    # ── extensions ───────────────────────────────────────────────────────────────────────────

    def trailers(self, message: Message) -> list[tuple[bytes, bytes]] | None:
        """Return all trailers, or None if the message says `more_trailers`. Raises ApplicationError."""
        if self.state is not TRAILERS or self._trailers is None:
            raise self._unexpected(message)
        pairs = fields.as_pairs(message.get("headers", ()))
        fields.check_fields(pairs)
        self._trailers += pairs
        if message.get("more_trailers", False):
            return None
        self.state = DONE
        return self._trailers

    def early_hint(self, message: Message) -> list[tuple[bytes, bytes]]:
        """Return the fields of a 103 answer (RFC 8297). Raises ApplicationError."""
        if self.state is not START:
            raise self._unexpected(message)
        pairs = fields.as_pairs((b"link", link) for link in message.get("links", ()))
        fields.check_fields(pairs)
        return pairs

    def file(self, message: Message, size: int) -> None:
        """Begin a body that is a file of `size` bytes (`http.response.pathsend`). Raises ApplicationError."""
        head = self.head
        if self.state is not HEADED or self._trailers is not None or head is None:
            raise self._unexpected(message)
        if head.bodiless:
            if size:
                self.body_dropped(size)
        elif self.length is None:
            self.length = size
        elif self.length != size and not self.head_only:
            raise ApplicationError(f"http.response.pathsend: {size} bytes of file, content-length is {self.length}")
        self.state = BODY
        if self.head_only and not head.bodiless:
            self.sent = size

    def file_piece(self, size: int) -> None:
        """Count `size` bytes of the file that were sent."""
        self.sent += size

    def file_sent(self) -> None:
        """Complete the response: all of the file was sent, or its client is gone."""
        self.state = DONE

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    @property
    def silent(self) -> bool:
        """Whether no bytes of body follow the head. Ask only after `start()` or `answer()`."""
        return self.head_only or (self.head is not None and self.head.bodiless)

    def _unexpected(self, message: Message) -> ApplicationError:
        return ApplicationError(f"unexpected ASGI message {message['type']!r}; expected {self.state.value}")


def _wrong_size(total: int, length: int) -> ApplicationError:
    fault = f"{total} bytes of body" if total > length else f"body ends at {total} bytes"
    return ApplicationError(f"http.response.body: {fault}, but content-length is {length}")
