"""Floods end the connection with ENHANCE_YOUR_CALM before they cost much; those that only live long go on."""

import os
import tracemalloc
from collections.abc import Callable

import pytest

from aserver.protocol.http2 import frames, rates
from aserver.protocol.http2.errors import ENHANCE_YOUR_CALM, ConnectionFaultError
from aserver.protocol.http2.rates import Patience
from tests.protocol.http2.rfc9113_rows import n, setting
from tests.protocol.http2.server import PlainServer
from tests.protocol.http2.wire import OPENING, block, data, frame, get, post

F = frames
B = block()


def numbers(series: int) -> int:
    return 2 * series + 1


#: Name, the frames that come again and again, and those before them. A stream in a series is the series' own.
ATTACKS: list[tuple[str, bytes, Callable[[int], bytes], int]] = [
    ("rapid reset", b"", lambda i: post(numbers(i)) + F.rst_stream(numbers(i), 8), 170),
    ("MadeYouReset by WINDOW_UPDATE 0", b"", lambda i: post(numbers(i)) + F.window_update(numbers(i), 0), 190),
    ("MadeYouReset by a large window", b"", lambda i: post(numbers(i)) + F.window_update(numbers(i), 2**31 - 1), 190),
    ("MadeYouReset by DATA behind the end", b"", lambda i: post(numbers(i)) + data(numbers(i), end=True) * 2, 260),
    ("MadeYouReset by content-length", b"", lambda i: get(numbers(i), (b"content-length", b"1")), 210),
    ("MadeYouReset by PRIORITY", b"", lambda i: post(numbers(i)) + frame(F.PRIORITY, 0, numbers(i), b""), 210),
    ("malformed heads", b"", lambda i: get(numbers(i), (b"UPPER", b"x")), 210),
    ("more streams than allowed", b"".join(post(numbers(i)) for i in range(100)), lambda i: get(numbers(i + 100)), 210),
    ("empty CONTINUATION", F.head(len(B), F.HEADERS, 1, 1) + B, lambda i: frame(F.CONTINUATION, 0, 1), 1001),
    ("CONTINUATION", F.head(len(B), F.HEADERS, 1, 1) + B, lambda i: frame(F.CONTINUATION, 0, 1, B * 100), 40),
    ("SETTINGS", b"", lambda i: F.settings({}), 170),
    ("SETTINGS with windows", b"", lambda i: setting(F.INITIAL_WINDOW_SIZE, i), 160),
    ("SETTINGS of 2,730", b"", lambda i: F.settings({}) + frame(F.SETTINGS, 0, 0, (n(9, 2) + n(0)) * 2730), 1),
    ("PING", b"", lambda i: F.ping(b"12345678", ack=False), 1001),
    ("empty DATA", post(1), lambda i: data(1), 1001),
    ("padding", post(1), lambda i: frame(F.DATA, F.PADDED, 1, b"\3\0\0\0"), 1001),
    ("DATA for a stream that was reset", post(1) + F.window_update(1, 0), lambda i: data(1, b"x"), 1001),
    ("HEADERS for a stream that was reset", post(1) + F.window_update(1, 0), lambda i: frame(F.HEADERS, 5, 1), 1001),
    ("WINDOW_UPDATE of 1", b"", lambda i: F.window_update(0, 1), 2001),
    ("WINDOW_UPDATE of streams that are gone", get(1), lambda i: F.window_update(1, 1), 2001),
    ("PRIORITY", b"", lambda i: frame(F.PRIORITY, 0, 1, n(0) + b"\1"), 1001),
    ("PRIORITY_UPDATE", b"", lambda i: frame(F.PRIORITY_UPDATE, 0, 0, n(1) + b"u=1"), 1001),
    ("unknown frames", b"", lambda i: frame(0x42, 0, 1), 1001),
    ("GOAWAY", b"", lambda i: F.goaway(0, 0), 1001),
]  # fmt: skip


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
