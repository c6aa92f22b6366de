"""The master's side of the processes below it: start a zygote, hold a worker's descriptors, let go of them.

Runs in the master. It never forks (posix_spawn execs, so the loop of whoever embeds us is not copied) and decides
nothing; `runner` calls it for the commands of the state machine.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aserver import terminal, unix
from aserver.ipc.channel import Channel
from aserver.ipc.messages import Files, ToMaster

#: The most files of one process's code whose names are kept. Looking at so many every few seconds takes 0.1 s, and a
#: process that runs the application's code could name any number.
MOST_FILES = 50_000
#: Where the zygote finds its channel. Any number above the standard streams would do: posix_spawn puts it there.
ZYGOTE_FD = 3
_ZYGOTE = Path(__file__).resolve().parent.parent / "zygote" / "__main__.py"


@dataclass(slots=True)
class ZygoteHandle:
    """A zygote process. `pidfd` is None where there are none; then EOF on the channel is its death notice."""

    generation: int
    pid: int
    pidfd: int | None
    channel: Channel[ToMaster]
    files: Files = field(default_factory=dict)

    def know(self, files: Files) -> None:
        """Add a part of the fingerprint of its code."""
        _add(self.files, files)

    def kill(self) -> None:
        """SIGKILL; our own unreaped child, so the pid is still its."""
        if self.pidfd is not None:
            unix.send_signal(self.pidfd, signal.SIGKILL)
        else:
            os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> int | None:
        """The wait status once it is dead, None if somebody else took it or it lives."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return status if pid else None

    def close(self) -> None:
        """Let go of its descriptors."""
        self.channel.close()
        if self.pidfd is not None:
            os.close(self.pidfd)


@dataclass(slots=True)
class WorkerHandle:
    """A worker process, from the order to fork it until its death is understood."""

    serial: int
    generation: int
    slot: int
    cell: int
    pid: int | None = None
    pidfd: int | None = None
    channel: Channel[ToMaster] | None = None
    trace: int | None = None
    trace_offset: int = 0
    dead: bool = False
    status: int | None = None
    files: Files = field(default_factory=dict)

    def know(self, files: Files) -> None:
        """Add a part of the fingerprint of its code."""
        _add(self.files, files)

    def close(self) -> None:
        """Let go of its descriptors."""
        if self.channel is not None:
            self.channel.close()
        for fd in (self.pidfd, self.trace):
            if fd is not None:
                os.close(fd)


def _add(known: Files, more: Files) -> None:
    if len(known) + len(more) <= MOST_FILES:
        known.update(more)


def spawn(command: list[str], environ: Mapping[str, str], fds: Mapping[int, int]) -> int:
    """Exec `command` with `fds` (its number: ours) and default dispositions (trap 2).

    What a terminal or supervisor sends to the whole group is blocked until the command unblocks it.
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


def spawn_zygote(generation: int, environ: Mapping[str, str]) -> ZygoteHandle:
    """Exec a zygote with one channel. Raises OSError."""
    ours, theirs = unix.stream_pair()
    # The interpreter's flags (-X, -W, -O, ...) go along (trap 17). -P: the working directory is the app's, and a
    # logging.py in it must not be ours; the importer puts it on the path when its time comes.
    command = [sys.executable, *interpreter_flags(), "-P", str(_ZYGOTE), str(ZYGOTE_FD)]
    try:
        pid = spawn(command, environ, {ZYGOTE_FD: theirs.fileno()})
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return ZygoteHandle(generation, pid, unix.open_pidfd(pid), Channel(ours, ToMaster))


def interpreter_flags() -> list[str]:
    """The flags that this interpreter was started with, less -P. The standard library knows all but some -X options."""
    flags: list[str] = [flag for flag in subprocess._args_from_interpreter_flags() if flag != "-P"]  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():
        if not any(flag == name or flag.startswith(f"{name}=") for flag in flags):
            flags += ["-X", name if value is True else f"{name}={value}"]
    return flags


def decode_status(status: int | None) -> tuple[int | None, str | None]:
    """A wait status as (exit code, signal name), one of which is None; (None, None) if it is not known."""
    if status is None:
        return None, None
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return None, signal.Signals(number).name
        except ValueError:  # a realtime signal
            return None, f"signal {number}"
    return os.waitstatus_to_exitcode(status), None
