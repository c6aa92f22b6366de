"""A save under `reload`: the worker gives way at once, or, with `keep_serving`, to a successor that serves."""

from typing import Any

from aserver.ipc import messages as msg
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
