"""The end of the server in scenarios: graceful, quicker, killed, on a fake clock."""

import pytest

from aserver.errors import ExitCode
from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core.machine import Master
from aserver.master.core.model import ServerPhase
from tests.stateful.world import World, quick, stop_bound


def test_stop_drains_finally_closes_listeners_once_and_exits_zero() -> None:
    world = World(quick()).start()
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    world.run(3.0)
    assert world.orders(ev.CloseListeners) == [ev.CloseListeners()]
    assert all(o.final and o.graceful == 5.0 for o in world.orders(msg.Drain))
    assert world.exit == ev.Exit(ExitCode.OK)
    assert world.orders(ev.Kill) == []


def test_stop_escalates_drain_hurry_kill() -> None:
    world = World(quick(graceful_timeout=100.0)).start()
    world.ways.leave = "never"
    for drains, kills in (([100.0] * 2, 0), ([100.0] * 2 + [0.0] * 2, 0), ([100.0] * 2 + [0.0] * 2, 2)):
        world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
        assert [order.graceful for order in world.orders(msg.Drain)] == drains
        assert len(world.orders(ev.Kill)) == kills
    world.run(1.0)
    assert world.exit is not None
    assert world.exit.code == ExitCode.KILLED


def test_a_stop_tells_those_that_drain_already_once() -> None:
    """Their streams would hold up the stop. Fails without `drain_finally`."""
    world = World(quick(workers=1, graceful_timeout=100.0)).start()
    world.ways.leave = "never"
    world.reload(workers=1, graceful_timeout=100.0)
    world.run(1.0)
    (drained,) = world.orders(msg.Drain)
    assert not drained.final
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    world.run(1.0)
    _, *final = world.orders(msg.Drain)
    assert sorted(final, key=lambda order: order.serial) == [msg.Drain(n, True, 100.0) for n in (drained.serial, 2)]


def test_a_quick_stop_says_it_once() -> None:
    world = World(quick()).start()
    world.send(ev.StopRequested(ev.StopMode.QUICK, "SIGINT"))
    world.run(3.0)
    assert [o.graceful for o in world.orders(msg.Drain)] == [0.0, 0.0]
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
        world.reload()
        world.run(moment)
        world.send(ev.StopRequested(mode, "SIGTERM"))
        world.run(stop_bound(quick()))
        assert world.exit is not None
        assert not any(world.orders(msg.Fork, world.now)), "nothing is begun any more"


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
    world.reload()
    world.send(ev.Scale(delta=1))
    world.run(20.0)
    assert world.said("refused: the server is stopping")
    assert world.exit is not None
    assert len(world.orders(ev.SpawnZygote)) == 1
