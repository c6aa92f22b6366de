"""A world of plain integers for the master to govern: performs its orders in the obvious way, on a fake clock.

It holds the rules that the master must keep at every single step (`_check`), so whoever drives it, a table of
scenarios or Hypothesis, tests them all. Processes do what `Ways` say; news of them are mail, delivered at once or,
with `hold`, when the driver says so, in the order it says.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from aserver.config import Config
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core.limits import BEAT_PERIOD, KILL_ALLOWANCE, QUIT_ALLOWANCE, Limits
from aserver.master.core.machine import Master
from aserver.master.core.model import Role, ServerPhase, WorkerPhase, ZygotePhase

T = TypeVar("T")

#: The first zygote can fork.
LOADED = msg.Loaded(1, lazy=False, interface="asgi", hazards=(), seconds=0.1, fingerprint={})


@dataclass
class Ways:
    """How processes behave that begin, or are told something, from now on."""

    load: str = "up"  # up, fail, unforkable, die, hang
    fork: str = "ok"  # ok, fail, hang
    boot: str = "ready"  # ready, fail3, fail4, crash, hang
    leave: str = "soon"  # soon, slow (takes all its grace), never
    load_time: float = 0.1
    boot_time: float = 0.2


@dataclass
class Process:
    """A worker as it really is."""

    serial: int
    generation: int
    alive: bool = True
    ready: bool = False
    told: bool = False
    stuck_at: float | None = None


@dataclass
class World:
    """Drive it with `send`, `run`, `until`; look at `log`, `master`, `processes`."""

    limits: Limits
    lazy: bool = False
    rng: Callable[[], float] = lambda: 0.5
    beats: bool = False
    hold: bool = False
    ways: Ways = field(default_factory=Ways)
    now: float = 1000.0
    log: list[tuple[float, ev.Command]] = field(default_factory=list)
    mail: list[ev.Event] = field(default_factory=list)
    processes: dict[int, Process] = field(default_factory=dict)
    zygotes: dict[int, bool] = field(default_factory=dict)  # alive ones; True if it answers
    quitting: set[int] = field(default_factory=set)
    exit: ev.Exit | None = None
    handled: int = 0

    def __post_init__(self) -> None:
        self.limits = replace(self.limits, preload=not self.lazy)
        self.master = Master(self.limits, self.rng)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._pids = itertools.count(500)
        self._drained: set[int] = set()
        self._hurried: set[int] = set()
        self._finished: set[int] = set()
        self._buried: set[int] = set()
        self._known: set[int] = set()
        self._zygotes_known: set[int] = set()
        self._tokens: dict[int, int] = {}
        if self.beats:
            self._beat()

    # ── driving ──────────────────────────────────────────────────────────────────────────────

    def start(self, seconds: float = 5.0) -> "World":
        """Boot it."""
        self.send(ev.Started())
        self.run(seconds)
        return self

    def send(self, event: ev.Event) -> list[ev.Command]:
        """Tell the master something, check its answer, carry it out."""
        before = self._serving()
        old = self.master.stop
        if isinstance(event, ev.Died):
            self._buried.add(event.serial)
        if isinstance(event, ev.ZygoteGone):
            self._zygotes_known.discard(event.generation)
        if isinstance(event, msg.Forked):
            self._known.add(event.serial)
            if event.serial not in self.master.workers:
                self._disown(event.serial)
        orders = self.master.handle(event, self.now)
        self.handled += 1
        self.log += [(self.now, order) for order in orders]
        for order in orders:
            self._check(order)
        self._check_picture(event, orders, before, stopped=old is not None)
        for order in orders:
            self._perform(order)
        return orders

    def run(self, seconds: float, *, ticks: bool = True) -> None:
        """Let time pass."""
        end = self.now + seconds
        here = 0
        while self.exit is None:
            deadline = self.master.next_deadline() if ticks else None
            times = [t for t in (deadline, self._agenda[0][0] if self._agenda else None) if t is not None]
            step = min(times, default=end)
            if step > end:
                break
            here = here + 1 if step <= self.now else 0
            assert here < 1000, f"busy loop at {self.now}, deadline {deadline}"
            if not times:
                break
            self.now = max(self.now, step)
            if self._agenda and self._agenda[0][0] <= self.now:
                heapq.heappop(self._agenda)[2]()
            else:
                self.send(ev.Tick())
        self.now = max(self.now, end) if self.exit is None else self.now

    def until(self, true: Callable[[], bool], within: float) -> float:
        """Let time pass until it is so; returns the seconds that it took."""
        began = self.now
        while not true():
            assert self.now - began <= within, f"not so within {within} s: {self}"
            self.run(0.05)
        return self.now - began

    def deliver(self, index: int = 0, *, twice: bool = False) -> None:
        """Hand over one letter of the held mail."""
        event = self.mail[index] if twice else self.mail.pop(index)
        if isinstance(event, ev.Died) and twice:
            self._buried.add(event.serial)
        self.send(event)

    def flush(self) -> None:
        """Hand over all of the mail, from now on at once."""
        self.hold = False
        while self.mail:
            self.deliver()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), action))

    # ── what may happen to processes ─────────────────────────────────────────────────────────

    def reload(self, **changes: Any) -> None:
        """Order a reload whose settings are quick ones with `changes`."""
        self.send(ev.ReloadRequested(quick(**{"preload": not self.lazy, **changes}), "SIGHUP"))

    def emit(self, event: ev.Event) -> None:
        """A process, or the kernel about it, has something to say."""
        if self.hold:
            self.mail.append(event)
        else:
            self.send(event)

    def die(self, serial: int, code: int | None = None, signal: str | None = None) -> None:
        """A worker ends."""
        process = self.processes[serial]
        if not process.alive:
            return
        process.alive = False
        if serial in self._known or any(isinstance(e, msg.Forked) and e.serial == serial for e in self.mail):
            self.emit(ev.Died(serial, code, signal))
        self._leave_if_childless(process.generation)

    def kill(self, serial: int, signal: str = "SIGKILL") -> None:
        """A stranger kills a worker."""
        self.die(serial, signal=signal)

    def kill_zygote(self, generation: int, how: str = "was killed by SIGKILL") -> None:
        """A zygote dies."""
        if self.zygotes.pop(generation, None) is not None:
            self.emit(ev.ZygoteGone(generation, how))

    def stick(self, serial: int) -> None:
        """A worker's loop stands still: it beats no more and hears nothing but signals."""
        self.processes[serial].stuck_at = self.now

    def heal(self) -> None:
        """From now on everything works."""
        self.ways = Ways()
        for generation in self.zygotes:
            self.zygotes[generation] = True
        for process in self.processes.values():
            process.stuck_at = None
        self.flush()

    def losable(self, event: ev.Event) -> bool:
        """Whether the real shell could lose this: the last words of a process that died."""
        if isinstance(event, msg.Forked):
            process = self.processes[event.serial]
            return process.generation not in self.zygotes and not process.alive
        if isinstance(event, msg.Ready | msg.BootFailed | msg.RecycleAsked):
            return not self.processes[event.serial].alive
        return False

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def orders(self, kind: type[T], since: float = 0.0) -> list[T]:
        """The orders of one kind."""
        return [order for at, order in self.log if isinstance(order, kind) and at >= since]

    def said(self, text: str) -> list[str]:
        """The records that contain `text`."""
        return [order.text for order in self.orders(ev.Say) if text in order.text]

    @property
    def alive(self) -> list[int]:
        """The serials of the workers that live."""
        return [p.serial for p in self.processes.values() if p.alive]

    @property
    def serving(self) -> list[tuple[int, int]]:
        """(slot, generation) of the workers that serve, as the master sees it."""
        return sorted((w.slot, w.generation) for w in self.master.workers.values() if w.serves)

    def _serving(self) -> set[int]:
        """Serials of the serving workers that are no canaries; said here again, independently of the master."""
        first = all(g.role is not Role.CURRENT for g in self.master.generations.values())
        roles = (Role.CURRENT, Role.OLD, *([Role.CANDIDATE] if first else []))
        return {
            w.serial
            for w in self.master.workers.values()
            if w.phase in (WorkerPhase.READY, WorkerPhase.RECYCLING)
            and self.master.generations[w.generation].role in roles
        }

    # ── the rules ────────────────────────────────────────────────────────────────────────────

    def _check(self, order: ev.Command) -> None:
        assert self.exit is None, f"{order} after Exit"
        match order:
            case msg.Drain(serial=serial):
                assert serial in self._known
                assert serial not in self._buried, f"{order} to a worker that is gone"
                if serial in self._drained:
                    self._check_again(order)
                self._drained.add(serial)
            case ev.Kill(serial=serial) | ev.DumpStacks(serial=serial):
                assert serial in self._known
                assert serial not in self._buried, f"{order} to a worker that is gone"
            case ev.SpawnZygote(generation=generation):
                assert generation not in self._zygotes_known, "a second zygote of one generation"
                self._zygotes_known.add(generation)
            case ev.QuitZygote() | ev.KillZygote() | ev.AdoptWorkers() | msg.Fork():
                assert order.generation in self._zygotes_known, f"{order} to a zygote that is gone"
            case ev.StartListening() | ev.CloseListeners() | ev.Forget():
                assert self.orders(type(order)).count(order) == 1, "twice"
            case _:
                pass

    def _check_again(self, order: msg.Drain) -> None:
        """A worker is told a second time only that the server stops, and once more that its requests get no time."""
        told = self._hurried if order.graceful == 0.0 else self._finished
        assert order.final
        assert order.serial not in told, f"a second {order}"
        assert self.master.stop is not None
        told.add(order.serial)

    def _check_picture(self, event: ev.Event, orders: list[ev.Command], before: set[int], *, stopped: bool) -> None:
        master = self.master
        if any(isinstance(o, msg.Fork) for o in orders):
            most = master.target + max(1, master.limits.max_surge)
            assert len(master.workers) <= most, f"{len(master.workers)} live for {master.target} wanted"
        told = {w.serial for w in master.workers.values() if w.phase is WorkerPhase.DRAINING} & before
        if told and master.stop is None:
            left, floor = len(self._serving()), master.target - master.limits.max_unavailable
            assert left >= floor, f"{event} leaves {left} ready, at least {floor} of {master.target} must be"
        if stopped and master.stop is not None:
            assert not any(isinstance(o, ev.SpawnZygote | msg.Fork) for o in orders), "something new while stopping"
        deadlines = [w.deadline for w in master.workers.values()] + [g.deadline for g in master.generations.values()]
        assert all(d is None or d > master.now for d in deadlines), f"a deadline is left behind: {master}"
        said = [order.event for order in self.orders(ev.Say) if order.outcome != "refused"]
        open_ = sum(each.kind != "scale" for each in master.operations)
        ended = said.count("reload.ends") + said.count("upgrade.ends")
        assert said.count("reload.begins") == ended + open_, "each reload has one end"
        if master.server is not ServerPhase.DONE:
            again = master.handle(ev.Tick(), self.now)
            assert again == [], f"{event} was answered by half: {again} came only at the next tick"

    # ── carrying out orders ──────────────────────────────────────────────────────────────────

    def _perform(self, order: ev.Command) -> None:
        match order:
            case ev.SpawnZygote():
                self._spawn(order)
            case ev.QuitZygote(generation=generation):
                self.quitting.add(generation)
                self.after(0.0, lambda: self._leave_if_childless(generation))
            case ev.KillZygote(generation=generation):
                self.after(0.01, lambda: self.kill_zygote(generation))
            case msg.Fork():
                self.after(0.01, lambda: self._fork(order))
            case msg.Drain(serial=serial, graceful=graceful):
                if graceful == 0.0 or not self.processes[serial].told:
                    self._leave(serial, graceful)
            case ev.Kill(serial=serial, signal=signal):
                if signal == "SIGKILL" or self.ways.leave != "never":
                    self.after(0.02, lambda: self.die(serial, signal=signal))
            case ev.Exit():
                self.exit = order
                unknown = [p for p in self.processes.values() if p.alive and p.serial in self._known]
                assert not unknown, f"Exit, but there lives {unknown}"
                assert not self.zygotes, f"Exit, but zygotes {self.zygotes} live"
            case _:
                pass

    def _spawn(self, order: ev.SpawnZygote) -> None:
        number, way = order.generation, self.ways.load
        token = self._tokens[number] = next(self._order)
        self.zygotes[number] = way != "hang"
        self.quitting.discard(number)

        def loaded() -> None:
            if number not in self.zygotes or self._tokens[number] != token:
                return
            if way == "up" or (way == "unforkable" and order.lazy):
                self.emit(
                    msg.Loaded(number, lazy=order.lazy, interface="asgi", hazards=(), seconds=0.1, fingerprint={})
                )
            elif way == "fail":
                self.emit(msg.LoadFailed(number, 4, "no module named 'app'", "Traceback"))
                self.kill_zygote(number, "ended with exit code 4")
            elif way == "unforkable":
                self.emit(msg.Unforkable(number, ("a thread",)))
                self.kill_zygote(number, "left")
            elif way == "die":
                self.kill_zygote(number, "crashed with SIGSEGV")

        self.after(self.ways.load_time, loaded)

    def _fork(self, order: msg.Fork) -> None:
        number, serial, way = order.generation, order.serial, self.ways.boot
        if self.ways.fork == "hang" and number in self.zygotes:
            self.zygotes[number] = False
        if not self.zygotes.get(number, False):
            return
        if self.ways.fork == "fail":
            self.emit(msg.ForkFailed(serial, "Resource temporarily unavailable"))
            return
        process = self.processes[serial] = Process(serial, number)
        self.emit(msg.Forked(serial, next(self._pids)))

        def booted() -> None:
            if not process.alive or process.stuck_at is not None or process.told:
                return
            if way == "ready":
                process.ready = True
                self.emit(msg.Ready(serial, {}))
            elif way in ("fail3", "fail4"):
                code = int(way[-1])
                self.emit(msg.BootFailed(serial, code, "lifespan startup failed", "Traceback"))
                self.die(serial, code)
            elif way == "crash":
                self.die(serial, signal="SIGSEGV")

        self.after(self.ways.boot_time, booted)

    def _leave(self, serial: int, graceful: float) -> None:
        process = self.processes[serial]
        process.told = True
        if self.ways.leave == "never" or process.stuck_at is not None:
            return
        takes = graceful if self.ways.leave == "slow" else min(graceful, 0.5)
        self.after(takes + 0.05, lambda: self.die(serial, 0))

    def _leave_if_childless(self, number: int) -> None:
        children = any(p.alive and p.generation == number for p in self.processes.values())
        if number in self.quitting and self.zygotes.get(number, False) and not children:
            self.kill_zygote(number, "left as told")

    def _disown(self, serial: int) -> None:
        """The shell closes what came with a worker that nobody wants any more; it reads EOF and leaves."""
        if serial in self.processes:
            self.processes[serial].alive = False
            self._buried.add(serial)
            self._leave_if_childless(self.processes[serial].generation)

    def _beat(self) -> None:
        if self.exit is None:
            beats = {p.serial: p.stuck_at or self.now for p in self.processes.values() if p.alive}
            self.send(ev.Beats(beats))
            self.after(BEAT_PERIOD, self._beat)


def zygote_states(world: World) -> dict[int, ZygotePhase]:
    """The master's view of its zygotes."""
    return {g.number: g.zygote for g in world.master.generations.values()}


def quick(workers: int = 2, **changes: Any) -> Limits:
    """Limits with short times, changed as said."""
    few: dict[str, Any] = {
        "boot_timeout": 10.0,
        "graceful_timeout": 5.0,
        "lifespan_shutdown_timeout": 1.0,
        "min_lifetime": 2.0,
        "hang_timeout": 5.0,
    }
    return Limits.of(Config(**{**few, **changes}), workers)


def stop_bound(limits: Limits) -> float:
    """Seconds within which a stop must be over, in a world that obeys SIGKILL."""
    return limits.drain_delay + limits.graceful_timeout + limits.leave_allowance + KILL_ALLOWANCE + QUIT_ALLOWANCE + 0.5
