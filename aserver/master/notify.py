"""The service manager's protocol (sd_notify(3)): ready, reloading, stopping, status, watchdog, and listeners to keep.

Supervisors of s6's kind, and the command that waits for a detached server, are told one thing only: `ReadyLines`.
Runs in the master of a process of our own. It follows the state machine and decides nothing. A datagram that does not
fit into the manager's queue is sent again a second later; the master never waits for the manager.

    READY=1                once as many workers as are wanted serve, and again at the end of each reload
    RELOADING=1            as soon as a reload is asked for, with MONOTONIC_USEC: `systemctl reload` waits for both
    STOPPING=1             from the request to stop on, during `drain_delay` too
    STATUS=                a line for `systemctl status`, when it changes
    EXTEND_TIMEOUT_USEC=   while it starts, reloads or stops: the server's own timeouts bound each of these
    WATCHDOG=1             while this loop runs and a worker's loop runs
    FDSTORE=1              each listener that this server bound: a master that is killed finds them again (`kept`)
"""

import array
import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Self

from aserver.errors import ConfigError
from aserver.master.core.explain import server_waits_for
from aserver.master.core.model import Model
from aserver.master.journal import Record
from aserver.sockets import Listener
from aserver.sockets.passed import name_for

log = logging.getLogger("aserver.master")

#: Seconds by which a start, a reload or a stop is extended, each second anew.
EXTENSION = 15
#: Datagrams that wait for room in the manager's queue; more are dropped, the oldest first.
_MOST_WAITING = 64


class Told(Enum):
    """The state that the manager was told last."""

    NOTHING = "nothing"
    READY = "ready"
    RELOADING = "reloading"
    STOPPING = "stopping"


class ServiceManager:
    """Speaks to the manager at `address`; with None there is no manager, and it does nothing."""

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        """`watchdog`: the manager ends this process after so many seconds without a sign of life."""
        self._address = address
        self._socket: socket.socket | None = None
        self._waiting: list[tuple[bytes, tuple[int, ...]]] = []
        self._told = Told.NOTHING
        self._status, self._outcome = "", ""
        self._kept: dict[int, tuple[Listener, str]] = {}
        self._watchdog, self._next_sign = watchdog, 0.0
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @classmethod
    def found(cls, environ: Mapping[str, str], pid: int) -> Self:
        """The manager that started this process, if it wants to be told (NOTIFY_SOCKET, sd_notify(3))."""
        path, period = environ.get("NOTIFY_SOCKET", ""), environ.get("WATCHDOG_USEC", "")
        if not path.startswith(("/", "@")):
            if path:
                log.warning("NOTIFY_SOCKET is %r, neither a path nor an abstract name; nothing is told there", path)
            return cls(None)
        watched = period.isdecimal() and int(period) and environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls("\0" + path[1:] if path[0] == "@" else path, int(period) / 1e6 if watched else None)

    def hear(self, record: Record) -> None:
        """Take note of how a reload or upgrade ended, for the status."""
        if record.event in ("reload.ends", "upgrade.ends"):
            self._outcome = record.message

    def reloads(self) -> None:
        """A reload was asked for."""
        if self._told in (Told.READY, Told.RELOADING):
            self._told = Told.RELOADING
            # Taken after the signal, as the manager compares it with the time at which it sent that.
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def follow(self, model: Model, *, reloading: bool) -> None:
        """Tell a change of the server's state. `reloading`: settings are being read."""
        if self._socket is None:
            return
        reloading = reloading or model.pending is not None or any(each.generation for each in model.operations)
        if model.over:
            state, line = Told.STOPPING, "STOPPING=1"
            self.keep(())  # else clients would go on to connect to the manager's listeners
        elif not model.announced or (self._told is Told.RELOADING and reloading):
            return
        else:
            state, line = Told.READY, f"READY=1\nMAINPID={os.getpid()}"
        if state is not self._told:
            self._told = state
            self._status = status_line(model, self._outcome)
            self._tell(line, f"STATUS={self._status}")

    def tend(self, model: Model, *, reloading: bool) -> None:
        """Once a second: send the lines that wait and a changed status, and extend a state that takes its time."""
        if self._socket is None:
            return
        self.follow(model, reloading=reloading)  # a reload that was refused is no event of the state machine
        lines, status = [], status_line(model, self._outcome)
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if self._told is not Told.READY:
            lines.append(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}")
        if lines:
            self._tell(*lines)
        else:
            self._send_waiting()

    def sign_of_life(self, now: float, beats: Iterable[float], *, needed: bool) -> None:
        """Send WATCHDOG=1, twice in its period, if a worker's heart has beaten within the period.

        `needed`: there ought to be a worker now; a server that starts, stops or is parked has none. Times are monotonic
        seconds.
        """
        if self._watchdog is None or now < self._next_sign:
            return
        if not needed or any(now - beat < self._watchdog for beat in beats):
            self._next_sign = now + self._watchdog / 2
            self._tell("WATCHDOG=1")

    def keep(self, listeners: Sequence[Listener]) -> None:
        """Have the manager hold exactly these listeners, apart from those that are its own (LISTEN_FDS)."""
        if self._socket is None:
            return
        wanted = {id(each): each for each in listeners if not each.adopted}
        for key in [key for key in self._kept if key not in wanted]:
            self._tell("FDSTOREREMOVE=1", f"FDNAME={self._kept.pop(key)[1]}")
        for key, listener in wanted.items():
            if key not in self._kept:
                name = name_for(listener)
                self._kept[key] = listener, name
                # FDPOLL=0: the manager would drop a descriptor that it sees a hang-up on, as on a listener that closes.
                self._tell("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", fds=(listener.socket.fileno(),))

    def close(self) -> None:
        """Send the lines that wait, as far as there is room."""
        if self._socket is not None:
            self._send_waiting()
            self._socket.close()
            self._socket = None

    # ── datagrams ──

    def _tell(self, *lines: str, fds: tuple[int, ...] = ()) -> None:
        if self._socket is not None:
            self._waiting.append(("\n".join(lines).encode(), fds))
            del self._waiting[:-_MOST_WAITING]
            self._send_waiting()

    def _send_waiting(self) -> None:
        assert self._socket is not None
        while self._waiting:
            data, fds = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self._socket.sendmsg([data], rights, 0, self._address)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("the service manager was not told %r: %s", data.decode(), error.strerror)
            del self._waiting[0]


class ReadyLines:
    """Writes once that all workers serve: `lines` are descriptors, with the text for each."""

    def __init__(self, lines: dict[int, str]) -> None:
        self.lines = lines

    @classmethod
    def passed(cls, notify_fd: int | None, others: Mapping[int, str]) -> Self:
        """A line end for `notify_fd`, if it is set, and the `others`; no child inherits any of them.

        Raises ConfigError if the supervisor passed no such descriptor.
        """
        try:
            if notify_fd is not None:
                os.set_inheritable(notify_fd, False)
        except OSError as error:
            text = f"notify_fd is {notify_fd}, but the supervisor passed no such descriptor ({error.strerror})"
            raise ConfigError(text) from error
        return cls({**others, **({} if notify_fd is None else {notify_fd: "\n"})})

    def hear(self, record: Record) -> None:
        """Write the lines when the server is ready. Then each descriptor is /dev/null: its reader sees the end."""
        if record.event != "server.ready":
            return
        while self.lines:
            fd, text = self.lines.popitem()
            try:
                os.write(fd, text.encode())
                with open(os.devnull, "wb") as null:
                    os.dup2(null.fileno(), fd, inheritable=False)
            except OSError as error:
                log.warning("that the server is ready could not be written to descriptor %d: %s", fd, error.strerror)


def status_line(model: Model, outcome: str) -> str:
    """The state of the server in a line. `outcome`: how its last reload ended."""
    waits = server_waits_for(model)
    phase = model.server.value + (f", waits for {waits}" if waits else "")
    generation = f", generation {model.current.number}" if model.current is not None else ""
    return f"{phase}: {model.ready} of {model.target} workers serve{generation}" + (f"; {outcome}" if outcome else "")
