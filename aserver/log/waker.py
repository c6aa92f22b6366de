"""Has the loop call a sink again that could not write: when its descriptor takes more, or after a pause.

Runs in the loop of each process, except for `ask`, which may be called in any thread and in a signal handler.
"""

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from enum import Enum

from aserver.log.descriptor import Descriptor

#: Seconds between two tries on a full disk or a broken pipe, where no readiness is ever reported.
RETRY_PAUSE = 1.0
#: Seconds between two looks at a blocked descriptor that a loop must not watch (`Descriptor.watchable`).
LOOK_PAUSE = 0.01


class Wait(Enum):
    """Why lines are still in a sink."""

    NOTHING = "nothing"  # there are none, or the next record tries again
    READER = "reader"  # the reader of a pipe, terminal or socket does not read
    ROOM = "room"  # the disk is full


class Waker:
    """Calls `resume` when the descriptor may take more, again and again until `waits` returns NOTHING."""

    def __init__(self, descriptor: Descriptor, waits: Callable[[], Wait], resume: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._waits = waits
        self._resume = resume
        self._loop: AbstractEventLoop | None = None
        self._asked = False  # `_watch` is scheduled
        self._watching: AbstractEventLoop | None = None
        self._timer: TimerHandle | None = None

    def attach(self, loop: AbstractEventLoop | None) -> None:
        """Use `loop` from now on; None before the loop closes."""
        self.stop()
        self._loop = loop
        self._asked = False

    def ask(self) -> None:
        """See to it that `resume` is called later. Without a loop nothing happens: the next record tries again."""
        if self._loop is not None and not self._asked:
            try:
                self._loop.call_soon_threadsafe(self._watch)
                self._asked = True
            except RuntimeError:  # the loop is closed
                self._loop = None

    def _watch(self) -> None:
        self._asked = False
        wait = self._waits()
        if self._loop is None or wait is Wait.NOTHING or self._watching is not None or self._timer is not None:
            return
        if wait is Wait.READER and self._descriptor.watchable:
            self._watching = self._loop
            self._loop.add_writer(self._descriptor.fd, self._woken)
        else:
            self._timer = self._loop.call_later(LOOK_PAUSE if wait is Wait.READER else RETRY_PAUSE, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._resume()
        if self._waits() is not Wait.READER:
            self.stop()  # else a broken pipe reports readiness for ever
        self._watch()

    def stop(self) -> None:
        """Have the loop watch no more; before the descriptor changes."""
        loop, self._watching = self._watching, None
        if loop is not None and not loop.is_closed():
            loop.remove_writer(self._descriptor.fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """Drop the parent's loop without a call to it; called in a forked child."""
        self._loop = self._watching = self._timer = None
        self._asked = False
