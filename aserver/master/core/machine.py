"""The master's decisions: what to do next with the zygotes and workers there are.

Pure. `handle(event, now)` applies one event whole, then compares what is with what should be until nothing
is left to order, and returns the orders; `next_deadline()` says when to call again though nothing happened.
It never waits: reload, drain and stop are states with absolute deadlines in monotonic seconds.

    worker      BOOTING ──ready──> READY ──due──> RECYCLING ──replacement ready──> DRAINING ──> (gone)
                   └──────────── late, hung, overran ──────────> KILLING ──> (gone)
    zygote      LOADING ──> UP ──> LEAVING ──> (gone)      UP ──died──> DOWN ──> LOADING
    generation  CANDIDATE ──a worker of it is ready──> CURRENT ──> OLD      CANDIDATE ──> FAILED
    server      BOOTING ──first worker ready──> SERVING ──> STOPPING ──> DONE

docs/states.md has every step. The parts, each pure, from the picture up:

    model     what there is               orders   how an order is given
    rollout   what becomes of a generation
    news      what happened               plan     what to do about it         stop   how it ends

Rules an editor must keep (tests/stateful holds them under lost, doubled and reordered events):
* one Drain per worker; no order to a worker that is gone; an event for an unknown serial changes nothing;
* never more than `workers + max_surge` processes are forked for (a reload's canary may always be one more
  than `workers`, since promise 3 needs it); never fewer ready than `workers - max_unavailable` by our own doing;
* nothing old is touched before a worker of the new generation serves;
* a canary is nobody's replacement before its generation is current;
* a stop leads to Exit within `graceful_timeout` + `leave_allowance` + a kill allowance, plus QUIT_ALLOWANCE if a
  zygote does not answer, from any state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from aserver.master.core import events as ev
from aserver.master.core import on_event, reconcile, shutdown
from aserver.master.core.model import Model, ServerPhase


@dataclass(slots=True)
class Master(Model):
    """The whole state, `Master(limits, rng, lazy)`, and its two entry points."""

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Apply `event` at `now`; the orders come in the order in which they must be carried out."""
        self.now = max(now, self.now)
        if self.server is not ServerPhase.DONE:
            self._apply(event)
            reconcile.reconcile(self)
        orders, self.out = self.out, []
        return orders

    def next_deadline(self) -> float | None:
        """The next moment at which a Tick would change anything, in monotonic seconds."""
        return min((t for t in self._deadlines() if t is not None and t > self.now), default=None)

    def _deadlines(self) -> Iterator[float | None]:
        for worker in self.workers.values():
            yield worker.deadline
        for generation in self.generations.values():
            yield generation.deadline
        if self.over:
            yield self.stop_begins
            return
        for worker in self.workers.values():
            yield reconcile.recycle_at(self, worker)
        for generation in self.generations.values():
            yield generation.backoff.not_before
        if (candidate := self.candidate) is not None:
            yield from (reconcile.proven_at(candidate, w) for w in self.of(candidate) if w.serves)
        elif self.pending is not None:
            yield self.reload_not_before

    def _apply(self, event: ev.Event) -> None:  # noqa: C901, PLR0912  (a table of one line each)
        match event:
            case ev.Started():
                on_event.on_started(self)
            case ev.ZygoteUp():
                on_event.on_zygote_up(self, event)
            case ev.ZygoteUnforkable():
                on_event.on_zygote_unforkable(self, event)
            case ev.ZygoteFailed():
                on_event.on_zygote_failed(self, event)
            case ev.ZygoteGone():
                on_event.on_zygote_gone(self, event)
            case ev.Forked():
                on_event.on_forked(self, event)
            case ev.ForkFailed():
                on_event.on_fork_failed(self, event)
            case ev.Ready():
                on_event.on_ready(self, event)
            case ev.BootFailed():
                on_event.on_boot_failed(self, event)
            case ev.RecycleAsked():
                on_event.on_recycle_asked(self, event)
            case ev.Breached():
                on_event.on_breached(self, event)
            case ev.Died():
                on_event.on_died(self, event)
            case ev.Beats():
                on_event.on_beats(self, event)
            case ev.StopRequested():
                shutdown.on_stop_requested(self, event)
            case ev.ReloadRequested():
                on_event.on_reload_requested(self, event)
            case ev.Scale():
                on_event.on_scale(self, event)
            case ev.Tick():
                pass
            case _:
                assert_never(event)
