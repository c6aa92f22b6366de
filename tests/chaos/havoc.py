"""Carries out a script on a real server, and writes down whom it harmed: which worker, when, and which connections.

Only processes of the server's own tree are signalled, by pid. A worker is halted before it is killed, for then the
connections that it holds can be listed: whoever fails on another one has been failed by the server.
"""

import heapq
import itertools
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import tree
from tests.chaos.clients import Key
from tests.chaos.script import Act, Step
from tests.harness import Process, ServerProcess
from tests.harness.server import REPOSITORY

#: Seconds; short, so that a run meets it.
HANG_TIMEOUT = 5.0
#: Seconds; a worker that was halted for longer may be aborted as hung, even if it is continued before HANG_TIMEOUT.
LONG = HANG_TIMEOUT / 2
WORKERS = 3
_READY = re.compile(r"worker \d+ \(generation \d+, pid (\d+)\) is ready")


@dataclass(frozen=True, slots=True)
class Harm:
    """One worker that was halted until its end, with the connections that it held from then on.

    It came to a halt between `since` and `by` (monotonic seconds): a signal takes its time on a busy machine.
    """

    pid: int
    since: float
    by: float
    held: frozenset[Key]
    killed: bool


class Site:
    """What is deployed: an app on disk, and the settings that go with it."""

    target = "chaos_site:app"

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "site"
        self.directory.mkdir()
        self.unix = str(directory / "chaos.sock")
        self.errorlog = directory / "error.log"
        self.accesslog = directory / "access.log"
        self.rotations = 0
        self._versions = itertools.count(1)
        self.deploy()

    def start(self) -> "ChaosServer":
        """The server for it, not yet started."""
        return ChaosServer(self)

    def deploy(self) -> str:
        """Put another good version in place at once; its name."""
        version = f"good-{next(self._versions)}"
        self._put(f"from tests.apps.chaos.service import Service\n\napp = Service({version!r})\n")
        return version

    def break_it(self, *, at_import: bool) -> str:
        """Put one in place that raises, at import or in lifespan startup; its name, which is in the traceback."""
        version = f"broken-{next(self._versions)}"
        error = f"RuntimeError('{version} on purpose')"
        self._put(f"raise {error}\n" if at_import else f"async def app(scope, receive, send):\n    raise {error}\n")
        return version

    def _put(self, text: str) -> None:
        new = self.directory / "new"
        new.write_text(text)
        new.rename(self.directory / "chaos_site.py")

    def rotate(self) -> None:
        """Rename the logs, as logrotate does before it sends USR1."""
        self.rotations += 1
        for log in (self.errorlog, self.accesslog):
            log.rename(f"{log}.{self.rotations}")

    def read(self, log: Path) -> str:
        """A log with all its rotations, oldest first."""
        files = [Path(f"{log}.{number}") for number in range(1, self.rotations + 1)] + [log]
        return "".join(each.read_text(errors="replace") for each in files if each.exists())


class ChaosServer(ServerProcess):
    """The real command, with its logs in files that are rotated."""

    def __init__(self, site: Site) -> None:
        self.site = site
        options = {
            "app-dir": site.directory,
            "workers": WORKERS,
            "max-requests": 1500,
            "max-requests-jitter": 1500,
            "min-lifetime": 1,
            "graceful-timeout": 20,
            "keep-alive": 20,
            "lifespan": "on",
            "hang-timeout": HANG_TIMEOUT,
            "errorlog": site.errorlog,
            "accesslog": site.accesslog,
            "access-log-format": "%(p)s %(s)s %(B)s [%(r)s]",
        }
        super().__init__(
            site.target,
            *(text for name, value in options.items() for text in (f"--{name}", str(value))),
            bind=("127.0.0.1:0", f"unix:{site.unix}"),
            # A second version of the same length within the same second would be taken for the first by its pyc.
            env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(REPOSITORY)},
        )

    @property
    def log(self) -> str:
        """What went to stdout and stderr, then the error log."""
        return super().log + self.site.read(self.site.errorlog)


@dataclass
class Havoc:
    """Does the script's blows to `server`."""

    server: ServerProcess
    site: Site
    target: int = WORKERS
    harms: list[Harm] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    halted: dict[int, Process] = field(default_factory=dict)
    slight: dict[int, Harm] = field(default_factory=dict)  # not harmed if continued before it is LONG
    _later: list[tuple[float, int, Process]] = field(default_factory=list)
    _began: float = 0.0

    def carry_out(self, script: list[Step]) -> None:
        """All of it, at its times; what takes longer delays what follows."""
        self._began = time.monotonic()
        for step in script:
            self._let_time_pass_until(self._began + step.at)
            self._blow(step)
        for each in list(self.halted.values()):
            self.let_go(each)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait, while those who were halted are continued when it is time."""

        def turn() -> object:
            self._continue_due()
            return condition()

        self.server.wait_for(turn, 40, what)

    def logged(self, text: str) -> int:
        """How often the log says it."""
        return self.server.log.count(text)

    def scale(self, delta: int) -> None:
        """TTIN or TTOU, heard before anything else is sent: two that are pending at once are one (signal(7))."""
        # A halted master would never hear it: SIGCONT discards pending stop signals, and these are two (signal(7)).
        self.until(lambda: self.server.pid not in self.halted, "the master to be continued")
        said = f"scaling from {self.target} to {self.target + delta} workers"
        before = self.logged(said)
        self.server.signal(signal.SIGTTIN if delta > 0 else signal.SIGTTOU)
        self.until(lambda: self.logged(said) > before, said)
        self.target += delta

    # ── blows ────────────────────────────────────────────────────────────────────────────────

    def _blow(self, step: Step) -> None:
        match step.act:
            case Act.KILL_WORKER | Act.STOP_WORKER | Act.HANG_WORKER:
                self._hit_worker(step)
            case Act.RECYCLE_WORKER:
                if alive := list(tree.workers(self.server).values()):
                    alive[int(step.which * len(alive))].kill(signal.SIGTERM)
            case Act.SUSPEND:
                for each in self.server.family():
                    self._halt(each, 0.3 + (HANG_TIMEOUT + 1) * step.long)
            case Act.KILL_ZYGOTE | Act.STOP_ZYGOTE:
                self._hit_zygote(step)
            case Act.STOP_MASTER:
                master = next(each for each in self.server.family() if each.pid == self.server.pid)
                self._halt(master, 0.2 + step.long)
            case Act.RELOAD:
                self.server.signal(signal.SIGHUP)
            case Act.DEPLOY:
                self.site.deploy()
                self.server.signal(signal.SIGHUP)
            case Act.BREAK:
                self._break(step)
            case Act.MORE | Act.FEWER:
                delta = 1 if step.act is Act.MORE else -1
                if 2 <= self.target + delta <= 5:
                    self.scale(delta)
            case Act.ROTATE:
                reopened = self.logged("logs reopened")
                self.site.rotate()
                self.server.signal(signal.SIGUSR1)
                self.until(lambda: self.logged("logs reopened") > reopened, "the logs to be reopened")
            case Act.UPGRADE:
                self.server.signal(signal.SIGUSR2)
        self._note(step.act.value)

    def _note(self, text: str) -> None:
        self.done.append(f"{time.monotonic() - self._began:6.2f} {text}")

    def _hit_worker(self, step: Step) -> None:
        """Only if another one serves meanwhile: with nobody left to answer, only patience would be tested."""
        ready = {int(pid) for pid in _READY.findall(self.server.log)}
        serving = [each for pid, each in tree.workers(self.server).items() if pid in ready and pid not in self.halted]
        if len(serving) < 2:
            self._note("(spared: one worker serves)")
            return
        victim = serving[int(step.which * len(serving))]
        since = time.monotonic()
        victim.kill(signal.SIGSTOP)
        if not tree.halted(victim):
            return
        by = time.monotonic()
        self._note(f"on {victim.pid} ({victim.title})")
        harm = Harm(victim.pid, since, by, frozenset(tree.held_by(victim)), step.act is Act.KILL_WORKER)
        if harm.killed:
            self.harms.append(harm)
            victim.kill()
            return
        self.slight[victim.pid] = harm
        self.halted[victim.pid] = victim
        self._continue_later(victim, 0.1 + step.long if step.act is Act.STOP_WORKER else HANG_TIMEOUT + 2 * step.long)

    def _hit_zygote(self, step: Step) -> None:
        zygotes = [each for each in tree.zygotes(self.server) if each.pid not in self.halted]
        if not zygotes:
            return
        victim = zygotes[int(step.which * len(zygotes))]
        self._note(f"on {victim.pid} ({victim.title})")
        if step.act is Act.KILL_ZYGOTE:
            victim.kill()
        else:
            self._halt(victim, 0.2 + 3 * step.long)

    def _break(self, step: Step) -> None:
        version = self.site.break_it(at_import=step.which < 0.5)
        self.server.signal(signal.SIGHUP)
        self.until(lambda: self.logged(f"{version} on purpose"), f"the traceback of {version}")
        self.site.deploy()
        self.server.signal(signal.SIGHUP)

    # ── those who are halted ─────────────────────────────────────────────────────────────────

    def _halt(self, victim: Process, seconds: float) -> None:
        victim.kill(signal.SIGSTOP)
        self.halted[victim.pid] = victim
        self._continue_later(victim, seconds)

    def _continue_later(self, victim: Process, seconds: float) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, victim.pid, victim))

    def _continue_due(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic():
            self.let_go(heapq.heappop(self._later)[2])

    def let_go(self, victim: Process) -> None:
        """Continue a process; a worker that was halted for LONG only when its abort is pending, of which it then dies.

        Continued before, it would accept connections that its abort takes along, and no book says which those are.
        """
        slight = self.slight.get(victim.pid)
        if slight is not None and time.monotonic() - slight.since > LONG:
            if slight not in self.harms:
                self.harms.append(slight)
            if victim.alive and not tree.is_aborted(victim):
                self._continue_later(victim, 0.05)
                return
        self.halted.pop(victim.pid, None)
        self.slight.pop(victim.pid, None)
        if victim.alive:
            os.kill(victim.pid, signal.SIGCONT)
            self._note(f"(continued {victim.pid})")

    def _let_time_pass_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            self._continue_due()
            time.sleep(min(left, 0.02))  # the script's own pace; nothing is waited for
