"""Handles of the processes below the master: their descriptors, how a zygote starts, and how they are let go of.

Runs in the master. It decides nothing and never forks: posix_spawn execs, so the loop of an embedding program is not
copied.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from msgspec.structs import asdict

from aserver import terminal, unix
from aserver.ipc.channel import Channel
from aserver.ipc.messages import FILES_AT_ONCE, MOST_FILES, Files, FromWorker, FromZygote
from aserver.master.snapshot import SavedWorker, SavedZygote

S = TypeVar("S", SavedZygote, SavedWorker)

#: Messages of a peer beyond two for each fork: its files in pieces, and those that are sent once, with some to spare.
#: A peer that sends more floods the channel.
SPARE_MESSAGES = MOST_FILES // FILES_AT_ONCE + 14
#: The most characters of a path, PATH_MAX (linux/limits.h), and of all the paths of a process together.
LONGEST_PATH, MOST_CHARACTERS = 4096, 1 << 23
#: Where the zygote finds its channel. Any number above the standard streams would do: posix_spawn puts it there.
ZYGOTE_FD = 3
_ZYGOTE = Path(__file__).resolve().parent.parent / "zygote" / "__main__.py"


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
        """Have the running loop call these."""
        loop = asyncio.get_running_loop()
        if self.channel is not None:
            loop.add_reader(self.channel.fileno(), on_message, self)
            self.channel.flush_by(loop)
        if self.pidfd is not None:
            loop.add_reader(self.pidfd, on_dead, self)

    def unwatch(self) -> None:
        """Have the running loop look at it no longer."""
        for fd in (self.channel.fileno() if self.channel is not None else -1, self.pidfd):
            if fd is not None and fd >= 0:
                asyncio.get_running_loop().remove_reader(fd)

    def close(self) -> None:
        """Let go of its descriptors."""
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
        """End it; our own unreaped child, so the pid is still its."""
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
    """A worker process, from the order to fork it until its death is understood."""

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


def spawn(command: list[str], environ: Mapping[str, str], fds: Mapping[int, int]) -> int:
    """Exec `command` with `fds` (its number: ours) and default signal dispositions (docs/traps.md, 2).

    Signals that a terminal or supervisor sends to the whole group are blocked until the command unblocks them.
    Returns the pid. Raises OSError.
    """
    return os.posix_spawn(
        command[0],
        command,
        environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in fds.items()],
        setsigmask=terminal.GROUP_SIGNALS,
        setsigdef=[s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)],
    )


def spawn_program(program: Path, *arguments: object, fds: Mapping[int, int]) -> int:
    """Exec a program of aserver's own, as `spawn`, without the variables between the master and the service manager."""
    # The interpreter's flags (-X, -W, -O, ...) go along (docs/traps.md, 17). -P: the working directory is the app's,
    # and a logging.py in it must not be ours; the importer puts it on the path when its time comes.
    command = [sys.executable, *interpreter_flags(), "-P", str(program), *map(str, arguments)]
    environ = {name: value for name, value in os.environ.items() if name not in unix.PLUMBING}
    return spawn(command, environ, fds)


def spawn_zygote(generation: int) -> ZygoteHandle:
    """Exec a zygote with a channel. Raises OSError."""
    ours, theirs = unix.stream_pair()
    trace = unix.memory_file("aserver-trace")
    try:
        pid = spawn_program(_ZYGOTE, ZYGOTE_FD, fds={ZYGOTE_FD: theirs.fileno()})
    except OSError:
        ours.close()
        os.close(trace)
        raise
    finally:
        theirs.close()
    return ZygoteHandle(generation, pid, unix.open_pidfd(pid), Channel(ours, FromZygote), trace)


def interpreter_flags() -> list[str]:
    """The flags that this interpreter was started with, less -P. The standard library knows all but some -X options."""
    flags: list[str] = [flag for flag in subprocess._args_from_interpreter_flags() if flag != "-P"]  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():
        if not any(flag == name or flag.startswith(f"{name}=") for flag in flags):
            flags += ["-X", name if value is True else f"{name}={value}"]
    return flags


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
