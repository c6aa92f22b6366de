"""Load the app before the fork, and take the census: the threads, descriptors and children that a fork would break.

Runs in the zygote (and in `aserver check`). It starts no thread and no loop of its own. It only reports hazards; the
zygote obeys `on_fork_hazard`. It undoes its patches, such as that of `Thread.start`, before it returns.
"""

import os
import select
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aserver import unix
from aserver.config import Config
from aserver.importer import LoadedApp, remarks, user_place
from aserver.importer.application import load_app
from aserver.importer.warmup import warm_up
from aserver.zygote import native
from aserver.zygote.descriptors import LoopWatch, descriptor_hazards
from aserver.zygote.generators import RandomWatch

#: Seconds for which the kernel may still show a thread that Python has joined; it looks like a native thread (seen).
LEAVING = 0.1


class ThreadWatch:
    """While entered, notes the user's line that starts each thread: only the stack at `start()` shows it."""

    def __init__(self) -> None:
        # Not imported, because the zygote must have no threads; code that starts a thread has loaded the module.
        self._thread: Any = getattr(sys.modules.get("threading"), "Thread", None)
        self._places: dict[object, str] = {}
        self._extensions = native.ExtensionWatch()

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._start: Callable[..., None] = self._thread.start
            original, places = self._start, self._places

            def start(thread: Any) -> None:
                places[thread] = user_place(traceback.extract_stack(limit=40)) or "an unknown place"
                original(thread)

            self._thread.start = start
        self._extensions.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._extensions.__exit__(kind, error, tb)
        if self._thread is not None:
            self._thread.start = self._start

    def hazards(self) -> list[str]:
        """A clause for each thread beside the main thread: its name, and the line that has started it.

        If Python knows none of them, this forks a child that ends at once, and leaves out threads that are gone then.
        """
        deadline = time.monotonic() + LEAVING
        while True:
            found, others = self._look()
            if not others or time.monotonic() > deadline:
                break
            select.select([], [], [], LEAVING / 20)
        if others and not found:
            others = native.survivors(others)
        clauses = (native.describe(each, self._extensions.brought.get(each)) for each in others)
        return found + [clause for clause in clauses if clause is not None]

    def _look(self) -> tuple[list[str], list[int]]:
        """A clause for each thread that Python knows, and the ids of the others."""
        names = {t.native_id: t for t in (sys.modules["threading"].enumerate() if self._thread else ())}
        # Without /proc only the threads that Python knows are seen.
        ids = sorted(native.threads() or (t for t in names if t is not None))
        found: list[str] = []
        others: list[int] = []
        for native_id in ids:
            thread = names.get(native_id)
            if native_id == os.getpid() or (thread is not None and thread is sys.modules["threading"].main_thread()):
                continue
            if thread is None:
                others.append(native_id)
            else:
                found.append(f"thread {thread.name!r} started at {self._places.get(thread, 'an unknown place')}")
        return found, others


def _child_hazards() -> list[str]:
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [f"a child process (pid {pid}): the workers cannot wait for it" for pid in children]


@dataclass(frozen=True, slots=True)
class Preloaded:
    """The app, a clause for each hazard that loading it has left, and further sentences that the log should have.

    `unused_loops` are no hazard if each worker calls `descriptors.make_private` on them.
    """

    app: LoadedApp
    hazards: tuple[str, ...]
    unused_loops: tuple[Any, ...] = ()
    remarks: tuple[str, ...] = ()


def preload(config: Config) -> Preloaded:
    """Import the app and warm it up under watch, then take the census. Raises AppLoadError."""
    before = unix.open_fds()
    with ThreadWatch() as threads, LoopWatch() as loops, RandomWatch() as generators:
        app = load_app(config)
        cold = tuple(warm_up(config, app))
    unused = loops.unused()
    hazards = (*threads.hazards(), *descriptor_hazards(before, unused), *_child_hazards())
    return Preloaded(app, hazards, tuple(unused), (*cold, *remarks(app, config), *generators.remarks()))
