"""The threads of a worker's WSGI application: so many that `threads` requests are worked on at once.

Runs in the worker's loop, which alone counts; threads only take calls from a queue. A thread whose client keeps it
waiting, or whose answer is a stream, is *lent*: it stays with its request, and another takes its place. It must never
start a thread before the first request, because the process may fork after the application was loaded.
"""

import asyncio
import logging
import threading
from collections import deque
from queue import SimpleQueue

from aserver.wsgi.call import Call

log = logging.getLogger("aserver.error")

#: Seconds after which an answer that goes on, or a thread that waits for its client's body, does not count any more.
PATIENCE = 0.1


class Threads:
    """At most `most` threads that count, and those that are lent.

    With `most` 1 a thread is lent only for good (`lend`), so that no two requests are worked on at once.
    """

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        self._most = most
        self.loop = loop
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        self._mail: deque[Call] = deque()  # those that have something in their inboxes
        self._rung = False  # the loop has been told of the mail
        self._alive = 0
        self._lent = 0
        self._started = 0
        self._timer: asyncio.TimerHandle | None = None
        self.calls: set[Call] = set()  # given to a thread, or waiting for a thread

    def start(self, call: Call) -> None:
        """Give a call to the next thread that is free."""
        self.calls.add(call)
        self._queue.put(call)
        self._hire()
        if len(self.calls) > self._alive and self._timer is None and self._most > 1:
            self._timer = self.loop.call_later(PATIENCE, self._look)

    def lend(self, call: Call) -> None:
        """Count the thread of a call no more."""
        if not call.lent and call in self.calls:
            call.lent = True
            self._lent += 1
            self._hire()

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        return max(0, len(self.calls) - self._alive)

    def close(self) -> None:
        """End each thread when its call is done."""
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(self._alive):
            self._queue.put(None)
        self._alive = 0

    def _hire(self) -> None:
        """Start threads until each call has a thread, or there are as many as may be."""
        while self._alive < len(self.calls) and self._alive - self._lent < self._most:
            self._started += 1
            # Daemons: a thread that is stuck must not keep the process, which has waited for its requests before.
            thread = threading.Thread(target=self._work, name=f"wsgi-{self._started}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._alive:
                    raise
                log.warning("no thread can be started beside the %d that there are", self._alive, exc_info=True)
                return
            self._alive += 1

    def _look(self) -> None:
        """While calls wait for a thread, lend those threads that wait themselves."""
        self._timer = None
        if not self.waiting:
            return
        since = self.loop.time() - PATIENCE
        for call in list(self.calls):
            if call.held_since is not None and call.held_since <= since:
                self.lend(call)
        if self.waiting:
            self._timer = self.loop.call_later(PATIENCE, self._look)

    def _ended(self, call: Call) -> None:
        """Hear that a call is over; maybe twice, if its last two posts are read at once."""
        self.calls.discard(call)
        if call.lent:
            call.lent = False
            self._lent -= 1
            if self._alive - self._lent > self._most:
                self._alive -= 1
                self._queue.put(None)

    # ── between threads and loop ─────────────────────────────────────────────────────────────

    def _work(self) -> None:
        """Run calls from the queue until it has None; this is the whole life of a thread."""
        while (call := self._queue.get()) is not None:
            call.run()
            del call  # so that nothing of a request lives until the next request

    def post(self, call: Call) -> None:
        """Tell the loop that something is in a call's inbox. Called by the threads."""
        self._mail.append(call)
        if not self._rung:
            self._rung = True  # `_deliver` takes it back before it looks, so that nothing is forgotten
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: a call that was left behind
                log.debug("a WSGI request has ended after its loop")

    def _deliver(self) -> None:
        self._rung = False
        mail = self._mail
        while mail:
            call = mail.popleft()
            if call.over:
                self._ended(call)
            call.deliver()
