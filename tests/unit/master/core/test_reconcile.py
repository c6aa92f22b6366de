"""Replacements in scenarios: deaths, recycling and another number of workers, on a fake clock."""

import sys
from collections import Counter

import pytest

from aserver.errors import ExitCode
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core.limits import CRASH_WINDOW, FORK_TIMEOUT, LONGEST_PAUSE
from aserver.master.core.machine import Master
from aserver.master.core.model import Model, WorkerPhase
from tests.stateful.world import LOADED, World, quick


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
    assert 4 <= len(world.orders(msg.Fork, since)) <= 12
    since = world.now
    world.run(600.0)
    assert 600 / 30 <= len(world.orders(msg.Fork, since)) <= 600 / 15 + 1
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
    assert len(world.orders(msg.Fork, since)) <= 30


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


def test_recycling_replaces_first_and_not_before_min_lifetime() -> None:
    world = World(quick(workers=1, min_lifetime=2.0))
    world.start(1.0)
    world.send(msg.RecycleAsked(1, "max_requests"))
    world.run(0.5)
    assert len(world.orders(msg.Fork)) == 1, "not before min_lifetime"
    assert world.master.next_deadline() is not None
    world.until(lambda: bool(world.orders(msg.Drain)), 5.0)
    assert world.orders(msg.Drain) == [msg.Drain(1, final=False, graceful=5.0)]
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
    assert world.orders(msg.Drain) == [msg.Drain(1, False, 5.0)]
    assert world.serving == [(1, 1), (2, 1)]
    assert sorted(world.master.workers) == [2, 3]
    (said,) = world.said("it broke the protocol: it sent garbage")
    assert said.endswith("; it serves until its replacement does")

    for _ in range(10):
        world.send(ev.Breached(max(world.master.workers), "again"))
        world.run(0.5)
    assert len(world.orders(msg.Fork)) < 8, "a worker that does so at each start is forked with growing pauses"


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
        assert world.orders(msg.Drain) == []
    world.ways.boot = "ready"
    world.run(60.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert not {1, 2} & set(world.alive)


def test_a_replacement_that_fails_leaves_the_due_worker_serving() -> None:
    world = World(quick(workers=2)).start()
    world.ways.boot = "crash"
    world.send(msg.RecycleAsked(1, "max_memory"))
    world.run(100.0)
    assert world.orders(msg.Drain) == []
    assert world.serving == [(1, 1), (2, 1)]


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
    world.reload()
    world.run(5.0)
    assert world.serving == [(1, 2), (2, 2)]


def test_a_reload_after_winch_and_ttin_has_the_number_of_the_settings() -> None:
    """Later reloads keep the number of TTIN and TTOU again. Fails without `parked`: one worker is left for good."""
    world = World(quick(workers=3)).start()
    for scale in (ev.Scale(to=0), ev.Scale(delta=1)):
        world.send(scale)
        world.run(5.0)
    for expected in (3, 2):
        world.reload(workers=3)
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
    world.reload(workers=workers)
    world.run(1.0)
    if scale is not None:
        world.send(scale)
    world.run(60.0)
    assert [slot for slot, _ in world.serving] == list(range(1, wanted + 1))
    assert {generation for _, generation in world.serving} <= {2}


def test_what_may_leave_is_asked_for_each_step_and_not_for_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer looks at all workers: asked for each of 500, a replacement takes the master seconds of CPU."""
    asked = Counter[int]()
    answer = Model.can_lose_one

    def counted(model: Model) -> bool:
        asked[world.handled] += 1
        return answer(model)

    world = World(quick(workers=40)).start()
    monkeypatch.setattr(Model, "can_lose_one", counted)
    world.reload(workers=40)
    world.run(60.0)
    assert 0 < max(asked.values()) < 10, "for an event"


def most_calls(workers: int) -> int:
    """The Python calls that the dearest event of a reload takes."""
    calls = Counter[int]()

    def count(frame: object, event: str, arg: object) -> None:
        if event == "call":
            calls[world.handled] += 1

    world = World(quick(workers=workers)).start()
    world.reload(workers=workers)
    profile = sys.getprofile()
    sys.setprofile(count)
    try:
        world.run(60.0)
    finally:
        sys.setprofile(profile)
    return max(calls.values())


def test_an_event_takes_calls_in_proportion_to_the_workers() -> None:
    """Fails with workers looked for in a list, each of which is compared (`w not in older` in `_look`), and with eq."""
    assert most_calls(120) < 5 * most_calls(40)
