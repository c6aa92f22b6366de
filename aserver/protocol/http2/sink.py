"""The calls of a `Reader` to the connection. Pure: types only."""

from typing import Protocol

from aserver.errors import ClientError
from aserver.protocol.http2.request import StreamRequest
from aserver.protocol.http2.streams import Stream


class StreamSink(Protocol):
    """The receiver of a connection's requests. Its methods may call the `Sender`."""

    def on_request(self, stream: Stream, request: StreamRequest) -> None:
        """Take a request whose head is complete; `on_body` and `on_end` follow unless `stream.complete`.

        Nothing may change `request`, which many streams may share, except its `scope`.
        """

    def on_repeated(self, number: int, request: StreamRequest) -> None:
        """Take a remembered request, complete and without a body, on a new stream. Its `scope` was set by the sink."""

    def on_refused(self, stream: Stream, error: ClientError, request: StreamRequest | None) -> None:
        """Answer with `error.status`, because the request is refused. Only `on_reset` may follow for the stream.

        It is called instead of `on_request`, with `request` for the log, which was checked only in method and target.
        It may also be called during the body (413), with None.
        """

    def on_body(self, stream: Stream, data: bytes) -> None:
        """Take a piece of the body; call `Sender.credit` when the application has taken it."""

    def on_end(self, stream: Stream) -> None:
        """Take the end of the body."""

    def on_reset(self, stream: Stream, code: int, reason: str) -> None:
        """End the exchange. The client has reset the stream (`reason` is empty), or the reader has because of a fault.

        Not called if `stream.owner` is None. The stream is closed: frames that are sent on it are dropped.
        """

    def on_goaway(self, code: int, debug: bytes) -> None:
        """Take a GOAWAY: the client begins no more streams."""

    def on_pong(self, data: bytes) -> None:
        """Take the answer to a `Sender.ping` with the same eight bytes."""

    def on_spent(self) -> None:
        """Arrange that the reader is refilled and fed again after other connections had their turn."""
