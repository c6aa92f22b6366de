"""Load the app before the fork, and find out what of it would not survive one.

Runs in the zygote (and in `aserver check`). It starts no thread and no loop of its own, decides nothing about what is
found (`on_fork_hazard` is the zygote's to obey), and undoes its one patch, `Thread.start`, before it returns.
"""

import os
import select
import socket
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
from aserver.importer import LoadedApp
from aserver.worker.app import load_app, warm_up

#: Frames of these are between the user's line and Thread.start; the user wants his own line.
_OURS = str(Path(__file__).resolve().parent.parent) + os.sep

#: Seconds. A thread that Python has joined is the kernel's for a moment more, and looks like a native one (seen).
LEAVING = 0.1


class ThreadWatch:
    """While entered, remembers where each thread was started: only the stack at `start()` names the user's line."""

    def __init__(self) -> None:
        # Not an import of our own: whoever starts threads has loaded it, and the zygote has no business with it.
        self._thread: Any = getattr(sys.modules.get("threading"), "Thread", None)
        self._places: dict[object, str] = {}

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._start: Callable[..., None] = self._thread.start
            original, places = self._start, self._places

            def start(thread: Any) -> None:
                places[thread] = _place(traceback.extract_stack(limit=40))
                original(thread)

            self._thread.start = start
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._thread is not None:
            self._thread.start = self._start

    def hazards(self) -> list[str]:
        """One clause per thread that lives beside the main one: its name, and where it was started."""
        deadline = time.monotonic() + LEAVING
        while True:
            found, native = self._look()
            if not native or time.monotonic() > deadline:
                return found + native
            select.select([], [], [], LEAVING / 20)

    def _look(self) -> tuple[list[str], list[str]]:
        """The threads that Python knows, and the others."""
        names = {t.native_id: t for t in (sys.modules["threading"].enumerate() if self._thread else ())}
        try:
            ids = sorted(int(task) for task in os.listdir("/proc/self/task"))
        except OSError:  # no /proc: Python's own threads are all that can be known
            ids = sorted(t for t in names if t is not None)
        found: list[str] = []
        native: list[str] = []
        for native_id in ids:
            thread = names.get(native_id)
            if native_id == os.getpid() or (thread is not None and thread is sys.modules["threading"].main_thread()):
                continue
            if thread is None:
                native.append(f"native thread {_comm(native_id)!r} (started by an extension module)")
            else:
                found.append(f"thread {thread.name!r} started at {self._places.get(thread, 'an unknown place')}")
        return found, native


def _place(stack: traceback.StackSummary) -> str:
    """`file:line in function: source` of the innermost frame that is neither Python's library nor ours."""
    library = str(Path(os.__file__).parent) + os.sep
    for frame in reversed(stack):
        file = frame.filename
        inside_library = file.startswith(library) and "site-packages" not in file
        if not (inside_library or file.startswith((_OURS, "<frozen"))):
            return f"{file}:{frame.lineno} in {frame.name}: {frame.line}"
    return "an unknown place"


def _comm(native_id: int) -> str:
    try:
        return Path(f"/proc/self/task/{native_id}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return "?"


def _descriptor_hazards(before: dict[int, str]) -> list[str]:
    """Connections and event loops that loading has left open: after a fork all workers would share them."""
    found = []
    for fd, target in unix.open_fds().items():
        if before.get(fd) == target:
            continue
        if target == "anon_inode:[eventpoll]":
            found.append(f"an event loop that was not closed (descriptor {fd}, epoll)")
        elif target == "anon_inode:[io_uring]":
            found.append(f"an event loop that was not closed (descriptor {fd}, io_uring)")
        elif target.startswith("socket:"):
            peer = _peer(fd)
            if peer:
                found.append(f"a connected socket to {peer} (descriptor {fd})")
    return found


def _peer(fd: int) -> str:
    """Who a socket is connected to; empty if to nobody, or only to ourselves (a socketpair has no names)."""
    duplicate = os.dup(fd)
    try:
        with socket.socket(fileno=duplicate) as sock:
            peer = sock.getpeername()
    except OSError:
        return ""
    if isinstance(peer, tuple):
        return f"{peer[0]}:{peer[1]}"
    return peer.decode("utf-8", "replace") if isinstance(peer, bytes) else str(peer)


def _child_hazards() -> list[str]:
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [f"a child process (pid {pid}): the workers cannot wait for it" for pid in children]


@dataclass(frozen=True, slots=True)
class Preloaded:
    """The app, and what loading it left that does not survive a fork: one clause each."""

    app: LoadedApp
    hazards: tuple[str, ...]


def preload(config: Config) -> Preloaded:
    """Import the app and warm it up under watch, then take the census. Raises AppLoadError."""
    before = unix.open_fds()
    with ThreadWatch() as watch:
        app = load_app(config)
        warm_up(config)
    return Preloaded(app, (*watch.hazards(), *_descriptor_hazards(before), *_child_hazards()))
