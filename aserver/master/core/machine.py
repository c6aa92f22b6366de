"""The master's decisions: the next orders to the zygotes and workers.

Pure. `handle(event, now)` applies an event, then compares the processes with the number that is wanted until nothing
is left to order, and returns the orders; `next_deadline()` says when to call again although nothing happened. It never
waits: reload, drain and stop are phases with absolute deadlines in monotonic seconds.

    worker      BOOTING ──ready──> READY ──asked──> RECYCLING ──replacement ready──> DRAINING ──> (gone)
                   └──late, failed──> FAILED ──> (gone)     └──hung──> KILLING <──late──┘
    zygote      LOADING ──> UP ──> LEAVING ──> GONE      UP ──died──> DOWN ──> LOADING
    generation  CANDIDATE ──a worker of it is ready──> CURRENT ──> OLD      CANDIDATE ──> FAILED
    server      BOOTING ──first worker ready──> SERVING ──> STOPPING ──> DONE

docs/states.md has every step. The modules, each pure:

    model        workers, generations        transitions  every step, its deadline and its command
    on_event     an event changes the model  generations  begun, promoted, failed
    reconcile    orders what is missing      shutdown     how the server ends
    operations   reloads and the like, to their end
    backoff, limits, explain                 pauses, numbers, sentences

Rules an editor must keep (tests/stateful holds them under lost, doubled and reordered events):
* a single Drain per worker; no order to a worker that is gone; an event for an unknown serial changes nothing;
* never more than `workers + max_surge` processes are forked for (a reload's canary may always come on top of
  `workers`, or a reload would have to end a worker first); never fewer ready than `workers - max_unavailable` by our
  own doing;
* nothing old is touched before a worker of the new generation serves;
* a canary is no other worker's replacement before its generation is current;
* a stop leads to Exit within `graceful_timeout` + `leave_allowance` + a kill allowance, plus QUIT_ALLOWANCE if a
  zygote does not answer, from any state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aserver.ipc import messages as msg
from aserver.master.core import events as ev
from aserver.master.core import on_event, reconcile, shutdown
from aserver.master.core.model import Generation, Model, ServerPhase, Worker


@dataclass(slots=True)
class Master(Model):
    """The whole state, `Master(limits, rng)`, and its entry points, with `next_deadline`."""

    def handle(self, event: ev.Event, now: float) -> list[ev.MasterCommand]:
        """Apply `event` at `now`; the orders come in the order in which they must be carried out."""
        self.now = max(now, self.now)
        if self.server is not ServerPhase.DONE:
            self._apply(event)
            reconcile.reconcile(self)
        orders, self.out = self.out, []
        return orders

    def _apply(self, event: Any) -> None:
        """Call the handler of `event`; a worker or generation that is not known changes nothing."""
        handler = HANDLERS[type(event)]
        if hasattr(event, "serial"):
            subject: Worker | Generation | None = self.workers.get(event.serial)
        elif hasattr(event, "generation"):
            subject = self.generations.get(event.generation)
        else:
            handler(self, event)
            return
        if subject is not None:
            handler(self, subject, event)


#: An event of a worker has its `serial`, an event of a zygote its `generation`; their handlers are given the subject.
HANDLERS: dict[type, Callable[..., None]] = {
    msg.Forked: on_event.on_forked,
    msg.ForkFailed: on_event.on_fork_failed,
    msg.Ready: on_event.on_ready,
    msg.BootFailed: on_event.on_boot_failed,
    msg.RecycleAsked: on_event.on_recycle_asked,
    ev.Breached: on_event.on_breached,
    ev.Died: on_event.on_died,
    msg.Loaded: on_event.on_loaded,
    msg.Unforkable: on_event.on_unforkable,
    msg.LoadFailed: on_event.on_load_failed,
    ev.ZygoteGone: on_event.on_zygote_gone,
    ev.Started: on_event.on_started,
    ev.Beats: on_event.on_beats,
    ev.StopRequested: shutdown.on_stop_requested,
    ev.ReloadRequested: on_event.on_reload_requested,
    ev.CodeChanged: on_event.on_code_changed,
    ev.Scale: on_event.on_scale,
    ev.Recycle: on_event.on_recycle,
    ev.Tick: on_event.on_tick,
}
