"""Series of frames that make work and bring nothing, for the reader alone and for the real server."""

from collections.abc import Callable

from aserver.protocol.http2 import frames
from tests.protocol.http2.rfc9113_rows import headers, n, setting
from tests.protocol.http2.wire import block, data, frame, get, post

F = frames
B = block()
#: A request that leaves a field of 4 KB in the table.
BIG = headers(1, B + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000)


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
    ("GOAWAY", post(1), lambda i: F.goaway(0, 0), 1001),
    ("HPACK bomb", BIG, lambda i: headers(numbers(i + 1), B + b"\xbe" * 16_000), 1),
    ("HPACK bomb of many small fields", get(1), lambda i: headers(numbers(i + 1), B + b"\x90" * 16_000), 50),
    ("HPACK bomb in trailers", BIG, lambda i: post(numbers(i + 1)) + headers(numbers(i + 1), b"\xbe" * 16_000), 1),
]  # fmt: skip
