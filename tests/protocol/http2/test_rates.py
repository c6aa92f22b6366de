"""Floods end the connection with ENHANCE_YOUR_CALM before they cost much; those that only live long go on."""

import os
import tracemalloc
from collections.abc import Callable

import pytest

from aserver.protocol.http2 import frames, rates
from aserver.protocol.http2.errors import ENHANCE_YOUR_CALM, ConnectionFaultError
from aserver.protocol.http2.rates import Patience
from tests.protocol.http2.attacks import ATTACKS
from tests.protocol.http2.server import PlainServer
from tests.protocol.http2.wire import OPENING, block, post

F = frames
B = block()


@pytest.mark.parametrize(("opening", "series", "most"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_an_attack_ends(opening: bytes, series: Callable[[int], bytes], most: int) -> None:
    """Within so many series, and with so little memory. Fails without the costs in rates.py."""
    server = PlainServer(silent=True)
    server.feed(OPENING + opening)
    made = [series(i) for i in range(most)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for each in made:
        server.reader.feed(b"", 0.0)
        server.feed(each)
        server.sent = b""
        server.requests.clear()
        server.resets.clear()
        if server.fault is not None:
            break
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert server.fault is not None
    assert server.fault.code == ENHANCE_YOUR_CALM
    assert held < 200_000
    assert len(server.streams.open) <= 100


def spend(patience: Patience, costs: list[tuple[int, float]]) -> None:
    for cost, now in costs:
        patience.spend(cost, now)


def test_an_attack_may_not_be_stretched() -> None:
    """Ten resets a second are borne for a day; thirty are not for five minutes."""
    bearable, unbearable = Patience(0.0), Patience(0.0)
    for second in range(86_400):
        bearable.spend(10 * rates.RESET, float(second))
    with pytest.raises(ConnectionFaultError):
        spend(unbearable, [(30 * rates.RESET, float(second)) for second in range(300)])


def test_an_hour_of_quiet_buys_no_flood() -> None:
    """Fails if the time that has passed is counted in full."""
    patience = Patience(0.0)
    with pytest.raises(ConnectionFaultError):
        spend(patience, [(1, 3600.0)] * (2 * rates.LIMIT + 10))


def test_a_pooled_connection_lives_on() -> None:
    """A proxy's requests, every tenth reset, each with a WINDOW_UPDATE and a PING; the clock stands still.

    Fails with a total in place of a rate: at request 500.
    """
    server = PlainServer()
    server.feed(OPENING + F.window_update(0, 2**30))
    ask = F.head(len(B), F.HEADERS, 5, 0) + B
    more = F.window_update(0, 5) + F.ping(b"12345678", ack=False)
    tens = 10_000 if os.environ.get("TEST_LONG") else 1000
    for ten in range(tens):
        piece = bytearray()
        for number in range(20 * ten + 1, 20 * ten + 19, 2):
            piece += ask[:5] + number.to_bytes(4, "big") + ask[9:]
        last = 20 * ten + 19
        server.reader.feed(bytes(piece) + more * 9 + post(last) + F.rst_stream(last, 8), 0.0)
        server.sender.take()
    assert len(server.requests) == 10 * tens
    assert not server.streams.open


def test_a_download_that_is_read_in_small_pieces() -> None:
    """Both windows are widened for each 4 KB, as Go's client does: 40 MB. Fails without SENT_BYTES."""
    server = PlainServer()
    server.feed(OPENING + post(1))
    stream = server.streams.open[1]
    server.sender.head(stream, b"\x88", b"", end=False)
    total = 0
    while total < 40_000_000:
        if stream.queued < 65_536:
            server.sender.data(stream, b"x" * 65_536, end=False)
        taken = len(server.sender.take())
        total += taken
        for _ in range(taken // 4096):
            server.reader.feed(F.window_update(0, 4096) + F.window_update(1, 4096), 0.0)
    assert server.fault is None
