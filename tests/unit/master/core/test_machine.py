"""Scenarios of the master's decisions, from first boot to exit, each told in events on a fake clock."""

from typing import Any, get_args

import pytest

from aserver.errors import ExitCode
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core import machine
from aserver.master.core.backoff import CRASH_WINDOW, LONGEST_PAUSE
from aserver.master.core.limits import FORK_TIMEOUT, RELOAD_SPACING
from aserver.master.core.machine import Master
from aserver.master.core.model import Role, ServerPhase, WorkerPhase, ZygotePhase
from tests.stateful.world import World, quick, stop_bound, zygote_states

LOADED = msg.Loaded(1, lazy=False, interface="asgi", hazards=(), seconds=0.1, fingerprint={})

# ── first boot ───────────────────────────────────────────────────────────────────────────────


def test_first_boot_forks_all_and_listens_once_one_is_ready() -> None:
    world = World(quick(workers=3)).start()
    kinds = [type(order) for _, order in world.log if not isinstance(order, ev.Say)]
    assert kinds[:2] == [ev.SpawnZygote, ev.Fork]
    assert len(world.orders(ev.StartListening)) == 1
    assert world.serving == [(1, 1), (2, 1), (3, 1)]
    assert world.said("all 3 workers are ready")
    assert world.master.next_deadline() is None


def test_every_event_has_its_handler() -> None:
    """Fails with an event that the tables of handlers lack."""
    assert set(get_args(ev.Event)) == set(machine.OF_WORKER) | set(machine.OF_ZYGOTE) | set(machine.OF_SERVER)


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
    assert len(world.orders(ev.Fork)) == 3 * workers


def test_import_error_in_a_worker_ends_the_first_boot_at_once() -> None:
    world = World(quick(workers=1), lazy=True)
    world.ways.boot = "fail4"
    world.start(60.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.APP_LOAD
    assert len(world.orders(ev.Fork)) == 1


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
    assert len(world.orders(ev.Fork)) == 2, "no attempt is left"
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


# ── deaths ───────────────────────────────────────────────────────────────────────────────────


def test_a_killed_worker_is_replaced_at_once() -> None:
    world = World(quick()).start()
    world.kill(1)
    assert world.master.ready == 1
    assert world.until(lambda: world.master.ready == 2, 1.0) < 0.5
    assert world.said("was killed by SIGKILL from outside aserver")


def test_killing_every_worker_once_is_no_crash_loop() -> None:
    world = World(quick(workers=4)).start()
    for serial in list(world.alive):
        world.kill(serial)
    assert world.until(lambda: world.master.ready == 4, 1.0) < 0.5


@pytest.mark.parametrize("way", ["crash", "fail3"])
def test_a_crash_loop_backs_off_and_stays_within_its_budget(way: str) -> None:
    world = World(quick(workers=2)).start()
    world.ways.boot = way
    world.kill(1)
    since = world.now
    world.run(CRASH_WINDOW)
    assert 4 <= len(world.orders(ev.Fork, since)) <= 12
    since = world.now
    world.run(600.0)
    assert 600 / 30 <= len(world.orders(ev.Fork, since)) <= 600 / 15 + 1
    assert world.serving == [(2, 1)], "the other one is none the worse"
    world.ways.boot = "ready"
    world.until(lambda: world.master.ready == 2, LONGEST_PAUSE + 1)


def test_workers_that_die_soon_after_ready_are_a_crash_loop_too() -> None:
    world = World(quick(workers=2)).start()
    since = world.now
    for _ in range(600):
        world.run(0.1)
        for worker in list(world.master.workers.values()):
            if worker.serves:
                world.kill(worker.serial, "SIGSEGV")
    assert len(world.orders(ev.Fork, since)) <= 30


def test_zygote_death_costs_no_worker_and_the_next_death_is_replaced() -> None:
    world = World(quick()).start()
    world.kill_zygote(1)
    world.run(1.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert len(world.orders(ev.SpawnZygote)) == 2
    assert len(world.orders(ev.AdoptWorkers)) == 1, "the new one is the deputy of all"
    world.kill(1)
    world.until(lambda: world.master.ready == 2, 1.0)


def test_zygote_death_with_a_pending_fork_retries_it() -> None:
    world = World(quick(workers=2)).start()
    world.kill(1)
    world.kill_zygote(1)  # before it forks
    world.run(2.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert len(world.master.workers) == 2


def test_a_stopped_zygote_is_found_by_its_silence_and_replaced() -> None:
    world = World(quick(boot_timeout=60.0)).start()
    world.zygotes[1] = False
    world.kill(1)
    took = world.until(lambda: world.master.ready == 2, 20.0)
    assert took == pytest.approx(FORK_TIMEOUT, abs=1.0)
    assert world.said("did not answer and was killed")


def test_a_slow_zygote_that_goes_on_answering_is_left_alone() -> None:
    limits = quick(workers=3, boot_timeout=100.0)
    master = Master(limits, lambda: 0.5)
    master.handle(ev.Started(), 0.0)
    master.handle(LOADED, 1.0)
    for serial, now in ((1, 8.0), (2, 16.0), (3, 24.0)):
        assert not any(isinstance(o, ev.KillZygote) for o in master.handle(ev.Tick(), now - 0.1))
        assert not any(isinstance(o, ev.KillZygote) for o in master.handle(msg.Forked(serial, 100 + serial), now))
    assert master.handle(ev.Tick(), 60.0) == []


def test_fork_failure_is_retried_with_a_pause() -> None:
    world = World(quick()).start()
    world.ways.fork = "fail"
    world.kill(1)
    world.run(2.0)
    assert 2 <= len(world.said("fork failed: Resource temporarily unavailable")) <= 5
    world.ways.fork = "ok"
    world.until(lambda: world.master.ready == 2, 5.0)


# ── recycling ────────────────────────────────────────────────────────────────────────────────


def test_recycling_replaces_first_and_not_before_min_lifetime() -> None:
    world = World(quick(workers=1, min_lifetime=2.0))
    world.start(1.0)
    world.send(msg.RecycleAsked(1, "max_requests"))
    world.run(0.5)
    assert len(world.orders(ev.Fork)) == 1, "not before min_lifetime"
    assert world.master.next_deadline() is not None
    world.until(lambda: bool(world.orders(ev.Drain)), 5.0)
    assert world.orders(ev.Drain) == [ev.Drain(1, final=False, graceful=5.0)]
    assert world.serving == [(1, 1)], "its replacement serves"
    world.run(5.0)
    assert world.alive == [2]


def test_asking_before_ready_was_heard_is_remembered() -> None:
    world = World(quick(workers=1, min_lifetime=0.0))
    world.ways.boot_time = 1.0
    world.start(0.5)
    world.send(msg.RecycleAsked(1, "max_lifetime"))
    world.run(10.0)
    assert world.alive == [2]


@pytest.mark.parametrize(("surge", "unavailable"), [(1, 0), (2, 0), (0, 1), (1, 1), (0, 2), (4, 4)])
def test_all_due_in_one_instant_stays_within_the_bounds(surge: int, unavailable: int) -> None:
    world = World(quick(workers=4, max_surge=surge, max_unavailable=unavailable)).start()
    for serial in list(world.alive):
        world.send(msg.RecycleAsked(serial, "max_lifetime"))
    most, least = 0, 9
    for _ in range(2000):
        world.run(0.01)
        most = max(most, len(world.master.workers))
        least = min(least, world.master.ready)
    assert most == 4 + surge
    assert least >= 4 - unavailable
    assert least < 4 or not unavailable or surge == 4, "what may be unavailable is made use of"
    assert sorted(world.alive) == [5, 6, 7, 8]


def test_a_worker_that_breaks_the_protocol_serves_until_its_replacement_does() -> None:
    """At once, whatever `min_lifetime`; it counts as an early death. Fails with a kill, and without `backoff.died`."""
    world = World(quick(workers=2, min_lifetime=1000.0)).start()
    world.send(ev.Breached(1, "it sent garbage"))
    assert not world.orders(ev.Kill)
    assert world.master.workers[1].phase is WorkerPhase.RECYCLING
    world.run(5.0)
    assert world.orders(ev.Drain) == [ev.Drain(1, False, 5.0)]
    assert world.serving == [(1, 1), (2, 1)]
    assert sorted(world.master.workers) == [2, 3]
    (said,) = world.said("it broke the protocol: it sent garbage")
    assert said.endswith("; it serves until its replacement does")

    for _ in range(10):
        world.send(ev.Breached(max(world.master.workers), "again"))
        world.run(0.5)
    assert len(world.orders(ev.Fork)) < 8, "a worker that does so at each start is forked with growing pauses"


def test_a_worker_that_breaks_the_protocol_while_it_boots_is_killed() -> None:
    """Fails without its failure noted: three of them would not end the first start."""
    world = World(quick(workers=1, boot_retries=1))
    world.ways.boot = "hang"
    world.start(1.0)
    world.send(ev.Breached(1, "it sent garbage"))
    assert world.orders(ev.Kill) == [ev.Kill(1, "SIGKILL")]
    world.run(20.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.BOOT
    assert "it broke the protocol: it sent garbage" in world.exit.reason


def test_a_canary_that_breaks_the_protocol_fails_its_generation() -> None:
    """Fails if it is merely replaced: the generation would be promoted with it."""
    world = World(quick(workers=2, canary_time=3.0)).start()
    world.send(ev.ReloadRequested(quick(workers=2, canary_time=3.0), "test"))
    world.run(1.0)
    canary = max(world.master.workers)
    world.send(ev.Breached(canary, "it sent garbage"))
    assert world.said("reload failed: generation 2: worker 1 (generation 2")
    world.run(10.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert canary not in world.master.workers


def test_a_due_recycle_is_put_off_while_boots_fail() -> None:
    """Incident 3; also where the settings would let it leave first."""
    world = World(quick(workers=2, max_surge=1, max_unavailable=1)).start()
    world.ways.boot = "fail3"
    for serial in (1, 2):
        world.send(msg.RecycleAsked(serial, "max_requests"))
        world.run(100.0)
        assert world.orders(ev.Drain) == []
    world.ways.boot = "ready"
    world.run(60.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert not {1, 2} & set(world.alive)


def test_a_replacement_that_fails_leaves_the_due_worker_serving() -> None:
    world = World(quick(workers=2)).start()
    world.ways.boot = "crash"
    world.send(msg.RecycleAsked(1, "max_memory"))
    world.run(100.0)
    assert world.orders(ev.Drain) == []
    assert world.serving == [(1, 1), (2, 1)]


# ── reload ───────────────────────────────────────────────────────────────────────────────────


def reload(world: World, **changes: Any) -> None:
    world.send(ev.ReloadRequested(quick(**changes), "SIGHUP"))


def test_reload_canary_first_then_one_by_one() -> None:
    world = World(quick(workers=3)).start()
    reload(world, workers=3)
    world.until(lambda: len(world.processes) == 4, 2.0)
    assert world.orders(ev.Drain) == [], "nothing old is touched before the canary serves"
    world.run(10.0)
    assert world.serving == [(1, 2), (2, 2), (3, 2)]
    assert list(world.master.generations) == [2]
    assert list(world.zygotes) == [2]


def test_canary_time_holds_the_rest_back() -> None:
    world = World(quick(canary_time=0.0)).start()
    reload(world, canary_time=8.0)
    world.run(7.0)
    assert world.serving == [(1, 1), (1, 2), (2, 1)]
    world.run(10.0)
    assert world.serving == [(1, 2), (2, 2)]


@pytest.mark.parametrize("load", ["fail", "die", "hang"])
def test_a_generation_that_does_not_load_changes_nothing(load: str) -> None:
    world = World(quick()).start()
    world.ways.load = load
    reload(world)
    world.run(30.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert world.orders(ev.Drain) == []
    assert len(world.said("reload failed")) == 1
    assert list(world.master.generations) == [1]
    assert list(world.zygotes) == [1]


@pytest.mark.parametrize("boot", ["fail3", "fail4", "crash", "hang"])
def test_a_canary_that_does_not_boot_changes_nothing(boot: str) -> None:
    world = World(quick()).start()
    world.ways.boot = boot
    reload(world)
    world.run(30.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert len(world.said("reload failed")) == 1
    assert list(world.zygotes) == [1]


def test_a_canary_that_dies_in_its_time_fails_the_reload() -> None:
    world = World(quick()).start()
    reload(world, canary_time=8.0)
    world.run(4.0)
    world.kill(3, "SIGSEGV")
    world.run(4.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert world.said("reload failed: generation 2: worker 1")


def test_a_zygote_that_dies_under_its_canary_fails_the_reload() -> None:
    world = World(quick()).start()
    reload(world, canary_time=8.0)
    world.run(4.0)
    world.kill_zygote(2)
    world.run(20.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert world.alive == [1, 2]


def test_a_canary_is_nobodys_replacement_until_it_has_proved_itself() -> None:
    world = World(quick(min_lifetime=0.0)).start()
    reload(world, canary_time=8.0)
    world.run(2.0)
    world.send(msg.RecycleAsked(1, "max_requests"))
    world.send(msg.RecycleAsked(3, "max_requests"))
    world.run(2.0)
    assert world.orders(ev.Drain) == []
    world.kill(3)
    world.run(20.0)
    assert world.serving == [(1, 1), (2, 1)]


def test_a_worker_lost_while_a_canary_lives_is_replaced_even_without_surge() -> None:
    world = World(quick(max_surge=0, max_unavailable=1)).start()
    reload(world, canary_time=60.0, max_surge=0, max_unavailable=1)
    world.run(2.0)
    world.kill(1)
    world.run(2.0)
    assert world.serving == [(1, 1), (1, 2), (2, 1)]


def test_who_replaced_a_dead_worker_beside_its_canary_is_replaced_by_that_canary() -> None:
    world = World(quick(workers=1, max_surge=2)).start()
    reload(world, workers=1, canary_time=5.0, max_surge=2)
    world.run(2.0)
    world.kill(1)
    world.run(30.0)
    assert world.serving == [(1, 2)]
    assert len(world.orders(ev.Fork)) == 3


def test_ten_reloads_in_a_second_are_at_most_two() -> None:
    world = World(quick()).start()
    for _ in range(10):
        reload(world)
        world.run(0.1)
    world.run(30.0)
    assert len(world.said("reload (SIGHUP)")) == 2
    assert world.serving == [(1, 3), (2, 3)]


def test_a_reload_that_waited_for_another_begins_by_itself() -> None:
    world = World(quick()).start()
    world.ways.boot_time = 3.0
    reload(world)
    world.run(0.5)
    reload(world)
    world.run(60.0)
    assert world.serving == [(1, 3), (2, 3)]


def test_a_reload_that_comes_too_soon_has_its_own_alarm() -> None:
    world = World(quick())
    began = world.now
    world.start(0.5)
    reload(world)
    assert world.master.next_deadline() == began + RELOAD_SPACING


def test_reload_while_old_workers_drain_never_exceeds_the_surge() -> None:
    """The prototype had 12 workers after four of these. `World` counts at every fork."""
    world = World(quick(workers=4)).start()
    world.ways.leave = "slow"
    for _ in range(4):
        reload(world, workers=4)
        world.run(2.0)
    world.run(120.0)
    assert len(world.serving) == 4
    assert len(world.alive) == 4
    drained = [o.serial for o in world.orders(ev.Drain)]
    assert len(drained) == len(set(drained))


def test_workers_that_boot_for_an_old_generation_are_not_waited_for() -> None:
    world = World(quick(boot_timeout=100.0, workers=2, max_surge=1)).start()
    world.ways.boot = "hang"
    world.kill(1)
    world.run(1.0)
    world.ways.boot = "ready"
    reload(world, boot_timeout=100.0)
    world.run(20.0)
    assert world.serving == [(1, 2), (2, 2)]


def test_an_old_generation_gets_no_new_zygote() -> None:
    world = World(quick()).start()
    world.ways.leave = "slow"
    reload(world)
    world.until(lambda: world.master.current is not None and world.master.current.number == 2, 3.0)
    world.kill_zygote(1)
    world.run(30.0)
    assert [o.generation for o in world.orders(ev.SpawnZygote)] == [1, 2]
    assert world.serving == [(1, 2), (2, 2)]


def test_a_zygote_still_loading_for_an_old_generation_is_ended_at_once() -> None:
    world = World(quick(boot_timeout=100.0)).start()
    world.ways.load = "hang"
    world.kill_zygote(1)
    world.run(1.0)
    assert zygote_states(world) == {1: ZygotePhase.LOADING}
    world.ways.load, world.ways.leave = "up", "slow"
    reload(world)
    world.run(2.0)
    assert world.master.current is not None
    assert world.master.current.number == 2
    assert 1 not in world.zygotes
    assert 1 in world.master.generations, "its workers still drain"


def test_reload_takes_new_limits_with_the_promotion() -> None:
    world = World(quick()).start()
    reload(world, workers=3, graceful_timeout=9.0)
    assert world.master.limits.graceful_timeout == 5.0
    world.run(20.0)
    assert world.master.limits.graceful_timeout == 9.0
    assert len(world.serving) == 3


# ── scaling ──────────────────────────────────────────────────────────────────────────────────


def test_scaling_up_and_down_and_never_to_none_by_steps() -> None:
    world = World(quick(workers=1)).start()
    for delta, wanted in ((1, 2), (1, 3), (-1, 2), (-1, 1), (-1, 1)):
        world.send(ev.Scale(delta=delta))
        world.run(5.0)
        assert [slot for slot, _ in world.serving] == list(range(1, wanted + 1))


def test_winch_parks_and_ttin_or_reload_bring_back() -> None:
    world = World(quick(workers=2)).start()
    world.send(ev.Scale(to=0))
    world.run(5.0)
    assert world.alive == []
    assert world.exit is None
    world.send(ev.Scale(delta=-1))
    assert world.master.target == 0, "fewer than none is none"
    world.send(ev.Scale(delta=1))
    world.run(5.0)
    assert world.serving == [(1, 1)]
    world.send(ev.Scale(to=0))
    world.run(5.0)
    reload(world)
    world.run(5.0)
    assert world.serving == [(1, 2), (2, 2)]


def test_a_reload_after_winch_and_ttin_has_the_number_of_the_settings() -> None:
    """Later reloads keep the number of TTIN and TTOU again. Fails without `parked`: one worker is left for good."""
    world = World(quick(workers=3)).start()
    for scale in (ev.Scale(to=0), ev.Scale(delta=1)):
        world.send(scale)
        world.run(5.0)
    for expected in (3, 2):
        reload(world, workers=3)
        world.run(20.0)
        assert len(world.serving) == expected
        world.send(ev.Scale(delta=-1))
        world.run(5.0)


@pytest.mark.parametrize(
    ("workers", "scale", "wanted"),
    [
        (2, ev.Scale(delta=1), 3),
        (2, ev.Scale(delta=-1), 1),
        (2, ev.Scale(to=0), 0),
        (4, ev.Scale(delta=1), 5),
        (4, ev.Scale(to=0), 0),
        (4, None, 4),
    ],
)
def test_scaling_during_a_reload_ends_with_the_right_number(workers: int, scale: ev.Scale | None, wanted: int) -> None:
    """TTIN and TTOU count on top of what the reload asks for."""
    world = World(quick(workers=2)).start()
    world.ways.boot_time = 2.0
    reload(world, workers=workers)
    world.run(1.0)
    if scale is not None:
        world.send(scale)
    world.run(60.0)
    assert [slot for slot, _ in world.serving] == list(range(1, wanted + 1))
    assert {generation for _, generation in world.serving} <= {2}


# ── stop ─────────────────────────────────────────────────────────────────────────────────────


def test_stop_drains_finally_closes_listeners_once_and_exits_zero() -> None:
    world = World(quick()).start()
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    world.run(3.0)
    assert world.orders(ev.CloseListeners) == [ev.CloseListeners()]
    assert all(o.final and o.graceful == 5.0 for o in world.orders(ev.Drain))
    assert world.exit == ev.Exit(ExitCode.OK)
    assert world.orders(ev.Kill) == []


def test_stop_escalates_drain_hurry_kill() -> None:
    world = World(quick(graceful_timeout=100.0)).start()
    world.ways.leave = "never"
    for drains, kills in (([100.0] * 2, 0), ([100.0] * 2 + [0.0] * 2, 0), ([100.0] * 2 + [0.0] * 2, 2)):
        world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
        assert [order.graceful for order in world.orders(ev.Drain)] == drains
        assert len(world.orders(ev.Kill)) == kills
    world.run(1.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.KILLED


def test_a_stop_tells_those_that_drain_already_once() -> None:
    """Their streams would hold up the stop. Fails without `drain_finally`."""
    world = World(quick(workers=1, graceful_timeout=100.0)).start()
    world.ways.leave = "never"
    reload(world, workers=1, graceful_timeout=100.0)
    world.run(1.0)
    (drained,) = world.orders(ev.Drain)
    assert not drained.final
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    world.run(1.0)
    _, *final = world.orders(ev.Drain)
    assert sorted(final, key=lambda order: order.serial) == [ev.Drain(n, True, 100.0) for n in (drained.serial, 2)]


def test_a_quick_stop_says_it_once() -> None:
    world = World(quick()).start()
    world.send(ev.StopRequested(ev.StopMode.QUICK, "SIGINT"))
    world.run(3.0)
    assert [o.graceful for o in world.orders(ev.Drain)] == [0.0, 0.0]
    assert world.exit == ev.Exit(ExitCode.OK)


def test_a_drain_that_overruns_is_killed_and_exits_six() -> None:
    world = World(quick()).start()
    world.ways.leave = "never"
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    world.run(7.9)
    assert world.orders(ev.Kill) == []
    world.run(1.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.KILLED
    assert world.said("the drain took too long")


def test_drain_delay_goes_on_accepting_and_a_second_stop_skips_it() -> None:
    world = World(quick(drain_delay=10.0)).start()
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    world.run(9.0)
    assert world.orders(ev.CloseListeners) == []
    world.run(3.0)
    assert world.exit is not None
    world = World(quick(drain_delay=10.0)).start()
    for _ in range(2):
        world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    world.run(1.0)
    assert world.exit is not None


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.105, 0.2, 0.35, 0.5, 2.0])
@pytest.mark.parametrize("mode", ev.StopMode)
def test_stop_during_boot_and_reload(moment: float, mode: ev.StopMode) -> None:
    for world in (World(quick()), World(quick()).start()):
        world.send(ev.Started())
        reload(world)
        world.run(moment)
        world.send(ev.StopRequested(mode, "SIGTERM"))
        world.run(stop_bound(quick()))
        assert world.exit is not None
        assert not any(world.orders(ev.Fork, world.now)), "nothing is begun any more"


def test_stop_before_the_start() -> None:
    master = Master(quick(), lambda: 0.5)
    assert master.handle(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"), 1.0)[-1] == ev.Exit(ExitCode.OK)
    assert master.server is ServerPhase.DONE
    assert master.handle(ev.Started(), 2.0) == []


def test_stop_with_a_stuck_zygote_and_a_pending_fork() -> None:
    world = World(quick()).start()
    world.zygotes[1] = False
    world.kill(1)
    world.run(0.5)
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    world.run(stop_bound(quick()))
    assert world.exit is not None
    assert world.exit.code == ExitCode.KILLED


def test_reload_is_refused_while_stopping() -> None:
    world = World(quick()).start()
    world.ways.leave = "slow"
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    reload(world)
    world.send(ev.Scale(delta=1))
    world.run(20.0)
    assert world.said("refused: the server is stopping")
    assert world.exit is not None
    assert len(world.orders(ev.SpawnZygote)) == 1


# ── heartbeats ───────────────────────────────────────────────────────────────────────────────


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


# ── disorder ─────────────────────────────────────────────────────────────────────────────────


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
    assert not any(isinstance(o, ev.Drain) for o in master.handle(ev.Scale(to=1), 2.0))
    assert master.handle(msg.Forked(2, 77), 3.0) == [ev.Drain(2, final=False, graceful=5.0)]


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
    assert ev.Drain(2, final=stop, graceful=5.0) in master.handle(event, 2.0)
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


def test_trap_43_a_rollout_that_stops_half_way_says_what_serves_and_loses_nobody() -> None:
    """Fails without generations._mix, and with old workers told to leave although no new one can take their place."""
    world = World(quick(workers=3)).start()
    reload(world, workers=3)
    while not any(generation == 2 for _, generation in world.serving):
        world.run(0.01)
    world.ways.boot = "fail"
    world.run(20.0)
    assert len(world.serving) >= 3
    assert {generation for _, generation in world.serving} == {1, 2}, "the mix goes on: nothing old left for nothing"
    assert world.said("could not boot")
    assert world.said("3 of 3 workers serve (2 of them from an older generation)")


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
