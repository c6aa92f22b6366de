"""A parser that begins in the middle of a request, at its body.

Runs in the worker's loop, for requests whose head another parser has read and whose body it would skip.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Callbacks(Protocol):
    """What a parser calls."""

    def on_url(self, url: bytes) -> None:
        """Take the request target."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head or of the trailers."""

    def on_headers_complete(self) -> None:
        """Note the end of the head."""

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def on_message_complete(self) -> None:
        """Note the end of the request."""


class Resumed:
    """Passes a parser's calls on, all but those for its first, made-up head."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._primed = False
        self.on_body = callbacks.on_body
        self.on_message_complete = callbacks.on_message_complete

    def prime(self, feed: Callable[[Any], object], length: int | None) -> None:
        """Feed the parser a head that only says how the body is framed: `length` bytes, or chunked if None."""
        framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        feed(b"POST / HTTP/1.1\r\n%s\r\n\r\n" % framing)
        self._primed = True

    def on_url(self, url: bytes) -> None:
        """See `Callbacks`."""
        if self._primed:
            self._callbacks.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `Callbacks`."""
        if self._primed:
            self._callbacks.on_header(name, value)

    def on_headers_complete(self) -> None:
        """See `Callbacks`."""
        if self._primed:
            self._callbacks.on_headers_complete()
