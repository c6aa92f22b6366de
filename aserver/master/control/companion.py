"""The process of the admin endpoint, as the master keeps it: started, again when it dies or hangs, ended at the end.

Runs in the master. The listeners are the master's: while there is no such process, clients wait in their queue. The
process has an end of a socket pair, by which it asks this server (`ControlServer.adopt`) and can order nothing; if that
ends, as at an upgrade or the master's death, so does the process. It asks twice a second, so a process that asks
nothing for `hang_timeout` hangs: it is aborted, so that its stacks get into the log, and then killed.
"""

import asyncio
import json
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from aserver import unix
from aserver.config import Config
from aserver.errors import BindError, ConfigError
from aserver.log.crash import read_trace
from aserver.master.control.server import ControlClient
from aserver.master.core import events as ev
from aserver.master.core.explain import explain_exit
from aserver.master.core.limits import BackOff, when
from aserver.master.core.model import Intent
from aserver.master.handles import decode_status
from aserver.master.journal import Record
from aserver.master.programs import spawn_program
from aserver.master.runner import Runner
from aserver.sockets import Listener, bind_for

log = logging.getLogger("aserver.master")

#: Where the process finds its end of the socket pair.
LINE_FD = 3
#: Seconds between two looks whether the process lives.
_PERIOD = 0.5
#: Clients in the kernel's queue.
_BACKLOG = 64
_PROGRAM = Path(__file__).resolve().parents[2] / "admin" / "__main__.py"


def bind(config: Config) -> list[Listener]:
    """The listeners of `admin`, listening already. If they cannot be bound, none, and the log says why."""
    if config.admin is None:
        return []
    plain = config.admin if config.admin.startswith(("unix:", "fd://")) else f"http://{config.admin}"
    try:
        listeners = bind_for(config, (plain,), os.environ if plain.startswith("fd://") else {})
        for listener in listeners:
            listener.listen(_BACKLOG)
    except (BindError, ConfigError) as error:
        log.error("admin: %s; the server runs without its admin endpoint until a restart", error)  # noqa: TRY400
        return []
    return listeners


class Companion:
    """Keeps the process. `adopt` takes the master's end of the socket pair."""

    def __init__(self, runner: Runner, adopt: Callable[[socket.socket], ControlClient]) -> None:
        self._runner = runner
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._back_off = BackOff(1)
        self._pid: int | None = None
        self._began = 0.0
        self._looked = 0.0
        self._clock_restart = 0.0  # this process itself stood still until then
        self._silence = ""  # for which it was aborted
        self._trace, self._trace_offset = unix.memory_file("aserver-trace"), 0  # of one process after the other
        for listener in runner.admin:
            log.info("admin endpoint: %s", listener.name)
        runner.journal.followers.append(self._on_record)
        self._timer = self._loop.call_soon(self._start)

    def close(self) -> None:
        """End the process, which has nothing that could be lost, and close the listeners."""
        self._runner.journal.followers.remove(self._on_record)
        self._timer.cancel()
        self._kill()
        os.close(self._trace)
        for listener in self._runner.admin:
            listener.close()

    def _on_record(self, record: Record) -> None:
        if record.event == "logs.reopened":  # it has the old file open
            self._timer.cancel()
            self._kill()
            self._timer = self._loop.call_soon(self._start)

    def _start(self) -> None:
        resources = self._runner.resources.next
        ours, theirs = unix.stream_pair()
        self._began = time.monotonic()
        try:
            listeners = (listener.socket.fileno() for listener in self._runner.admin)
            fds = [self._trace, resources.log_fds[0], *listeners]
            socket.send_fds(ours, [json.dumps(resources.config.to_wire()).encode() + b"\n"], fds)
            self._pid = spawn_program(_PROGRAM, LINE_FD, fds={LINE_FD: theirs.fileno()})
        except OSError as error:
            ours.close()
            self._ended(f"could not be started ({error.strerror})")
            return
        finally:
            theirs.close()
        self._runner.processes.companions.add(self._pid)
        self._line = self._adopt(ours)
        self._silence = ""
        self._timer = self._loop.call_later(_PERIOD, self._look)

    def _look(self) -> None:
        assert self._pid is not None
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            self._end_silence(self._pid)
            self._timer = self._loop.call_later(_PERIOD, self._look)
            return
        stacks, self._trace_offset = read_trace(self._trace, self._trace_offset)
        self._forget()
        code, signum = decode_status(status)
        how = f"ended with exit code {code}" if signum is None else explain_exit(code, signum, Intent.NONE)
        self._ended(f"(pid {pid}) {self._silence or how}", f"the stacks at its end:\n{stacks}" if stacks else "")

    def _end_silence(self, pid: int) -> None:
        now, config = self._loop.time(), self._runner.resources.next.config
        limit = config.hang_timeout if self._line.requests else max(config.hang_timeout, config.boot_timeout)
        if now - self._looked > 2 * _PERIOD:
            self._clock_restart = now
        self._looked = now
        silent = now - max(self._line.listens_since, self._clock_restart)
        if self._silence:
            os.kill(pid, signal.SIGKILL)
        elif config.hang_timeout and silent >= limit:
            os.kill(pid, signal.SIGABRT)  # faulthandler writes the stacks
            self._silence = f"has asked nothing for {silent:.1f} s (more than {limit:g} s) and was killed"

    def _ended(self, how: str, detail: str = "") -> None:
        now = time.monotonic()
        pause = self._back_off.died(now, random.random, now - self._began)
        text = f"the admin endpoint's process {how}; the workers serve on, another one starts {when(pause)}"
        self._runner.journal.say(ev.Say("error", text, detail, event="admin.died", reason=how))
        self._timer = self._loop.call_later(pause, self._start)

    def _kill(self) -> None:
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)  # our own child, not reaped yet: the pid is its
            os.waitpid(self._pid, 0)
            self._forget()

    def _forget(self) -> None:
        assert self._pid is not None
        self._runner.processes.companions.discard(self._pid)
        self._pid = None
