"""The response of a WSGI application: `start_response`, `write()` and the pieces of its body, as ASGI messages.

Pure. The rules of PEP 3333 that an editor must obey:

* the head goes out with the first piece that is not empty, or at the end, and until then `start_response` may be called
  again with `exc_info`; after that such a call raises the exception of `exc_info`;
* a body that has its whole Content-Length is complete; the application may go on without a client;
* an answer to HEAD has the length that GET's has, or none: only a list of one piece tells it without a Content-Length.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Final

from aserver.asgi import REASON, Message
from aserver.errors import ApplicationError

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

#: Statuses of which no body is sent.
_BODILESS: Final = frozenset((204, 205, 304))

#: Fields of the connection that PEP 3333 forbids applications. The protocol takes care of the others.
_HOP_BY_HOP: Final = frozenset((b"te", b"trailer", b"upgrade"))

#: Names of fields that have been converted. An application may make names of its clients' words.
_NAMES_KEPT: Final = 512

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class WSGIResponse:
    """The response of a request, as far as the application has made it.

    `emit` takes a message with a piece of the body and the number of its bytes, and before it the head, once.
    """

    __slots__ = ("_emit", "_head", "_head_only", "_length", "_mute", "_sent", "_size", "complete")

    def __init__(self, emit: Callable[[Message | None, Message, int], None], *, head_only: bool) -> None:
        self._emit = emit
        self._head_only = head_only
        self._mute = head_only  # or the status has no body
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._length: int | None = None
        self._sent = False
        self._size = 0
        self.complete = False

    def start_response(
        self, status: object, headers: Iterable[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Take status and headers; return `write`."""
        if exc_info is not None:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the frames of the traceback
        elif self._head is not None:
            raise ApplicationError("start_response was called a second time, and without exc_info")
        (code, phrase), pairs = _status(status), _pairs(headers)
        self._length = _length(pairs)
        if phrase is not None:
            pairs.append((REASON, phrase))
        self._head = code, pairs
        self._mute = self._head_only or code in _BODILESS
        return self.write

    @property
    def silent(self) -> bool:
        """Whether nothing that follows is sent: the request was HEAD, or the status has no body."""
        return self.complete and self._mute

    @property
    def left(self) -> int | None:
        """How many bytes the body may still have; None without a Content-Length."""
        return None if self._length is None else self._length - self._size

    def write(self, piece: object) -> None:
        """Send a piece of the body, and before the first piece the head."""
        self.send(piece, last=False)

    def send(self, piece: object, *, last: bool) -> None:
        """Send a piece of the body, and before the first piece the head; the `last` one, unless empty, is the end."""
        if not isinstance(piece, bytes):
            raise ApplicationError(f"a piece of the body is {type(piece).__name__}, must be bytes")
        if self._head is None:
            raise ApplicationError("the body has begun before start_response was called")
        if not piece or self.silent:
            return
        if self.complete:
            raise ApplicationError(f"the body goes on after the {self._length} bytes of its Content-Length")
        self._size += len(piece)
        self.complete = last or self._size == self._length or self._mute
        if self._head_only and not last:
            piece = b""
        message = {"type": "http.response.body", "body": piece, "more_body": not self.complete}
        self._emit(self._opening(), message, len(piece))

    def end(self) -> None:
        """Complete the response after the last piece."""
        if self._head is None:
            raise ApplicationError("the application returned without having called start_response")
        if not self.complete:
            self.complete = True
            self._emit(self._opening(), {"type": "http.response.body", "body": b"", "more_body": False}, 0)

    def _opening(self) -> Message | None:
        """The head, if it is not out yet."""
        if self._sent or self._head is None:
            return None
        self._sent = True
        status, headers = self._head
        return {"type": "http.response.start", "status": status, "headers": headers}


def _status(status: object) -> tuple[int, bytes | None]:
    parts = _parts(status) if isinstance(status, str) else None
    if parts is None:
        raise ApplicationError(f"start_response: status is {status!r}, must be like '200 OK', from 200 to 599")
    return parts


@lru_cache(maxsize=128)
def _parts(status: str) -> tuple[int, bytes | None] | None:
    """The code, and the phrase if it is another than the standard's; None if it is no status."""
    if not (status[:3].isdecimal() and not status[3:4].strip()):
        return None
    code, phrase = int(status[:3]), status[4:].strip()
    if not 200 <= code <= 599:
        return None
    return code, None if phrase in {"", _PHRASES.get(code)} else phrase.encode("latin-1", "replace")


def _pairs(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    try:
        return [(known, value.encode("latin-1")) for name, value in headers if (known := _name(name)) is not None]
    except (AttributeError, TypeError, ValueError) as error:
        raise ApplicationError(f"start_response: headers must be pairs of latin-1 texts: {error}") from error


@lru_cache(maxsize=_NAMES_KEPT)
def _name(name: str) -> bytes | None:
    """The name of a field; None if it is the connection's."""
    known = name.lower().encode("latin-1")
    return None if known in _HOP_BY_HOP else known


def _length(pairs: list[tuple[bytes, bytes]]) -> int | None:
    for name, value in pairs:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None
