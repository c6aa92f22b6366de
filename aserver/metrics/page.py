"""The page of a worker's counters in shared memory: 64-bit words, written by that worker alone. Pure.

Rows come first: histograms of the same shape, whose counts are not cumulative. Then each word is a counter. The last
words are no counters but the present state: for each duty in `Awaited`, the number of clients that have it just now.
"""

import struct
from collections.abc import Iterable
from enum import Enum, IntEnum

#: Upper bounds of the buckets in seconds, inclusive; above the last is another bucket. OpenTelemetry's for HTTP
#: servers.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class Histogram(IntEnum):
    """The histograms; the first six are requests by the class of their status."""

    OTHER = 0  # the client left before an answer had begun, or the status is above 599
    INFORMATIONAL = 1
    SUCCESS = 2
    REDIRECTION = 3
    CLIENT_ERROR = 4
    SERVER_ERROR = 5
    WEBSOCKET = 6  # WebSockets that have ended
    LAG = 7  # how late heartbeats were
    QUEUE = 8  # from `X-Request-Start` to here


#: Words of a row: the buckets, then the sum in nanoseconds.
BUCKETS = len(BOUNDS) + 1
SUM = BUCKETS
ROW_WORDS = BUCKETS + 1


class Counter(IntEnum):
    """The other words, by their place on the page."""

    CONNECTIONS = len(Histogram) * ROW_WORDS  # accepted
    RECEIVED = CONNECTIONS + 1  # bytes of bodies and messages
    SENT = CONNECTIONS + 2
    DROPPED = CONNECTIONS + 3  # log records


#: Words that are counters.
WORDS = len(Histogram) * ROW_WORDS + len(Counter)


class Awaited(Enum):
    """The reason of a deadline: the client's next duty."""

    NOTHING = "nothing"
    FIRST_REQUEST = "its first request"
    NEXT_REQUEST = "another request"
    HEAD = "the rest of a request's head"
    BODY = "the rest of a request's body"
    LINGER = "the end of its bytes, after the last answer"
    SIGN_OF_LIFE = "any bytes, to show that it is there (WebSocket)"
    CLOSE_FRAME = "its close frame (WebSocket)"
    WINDOW = "room in its windows for an answer (HTTP/2)"
    NO_STREAM = "the end of its streams, before the connection leaves (HTTP/2)"
    FAREWELL = "its answer to the PING before the connection ends (HTTP/2)"
    READING = "a sign that it reads what is written to it"
    LAST_READING = "a sign that it reads what is written to it last, before the connection ends"
    PROXY_HEADER = "its PROXY header"
    TLS_HANDSHAKE = "the rest of its TLS handshake"


#: Words of a page: the counters, and one for each `Awaited`.
ALL_WORDS = WORDS + len(Awaited)
#: Bytes of a page: whole cache lines, with room for words to come.
PAGE_SIZE = 1344
_OWED = struct.Struct(f"={len(Awaited)}Q")


def write_owed(page: memoryview, owed: Iterable[Awaited]) -> None:
    """Count the duties of all clients onto a page, given by its words."""
    counts = dict.fromkeys(Awaited, 0)
    for awaited in owed:
        counts[awaited] += 1
    for index, count in enumerate(counts.values(), WORDS):
        page[index] = count


def read_owed(page: bytes) -> dict[str, int]:
    """The duties of a worker's clients, each with the number of clients; none where the page has been cut."""
    counts = _OWED.unpack_from(page, WORDS * 8) if len(page) >= ALL_WORDS * 8 else ()
    return {awaited.value: count for awaited, count in zip(Awaited, counts, strict=False) if count}
