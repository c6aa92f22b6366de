"""The master under everything at once: failing, hanging, dying processes; lost, doubled, late news; jumps of time.

`World` checks the rules of every step. Here are the ways to disturb it, and what must be true in the end: a stop
ends within its bound from any state, and a world that heals gets exactly what it asked for.
"""

import itertools
import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core.limits import Limits
from aserver.master.core.model import Role, ServerPhase, WorkerPhase, ZygotePhase
from tests.stateful.world import World, quick, stop_bound

#: Events of a zygote come over one channel, its death last and once (runner): they keep their order.
ZYGOTE_NEWS = (msg.Loaded, msg.LoadFailed, msg.Unforkable, ev.ZygoteGone)

limits = st.builds(
    lambda surge_unavailable, **more: quick(
        max_surge=surge_unavailable[0], max_unavailable=surge_unavailable[1], **more
    ),
    st.sampled_from([(1, 0), (1, 0), (0, 1), (2, 1), (1, 1), (3, 0), (0, 2)]),
    workers=st.integers(1, 4),
    canary_time=st.sampled_from([0.0, 0.0, 3.0]),
    min_lifetime=st.sampled_from([0.0, 2.0]),
    drain_delay=st.sampled_from([0.0, 0.0, 2.0]),
    boot_retries=st.integers(1, 3),
)
pick = st.integers(0, 10**6)


class Disturbances(RuleBasedStateMachine):
    """Any order of these is a test."""

    world: World
    graces: list[Limits]

    @initialize(
        limits=limits,
        lazy=st.booleans(),
        beats=st.booleans(),
        seed=st.integers(0, 99),
        well=st.booleans(),
    )
    def begin(self, limits: Limits, lazy: bool, beats: bool, seed: int, well: bool) -> None:
        self.world = World(limits, lazy=lazy, rng=random.Random(seed).random, beats=beats)
        self.graces = [limits]
        self.world.send(ev.Started())
        if well:
            self.world.run(5.0)

    def _alive(self) -> bool:
        return self.world.exit is None

    # ── how things go from now on ────────────────────────────────────────────────────────────

    @rule(
        load=st.sampled_from(["up", "up", "up", "fail", "unforkable", "die", "hang"]),
        fork=st.sampled_from(["ok", "ok", "ok", "fail", "hang"]),
        boot=st.sampled_from(["ready", "ready", "ready", "fail3", "fail4", "crash", "hang"]),
        leave=st.sampled_from(["soon", "slow", "never"]),
        boot_time=st.sampled_from([0.0, 0.2, 4.0]),
    )
    def change_ways(self, load: str, fork: str, boot: str, leave: str, boot_time: float) -> None:
        ways = self.world.ways
        ways.load, ways.fork, ways.boot, ways.leave, ways.boot_time = load, fork, boot, leave, boot_time

    @rule(hold=st.booleans())
    def hold_mail(self, hold: bool) -> None:
        self.world.hold = hold

    # ── time ─────────────────────────────────────────────────────────────────────────────────

    @precondition(_alive)
    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 1.0, 3.0, 12.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.run(seconds)

    @precondition(_alive)
    @rule(seconds=st.sampled_from([1.0, 30.0, 3600.0]))
    def suspend(self, seconds: float) -> None:
        """The machine sleeps: time has passed, and nobody did anything."""
        self.world.now += seconds

    # ── mail ─────────────────────────────────────────────────────────────────────────────────

    def _letters(self) -> bool:
        return bool(self.world.mail) and self._alive()

    def _pick_letter(self, pick: int) -> int:
        mail = self.world.mail
        index = pick % len(mail)
        event = mail[index]
        if isinstance(event, ZYGOTE_NEWS):
            index = next(
                i for i, e in enumerate(mail) if isinstance(e, ZYGOTE_NEWS) and e.generation == event.generation
            )
        return index

    @precondition(_letters)
    @rule(pick=pick)
    def deliver_any(self, pick: int) -> None:
        self.world.deliver(self._pick_letter(pick))

    @precondition(_letters)
    @rule(pick=pick)
    def deliver_twice(self, pick: int) -> None:
        index = self._pick_letter(pick)
        self.world.deliver(index, twice=not isinstance(self.world.mail[index], ZYGOTE_NEWS))

    @precondition(_letters)
    @rule(pick=pick)
    def lose(self, pick: int) -> None:
        index = self._pick_letter(pick)
        if self.world.losable(self.world.mail[index]):
            del self.world.mail[index]

    @precondition(_letters)
    @rule()
    def deliver_all(self) -> None:
        self.world.flush()

    # ── misfortune ───────────────────────────────────────────────────────────────────────────

    def _workers(self) -> bool:
        return bool(self.world.alive) and self._alive()

    @precondition(_workers)
    @rule(pick=pick, signal=st.sampled_from(["SIGKILL", "SIGSEGV"]))
    def kill_a_worker(self, pick: int, signal: str) -> None:
        alive = self.world.alive
        self.world.kill(alive[pick % len(alive)], signal)

    @precondition(_workers)
    @rule(code=st.sampled_from([0, 1, 3, 4]), pick=pick)
    def end_a_worker(self, pick: int, code: int) -> None:
        alive = self.world.alive
        self.world.die(alive[pick % len(alive)], code)

    @precondition(_workers)
    @rule(pick=pick)
    def stick_a_worker(self, pick: int) -> None:
        alive = self.world.alive
        self.world.stick(alive[pick % len(alive)])

    @precondition(_workers)
    @rule(pick=pick)
    def ask_to_retire(self, pick: int) -> None:
        alive = self.world.alive
        self.world.emit(msg.RecycleAsked(alive[pick % len(alive)], "max_requests"))

    @precondition(_workers)
    @rule(pick=pick)
    def break_the_protocol(self, pick: int) -> None:
        alive = self.world.alive
        self.world.emit(ev.Breached(alive[pick % len(alive)], "it sent garbage"))

    @precondition(_workers)
    @rule()
    def all_ask_to_retire(self) -> None:
        for serial in self.world.alive:
            self.world.emit(msg.RecycleAsked(serial, "max_lifetime"))

    @precondition(lambda self: bool(self.world.zygotes) and self._alive())
    @rule(pick=pick, hang=st.booleans())
    def break_a_zygote(self, pick: int, hang: bool) -> None:
        generation = sorted(self.world.zygotes)[pick % len(self.world.zygotes)]
        if hang:
            self.world.zygotes[generation] = False
        else:
            self.world.kill_zygote(generation)

    # ── the operator ─────────────────────────────────────────────────────────────────────────

    @precondition(_alive)
    @rule(limits=limits)
    def reload(self, limits: Limits) -> None:
        self.graces.append(limits)
        self.world.send(ev.ReloadRequested(limits, "SIGHUP"))

    @precondition(_alive)
    @rule(delta=st.sampled_from([1, -1]))
    def scale(self, delta: int) -> None:
        if self.world.master.target < 5:
            self.world.send(ev.Scale(delta=delta))

    @precondition(_alive)
    @rule(to=st.sampled_from([0, 0, 1, 3]))
    def scale_to(self, to: int) -> None:
        self.world.send(ev.Scale(to=to))

    @precondition(_alive)
    @rule(mode=st.sampled_from(ev.StopMode), rarely=st.integers(0, 5))
    def stop(self, mode: ev.StopMode, rarely: int) -> None:
        if rarely == 0:
            self.world.send(ev.StopRequested(mode, "SIGTERM"))

    @precondition(_alive)
    @rule(serial=st.just(10**6))
    def unknown(self, serial: int) -> None:
        """Who is not known changes nothing."""
        for event in (
            msg.Forked(serial, 1),
            msg.ForkFailed(serial, ""),
            msg.Ready(serial, {}),
            msg.BootFailed(serial, 3, "", ""),
            msg.RecycleAsked(serial, ""),
            ev.Breached(serial, ""),
            ev.Died(serial),
            msg.Loaded(serial, False, "asgi", (), 0.1, {}),
            msg.Unforkable(serial, ()),
            msg.LoadFailed(serial, 4, "", ""),
            ev.ZygoteGone(serial, ""),
        ):
            self.world.send(ev.Tick())
            before = (repr(self.world.master.workers), self.world.master.next_deadline())
            assert self.world.send(event) == []
            assert (repr(self.world.master.workers), self.world.master.next_deadline()) == before

    # ── what must be true in the end ─────────────────────────────────────────────────────────

    @precondition(_alive)
    @rule()
    def heal(self) -> None:
        """Everything works from now on: the server is soon what it was asked to be, or ends if it was told to."""
        world, master = self.world, self.world.master
        world.heal()
        handled = world.handled
        for _ in range(200):
            world.run(5.0)
            if world.exit is not None or self._whole():
                break
        assert world.handled - handled < (8000 if world.beats else 2000), "too many wake-ups"
        if world.exit is not None:
            assert master.stop is not None
            return
        assert self._whole(), f"{world.serving} serve, {master.target} are wanted; {master}"
        world.run(20.0 if world.beats else 100.0)
        assert self._whole()
        assert sorted(slot for slot, _ in world.serving) == list(range(1, master.target + 1))
        assert len(world.alive) == master.target
        assert len(world.zygotes) == 1
        if not world.beats:
            assert master.next_deadline() is None, "nothing is under way, so nothing can be due"

    def _whole(self) -> bool:
        master = self.world.master
        if master.server is ServerPhase.BOOTING:
            return master.target == 0 and not master.workers
        current = master.current
        return (
            current is not None
            and current.zygote is ZygotePhase.UP
            and list(master.generations) == [current.number]
            and master.pending is None
            and len(master.workers) == master.target
            and all(w.phase is WorkerPhase.READY and w.generation == current.number for w in master.workers.values())
        )

    def teardown(self) -> None:
        """From wherever we are: told to stop, it stops in time, though nobody but SIGKILL is obeyed."""
        if not hasattr(self, "world") or self.world.exit is not None:
            return
        world = self.world
        world.flush()
        world.ways.leave = "never"
        world.send(ev.StopRequested(ev.StopMode.GRACEFUL, "SIGTERM"))
        bound = max(stop_bound(each) for each in self.graces)
        world.run(bound)
        assert world.exit is not None, f"no Exit within {bound} s: {world.master}"
        assert world.master.next_deadline() is None


TestDisturbances = Disturbances.TestCase


def test_some_role_is_left_for_every_generation() -> None:
    """`World._serving` names the roles one by one; a new one must be added there."""
    assert {role.name for role in Role} == {"CANDIDATE", "CURRENT", "OLD", "FAILED"}


@pytest.mark.parametrize("mode", ev.StopMode)
@pytest.mark.parametrize("again", [False, True])
def test_a_second_stop_is_quicker(mode: ev.StopMode, again: bool) -> None:
    """Told twice, it ends no later, at any moment of a reload, with workers that take all the time they get."""
    for moment, leave in itertools.product((0.05, 0.15, 0.25, 0.35, 0.6, 3.0), ("slow", "never")):
        world = World(quick()).start()
        world.ways.leave = leave
        world.send(ev.ReloadRequested(quick(), "SIGHUP"))
        world.run(moment)
        world.send(ev.StopRequested(mode, "SIGTERM"))
        if again:
            world.run(0.2)
            world.send(ev.StopRequested(mode, "SIGTERM"))
        quickest = max(mode, ev.StopMode.QUICK if again else mode)
        bound = {ev.StopMode.GRACEFUL: stop_bound(quick()), ev.StopMode.QUICK: 5.5, ev.StopMode.KILL: 2.5}[quickest]
        world.run(bound)
        assert world.exit is not None, (mode, again, moment, leave)
