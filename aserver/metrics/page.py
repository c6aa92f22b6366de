"""The page of a worker's counters in shared memory: 64-bit words, written by that worker alone. Pure.

Rows come first: histograms of the same shape, whose counts are not cumulative. Each of the other words is one counter.
"""

from enum import IntEnum

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


WORDS = len(Histogram) * ROW_WORDS + len(Counter)
#: Bytes of a page: whole cache lines, with room for words to come.
PAGE_SIZE = 1344
