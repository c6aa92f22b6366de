"""Responses as bytes of HTTP/1 (RFC 9112): status line, fields, framing of the body, Connection.

Pure. `semantics/response` decides which messages may be sent. The encoder must never let an unfinished response look
complete, and must never copy a large body.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from aserver.protocol.semantics.fields import RESPONSE_NAMES
from aserver.protocol.semantics.response import BODY, DONE, JOIN_LIMIT, Response
from aserver.protocol.semantics.response_head import Defaults, Head, Heads
from aserver.protocol.semantics.status import PHRASES

Pairs = Sequence[tuple[bytes, bytes]]

#: Status lines without CRLF at their end: every field line begins with CRLF. The version is 1.1 also for requests of
#: HTTP/1.0, since it is the highest that the server speaks, not the request's (RFC 9110 section 2.5).
STATUS_LINES: Final[dict[int, bytes]] = {
    status: b"HTTP/1.1 %d %s" % (status, phrase) for status, phrase in PHRASES.items()
}

#: Name in lower case -> CRLF, name and colon, for names that are often used.
_PREFIXES: Final[dict[bytes, bytes]] = {
    name: b"\r\n%s: " % name for name in (*RESPONSE_NAMES.values(), b"content-length")
}

_CLOSE: Final = b"\r\nconnection: close"
_KEEP_ALIVE: Final = b"\r\nconnection: keep-alive"
_CHUNKED: Final = b"\r\ntransfer-encoding: chunked"
_SWITCH: Final = b"\r\nupgrade: websocket\r\nconnection: Upgrade"


class Encoder:
    """Turns the responses of a worker into bytes."""

    __slots__ = ("_defaults", "_ending", "_lines", "heads")

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self.heads = Heads(defaults, encode_head)
        self.renew()

    def renew(self) -> None:
        """Encode the default fields again, because the date has changed."""
        self._lines = field_lines(self._defaults.pairs)
        self._ending = self._lines + b"\r\n\r\n"

    def first(self, response: Response, body: bytes) -> bytes | list[bytes]:
        """Return the head with the first piece of the body, as a list if to join them would copy a large piece.

        Turns `response.keep_alive` off if only the end of the connection can end the body.
        """
        head = response.head
        assert head is not None
        if head.ready and response.modern:
            opening = head.block + self._ending if response.keep_alive else head.block + _CLOSE + self._ending
        else:
            opening = self._opening(response, head)
            if _is_chunked(response, head):
                return _chunk(opening, body, last=response.state is DONE)
        return opening + body if len(body) < JOIN_LIMIT else [opening, body]

    def piece(self, response: Response, body: bytes) -> bytes | list[bytes]:
        """Return the next piece of the body, as a list if it is large and framed as a chunk."""
        if response.length is None and response.head is not None and _is_chunked(response, response.head):
            return _chunk(b"", body, last=response.state is DONE)
        return body

    def trailers(self, response: Response, fields: Pairs) -> bytes:
        """Return the last chunk with all trailers.

        A body with a content-length has no place for trailers, so they are dropped (RFC 9110 section 6.5 allows it).
        """
        if response.head is not None and _is_chunked(response, response.head):
            return b"0%b\r\n\r\n" % field_lines(fields)
        return b""

    def interim(self, status: int, fields: Pairs) -> bytes:
        """Return an interim response, such as 103 (RFC 9110 section 15.2)."""
        return encode_head(status, fields) + b"\r\n\r\n"

    def switch(self, fields: Pairs, headers: Pairs) -> bytes:
        """Return the 101 response that begins a WebSocket (RFC 6455 section 4.2.2).

        `headers` are the fields that the application has set; `fields` are these and the handshake's.
        """
        lines = field_lines(fields), field_lines(self._defaults.beside(headers))
        return STATUS_LINES[101] + _SWITCH + b"".join(lines) + b"\r\n\r\n"

    def _opening(self, response: Response, head: Head) -> bytes:
        framing = b""
        if head.length is None and not head.bodiless:
            if response.length is not None:
                framing = b"\r\ncontent-length: %d" % response.length
            elif response.state is DONE:
                pass  # the answer to HEAD: the length of GET's body is not known
            elif response.modern:
                framing = _CHUNKED
            elif not response.head_only:
                response.keep_alive = False  # only the end of the connection can end the body (RFC 9112 section 6.3)
        if head.close:
            response.keep_alive = False
        if not response.keep_alive:
            framing += _CLOSE
        elif not response.modern:
            framing += _KEEP_ALIVE
        lines = self._lines if head.plain else field_lines(self._defaults.beside(response.response_headers))
        return head.block + framing + lines + b"\r\n\r\n"


def is_close_delimited(response: Response) -> bool:
    """Tell whether to the client a close would look like the good end of a response (RFC 9112 section 6.3, rule 8)."""
    head = response.head
    return (
        response.state is BODY
        and response.length is None
        and head is not None
        and not (head.bodiless or _is_chunked(response, head))
    )


def _is_chunked(response: Response, head: Head) -> bool:
    return response.length is None and response.modern and not (head.bodiless or response.head_only)


def _chunk(before: bytes, body: bytes, *, last: bool) -> bytes | list[bytes]:
    """Return `before` with a piece of body as a chunk; after the `last`, with the end (RFC 9112 section 7.1)."""
    if not body:
        return before + b"0\r\n\r\n" if last else before
    line = _size_line(len(body))
    end = b"\r\n0\r\n\r\n" if last else b"\r\n"
    if len(body) < JOIN_LIMIT:
        return b"".join((before, line, body, end))
    return [before + line, body, end]


@lru_cache(maxsize=1024)
def _size_line(size: int) -> bytes:
    return b"%x\r\n" % size


def encode_head(status: int, fields: Pairs, reason: bytes = b"") -> bytes:
    """Return a status line and the lines of checked fields, without the CRLFs that end a head.

    `reason` is a checked reason phrase. If it is empty, the standard's phrase is used.
    """
    line = None if reason else STATUS_LINES.get(status)
    parts = [line or b"HTTP/1.1 %d %b" % (status, reason)]
    for name, value in fields:
        parts += (_PREFIXES.get(name) or b"\r\n%s: " % name, value)
    return b"".join(parts)


def field_lines(fields: Pairs) -> bytes:
    """Return the lines of checked fields, each with its CRLF in front."""
    return b"".join([b"\r\n%s: %s" % pair for pair in fields])
