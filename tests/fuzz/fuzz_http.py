"""A fuzz target for the HTTP/1 connection: any bytes, cut anywhere.

`python -m tests.fuzz http -max_total_time=60` lets atheris search, guided by coverage; test_fuzz_http.py lets
Hypothesis try the same entry for some seconds with every run of the suite. What must hold: no exception reaches the
loop; where the bytes are cut makes no difference; and h11 reads the same requests with the same bodies out of what we
have taken.
"""

import asyncio
import re
from collections.abc import Sequence

import h11

from tests.protocol.wiretap import Outcome, Wiretap

#: A chunk extension with white space, which h11 refuses, against RFC 9112 section 7.1.1.
_WHITE_EXTENSION = re.compile(rb"(?m)^[0-9A-Fa-f]+(?:[ \t]+;|;[^\r\n]*[ \t])")


class Checker:
    """Runs inputs in one loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._tap = self._runner.run(_make())

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()

    def check(self, raw: bytes, cuts: Sequence[int]) -> None:
        """Raise AssertionError, or whatever the connection raised, for bytes that it does not bear."""
        whole = self._ask([raw])
        points = sorted({cut % (len(raw) + 1) for cut in cuts})
        pieces = [raw[begin:end] for begin, end in zip([0, *points], [*points, len(raw)], strict=True)]
        parts = self._ask(pieces)
        assert _verdict(whole) == _verdict(parts), (raw, points, whole, parts)
        if _WHITE_EXTENSION.search(raw) is not None:
            return
        theirs, refused = h11_requests(raw)
        taken = [body for body, status in zip(whole.bodies, whole.statuses, strict=True) if status == 200]
        for answer, (method, body) in zip(taken, theirs, strict=False):
            # The application answers with: method, target, Host, version, body.
            assert method == b"HEAD" or (answer.startswith(method + b" ") and answer.endswith(b" " + body)), (
                raw,
                answer,
            )
        # Of an empty line before a request h11 makes an error, against RFC 9112 section 2.2.
        assert not (taken and not theirs and refused and not raw.startswith(b"\r\n")), (raw, whole)

    def _ask(self, pieces: Sequence[bytes]) -> Outcome:
        return self._runner.run(self._tap.ask(pieces))


async def _make() -> Wiretap:
    return Wiretap()


def _verdict(outcome: Outcome) -> tuple[object, ...]:
    """What must not depend on cuts: all that the client sees, also which of two mistakes is answered."""
    return outcome.statuses, outcome.bodies, outcome.open


def h11_requests(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Methods and bodies of the complete requests that h11 finds, and whether it then found an error."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    found: list[tuple[bytes, bytes]] = []
    method, body = b"", b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, body))
                connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    return found, False
                connection.start_next_cycle()
            else:
                return found, False
    except h11.RemoteProtocolError:
        return found, True
