"""The calls by which a `Reader` and a `Sender` tell of streams. Pure: shapes only."""

from typing import Protocol

from aserver.errors import ClientError
from aserver.protocol.http2.request import StreamRequest
from aserver.protocol.http2.streams import Stream


class StreamSink(Protocol):
    """The receiver of the requests of one connection. Its methods may call the `Sender`."""

    def on_request(self, stream: Stream, request: StreamRequest) -> None:
        """Take a request whose head is complete; `on_body` and `on_end` follow unless `stream.complete`.

        Many requests may share `request`, which nothing may change. Its first answer is due on `stream`.
        """

    def on_repeated(self, number: int, request: StreamRequest) -> None:
        """Take a complete request without a body whose `scope` the sink has set before, on a new stream."""

    def on_refused(self, stream: Stream, error: ClientError, request: StreamRequest | None) -> None:
        """Answer with `error.status`, because a limit is passed. This is instead of `on_request`, or later (413).

        `request` is for the log: what is known of it, unchecked but for method and target; None later. Nothing more of
        the stream follows, but perhaps `on_reset`.
        """

    def on_body(self, stream: Stream, data: bytes) -> None:
        """Take a piece of the body; call `Sender.credit` when the application has taken it."""

    def on_end(self, stream: Stream) -> None:
        """Take the end of the body."""

    def on_reset(self, stream: Stream, code: int, reason: str) -> None:
        """End the exchange: the client has reset the stream (`reason` is empty), or the reader has, for a mistake.

        Not called if `stream.owner` is None. The stream is closed: what is sent on it from now on is dropped.
        """

    def on_goaway(self, code: int, debug: bytes) -> None:
        """Note that the client begins no more streams."""

    def on_pong(self, data: bytes) -> None:
        """Take the answer to a `Sender.ping` with the same eight bytes."""

    def on_spent(self) -> None:
        """See to it that the reader is refilled and fed again when others have had their turn."""
