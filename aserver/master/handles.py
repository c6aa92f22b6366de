"""Handles of the processes below the master: their descriptors, watched and closed.

Runs in the master. It decides nothing.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

from msgspec.structs import asdict

from aserver import unix
from aserver.ipc.channel import Channel
from aserver.ipc.messages import FILES_AT_ONCE, MOST_FILES, Files, FromWorker, FromZygote
from aserver.log.crash import read_trace
from aserver.master import programs
from aserver.master.snapshot import SavedWorker, SavedZygote

S = TypeVar("S", SavedZygote, SavedWorker)

#: Messages of a peer beyond two for each fork: its files in pieces, and those that are sent once, with some to spare.
#: A peer that sends more floods the channel.
SPARE_MESSAGES = MOST_FILES // FILES_AT_ONCE + 14
#: The most characters of a path, PATH_MAX (linux/limits.h), and of all the paths of a process together.
LONGEST_PATH, MOST_CHARACTERS = 4096, 1 << 23


class Peer:
    """A process that runs the application's code; `pidfd` is None where there are none."""

    __slots__ = ()
    hears: ClassVar[Any]  # the messages that come from it
    channel: Channel[Any] | None
    pidfd: int | None
    trace: int | None
    files: Files

    @classmethod
    def restored(cls, saved: SavedZygote | SavedWorker) -> Self:
        """A process that this master's former image knew."""
        channel = None if saved.channel is None else Channel[Any](socket.socket(fileno=saved.channel), cls.hears)
        return cls(**{**asdict(saved), "channel": channel})

    def saved(self, shape: type[S]) -> S:
        """The process as the next image of this master reads it."""
        values = {name: getattr(self, name) for name in shape.__struct_fields__}
        return shape(**{**values, "channel": self.channel.fileno() if self.channel is not None else None})

    def know(self, more: Files) -> None:
        """Add a part of the fingerprint of its code: names that can be the path of a file.

        The master, maybe root, calls stat(2) on each every few seconds.
        """
        known = self.files
        if len(known) + len(more) <= MOST_FILES and sum(map(len, known)) + sum(map(len, more)) <= MOST_CHARACTERS:
            paths = (path for path in more if path.startswith("/") and "\0" not in path and len(path) <= LONGEST_PATH)
            known.update({path: more[path] for path in paths})

    def watch(self, on_message: Callable[[Self], None], on_dead: Callable[[Self], None]) -> None:
        """Have the running loop call `on_message` for messages and `on_dead` for the end of the process."""
        loop = asyncio.get_running_loop()
        if self.channel is not None:
            loop.add_reader(self.channel.fileno(), on_message, self)
            self.channel.flush_by(loop)
        if self.pidfd is not None:
            loop.add_reader(self.pidfd, on_dead, self)

    def unwatch(self) -> None:
        """Undo `watch`."""
        for fd in (self.channel.fileno() if self.channel is not None else -1, self.pidfd):
            if fd is not None and fd >= 0:
                asyncio.get_running_loop().remove_reader(fd)

    def close(self) -> None:
        """Close its descriptors."""
        if self.channel is not None:
            self.channel.close()
        for fd in (self.pidfd, self.trace):
            if fd is not None:
                os.close(fd)


@dataclass(slots=True)
class ZygoteHandle(Peer):
    """A zygote process. Without a pidfd, EOF on the channel is its death notice."""

    hears = FromZygote
    generation: int
    pid: int
    pidfd: int | None
    channel: Channel[FromZygote]
    trace: int
    files: Files = field(default_factory=dict)
    said: int = 0
    may_say: int = SPARE_MESSAGES
    broken: str = ""  # how it broke the protocol, for which it was killed

    def __str__(self) -> str:
        return f"the zygote of generation {self.generation} (pid {self.pid})"

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends it. It is an unreaped child of this process, so the pid is still its own."""
        if self.pidfd is not None:
            unix.send_signal(self.pidfd, signum)
        else:
            os.kill(self.pid, signum)

    def reap(self) -> int | None:
        """The wait status once it is dead; None if it lives, or its status was taken elsewhere."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return status if pid else None


@dataclass(slots=True)
class WorkerHandle(Peer):
    """A worker process, from the order to fork it until its end is reported to the state machine."""

    hears = FromWorker
    serial: int
    generation: int
    slot: int
    cell: int
    pid: int | None = None
    pidfd: int | None = None
    channel: Channel[FromWorker] | None = None
    trace: int | None = None
    trace_offset: int = 0
    dead: bool = False
    status: int | None = None
    files: Files = field(default_factory=dict)
    said: int = 0
    may_say: int = SPARE_MESSAGES

    def __str__(self) -> str:
        return f"worker {self.slot} (generation {self.generation}, pid {self.pid})"

    def new_stacks(self) -> str:
        """The stacks that were written into its trace since the last look."""
        if self.trace is None:
            return ""
        text, self.trace_offset = read_trace(self.trace, self.trace_offset)
        return text


def spawn_zygote(generation: int) -> ZygoteHandle:
    """Start a zygote, or take the zygote that was started ahead. Raises OSError."""
    trace = unix.memory_file("aserver-trace")
    try:
        pid, ours = programs.start_zygote()
    except OSError:
        os.close(trace)
        raise
    return ZygoteHandle(generation, pid, unix.open_pidfd(pid), Channel(ours, FromZygote), trace)


def decode_status(status: int | None) -> tuple[int | None, str | None]:
    """A wait status as (exit code, None) or (None, signal name); (None, None) if it is not known."""
    if status is None:
        return None, None
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return None, signal.Signals(number).name
        except ValueError:  # a realtime signal
            return None, f"signal {number}"
    return os.waitstatus_to_exitcode(status), None
