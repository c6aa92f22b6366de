"""The sentence for every death, and the clauses of aserver status that say for what a worker or the server waits."""

import pytest

from aserver.master.core import events as ev
from aserver.master.core.explain import BLOCKED_AFTER, explain_exit, readiness, server_waits_for, worker_waits_for
from aserver.master.core.model import Intent
from tests.stateful.world import World, quick


@pytest.mark.parametrize(
    ("code", "signal", "intent", "memory", "words"),
    [
        (
            None,
            "SIGKILL",
            Intent.NONE,
            "oom_kill of x",
            "was killed by SIGKILL: the kernel ran out of memory (oom_kill of x)",
        ),
        (None, "SIGKILL", Intent.NONE, "", "was killed by SIGKILL from outside aserver"),
        (None, "SIGKILL", Intent.OVERRAN, "", "was killed by aserver: the drain took too long"),
        (None, "SIGKILL", Intent.SLOW_BOOT, "", "was killed by aserver: it was not ready in time"),
        (None, "SIGABRT", Intent.HUNG, "", "was killed by aserver: its event loop stood still"),
        (None, "SIGKILL", Intent.STOP, "", "was killed by aserver: the stop was to be at once"),
        (None, "SIGKILL", Intent.LEAVE, "", "was killed by SIGKILL from outside aserver"),
        (None, "SIGABRT", Intent.NONE, "", "crashed with SIGABRT"),
        (None, "SIGSEGV", Intent.HUNG, "", "crashed with SIGSEGV"),
        (None, "SIGTERM", Intent.NONE, "", "was ended by SIGTERM from outside aserver"),
        (None, None, Intent.NONE, "", "ended; its zygote did not report how"),
        (0, None, Intent.LEAVE, "", "left as told"),
        (0, None, Intent.NONE, "", "left by itself"),
        (1, None, Intent.NONE, "", "ended with exit code 1"),
        (3, None, Intent.NONE, "", "ended with exit code 3 (boot failure)"),
        (4, None, Intent.NONE, "", "ended with exit code 4 (the app could not be loaded)"),
    ],
)
def test_every_death_has_its_sentence(
    code: int | None, signal: str | None, intent: Intent, memory: str, words: str
) -> None:
    """It follows a name: "worker 1 ..." must become a sentence."""
    assert explain_exit(code, signal, intent, out_of_memory=memory).startswith(words)


def waits(world: World) -> dict[str, str]:
    workers = sorted(world.master.workers.values(), key=lambda w: w.serial)
    return {f"{w.slot}/g{w.generation} {w.phase.value}": worker_waits_for(world.master, w) for w in workers}


def test_a_server_that_serves_waits_for_nothing() -> None:
    """Fails with a clause for each phase."""
    world = World(quick(workers=2)).start()
    assert server_waits_for(world.master) == ""
    assert waits(world) == {"1/g1 ready": "", "2/g1 ready": ""}


def test_while_it_boots() -> None:
    """Fails with the load of the application left out."""
    world = World(quick(workers=1))
    world.send(ev.Started())
    assert server_waits_for(world.master) == "generation 1 to load the application"
    world.run(0.15)
    assert server_waits_for(world.master) == "the first worker of generation 1"
    assert waits(world) == {"1/g1 booting": "its application to start, for at most 10 s"}


def test_in_a_roll_over_that_a_drain_holds_up() -> None:
    """The operator learns why nothing moves. Fails without `_replacement`."""
    world = World(quick(workers=2, canary_time=1.0)).start()
    world.ways.leave = "slow"
    world.send(ev.ReloadRequested(world.limits, "SIGHUP"))
    world.run(0.5)
    assert server_waits_for(world.master) == "the first worker of generation 2 to prove itself"
    assert waits(world)["1/g2 ready"].startswith("canary_time, another ")
    world.run(1.5)
    found = waits(world)
    assert found["1/g1 draining"].startswith("its clients and lifespan shutdown, for at most ")
    assert found["2/g1 ready"] == "its turn: max_surge is 1, and 1 worker still drains"


def test_while_it_stops() -> None:
    """Fails without drain_delay, and without the workers that are left."""
    world = World(quick(workers=2, drain_delay=3.0)).start()
    world.ways.leave = "slow"
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    assert server_waits_for(world.master) == "drain_delay, another 3 s"
    world.run(3.1)
    assert server_waits_for(world.master) == "2 workers to leave"


def ready(world: World, silent: float = 0.0) -> tuple[bool, str]:
    """With heartbeats so long ago."""
    return readiness(world.master, dict.fromkeys(world.master.workers, world.master.now - silent))


def test_whether_clients_should_be_sent() -> None:
    """While it boots, serves, lacks a worker, and stops with `drain_delay`. Fails with the phase alone."""
    world = World(quick(workers=2, drain_delay=3.0))
    world.send(ev.Started())
    assert ready(world) == (False, "the server boots, and waits for generation 1 to load the application")
    world.run(5.0)
    assert ready(world) == (True, "2 of 2 workers serve")
    world.kill(1)
    assert ready(world) == (False, "1 of 2 workers serve")
    world.run(5.0)
    assert ready(world) == (True, "2 of 2 workers serve")
    world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
    assert ready(world) == (False, "the server stops, and waits for drain_delay, another 3 s")


def test_max_unavailable_workers_may_be_missing() -> None:
    """Fails with the wanted number alone: each reload would take such a server out of its load balancer."""
    world = World(quick(workers=2, max_unavailable=1)).start()
    world.kill(1)
    assert ready(world) == (True, "1 of 2 workers serve")
    world.kill(2)
    assert ready(world)[0] is False


def test_no_worker_is_wanted() -> None:
    """Fails with 0 of 0 taken for all."""
    world = World(quick(workers=2)).start()
    world.send(ev.Scale(to=0))
    world.run(5.0)
    assert ready(world) == (False, "no worker is wanted")


def test_workers_that_are_all_blocked_do_not_serve() -> None:
    """Fails without the heartbeats, and with one blocked worker taken for all."""
    world = World(quick(workers=2)).start()
    assert ready(world, silent=BLOCKED_AFTER - 1)[0] is True
    assert ready(world, silent=BLOCKED_AFTER + 2) == (False, "no worker's event loop has turned for 7 s")
    assert readiness(world.master, {1: world.master.now - 60, 2: world.master.now})[0] is True
