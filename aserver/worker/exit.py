"""The end of a process as Python ends it, except that the interpreter is not unwound.

Unwinding would walk the preloaded heap, and so copy it. Runs in a worker whose loop has ended, and in the zygote. The
steps: non-daemon threads are joined and executors ended (`threading._shutdown`); exit functions run (`atexit`, and with
them multiprocessing's end and `weakref.finalize`); streams and logs are written out; `os._exit`. Each step may run the
application's code, and take for ever. Meanwhile a thread of ours, the watch, writes the heartbeat; when the time is
over it logs which threads and children are cut off, and ends the process.
"""

import atexit
import contextlib
import logging
import os
import select
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from aserver import importer
from aserver.errors import ExitCode
from aserver.log import stdio
from aserver.log.setup import Logging

log = logging.getLogger("aserver.error")

#: Seconds that threads get at the least: a pool that is told to end needs part of a second.
LEAST = 1.0
#: Seconds for exit functions, after the threads; then LEAST to come to an end. In all less than
#: QUIT_ALLOWANCE of master/core/limits.py.
EXIT_TIME = 2.0
#: Seconds between two heartbeats, as from the loop.
BEAT = 0.1

#: Exit functions that the standard library registers once, at import. Each process needs them, and a second call does
#: nothing.
_LIBRARY = (("multiprocessing.util", "_exit_function"), ("weakref", "finalize._exitfunc"), ("logging", "shutdown"))


def disown_exit_hooks() -> None:
    """Leave exit functions that were registered before the fork to the zygote. Call it in a forked worker.

    Otherwise the first worker to leave removes a `TemporaryDirectory` that all share. The functions of `atexit` are
    skipped by `ProcessExit`, with `inherits`. They are not cleared here, because an object that only such a function
    refers to would be freed, and so cleaned up.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        process._children = set()  # type: ignore[attr-defined]  # the zygote's children: this process cannot wait


class ProcessExit:
    """The end of a process. With `inherits`, exit functions registered before this is made are another process's.

    Once the end has begun, the watch calls `beat` several times a second, and `listen(seconds)`, which waits for at
    most so long and may call `hurry`. `first` is called before all other steps, `last` right before the process ends;
    each once.
    """

    def __init__(
        self,
        logs: Logging,
        *,
        inherits: bool = False,
        beat: Callable[[], None] | None = None,
        listen: Callable[[float], None] | None = None,
        first: Callable[[], None] | None = None,
        last: Callable[[], None] | None = None,
    ) -> None:
        self._pid = os.getpid()
        self._logs = logs
        self._beat = beat
        self._listen = listen or _pause
        self._first = iter((first,) if first else ())
        self._last = iter((last,) if last else ())
        self._code: int = ExitCode.UNEXPECTED
        self._deadline = 0.0
        self._watch: threading.Thread | None = None
        self._joins = True
        self._turn = iter((None,))  # taken by the thread that runs the exit functions
        self._cut = False
        self._told = False
        self._began = 0.0
        if inherits:
            # Exit functions run from the last to the first: this ends the process before earlier functions run.
            atexit.register(self._barrier)

    def begin(self, code: int, seconds: float = 0.0) -> None:
        """Start the watch: threads get `seconds`, and at least LEAST; then it ends the process with `code`."""
        if self._watch is not None or os.getpid() != self._pid:
            return
        self._code = code
        self._began = time.monotonic()
        self._deadline = self._began + max(seconds, LEAST)
        watch = threading.Thread(target=self._keep_watch, name="aserver leaves", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads are allowed: `go` then waits for none
            watch.start()
            self._watch = watch

    def hurry(self, seconds: float) -> None:
        """Threads get no more than `seconds` from now, and at least LEAST."""
        if self._joins:
            self._deadline = min(self._deadline, time.monotonic() + max(seconds, LEAST))

    def go(self, code: int, *, join: bool = True) -> NoReturn:
        """End the process with `code`. Without `join`, threads are cut off and not logged."""
        self.begin(code)
        self._code = code
        try:
            if os.getpid() != self._pid:
                os._exit(code)  # a child that the application has forked, and that came here by sys.exit()
            self._run_first()
            if join and self._watch is not None:
                _guarded(threading._shutdown)  # type: ignore[attr-defined]  # there is no public name for it
            self._run_exit_functions()
        finally:
            os._exit(code)

    def _run_first(self) -> None:
        for first in self._first:
            _guarded(first)

    def _run_exit_functions(self) -> None:
        """Run exit functions and end the process. Called by the main thread or by its substitute; the first does it."""
        if next(self._turn, self) is self:
            _pause(None)  # the other thread ends the process
        self._joins = False
        if not self._cut:
            self._deadline = max(self._deadline, time.monotonic() + EXIT_TIME)
        atexit._run_exitfuncs()  # there is no public name for it
        self._finish()

    def _barrier(self) -> None:
        if not self._joins and os.getpid() == self._pid:
            for module, name in _LIBRARY:
                _guarded(_find(module, name))
            self._finish()

    def _finish(self) -> NoReturn:
        try:
            stdio.finish_streams()
            self._run_last()
            self._logs.close()
        finally:
            os._exit(self._code)

    def _run_last(self) -> None:
        for last in self._last:
            last()

    # ── the watch ────────────────────────────────────────────────────────────────────────────

    def _keep_watch(self) -> None:
        self._until_deadline()
        took_over = self._joins
        log.warning("after %.1f s this process leaves, and cuts off: %s", time.monotonic() - self._began, _unfinished())
        self._cut = True
        _kill_children()
        self._deadline = time.monotonic() + (EXIT_TIME if took_over else LEAST)
        if took_over:
            # The main thread waits for other threads, perhaps for ever; exit functions run all the same.
            threading.Thread(target=self._take_over, name="aserver takes over", daemon=True).start()
        self._until_deadline()
        if took_over:
            log.warning("exit functions took longer than %g s, and are cut off", EXIT_TIME)
        self._run_last()
        self._logs.close(0.0)
        os._exit(self._code)

    def _take_over(self) -> None:
        self._run_first()
        self._run_exit_functions()

    def _until_deadline(self) -> None:
        while (left := self._deadline - (now := time.monotonic())) > 0:
            if self._beat is not None:
                self._beat()
            if not self._told and now - self._began > LEAST:
                self._told = True
                log.info("before it leaves, this process waits up to %.1f s for: %s", left, _unfinished())
            self._listen(min(BEAT, left))


def _guarded(function: Callable[[], Any] | None) -> None:
    if function is None:
        return
    try:
        function()
    except Exception:
        log.exception("an exit function raised")


def _find(module: str, name: str) -> Callable[[], Any] | None:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if callable(found) else None


def _pause(seconds: float | None) -> None:
    select.select([], [], [], seconds)


def _unfinished() -> str:
    """The threads and child processes that a Python program waits for at its end: a clause for each."""
    frames = sys._current_frames()
    main = threading.main_thread()
    found = [
        f"thread {thread.name!r}{_place(frames.get(thread.ident or 0))}"
        for thread in threading.enumerate()
        if thread is not main and not thread.daemon
    ]
    found += [f"process {child.name!r} (pid {child.pid})" for child in _children()]
    frame = sys._current_frames().get(main.ident or 0)
    return "; ".join(found) or f"the main thread{_place(frame)}"


def _children() -> Iterator[Any]:
    multiprocessing = sys.modules.get("multiprocessing")
    return iter(multiprocessing.active_children() if multiprocessing is not None else ())


def _kill_children() -> None:
    """End multiprocessing's children: they wait for their parent, and would be orphans for ever."""
    for child in _children():
        with contextlib.suppress(OSError, ValueError):  # it has ended, or was closed
            child.kill()


def _place(frame: FrameType | None) -> str:
    """The application's line in the stack of `frame`, after the word "at"; empty if none of its code is there."""
    place = importer.user_place(traceback.extract_stack(frame)) if frame is not None else None
    return f" at {place}" if place else ""
