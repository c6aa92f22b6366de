"""Scenarios of the master's decisions, from first boot to exit and at a save, each told in events on a fake clock."""

from typing import Any, get_args

import pytest

from aserver.errors import ExitCode
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core import machine
from aserver.master.core.limits import Limits
from aserver.master.core.machine import Master
from aserver.master.core.model import Role, ServerPhase, WorkerPhase, ZygotePhase
from tests.stateful.world import LOADED, World, quick, zygote_states


def test_first_boot_forks_all_and_listens_once_one_is_ready() -> None:
    world = World(quick(workers=3)).start()
    kinds = [type(order) for _, order in world.log if not isinstance(order, ev.Say)]
    assert kinds[:2] == [ev.SpawnZygote, msg.Fork]
    assert len(world.orders(ev.StartListening)) == 1
    assert world.serving == [(1, 1), (2, 1), (3, 1)]
    assert world.said("all 3 workers are ready")
    assert world.master.next_deadline() is None


def test_every_event_has_its_handler() -> None:
    """Fails with an event that the table of handlers lacks."""
    messages = set(get_args(ev.Event)) - {ev.OwnEvent}
    assert set(ev.OwnEvent.__subclasses__()) | messages == machine.HANDLERS.keys()


def test_started_twice_is_started_once() -> None:
    world = World(quick()).start()
    assert world.send(ev.Started()) == []


@pytest.mark.parametrize("workers", [1, 4])
def test_failing_lifespan_is_tried_boot_retries_times_whatever_the_number_of_workers(workers: int) -> None:
    world = World(quick(workers=workers, boot_retries=3))
    world.ways.boot = "fail3"
    world.start(60.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.BOOT
    assert "lifespan startup failed" in world.exit.reason
    assert world.exit.detail == "Traceback"
    assert len(world.orders(msg.Fork)) == 3 * workers


def test_import_error_in_a_worker_ends_the_first_boot_at_once() -> None:
    world = World(quick(workers=1), lazy=True)
    world.ways.boot = "fail4"
    world.start(60.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.APP_LOAD
    assert len(world.orders(msg.Fork)) == 1


@pytest.mark.parametrize(
    ("load", "code"), [("fail", ExitCode.APP_LOAD), ("die", ExitCode.BOOT), ("hang", ExitCode.BOOT)]
)
def test_a_zygote_that_cannot_load_ends_the_first_boot(load: str, code: int) -> None:
    world = World(quick(boot_timeout=10.0))
    world.ways.load = load
    world.start(30.0)
    assert world.exit is not None
    assert world.exit.code == code
    assert world.exit.reason
    if load == "hang":
        assert "within 10 s" in world.exit.reason


def test_exit_code_four_counts_even_if_its_message_was_lost() -> None:
    world = World(quick(workers=1))
    world.ways.boot = "hang"
    world.start(1.0)
    world.die(1, code=4)
    world.run(1.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.APP_LOAD


def test_one_slow_worker_that_becomes_ready_saves_the_first_boot() -> None:
    world = World(quick(workers=2, boot_retries=1, boot_timeout=60.0))
    world.ways.boot_time = 30.0
    world.start(1.0)
    world.kill(1)
    world.run(20.0)
    assert world.exit is None
    assert len(world.orders(msg.Fork)) == 2, "no attempt is left"
    world.run(60.0)
    assert world.serving == [(1, 1), (2, 1)]


def test_a_zygote_that_dies_at_every_fork_does_not_boot_for_ever() -> None:
    world = World(quick(boot_retries=3))
    world.ways.boot = "hang"
    world.send(ev.Started())
    for _ in range(10):
        world.run(3.0)
        world.kill_zygote(1)
        for serial in world.alive:
            world.kill(serial)
    world.run(30.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.BOOT


def test_boot_timeout_counts_from_before_the_fork_and_kills() -> None:
    world = World(quick(workers=1, boot_retries=1))
    world.ways.boot = "hang"
    world.start(30.0)
    orders = [o.signal for o in world.orders(ev.Kill)]
    assert orders[0] == "SIGABRT", "faulthandler is to write where it hangs"
    assert orders.count("SIGABRT") == 1, "its place was tried again before it had died"
    assert world.exit is not None
    assert "could not boot: it was killed by aserver: it was not ready in time" in world.exit.reason


def test_unforkable_means_lazy() -> None:
    world = World(quick())
    world.ways.load = "unforkable"
    world.start()
    assert world.orders(ev.SpawnZygote) == [ev.SpawnZygote(1, lazy=False), ev.SpawnZygote(1, lazy=True)]
    assert world.serving == [(1, 1), (2, 1)]


def test_an_unforkable_lazy_zygote_is_a_failure_and_no_loop() -> None:
    world = World(quick(), lazy=True)
    world.send(ev.Started())
    world.send(msg.Unforkable(1, ()))
    world.kill_zygote(1)
    world.run(5.0)
    assert world.exit is not None
    assert len(world.orders(ev.SpawnZygote)) == 1


def test_ready_before_forked() -> None:
    world = World(quick(workers=1), hold=True)
    world.start(1.0)
    world.deliver()  # Loaded
    world.run(1.0)
    assert [type(e) for e in world.mail] == [msg.Forked, msg.Ready]
    world.deliver(1)
    world.deliver(0)
    assert world.serving == [(1, 1)]


def test_an_order_given_before_the_process_is_known_reaches_it_later() -> None:
    master = Master(quick(workers=2), lambda: 0.5)
    master.handle(ev.Started(), 0.0)
    master.handle(LOADED, 1.0)
    assert not any(isinstance(o, msg.Drain) for o in master.handle(ev.Scale(to=1), 2.0))
    assert master.handle(msg.Forked(2, 77), 3.0) == [msg.Drain(2, final=False, graceful=5.0)]


@pytest.mark.parametrize("stop", [False, True])
def test_who_serves_before_it_hears_that_it_is_not_wanted_gets_time_for_its_requests(stop: bool) -> None:
    """The order to leave and `ready` cross: found by chaos (seed 32), where requests were cancelled at once."""
    master = Master(quick(workers=2), lambda: 0.5)
    master.handle(ev.Started(), 0.0)
    master.handle(LOADED, 1.0)
    for serial in (1, 2):
        master.handle(msg.Forked(serial, 70 + serial), 1.0)
    master.handle(msg.Ready(1, {}), 1.0)
    event = ev.StopRequested(ev.StopMode.GRACEFUL, "test") if stop else ev.Scale(to=1)
    assert msg.Drain(2, final=stop, graceful=5.0) in master.handle(event, 2.0)
    worker = master.workers[2]
    assert worker.deadline == 2.0 + master.limits.leave_allowance, "a boot that hangs is not waited for longer"
    for _ in range(2):
        master.handle(msg.Ready(2, {}), 2.5)
        assert worker.deadline == 2.0 + 5.0 + master.limits.leave_allowance
    assert master.handle(msg.Forked(2, 77), 4.0) == []


def test_after_a_zygote_dies_a_late_forked_is_nobody() -> None:
    world = World(quick(workers=1)).start()
    world.kill(1)
    world.hold = True
    world.run(0.05)
    world.kill_zygote(1)
    world.deliver(len(world.mail) - 1)
    before = dict(world.master.workers)
    world.deliver()
    assert world.master.workers == before
    world.flush()
    world.run(5.0)
    assert len(world.alive) == 1


def test_time_never_goes_back() -> None:
    master = Master(quick(), lambda: 0.5)
    master.handle(ev.Started(), 100.0)
    deadline = master.next_deadline()
    master.handle(ev.Tick(), 50.0)
    assert master.now == 100.0
    assert master.next_deadline() == deadline


def test_phases_along_one_life() -> None:
    world = World(quick(workers=1, min_lifetime=0.0))
    seen: list[tuple[ServerPhase, ZygotePhase, WorkerPhase | None]] = []
    world.send(ev.Started())
    for event in (None, None, None, msg.RecycleAsked(1, "max_requests"), None):
        worker = world.master.workers.get(1)
        seen.append((world.master.server, zygote_states(world)[1], worker.phase if worker else None))
        if event is not None:
            world.send(event)
        world.run(0.12 if event is None else 0.0)
    assert [phase for _, _, phase in seen] == [
        None,
        WorkerPhase.BOOTING,
        WorkerPhase.BOOTING,
        WorkerPhase.READY,
        WorkerPhase.RECYCLING,
    ]
    assert [zygote for _, zygote, _ in seen] == [ZygotePhase.LOADING, *[ZygotePhase.UP] * 4]
    assert [server for server, _, _ in seen] == [*[ServerPhase.BOOTING] * 3, *[ServerPhase.SERVING] * 2]
    world.run(0.3)
    assert world.master.workers[1].phase is WorkerPhase.DRAINING
    assert world.master.generations[1].role is Role.CURRENT


def test_decisions_are_explained_at_debug() -> None:
    """`--log-level debug` says for what each worker is forked, and why one is told to leave. Fails without a reason."""
    world = World(quick(workers=1, min_lifetime=0)).start()
    world.send(msg.RecycleAsked(1, "100 requests"))
    world.run(3.0)
    world.send(ev.ReloadRequested(world.limits, "SIGHUP"))
    world.run(3.0)
    told = [(order.event, order.reason) for order in world.orders(ev.Say) if order.level == "debug"]
    assert told == [
        ("worker.fork", "no worker has this slot"),
        ("worker.fork", "to replace worker 1 (generation 1, pid 500)"),
        ("worker.drain", "its replacement serves"),
        ("worker.fork", "the canary"),
        ("worker.drain", "its replacement serves"),
    ]


SAVED = ev.CodeChanged("main.py was saved")


def _limits(**changes: Any) -> Limits:
    return quick(workers=1, **{"reload": True, "max_surge": 8, "max_unavailable": 1, **changes})


def test_the_worker_gives_way_before_its_successor_is_ready() -> None:
    """Fails without `_gives_way` in reconcile: clients would get the old code until the new one serves."""
    world = World(_limits()).start()
    orders = world.send(SAVED)
    assert [type(order) for order in orders if isinstance(order, msg.Fork | msg.Drain)] == [msg.Fork, msg.Drain]
    world.run(10.0)
    assert world.serving == [(1, 1)], "the same generation"
    assert world.alive == [2]


def test_with_keep_serving_it_serves_until_then() -> None:
    world = World(_limits(keep_serving=True)).start()
    assert [order for order in world.send(SAVED) if isinstance(order, msg.Drain)] == []
    world.run(10.0)
    assert world.alive == [2]


def test_a_save_while_a_worker_boots_begins_anew() -> None:
    """That worker may have read some files before the save. Fails without the BOOTING branch of on_code_changed."""
    world = World(_limits()).start()
    world.send(SAVED)
    world.send(SAVED)
    world.run(20.0)
    assert world.alive == [3]
    assert world.serving == [(1, 1)]


def test_broken_code_with_keep_serving_is_not_tried_again_before_the_next_save() -> None:
    """Fails without `stay` in generations.boot_failed: the broken code would be tried again and again."""
    world = World(_limits(keep_serving=True)).start()
    world.ways.boot = "fail4"
    world.send(SAVED)
    world.run(60.0)
    assert world.alive == [1]
    assert len(world.orders(msg.Fork)) == 2
    assert world.said("the code before serves on")
    world.ways.boot = "ready"
    world.send(SAVED)
    world.run(10.0)
    assert world.alive == [3]


def test_a_save_after_a_crash_is_tried_at_once() -> None:
    world = World(_limits()).start()
    world.ways.boot = "crash"
    world.send(SAVED)
    world.run(3.0)
    world.ways.boot = "ready"
    before = world.now
    world.send(SAVED)
    world.until(lambda: bool(world.serving), 5.0)
    assert world.now - before < 5.0


def test_a_stop_wins() -> None:
    world = World(_limits()).start()
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    assert [order for order in world.send(SAVED) if isinstance(order, msg.Fork)] == []


def test_a_worker_that_a_debugger_holds_is_not_ended() -> None:
    """Neither for its silence nor at a deadline; as soon as it is let go, both count again."""
    world = World(quick(workers=1)).start()
    silent = {1: world.now}
    for _ in range(100):
        world.run(0.25)
        world.send(ev.Beats(silent, frozenset({1})))
    assert world.orders(ev.Kill) == []
    assert not world.said("stood still")
    for _ in range(100):
        world.run(0.25)
        world.send(ev.Beats(silent))
    assert [order.signal for order in world.orders(ev.Kill)][:1] == ["SIGABRT"]


def test_a_hung_worker_is_dumped_aborted_killed_and_replaced() -> None:
    world = World(quick(hang_timeout=5.0), beats=True).start()
    world.ways.leave = "never"  # it ignores SIGABRT too
    world.stick(1)
    world.run(5.5)
    assert [o.signal for o in world.orders(ev.Kill)] == ["SIGABRT"]
    world.run(3.0)
    assert [o.signal for o in world.orders(ev.Kill)] == ["SIGABRT", "SIGKILL"]
    assert world.serving == [(1, 1), (2, 1)]
    assert world.said("its event loop stood still (SIGKILL)")


def test_a_slow_callback_is_reported_once_per_incident() -> None:
    world = World(quick(hang_timeout=60.0), beats=True).start()
    world.stick(1)
    world.run(4.0)
    assert len(world.orders(ev.DumpStacks)) == 1
    world.processes[1].stuck_at = None
    world.run(1.0)
    world.stick(1)
    world.run(4.0)
    assert len(world.orders(ev.DumpStacks)) == 2
    assert not world.orders(ev.Kill)


def test_a_draining_worker_can_hang_too() -> None:
    """Its sibling in the same slot must not hide it."""
    world = World(quick(workers=1, graceful_timeout=100.0, min_lifetime=0.0), beats=True).start()
    world.ways.leave = "slow"
    world.send(msg.RecycleAsked(1, "max_requests"))
    world.run(2.0)
    world.stick(1)
    world.run(7.0)
    assert world.alive == [2]


def test_a_late_look_proves_nothing() -> None:
    """Suspend, or SIGSTOP of the whole group."""
    world = World(quick(hang_timeout=5.0), beats=True).start()
    beats = dict.fromkeys(world.alive, world.now)
    world.now += 3600.0
    assert world.send(ev.Beats(beats)) == []
    world.run(30.0)
    assert world.orders(ev.Kill) == []


def test_a_booting_worker_is_under_boot_timeout_only() -> None:
    """However long its loop stands still: lifespan startup may block it."""
    world = World(quick(hang_timeout=2.0, boot_timeout=30.0), beats=True)
    world.ways.boot_time = 20.0
    world.start(1.0)
    for serial in list(world.alive):
        world.processes[serial].stuck_at = world.now
    world.run(10.0)
    assert world.orders(ev.DumpStacks) == []


def test_a_death_is_told_with_what_follows() -> None:
    """Of a worker that is being replaced anyway. Fails with its slot counted as empty, or as served."""
    world = World(quick(workers=1, min_lifetime=0)).start()
    world.send(msg.RecycleAsked(1, "it is old"))
    world.run(0.1)
    world.kill(1)
    assert any("0 of 1 serve, its replacement boots already" in text for text in world.said("worker 1 "))
    other = World(quick(workers=1)).start()
    other.ways.leave = "slow"
    other.send(msg.RecycleAsked(1, "it is old"))
    other.run(3.0)
    other.kill(1)
    assert not any("0 of 1 serve" in text for text in other.said("worker 1 "))
