"""A save under `reload`: the worker gives way at once, or, with `keep_serving`, to a successor that serves."""

from typing import Any

from aserver.master.core import events as ev
from aserver.master.core.limits import Limits
from tests.stateful.world import World, quick

SAVED = ev.CodeChanged("main.py was saved")


def _limits(**changes: Any) -> Limits:
    return quick(workers=1, **{"reload": True, "max_surge": 8, "max_unavailable": 1, **changes})


def test_the_worker_gives_way_before_its_successor_is_ready() -> None:
    """Fails without `_gives_way` in reconcile: clients would get the old code until the new one serves."""
    world = World(_limits()).start()
    orders = world.send(SAVED)
    assert [type(order) for order in orders if isinstance(order, ev.Fork | ev.Drain)] == [ev.Fork, ev.Drain]
    world.run(10.0)
    assert world.serving == [(1, 1)], "the same generation"
    assert world.alive == [2]


def test_with_keep_serving_it_serves_until_then() -> None:
    world = World(_limits(keep_serving=True)).start()
    assert [order for order in world.send(SAVED) if isinstance(order, ev.Drain)] == []
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
    assert len(world.orders(ev.Fork)) == 2
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
    assert [order for order in world.send(SAVED) if isinstance(order, ev.Fork)] == []


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
