"""What a process that the application forks must not keep of ours: sockets, signal handlers, the crash trace.

A forked child has copies of everything. With our listeners it keeps the port taken after the stop (trap 16); with our
handlers SIGTERM does not end it; and with the loop's wake-up descriptor a signal to the child is news to its parent's
loop. Python's own hook runs in the child before any code of the application does. A child that C code forks behind
Python's back is out of reach. It runs in the zygote, in workers and in an embedding program, and must never raise.
"""

import contextlib
import faulthandler
import functools
import os
import signal
from collections.abc import Callable, Iterable

from aserver import unix

#: The stacks are dumped on the master's signal. SIGABRT cannot be registered, and SIGUSR1 is what apps use most.
DUMP_SIGNAL = signal.SIGUSR2

_Identity = tuple[int, int]


class Reserved:
    """Descriptors and signal handlers that stay with this process, from `begin` to `end`.

    `handlers` says which handlers are ours besides the no-op ones of `unix`; without it signals are left alone.
    `traced`: faulthandler writes into a file that somebody reads as this process's.
    """

    def __init__(
        self,
        descriptors: Iterable[int] = (),
        handlers: Callable[[], Iterable[object]] | None = None,
        *,
        traced: bool = False,
    ) -> None:
        self._identities = {_identity(fd) for fd in descriptors}
        self._handlers = handlers
        self._traced = traced

    def begin(self) -> None:
        """From now on a forked child lets go of it."""
        _hook()
        if self not in _reserved:
            _reserved.append(self)

    def end(self) -> None:
        """From now on a forked child keeps it."""
        if self in _reserved:
            _reserved.remove(self)

    def let_go(self) -> None:
        """In the child."""
        if self._identities:
            self._close_descriptors()
        if self._handlers is not None:
            unix.give_back_signals(self._handlers())
        if self._traced:
            faulthandler.unregister(DUMP_SIGNAL)
            faulthandler.disable()

    def _close_descriptors(self) -> None:
        """By identity, not by number: the loop accepts on duplicates, and a number may be somebody else's by now."""
        for fd in map(int, os.listdir("/dev/fd")):
            with contextlib.suppress(OSError):
                if _identity(fd) in self._identities:
                    os.close(fd)


_reserved: list[Reserved] = []


@functools.cache
def _hook() -> None:
    """Use the hook that fires for every fork. It cannot be taken back, but does nothing without `_reserved`."""
    os.register_at_fork(after_in_child=_let_go)  # noqa: TID251


def _let_go() -> None:
    for reserved in _reserved:
        reserved.let_go()
    _reserved.clear()  # what the child forks in turn has nothing of ours to lose


def _identity(fd: int) -> _Identity:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
