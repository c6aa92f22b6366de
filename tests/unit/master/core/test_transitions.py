"""Every row of the table of transitions, taken by the event that it names; and no step that is not in the table."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import aserver.master
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core import transitions
from aserver.master.core.limits import BackOff
from aserver.master.core.machine import Master
from aserver.master.core.model import Generation, Intent, Role, ServerPhase, Worker, WorkerPhase, ZygotePhase
from aserver.master.core.transitions import GENERATION, SERVER, WORKER, ZYGOTE, Row, WrongTransition
from tests.stateful.world import LOADED, quick

NOW = 1000.0
LATER = NOW + 50.0  # a deadline that no case is to reach
ASSIGNMENT = re.compile(r"\.(phase|zygote|role|server|deadline)\b[^=\n]*(?<![=!<>])=(?!=)")


class Scene:
    """A master with generation 1 and, if it has a phase, worker 1 of it; a step takes place at NOW."""

    def __init__(
        self,
        phase: WorkerPhase | None = None,
        *,
        zygote: ZygotePhase = ZygotePhase.UP,
        role: Role = Role.CURRENT,
        server: ServerPhase = ServerPhase.SERVING,
        due: bool = False,
        **limits: Any,
    ) -> None:
        """`due`: what is looked at has a deadline that passes now."""
        self.master = Master(quick(workers=1, **limits), lambda: 0.5, server=server, target=1, now=NOW - 1.0)
        self.master.beats_at = NOW - 0.25
        self.generation = self.add(1, role, zygote)
        if zygote is not ZygotePhase.UP or (due and phase is WorkerPhase.READY):
            self.generation.deadline = NOW if due else LATER
        self.worker = self.hold(1, phase, self.generation) if phase else None
        if self.worker is not None and due:
            self.worker.deadline = NOW if phase is not WorkerPhase.READY else None

    def add(self, number: int, role: Role, zygote: ZygotePhase = ZygotePhase.UP) -> Generation:
        """One more generation. Its zygote's next death is followed by a pause."""
        limits = self.master.limits
        generation = Generation(number, limits, BackOff(3), BackOff(0), role, zygote, began=NOW)
        self.master.generations[number] = generation
        self.master.numbers = max(number, self.master.numbers)
        return generation

    def hold(self, serial: int, phase: WorkerPhase, generation: Generation) -> Worker:
        """One more worker, in slot 1."""
        worker = Worker(serial, 1, generation.number, LATER, began=NOW - 100.0, phase=phase, pid=500 + serial)
        if phase not in (WorkerPhase.BOOTING, WorkerPhase.FAILED):
            worker.ready_at = NOW - 100.0
        if phase in (WorkerPhase.READY, WorkerPhase.RECYCLING):
            worker.deadline = None
        worker.intent = {WorkerPhase.DRAINING: Intent.LEAVE, WorkerPhase.KILLING: Intent.HUNG}.get(phase, Intent.NONE)
        self.master.workers[serial] = worker
        self.master.serials = max(serial, self.master.serials)
        return worker


@dataclass
class Case:
    """What leads to a step: the scene, the event, and the deadline in seconds from NOW (None: there is none)."""

    scene: Scene
    event: ev.Event
    deadline: float | None = None


def _beside(scene: Scene, other: Role, worker: WorkerPhase | None = None) -> Scene:
    """The same with a generation 2."""
    generation = scene.add(2, other)
    if worker:
        scene.hold(2, worker, generation)
    return scene


def _with(scene: Scene, **changes: Any) -> Scene:
    """The same with other fields of its worker."""
    for name, value in changes.items():
        setattr(scene.worker, name, value)
    return scene


def _stopping(scene: Scene, begins: float = 2.0) -> Scene:
    scene.master.stop, scene.master.stop_begins = ev.StopMode.GRACEFUL, NOW + begins
    return scene


def _replaced() -> Scene:
    scene = Scene(WorkerPhase.RECYCLING)
    scene.hold(2, WorkerPhase.READY, scene.generation)
    return scene


def _failed_to_replace() -> Scene:
    scene = Scene(WorkerPhase.RECYCLING, reload=True, keep_serving=True)
    worker = scene.hold(2, WorkerPhase.FAILED, scene.generation)
    worker.failure = msg.BootFailed(2, 4, "SyntaxError", "")
    return scene


W, Z, S = WorkerPhase, ZygotePhase, ServerPhase
TICK, SILENT, GONE = ev.Tick(), ev.Beats({1: 0.0}), ev.ZygoteGone(1, "died")
GRACEFUL, QUICK = ev.StopRequested(ev.StopMode.GRACEFUL, "TERM"), ev.StopRequested(ev.StopMode.QUICK, "INT")
NONE_WANTED, BREACH = ev.Scale(to=0), ev.Breached(1, "garbage")

#: By the phase before and the beginning of the row's event.
CASES: dict[tuple[transitions.AnyPhase | None, str], Callable[[], Case]] = {
    (None, "an order to fork"): lambda: Case(Scene(), TICK, 10.0),
    (W.BOOTING, "it reports that it is ready"): lambda: Case(Scene(W.BOOTING), msg.Ready(1, {})),
    (W.BOOTING, "it reports that its boot"): lambda: Case(Scene(W.BOOTING), msg.BootFailed(1, 3, "no queue", ""), 3.0),
    (W.BOOTING, "its deadline"): lambda: Case(Scene(W.BOOTING, due=True), TICK, 1.0),
    (W.BOOTING, "it breaks"): lambda: Case(Scene(W.BOOTING), BREACH, 2.0),
    (W.BOOTING, "it is not wanted"): lambda: Case(Scene(W.BOOTING), NONE_WANTED, 3.0),
    (W.FAILED, "its deadline"): lambda: Case(Scene(W.FAILED, due=True), TICK, 2.0),
    (W.READY, "it asked"): lambda: Case(Scene(W.READY), msg.RecycleAsked(1, "max_requests")),
    (W.READY, "it breaks"): lambda: Case(Scene(W.READY, min_lifetime=1e6), BREACH),
    (W.READY, "it is not wanted"): lambda: Case(Scene(W.READY), NONE_WANTED, 8.0),
    (W.READY, "it is silent"): lambda: Case(Scene(W.READY), SILENT, 1.0),
    (W.RECYCLING, "its replacement is"): lambda: Case(_replaced(), TICK, 8.0),
    (W.RECYCLING, "its replacement has"): lambda: Case(_failed_to_replace(), ev.Died(2, 4)),
    (W.RECYCLING, "it breaks"): lambda: Case(Scene(W.RECYCLING), BREACH),
    (W.RECYCLING, "it is silent"): lambda: Case(Scene(W.RECYCLING), SILENT, 1.0),
    (W.DRAINING, "it reports"): lambda: Case(_with(Scene(W.DRAINING), ready_at=None), msg.Ready(1, {}), 55.0),
    (W.DRAINING, "a stop"): lambda: Case(Scene(W.DRAINING), GRACEFUL, 50.0),
    (W.DRAINING, "a second stop"): lambda: Case(Scene(W.DRAINING), QUICK, 3.0),
    (W.DRAINING, "it is silent"): lambda: Case(Scene(W.DRAINING), SILENT, 1.0),
    (W.DRAINING, "its deadline"): lambda: Case(Scene(W.DRAINING, due=True), TICK, 2.0),
    (W.KILLING, "its deadline"): lambda: Case(Scene(W.KILLING, due=True), TICK, 2.0),
    (Z.DOWN, "its generation begins"): lambda: Case(Scene(zygote=Z.DOWN, due=True), TICK, 10.0),
    (Z.DOWN, "it is not wanted"): lambda: Case(Scene(zygote=Z.DOWN), GRACEFUL),
    (Z.LOADING, "it has loaded"): lambda: Case(Scene(W.READY, zygote=Z.LOADING), LOADED),
    (Z.LOADING, "it holds"): lambda: Case(Scene(zygote=Z.LOADING), msg.Unforkable(1, ()), 50.0),
    (Z.LOADING, "its deadline"): lambda: Case(Scene(zygote=Z.LOADING, due=True), TICK, 1.0),
    (Z.LOADING, "it is not wanted"): lambda: Case(Scene(zygote=Z.LOADING), GRACEFUL, 5.0),
    (Z.LOADING, "it died, and"): lambda: Case(Scene(zygote=Z.LOADING), GONE, 0.375),
    (Z.LOADING, "it died otherwise"): lambda: Case(Scene(zygote=Z.LOADING, role=Role.FAILED), GONE),
    (Z.TURNING, "it died"): lambda: Case(Scene(zygote=Z.TURNING), GONE, 10.0),
    (Z.TURNING, "its deadline"): lambda: Case(Scene(zygote=Z.TURNING, due=True), TICK, 2.0),
    (Z.TURNING, "it is not wanted"): lambda: Case(Scene(zygote=Z.TURNING), GRACEFUL, 5.0),
    (Z.UP, "an order to fork"): lambda: Case(Scene(), TICK, 10.0),
    (Z.UP, "its deadline"): lambda: Case(Scene(W.READY, due=True), TICK, 2.0),
    (Z.UP, "no worker needs it"): lambda: Case(Scene(), QUICK, 5.0),
    (Z.UP, "it died, and"): lambda: Case(Scene(W.READY), GONE, 0.375),
    (Z.UP, "it died otherwise"): lambda: Case(Scene(role=Role.FAILED), GONE),
    (Z.LEAVING, "stop"): lambda: Case(Scene(W.DRAINING, zygote=Z.LEAVING), GRACEFUL),
    (Z.LEAVING, "its deadline"): lambda: Case(Scene(zygote=Z.LEAVING, role=Role.OLD, due=True), TICK, 2.0),
    (Z.LEAVING, "it died"): lambda: Case(Scene(zygote=Z.LEAVING, role=Role.OLD), GONE),
    (None, "start"): lambda: Case(Scene(server=S.BOOTING, role=Role.CANDIDATE), TICK),
    (Role.CANDIDATE, "a worker"): lambda: Case(
        Scene(W.BOOTING, role=Role.CANDIDATE, server=S.BOOTING), msg.Ready(1, {})
    ),
    (Role.CANDIDATE, "it or its canary"): lambda: Case(
        _beside(Scene(zygote=Z.LOADING, role=Role.CANDIDATE), Role.CURRENT), msg.LoadFailed(1, 4, "no module", "")
    ),
    (Role.CURRENT, "the next"): lambda: Case(_beside(Scene(W.READY), Role.CANDIDATE, W.READY), TICK),
    (Role.OLD, "its last"): lambda: Case(Scene(zygote=Z.LEAVING, role=Role.OLD), GONE),
    (Role.FAILED, "its last"): lambda: Case(Scene(zygote=Z.LEAVING, role=Role.FAILED), GONE),
    (S.BOOTING, "the first"): lambda: Case(Scene(W.BOOTING, role=Role.CANDIDATE, server=S.BOOTING), msg.Ready(1, {})),
    (S.BOOTING, "no worker"): lambda: Case(Scene(W.BOOTING, server=S.BOOTING, drain_delay=2.0), GRACEFUL),
    (S.SERVING, "SIGTERM"): lambda: Case(Scene(W.READY, drain_delay=2.0), GRACEFUL, 2.0),
    (S.STOPPING, "another"): lambda: Case(_stopping(Scene(W.READY, server=S.STOPPING)), GRACEFUL),
    (S.STOPPING, "every"): lambda: Case(_stopping(Scene(zygote=Z.LEAVING, server=S.STOPPING), 0.0), GONE),
}


def _case(row: Row) -> Case:
    (found,) = (case for (before, event), case in CASES.items() if before is row.before and row.event.startswith(event))
    return found()


def _rows(rows: tuple[Row, ...]) -> list[Any]:
    return [pytest.param(row, id=f"{row.before.name if row.before else '-'}-{row.event}") for row in rows]


@pytest.mark.parametrize("row", _rows(WORKER))
def test_every_row_of_a_worker(row: Row) -> None:
    case = _case(row)
    case.scene.master.handle(case.event, NOW)
    worker = case.scene.worker or case.scene.master.workers[1]
    assert worker.phase is row.after
    assert worker.deadline == (None if case.deadline is None else NOW + case.deadline)


@pytest.mark.parametrize("row", _rows(ZYGOTE))
def test_every_row_of_a_zygote(row: Row) -> None:
    case = _case(row)
    case.scene.master.handle(case.event, NOW)
    assert case.scene.generation.zygote is row.after
    assert case.scene.generation.deadline == (None if case.deadline is None else NOW + case.deadline)


@pytest.mark.parametrize("row", _rows(GENERATION))
def test_every_row_of_a_generation(row: Row) -> None:
    case = _case(row)
    case.scene.master.handle(case.event, NOW)
    assert (case.scene.generation.role if row.after else None) is row.after
    assert (1 in case.scene.master.generations) is (row.after is not None)


@pytest.mark.parametrize("row", _rows(SERVER))
def test_every_row_of_the_server(row: Row) -> None:
    case = _case(row)
    case.scene.master.handle(case.event, NOW)
    assert case.scene.master.server is row.after
    assert max(0.0, case.scene.master.stop_begins - NOW) == (case.deadline or 0.0)


def test_every_case_is_a_row() -> None:
    """Fails with a case whose row has gone."""
    rows = [*WORKER, *ZYGOTE, *GENERATION, *SERVER]
    assert len(rows) == len(CASES)
    assert [key for key in CASES if not any(r.before is key[0] and r.event.startswith(key[1]) for r in rows)] == []


def _wrong() -> Iterator[Any]:
    steps: list[tuple[Callable[[Scene], object], WorkerPhase]] = [
        (lambda scene: transitions.recycle(_worker(scene), "due"), W.RECYCLING),
        (lambda scene: transitions.drain(scene.master, _worker(scene), "a test"), W.DRAINING),
        (lambda scene: transitions.fail_boot(scene.master, _worker(scene), msg.BootFailed(1, 3, "", "")), W.FAILED),
    ]
    known = {(row.before, row.after) for row in WORKER}
    for take, after in steps:
        for before in WorkerPhase:
            if (before, after) not in known:
                yield pytest.param(lambda before=before: Scene(before), take, id=f"{before.name}-{after.name}")
    others: list[tuple[Callable[[], Scene], Callable[[Scene], object]]] = [
        (lambda: Scene(W.KILLING), lambda scene: transitions.ready(scene.master, _worker(scene))),
        (lambda: Scene(zygote=Z.GONE), lambda scene: transitions.zygote_up(scene.master, scene.generation)),
        (lambda: Scene(zygote=Z.GONE), lambda scene: transitions.kill_zygote(scene.master, scene.generation)),
        (lambda: Scene(zygote=Z.UP), lambda scene: transitions.spawn_zygote(scene.master, scene.generation)),
        (lambda: Scene(role=Role.FAILED), lambda scene: transitions.succeed(scene.master, scene.generation)),
        (lambda: Scene(role=Role.CURRENT), lambda scene: transitions.fail(scene.generation)),
        (lambda: Scene(server=S.STOPPING), lambda scene: transitions.serve(scene.master)),
        (lambda: Scene(server=S.SERVING), lambda scene: transitions.end(scene.master)),
    ]
    yield from (pytest.param(scene, take, id=str(n)) for n, (scene, take) in enumerate(others))


def _worker(scene: Scene) -> Worker:
    assert scene.worker is not None
    return scene.worker


@pytest.mark.parametrize(("scene", "take"), list(_wrong()))
def test_a_step_that_is_not_in_the_table_raises(scene: Callable[[], Scene], take: Callable[[Scene], object]) -> None:
    """Fails without `_step` around the assignment."""
    with pytest.raises(WrongTransition, match="no step leads from"):
        take(scene())


def test_phases_and_deadlines_are_assigned_in_one_module() -> None:
    """Fails with `worker.phase = ...` in any other module of the master."""
    (folder,) = aserver.master.__path__
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(Path(folder).rglob("*.py"))
        if path.name != "transitions.py"
        for line in path.read_text().splitlines()
        if ASSIGNMENT.search(line)
    ]
    assert found == []
