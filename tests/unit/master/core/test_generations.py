"""Generations in scenarios on a fake clock, and the one record of the end that each reload, upgrade and change of the
number of workers has.
"""

from collections.abc import Callable

import pytest

from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core.limits import RELOAD_SPACING
from aserver.master.core.model import ZygotePhase
from tests.stateful.world import World, quick, zygote_states


def test_reload_canary_first_then_one_by_one() -> None:
    world = World(quick(workers=3)).start()
    world.reload(workers=3)
    world.until(lambda: len(world.processes) == 4, 2.0)
    assert world.orders(msg.Drain) == [], "nothing old is touched before the canary serves"
    world.run(10.0)
    assert world.serving == [(1, 2), (2, 2), (3, 2)]
    assert list(world.master.generations) == [2]
    assert list(world.zygotes) == [2]


def test_canary_time_holds_the_rest_back() -> None:
    world = World(quick(canary_time=0.0)).start()
    world.reload(canary_time=8.0)
    world.run(7.0)
    assert world.serving == [(1, 1), (1, 2), (2, 1)]
    world.run(10.0)
    assert world.serving == [(1, 2), (2, 2)]


@pytest.mark.parametrize("load", ["fail", "die", "hang"])
def test_a_generation_that_does_not_load_changes_nothing(load: str) -> None:
    world = World(quick()).start()
    world.ways.load = load
    world.reload()
    world.run(30.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert world.orders(msg.Drain) == []
    assert len(world.said("reload failed")) == 1
    assert list(world.master.generations) == [1]
    assert list(world.zygotes) == [1]


@pytest.mark.parametrize("boot", ["fail3", "fail4", "crash", "hang"])
def test_a_canary_that_does_not_boot_changes_nothing(boot: str) -> None:
    world = World(quick()).start()
    world.ways.boot = boot
    world.reload()
    world.run(30.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert len(world.said("reload failed")) == 1
    assert list(world.zygotes) == [1]


def test_a_canary_that_dies_in_its_time_fails_the_reload() -> None:
    world = World(quick()).start()
    world.reload(canary_time=8.0)
    world.run(4.0)
    world.kill(3, "SIGSEGV")
    world.run(4.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert world.said("reload failed: generation 2: worker 1")


def test_a_zygote_that_dies_under_its_canary_fails_the_reload() -> None:
    world = World(quick()).start()
    world.reload(canary_time=8.0)
    world.run(4.0)
    world.kill_zygote(2)
    world.run(20.0)
    assert world.serving == [(1, 1), (2, 1)]
    assert world.alive == [1, 2]


def test_a_canary_is_nobodys_replacement_until_it_has_proved_itself() -> None:
    world = World(quick(min_lifetime=0.0)).start()
    world.reload(canary_time=8.0)
    world.run(2.0)
    world.send(msg.RecycleAsked(1, "max_requests"))
    world.send(msg.RecycleAsked(3, "max_requests"))
    world.run(2.0)
    assert world.orders(msg.Drain) == []
    world.kill(3)
    world.run(20.0)
    assert world.serving == [(1, 1), (2, 1)]


def test_a_worker_lost_while_a_canary_lives_is_replaced_even_without_surge() -> None:
    world = World(quick(max_surge=0, max_unavailable=1)).start()
    world.reload(canary_time=60.0, max_surge=0, max_unavailable=1)
    world.run(2.0)
    world.kill(1)
    world.run(2.0)
    assert world.serving == [(1, 1), (1, 2), (2, 1)]


def test_who_replaced_a_dead_worker_beside_its_canary_is_replaced_by_that_canary() -> None:
    world = World(quick(workers=1, max_surge=2)).start()
    world.reload(workers=1, canary_time=5.0, max_surge=2)
    world.run(2.0)
    world.kill(1)
    world.run(30.0)
    assert world.serving == [(1, 2)]
    assert len(world.orders(msg.Fork)) == 3


def test_ten_reloads_in_a_second_are_at_most_two() -> None:
    world = World(quick()).start()
    for _ in range(10):
        world.reload()
        world.run(0.1)
    world.run(30.0)
    assert len(world.said("reload (SIGHUP)")) == 2
    assert world.serving == [(1, 3), (2, 3)]


def test_a_reload_that_waited_for_another_begins_by_itself() -> None:
    world = World(quick()).start()
    world.ways.boot_time = 3.0
    world.reload()
    world.run(0.5)
    world.reload()
    world.run(60.0)
    assert world.serving == [(1, 3), (2, 3)]


def test_a_reload_that_comes_too_soon_has_its_own_alarm() -> None:
    world = World(quick())
    began = world.now
    world.start(0.5)
    world.reload()
    assert world.master.next_deadline() == began + RELOAD_SPACING


def test_reload_while_old_workers_drain_never_exceeds_the_surge() -> None:
    """The prototype had 12 workers after four of these. `World` counts at every fork."""
    world = World(quick(workers=4)).start()
    world.ways.leave = "slow"
    for _ in range(4):
        world.reload(workers=4)
        world.run(2.0)
    world.run(120.0)
    assert len(world.serving) == 4
    assert len(world.alive) == 4
    drained = [o.serial for o in world.orders(msg.Drain)]
    assert len(drained) == len(set(drained))


def test_workers_that_boot_for_an_old_generation_are_not_waited_for() -> None:
    world = World(quick(boot_timeout=100.0, workers=2, max_surge=1)).start()
    world.ways.boot = "hang"
    world.kill(1)
    world.run(1.0)
    world.ways.boot = "ready"
    world.reload(boot_timeout=100.0)
    world.run(20.0)
    assert world.serving == [(1, 2), (2, 2)]


def test_an_old_generation_gets_no_new_zygote() -> None:
    world = World(quick()).start()
    world.ways.leave = "slow"
    world.reload()
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
    world.reload()
    world.run(2.0)
    assert world.master.current is not None
    assert world.master.current.number == 2
    assert 1 not in world.zygotes
    assert 1 in world.master.generations, "its workers still drain"


def test_reload_takes_new_limits_with_the_promotion() -> None:
    world = World(quick()).start()
    world.reload(workers=3, graceful_timeout=9.0)
    assert world.master.limits.graceful_timeout == 5.0
    world.run(20.0)
    assert world.master.limits.graceful_timeout == 9.0
    assert len(world.serving) == 3


def test_trap_43_a_rollout_that_stops_half_way_says_what_serves_and_loses_nobody() -> None:
    """Fails without Model.tally_beside, and with old workers told to leave although no new one can take their place."""
    world = World(quick(workers=3)).start()
    world.reload(workers=3)
    while not any(generation == 2 for _, generation in world.serving):
        world.run(0.01)
    world.ways.boot = "fail"
    world.run(20.0)
    assert len(world.serving) >= 3
    assert {generation for _, generation in world.serving} == {1, 2}, "the mix goes on: nothing old left for nothing"
    assert world.said("could not boot")
    assert world.said("3 of 3 workers serve (2 of them from an older generation)")


def ends(world: World) -> list[ev.Say]:
    return [order for order in world.orders(ev.Say) if order.event.endswith(".ends")]


def reload(world: World, *tickets: int, upgrade: ev.Upgrade | None = None) -> None:
    world.send(ev.ReloadRequested(world.limits, "SIGHUP", upgrade, tickets))


@pytest.fixture
def world() -> World:
    return World(quick(workers=3, boot_retries=2)).start()


def test_a_reload_is_complete_when_each_slot_is_served_by_its_generation(world: World) -> None:
    """Fails with `promote` as the end: two older workers still serve."""
    world.ways.leave = "slow"
    reload(world, 7)
    world.until(lambda: bool(ends(world)), 30)
    (end,) = ends(world)
    assert all(w.generation == 2 for w in world.master.workers.values() if w.serves)
    assert (end.event, end.outcome, end.generation, end.tickets) == ("reload.ends", "complete", 2, (7,))
    assert end.text.startswith("reload complete: generation 2 serves with 3 workers, ")
    assert end.text.endswith("; 1 older worker drains")


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (lambda world: setattr(world.ways, "load", "fail"), "failed"),
        (lambda world: setattr(world.ways, "boot", "fail3"), "failed"),
        (lambda world: world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM")), "abandoned"),
    ],
    ids=["load", "boot", "stop"],
)
def test_a_reload_that_comes_to_nothing_says_so_once(
    world: World, spoil: Callable[[World], None], outcome: str
) -> None:
    """Fails without `fail_reload`, and without the look at `over` in `proceed`."""
    if outcome == "failed":
        spoil(world)
        reload(world, 1)
    else:
        reload(world, 1)
        spoil(world)
    world.run(20)
    (end,) = ends(world)
    assert (end.outcome, end.tickets, bool(end.reason)) == (outcome, (1,), True)


def test_a_reload_whose_later_workers_cannot_boot_is_incomplete(world: World) -> None:
    """The caller does not wait for ever. Fails without the look at `boot_retries` in `proceed`."""
    reload(world, 1)
    world.until(lambda: world.master.current is not None and world.master.current.number == 2, 10)
    world.ways.boot = "fail3"
    world.until(lambda: bool(ends(world)), 30)
    (end,) = ends(world)
    assert end.outcome == "incomplete"
    assert end.text.endswith("3 of 3 workers serve (2 of them from an older generation)")


def test_without_retries_a_reload_is_not_over_before_its_second_worker() -> None:
    """Fails if no failure at all is as many as `boot_retries` allows."""
    world = World(quick(workers=3, boot_retries=0)).start()
    reload(world, 1)
    world.until(lambda: bool(ends(world)), 30)
    assert ends(world)[0].outcome == "complete"


def test_requests_that_come_together_are_answered_together(world: World) -> None:
    """The second to the fourth become one reload. Fails without the tickets of the one that waited."""
    for ticket in (1, 2, 3, 4):
        reload(world, ticket)
    world.run(20)
    assert [end.tickets for end in ends(world)] == [(1,), (2, 3, 4)]


def test_a_later_reload_takes_over_from_one_that_is_stuck(world: World) -> None:
    """Fails without the comparison of generations in `proceed`: the first would never end."""
    reload(world, 1)
    world.until(lambda: world.master.current is not None and world.master.current.number == 2, 10)
    world.ways.boot = "hang"
    world.run(0.5)
    world.heal()
    reload(world, 2)
    world.run(30)
    assert {end.tickets for end in ends(world)} == {(1,), (2,)}


def test_an_upgrade_ends_with_its_reload(world: World) -> None:
    """Its time counts from the signal. Fails with the reload's own kind."""
    reload(world, 9, upgrade=ev.Upgrade(world.now - 2.0, (8,)))
    world.run(10)
    (end,) = ends(world)
    assert (end.event, end.outcome, end.tickets) == ("upgrade.ends", "complete", (8, 9))
    assert float(end.text.split(", ")[1].split()[0]) > 2


def test_scaling_ends_when_it_is_so(world: World) -> None:
    """Also where nothing changes. Fails with the end at once."""
    world.send(ev.Scale(to=5, tickets=(1,)))
    assert not ends(world)
    world.run(5)
    world.send(ev.Scale(to=5, tickets=(2,)))
    world.ways.leave = "slow"
    world.send(ev.Scale(to=4, tickets=(3,)))
    world.send(ev.Scale(to=0, tickets=(4,)))
    assert [(end.text, end.tickets) for end in ends(world)] == [
        ("scale complete: 5 workers serve, 0.2 s", (1,)),
        ("scale complete: 5 workers, as before", (2,)),
        ("scale complete: 4 workers serve, 0.0 s; 1 worker drains", (3,)),
        ("scale complete: no worker serves, as told, 0.0 s; 5 workers drain", (4,)),
    ]


def test_a_slot_that_is_recycled_by_hand(world: World) -> None:
    """Its replacement serves before it goes, and no other slot is touched. Fails without the comparison of slots."""
    before = {w.slot: w.serial for w in world.master.workers.values()}
    world.send(ev.Recycle(2, "aserver recycle"))
    world.run(5)
    after = {w.slot: w.serial for w in world.master.workers.values()}
    assert {slot for slot in before if before[slot] != after[slot]} == {2}
    assert world.said("is to be recycled: aserver recycle")
