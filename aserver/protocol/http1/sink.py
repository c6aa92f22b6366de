"""The calls by which a `RequestReader` tells of the requests that it reads. Pure: shapes only."""

from collections.abc import Mapping
from typing import Final, Protocol

Headers = list[tuple[bytes, bytes]]

#: The length of a body in chunks, as `RequestSink.on_request` gets it.
CHUNKED: Final = -1


class RequestSink(Protocol):
    """The receiver of requests. It may be called from inside the parser, where it must not start an application."""

    def on_request(  # noqa: PLR0917 - by keyword it is 0.3 us more, at each request
        self,
        method: str,
        target: bytes,
        version: str,
        headers: Headers,
        keep_alive: bool,  # noqa: FBT001
        forwarding: Mapping[bytes, bytes],
        framing: Mapping[bytes, bytes] | None,
        length: int,
    ) -> None:
        """Take a request whose head is complete. May raise ClientError.

        Many requests may share `headers`, which nothing may change.

        `length` is that of the body which follows, or CHUNKED; `on_end` is called only if it is not 0. `forwarding` has
        the fields that proxies add; `framing` those of `fields.FRAMING_NAMES`, or is None if they are plain.
        """

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def on_end(self) -> None:
        """Take the end of the body."""

    def on_offer(self) -> bool:
        """Tell whether the last request, which offers another protocol, ends HTTP here; then call `take_rest`."""

    def on_spent(self) -> None:
        """See to it that the reader goes on when others have had their turn."""
