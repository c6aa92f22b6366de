"""SIGUSR2: the master replaces itself with a new image of its program, by execve.

Runs in the master. Pid, children, pidfds, board, listeners and the pidfile's lock stay; signals are blocked meanwhile
and obeyed afterwards. Before that, a preflight runs the same command in a child, which does the new aserver's imports,
reads command line and settings and compares the schema of the state; if it fails, nothing has happened. Two masters
side by side (nginx's way) lose a service manager's main pid, and cannot be PID 1 of a container.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping

import msgspec

from aserver import unix
from aserver.config import Config
from aserver.errors import ConfigError
from aserver.master.core.events import Say, Upgrade
from aserver.master.programs import spawn
from aserver.master.snapshot import SCHEMA, Snapshot
from aserver.obeyed import refuse_changeable

log = logging.getLogger("aserver.master")

#: The descriptor of the snapshot, in the environment of the new image. Not ASERVER_*: those are settings.
SNAPSHOT = "_ASERVER_SNAPSHOT"
#: The schema that the running master would leave, in the environment of a preflight.
PREFLIGHT = "_ASERVER_PREFLIGHT"
#: Seconds for the preflight: it imports aserver and reads the settings, not the app.
PREFLIGHT_TIMEOUT = 30.0


def not_upgraded(upgrade: Upgrade, level: str, how: str, reason: str) -> Say:
    """The record of an upgrade whose re-exec did not take place."""
    text = f"upgrade {how}{', everything stays as it is' if level == 'error' else ''}: {reason}"
    return Say(level, text, event="upgrade.ends", outcome="refused", reason=reason, tickets=upgrade.tickets)


async def preflight(running: Config) -> str | None:
    """Start this command as the new image would be started, up to where it would serve. Returns why that failed.

    It reads the settings file, maybe as root. A file that the user of the `running` settings may change is refused.
    """
    try:
        refuse_changeable("config", running.config, running.user, running.group)
    except ConfigError as error:
        return str(error)
    if not unix.LINUX:
        return "this system has no pidfds, which an upgrade in place stands on"
    output = unix.memory_file("aserver-preflight")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    environ = {**os.environ, PREFLIGHT: str(SCHEMA)}
    try:
        pid = spawn(_command(), environ, {0: null, 1: output, 2: output})
        pidfd = unix.open_pidfd(pid)
        assert pidfd is not None
        try:
            status = await _wait(pid, pidfd)
        finally:
            os.close(pidfd)
        if status == 0:
            return None
        said = os.pread(output, 1 << 16, 0).decode("utf-8", "replace").strip()
        how = "did not end in time" if status is None else f"ended with status {os.waitstatus_to_exitcode(status)}"
        return f"the preflight {how}" + (f":\n{said}" if said else "")
    except OSError as error:
        return f"the preflight could not be started: {error.strerror}"
    finally:
        os.close(output)
        os.close(null)


async def _wait(pid: int, pidfd: int) -> int | None:
    """The wait status; None if the preflight took too long and was killed."""
    loop = asyncio.get_running_loop()
    dead = asyncio.Event()
    loop.add_reader(pidfd, dead.set)
    try:
        async with asyncio.timeout(PREFLIGHT_TIMEOUT):
            await dead.wait()
        return _reap(pid)
    except BaseException as error:
        unix.send_signal(pidfd, signal.SIGKILL)
        _reap(pid)
        if isinstance(error, TimeoutError):
            return None
        raise
    finally:
        loop.remove_reader(pidfd)


def _reap(pid: int) -> int:
    return os.waitpid(pid, 0)[1]  # dead already, or dying of SIGKILL


def answer_preflight(environ: MutableMapping[str, str]) -> bool:
    """Whether this is a preflight, which ends here with success. Raises ConfigError if the states would not fit."""
    asked = environ.pop(PREFLIGHT, None)
    if asked is None:
        return False
    if asked != str(SCHEMA):
        raise ConfigError(
            f"the running master's state has schema {asked}, this aserver reads {SCHEMA}; restart instead"
        )
    return True


def become(snapshot: Snapshot, noted: list[int]) -> OSError:
    """Exec the new image. Returns only if that failed, with everything as it was.

    `noted` are signals that came before they were blocked and have not been obeyed: they are raised again.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    memory = unix.memory_file("aserver-snapshot")
    fds = [*snapshot.fds(), memory]
    try:
        with open(memory, "wb", closefd=False) as file:  # whole or not at all: os.write may write a part (ulimit -f)
            file.write(msgspec.msgpack.encode(snapshot))
        for fd in fds:
            os.set_inheritable(fd, True)
        while noted:
            signal.raise_signal(noted.pop())  # pending from here on, which an exec keeps (execve(2))
        os.execve(sys.executable, _command(), {**os.environ, SNAPSHOT: str(memory)})  # noqa: S606
    except OSError as error:
        for fd in fds:
            os.set_inheritable(fd, False)
        os.close(memory)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return error


def is_continued(environ: Mapping[str, str]) -> bool:
    """Whether this image, or the image that this preflight stands for, goes on from a former image."""
    return SNAPSHOT in environ or PREFLIGHT in environ


def inherited(environ: MutableMapping[str, str]) -> Snapshot | None:
    """The state that this image's former image left, if any. Its descriptors are close-on-exec again."""
    number = environ.pop(SNAPSHOT, None)
    if number is None:
        return None
    memory = int(number)
    data = os.pread(memory, os.fstat(memory).st_size, 0)
    os.close(memory)
    snapshot = msgspec.msgpack.decode(data, type=Snapshot)
    for fd in snapshot.fds():
        os.set_inheritable(fd, False)
    return snapshot


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]
