"""The counters of this worker, as plain numbers; `flush` writes them to its page. Pure.

A request appends the time at which it began to a list, and no more: to look at the clock and to count on shared memory
at once would cost five times as much. So durations end with the turn of the loop in which their responses did, which is
when the loop writes them; and a worker that is killed takes with it its counts since its last heartbeat.
"""

from array import array
from bisect import bisect_left

from aserver.metrics.page import BOUNDS, BUCKETS, WORDS, Histogram

#: Close codes of WebSockets begin with this many hundreds, and end before this many.
_CLOSE, _END = 10, 50


class Meter:
    """`accepted` connections; bytes `received` and `sent`, in bodies and messages.

    `ended` has a list for each hundred of a status or close code: the times at which the requests began that have ended
    in this turn of the loop. `lags` and `queues` are lists of seconds.
    """

    __slots__ = ("_rows", "_sums", "_turn", "accepted", "ended", "lags", "queues", "received", "sent")

    def __init__(self) -> None:
        self.accepted = 0
        self.received = 0
        self.sent = 0
        self.lags: list[float] = []
        self.queues: list[float] = []
        self._rows: list[list[int]] = [[0] * BUCKETS for _ in Histogram]
        self._sums: list[float] = [0.0 for _ in Histogram]
        turn: list[list[float]] = [[] for _ in range(Histogram.WEBSOCKET + 1)]
        self._turn = list(enumerate(turn))
        other, websocket = turn[Histogram.OTHER], turn[Histogram.WEBSOCKET]
        self.ended = [*turn[:-1], *[other] * (_CLOSE - len(turn) + 1), *[websocket] * (_END - _CLOSE)]

    def end_turn(self, now: float) -> None:
        """Count the requests that ended in this turn of the loop."""
        for row, began in self._turn:
            if began:
                if now - min(began) <= BOUNDS[0]:  # nearly always; so none of them is looked at by itself
                    self._rows[row][0] += len(began)
                    self._sums[row] += max(0.0, len(began) * now - sum(began))  # it might round below 0
                else:
                    self._count(row, [now - each for each in began])
                began.clear()

    def _count(self, row: int, durations: list[float]) -> None:
        self._sums[row] += sum(durations)
        buckets = self._rows[row]
        for duration in durations:
            buckets[bisect_left(BOUNDS, duration)] += 1

    def flush(self, page: memoryview, dropped: int) -> None:
        """Write all to the page; `dropped` are the log records that this process has lost."""
        self._count(Histogram.LAG, self.lags)
        self._count(Histogram.QUEUE, self.queues)
        self.lags.clear()
        self.queues.clear()
        words: list[int] = []
        for buckets, total in zip(self._rows, self._sums, strict=True):
            words += buckets
            words.append(int(total * 1e9))
        page[:WORDS] = array("Q", [*words, self.accepted, self.received, self.sent, dropped])
