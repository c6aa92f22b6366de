"""The counters of this worker, as plain numbers; `flush` writes them to its page. Pure.

A request appends the time at which it began to a list, and no more: to look at the clock and to count on shared memory
at once would cost five times as much. So durations end with the turn of the loop in which their responses did, which is
when the loop writes them; and a worker that is killed takes with it its counts since its last heartbeat.
"""

from array import array
from bisect import bisect_left

from aserver.metrics.page import BOUNDS, BUCKETS, Histogram

#: Close codes of WebSockets begin with this many hundreds, and end before this many.
_CLOSE, _END = 10, 50


class Meter:
    """`accepted` connections; bytes `received` and `sent`, in bodies and messages.

    `ended` has a list for each hundred of a status or close code: when the requests began that ended in this turn.
    `lags` and `queues` are lists of seconds.
    """

    __slots__ = ("_sums", "_turn", "_waiting", "_words", "accepted", "ended", "lags", "queues", "received", "sent")

    def __init__(self) -> None:
        self.accepted = 0
        self.received = 0
        self.sent = 0
        self._waiting: list[list[float]] = [[] for _ in Histogram]
        self._words: list[list[int]] = [[0] * BUCKETS for _ in Histogram]
        self._sums: list[float] = [0.0 for _ in Histogram]
        turn: list[list[float]] = [[] for _ in range(Histogram.WEBSOCKET + 1)]
        self._turn = list(zip(turn, self._waiting, strict=False))
        other, websocket = turn[Histogram.OTHER], turn[Histogram.WEBSOCKET]
        self.ended = [*turn[:-1], *[other] * (_CLOSE - len(turn) + 1), *[websocket] * (_END - _CLOSE)]
        self.lags = self._waiting[Histogram.LAG]
        self.queues = self._waiting[Histogram.QUEUE]

    def end_turn(self, now: float) -> None:
        """Take in the requests that ended in this turn of the loop."""
        for began, durations in self._turn:
            if began:
                durations += [now - each for each in began]
                began.clear()

    def flush(self, page: memoryview, dropped: int) -> None:
        """Write all to the page; `dropped` are the log records that this process has lost."""
        words: list[int] = []
        for index, values in enumerate(self._waiting):
            buckets = self._words[index]
            if values:
                self._sums[index] += sum(values)
                if max(values) <= BOUNDS[0]:
                    buckets[0] += len(values)
                else:
                    for value in values:
                        buckets[bisect_left(BOUNDS, value)] += 1
                values.clear()
            words += buckets
            words.append(int(self._sums[index] * 1e9))
        page[:] = array("Q", [*words, self.accepted, self.received, self.sent, dropped])
