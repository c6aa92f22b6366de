"""Takes from a process that the application forks our sockets, signal handlers and crash trace.

A forked child has copies of everything. With a copy of our listeners it keeps the port taken after the stop; with our
handlers SIGTERM does not end it; with the loop's wake-up descriptor a signal to the child wakes its parent's loop. So
Python's at-fork hook gives them up in the child, before any code of the application runs. A child that C code forks
without Python's hooks is not reached. Runs in the zygote, in workers and in an embedding program, and must never raise.
"""

import contextlib
import faulthandler
import functools
import os
import signal
from _thread import get_ident
from collections.abc import Callable, Iterable

from aserver import unix

#: The master's signal to dump the stacks. SIGABRT cannot be registered, and applications use SIGUSR1 most.
DUMP_SIGNAL = signal.SIGUSR2

_Identity = tuple[int, int]


class ForkGuard:
    """Descriptors and signal handlers that stay with this process, from `begin` to `end`.

    `handlers` returns our handlers besides the no-op of `unix`; without it signals are left alone. `traced`:
    faulthandler writes into a file that the master reads as this process's, and is switched off in the child.
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
        """Have children that are forked from now on give up the descriptors."""
        _hook()
        if self not in _guards:
            _guards.append(self)

    def end(self) -> None:
        """Have children that are forked from now on keep the descriptors."""
        if self in _guards:
            _guards.remove(self)

    def let_go(self) -> None:
        """Give up descriptors, signal handlers and the trace; runs in the child."""
        if self._identities:
            self._close_descriptors()
        if self._handlers is not None:
            unix.give_back_signals(self._handlers())
        if self._traced:
            faulthandler.unregister(DUMP_SIGNAL)
            faulthandler.disable()

    def _close_descriptors(self) -> None:
        """Close by identity, not by number: the loop accepts on duplicates, and numbers are used again."""
        for fd in map(int, os.listdir("/dev/fd")):
            with contextlib.suppress(OSError):
                if _identity(fd) in self._identities:
                    os.close(fd)


_guards: list[ForkGuard] = []


@functools.cache
def _hook() -> None:
    """Register for every fork from now on. Python cannot unregister it; without guards it does nothing."""
    os.register_at_fork(before=_hold_signals, after_in_parent=_take_signals, after_in_child=_let_go)  # noqa: TID251


#: The signal masks of the threads that are forking now.
_masks: dict[int, set[int]] = {}


def _hold_signals() -> None:
    """Block signals until the child has Python's own dispositions.

    Our handlers would ignore a SIGTERM that comes before, as `Process.terminate()` right after `start()` sends it.
    """
    if _guards:
        _masks[get_ident()] = set(signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))


def _take_signals() -> None:
    mask = _masks.pop(get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _let_go() -> None:
    for guard in _guards:
        guard.let_go()
    _guards.clear()  # a child of the child has nothing of ours any more
    _take_signals()


def _identity(fd: int) -> _Identity:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
