"""Each reload, upgrade and change of the number of workers has one record of its end."""

from collections.abc import Callable

import pytest

from aserver.master.core import events as ev
from tests.stateful.world import World, quick


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
