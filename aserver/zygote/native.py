"""Threads that Python does not know: the library of each, and whether a fork harms it.

Runs in the zygote (and in `aserver check`) while the app is loaded and after, called by `preload`. Linux only: without
/proc no such thread is seen. It changes nothing, except that its fork runs the fork handlers of the app's libraries.
"""

import bisect
import importlib.machinery
import os
import select
import signal
import struct
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aserver import unix

#: Threads that are no hazard although they stay, because their libraries have fork handlers. In the child jemalloc goes
#: on without its background thread (background_thread_postfork_child), and Arrow starts its pools anew (tried with
#: pyarrow 26: a child forked between two reads of a dataset reads it).
SAFE_NAMES = frozenset({"jemalloc_bg_thd"})
SAFE_LIBRARIES = ("libarrow.", "libarrow_")
SAFE_MODULES = ("pyarrow.",)

#: Libraries that have the outermost frames of every thread's stack, and so do not tell which library has started it.
_COMMON = ("libc.", "libc-", "libpthread", "libstdc++", "libc++", "libgcc_s", "libm.", "ld-", "libpython", "python")
#: Bytes at the top of a stack that are searched: the first frames, and glibc's own record of the thread.
_STACK_TOP = 1 << 16
#: Seconds for a child that only ends, and for a thread to wait in a system call, so that its library can be found.
PROBE_PATIENCE = 5.0
REST_PATIENCE = 0.1
_WORD = struct.Struct("N")


class ExtensionWatch:
    """While entered, notes for each new thread the extension module whose import has started it."""

    def __init__(self) -> None:
        self._loader: Any = importlib.machinery.ExtensionFileLoader
        self._steps: dict[str, Callable[..., Any]] = {}
        self.brought: dict[int, str] = {}

    def __enter__(self) -> Self:
        for step in ("create_module", "exec_module"):  # both run code of the library
            self._steps[step] = getattr(self._loader, step)
            setattr(self._loader, step, self._watched(self._steps[step]))
        return self

    def _watched(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(loader: Any, module_or_spec: Any) -> Any:
            before = threads()
            try:
                return original(loader, module_or_spec)
            finally:
                for thread in threads() - before:
                    self.brought.setdefault(thread, loader.name)

        return step

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for step, original in self._steps.items():
            setattr(self._loader, step, original)


def threads() -> frozenset[int]:
    """The ids of all threads of this process; empty without /proc."""
    try:
        return frozenset(int(task) for task in os.listdir("/proc/self/task"))
    except OSError:
        return frozenset()


def survivors(found: Iterable[int]) -> list[int]:
    """The threads among `found` that are still here, in the parent, after a fork.

    To find out, it forks a child that ends at once. A library that ends its threads before a fork is prepared for
    forks: OpenBLAS does, which every `import numpy` loads.
    """
    _fork_and_end()
    return sorted(set(found) & threads())


def _fork_and_end() -> None:
    # Blocked across the fork: a signal to the child would be written to the zygote's wakeup socket.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which are looked for here
            pid = os.fork()  # noqa: TID251
        if pid == 0:
            os._exit(0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    pidfd = unix.open_pidfd(pid)
    if pidfd is not None:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        if not ended.poll(PROBE_PATIENCE * 1000):  # a fork handler of the app hangs or is slow
            os.kill(pid, signal.SIGKILL)
        os.close(pidfd)
    os.waitpid(pid, 0)


def describe(thread: int, brought: str | None) -> str | None:
    """A clause for the census, or None if the thread is known to be no hazard.

    `brought`: the extension module whose import has started the thread.
    """
    name = _name(thread)
    library = _library(thread)
    if (
        name in SAFE_NAMES
        or (library is not None and Path(library).name.startswith(SAFE_LIBRARIES))
        or (brought is not None and f"{brought}.".startswith(SAFE_MODULES))
    ):
        return None
    if library is not None:
        origin = f"of {library}"
    elif brought is not None:
        origin = f"that came with the import of {brought}"
    else:
        origin = "of an extension module"
    # A thread without a name of its own has the name of the process.
    return f"a native thread {origin}" if name in ("", _name(os.getpid())) else f"native thread {name!r} {origin}"


def _name(thread: int) -> str:
    try:
        return Path(f"/proc/self/task/{thread}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _library(thread: int) -> str | None:
    """The file of the library whose code is the outermost on the thread's stack, or None if that cannot be found.

    It cannot after privileges were dropped: the kernel then shows stack pointers to root only.
    """
    pause = select.poll()
    for _ in range(20):
        try:
            fields = Path(f"/proc/self/task/{thread}/syscall").read_text(encoding="ascii").split()
        except OSError:
            return None
        if len(fields) > 2:  # else "running", without a stack pointer
            return _outermost(int(fields[-2], 16))
        pause.poll(REST_PATIENCE * 1000 / 20)
    return None


def _outermost(stack_pointer: int) -> str | None:
    regions = _regions()
    starts = [start for start, _, _, _ in regions]

    def region(address: int) -> tuple[int, int, bool, str] | None:
        found = regions[max(0, bisect.bisect_right(starts, address) - 1)]
        return found if found[0] <= address < found[1] else None

    stack = region(stack_pointer)
    if stack is None:
        return None
    begin = max(stack_pointer, stack[1] - _STACK_TOP)
    top = unix.own_memory(begin, (stack[1] - begin) // _WORD.size * _WORD.size)
    for (word,) in reversed(list(_WORD.iter_unpack(top))):
        code = region(word)
        if code is not None and code[2] and not Path(code[3]).name.startswith(_COMMON):
            return code[3].rpartition("-packages/")[2]
    return None


def _regions() -> list[tuple[int, int, bool, str]]:
    """This process's mappings in order: start, end, whether it is a file's code, path (proc_pid_maps(5))."""
    found = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        place, permissions, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(bound, 16) for bound in place.split("-"))
        name = path[0] if path else ""
        found.append((start, end, "x" in permissions and name.startswith("/"), name))
    return found
