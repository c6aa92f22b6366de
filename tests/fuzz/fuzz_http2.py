"""A fuzz target for the pure half of HTTP/2: any bytes behind a good beginning, cut anywhere.

`python -m tests.fuzz http2` lets atheris search; test_fuzz_http2.py lets Hypothesis try the same entry. What must hold:
nothing is raised but ConnectionFaultError; where the bytes are cut makes no difference; what is sent consists of whole
frames; and what is kept stays small.
"""

from collections.abc import Sequence

from aserver.protocol.http2.frames import FRAME_SIZE
from tests.protocol.http2.server import PlainServer
from tests.protocol.http2.wire import OPENING, told

MOST_STREAMS = 5


class Checker:
    """Runs inputs."""

    def check(self, raw: bytes, cuts: Sequence[int]) -> None:
        """Raise AssertionError, or whatever the reader raised, for bytes that it does not bear."""
        points = sorted({cut % (len(raw) + 1) for cut in cuts})
        pieces = [raw[begin:end] for begin, end in zip([0, *points], [*points, len(raw)], strict=True)]
        whole, parts = self._ask([raw]), self._ask(pieces)
        assert whole == parts, (raw, points, whole, parts)

    def _ask(self, pieces: Sequence[bytes]) -> tuple[object, ...]:
        server = PlainServer(most_streams=MOST_STREAMS)
        server.feed(OPENING)
        for piece in pieces:
            server.feed(piece)
            if server.fault is not None:
                break
            assert server.reader.unread <= FRAME_SIZE + 9
            assert len(server.streams.open) <= MOST_STREAMS
        requests = [(each.method, each.target, each.headers, each.length) for each in server.requests]
        code = None if server.fault is None else server.fault.code
        return told(server.sent), requests, server.bodies, server.refused, server.resets, server.pongs, code
