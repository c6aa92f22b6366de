"""Starts aserver's own programs, with flags, environment, signals and descriptors; the first zygote ahead of its order.

Runs in the master, and in the command before it has imported the rest of the master: the zygote's imports take as long
as the master's, and so both run side by side. It decides nothing and never forks: posix_spawn execs, so the loop of an
embedding program is not copied. It must import little: what it imports delays the zygote.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from aserver import terminal, unix
from aserver.errors import ConfigError

#: Where the zygote finds its channel. Any number above the standard streams would do: posix_spawn puts it there.
ZYGOTE_FD = 3
_ZYGOTE = Path(__file__).resolve().parent.parent / "zygote" / "__main__.py"

#: A zygote that was started before it was ordered: its pid, and our end of its channel.
ahead: tuple[int, socket.socket] | None = None


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


def start_zygote() -> tuple[int, socket.socket]:
    """The pid of a zygote and our end of its channel: the one started ahead, or another. Raises OSError."""
    global ahead
    if ahead is not None:
        found, ahead = ahead, None
        return found
    ours, theirs = unix.stream_pair()
    with theirs:
        try:
            return spawn_program(_ZYGOTE, ZYGOTE_FD, fds={ZYGOTE_FD: theirs.fileno()}), ours
        except OSError:
            ours.close()
            raise


def start_zygote_ahead() -> None:
    """Have the next `start_zygote` return a zygote that starts now. For a process of ours, with all that it inherits.

    Descriptors that a supervisor passed would be inherited as well, so that start waits for the master to take them. An
    error is left to the start that follows, which meets it again and can tell it.
    """
    global ahead  # noqa: PLW0603 - as above
    if _passed():
        return
    with contextlib.suppress(ConfigError, OSError):
        os.environ["PWD"] = str(unix.working_directory(os.environ))
        unix.raise_fd_limit()
        unix.keep_exit_statuses()
        ahead = start_zygote()


def _passed() -> bool:
    """Whether this process was given more than the standard streams; its own descriptors are close-on-exec."""
    for fd in unix.open_fds():
        with contextlib.suppress(OSError):  # the one of the listing is closed
            if fd > 2 and os.get_inheritable(fd):
                return True
    return False


def abandon_zygote_ahead() -> None:
    """End the zygote that was started ahead and not needed: it would keep the standard streams open for a while."""
    global ahead
    if ahead is not None:
        (pid, channel), ahead = ahead, None
        channel.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def interpreter_flags() -> list[str]:
    """The flags that this interpreter was started with, less -P. The standard library knows all but some -X options."""
    flags: list[str] = [flag for flag in subprocess._args_from_interpreter_flags() if flag != "-P"]  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():
        if not any(flag == name or flag.startswith(f"{name}=") for flag in flags):
            flags += ["-X", name if value is True else f"{name}={value}"]
    return flags
