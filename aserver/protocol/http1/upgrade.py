"""The answer to an offer of a WebSocket, as HTTP/1 sends it: 101, or an ordinary response."""

from aserver.protocol.http1.encoder import Encoder
from aserver.protocol.semantics.response import Response
from aserver.protocol.semantics.response_head import Pairs
from aserver.protocol.transport.writer import Writer


class UpgradeAnswer:
    """See `websocket.tunnel.OpeningAnswer`."""

    __slots__ = ("_encoder", "_writer", "heads", "status")

    def __init__(self, encoder: Encoder, writer: Writer) -> None:
        self._encoder = encoder
        self._writer = writer
        self.heads = encoder.heads
        self.status = 101

    def accept(self, fields: Pairs, headers: Pairs) -> None:
        """Send the 101."""
        self._writer.write(self._encoder.switch(fields, headers))

    def send_head(self, response: Response, body: bytes) -> None:
        """Send the head of a refusal with the first piece of its body."""
        self._write(self._encoder.first(response, body))

    def send_data(self, response: Response, body: bytes) -> None:
        """Send the next piece of a refusal's body."""
        self._write(self._encoder.piece(response, body))

    def _write(self, data: bytes | list[bytes]) -> None:
        if isinstance(data, bytes):
            self._writer.write(data)
        else:
            self._writer.write_pieces(data)
