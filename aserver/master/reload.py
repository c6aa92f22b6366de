"""A reload: read the settings again, open listeners and logs for the next generation, ask the state machine for it.

Runs in the master's loop. The settings are read in a thread, the only work that the master does beside its loop. A
mistake in them is logged and changes nothing.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from aserver import standard_streams
from aserver.config import Config, Resolved
from aserver.errors import AserverError
from aserver.master.core.events import ReloadRequested, Say, Upgrade
from aserver.master.core.limits import Limits
from aserver.master.resources import AllResources, provide_next
from aserver.obeyed import refuse_changeable

log = logging.getLogger("aserver.master")


@dataclass(slots=True)
class Reloads:
    """`reread` reads the settings, or raises ConfigError; `own_process`: the standard streams are ours to replace."""

    resources: AllResources
    reread: Callable[[], Resolved]
    handle: Callable[[ReloadRequested], None]
    say: Callable[[Say], None]
    own_process: bool
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether settings are being read."""
        return any(not task.done() for task in self.tasks)

    def request(self, why: str, tickets: tuple[int, ...], upgrade: Upgrade | None = None) -> None:
        """Reload, beside other reloads that are under way; with `upgrade`, as its last step."""
        self.tasks = [task for task in self.tasks if not task.done()]
        self.tasks.append(asyncio.get_running_loop().create_task(self._reload(why, tickets, upgrade)))

    async def _reload(self, why: str, tickets: tuple[int, ...], upgrade: Upgrade | None) -> None:
        if self.own_process:
            standard_streams.keep()  # a HUP may mean that the terminal is gone, and the zygote inherits them
        try:
            resolved = await read(self.reread, self.resources.next.config)
            # Only now look at `next`: another reload may have come to its end while the settings were read.
            running = self.resources.next
            fresh, remarks = provide_next(running, resolved)
        except AserverError as error:
            self.say(_refused(why, str(error), tickets, upgrade))
            return
        for remark in remarks:
            log.warning("reload (%s): %s", why, remark)
        changed = [
            name for name in Config.__struct_fields__ if getattr(fresh.config, name) != getattr(running.config, name)
        ]
        log.debug("reload (%s): settings that changed: %s", why, ", ".join(changed) or "none")
        self.resources.replace_next(fresh)
        self.handle(ReloadRequested(Limits.of(fresh.config, fresh.workers), why, upgrade, tickets))


def _refused(why: str, reason: str, tickets: tuple[int, ...], upgrade: Upgrade | None) -> Say:
    """The end of a reload whose settings are wrong."""
    text, kind, outcome = f"reload ({why}) refused, everything stays as it is: {reason}", "reload", "refused"
    if upgrade is not None:
        text, kind, outcome = f"upgrade incomplete: the new master runs, but its {text}", "upgrade", "incomplete"
        tickets = upgrade.tickets
    return Say("error", text, event=f"{kind}.ends", reason=reason, outcome=outcome, tickets=tickets)


async def read(reread: Callable[[], Resolved], running: Config) -> Resolved:
    """Call `reread` in a thread: a settings file in Python is run by a child, and may take its time.

    Raises ConfigError for a file that the user of the `running` settings may change. That is checked before the file is
    read, since Python would run as root, and afterwards, since the settings may now name another file.

    The thread is a daemon, so that a stop does not wait for it, as the interpreter's end would wait for an executor's
    threads. It ends with its work: a thread that waited for more would take signals that are blocked in this one during
    an upgrade. Nor does it end before: the child dies with the thread that started it (`unix.end_with_parent`).
    """
    refuse_changeable("config", running.config, running.user, running.group)
    reading: Future[Resolved] = Future()
    reading.set_running_or_notify_cancel()  # else it could not be set any more once a stop has cancelled us

    def work() -> None:
        try:
            reading.set_result(reread())
        except BaseException as error:  # noqa: BLE001 - raised again in the loop
            reading.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        resolved = await asyncio.wrap_future(reading)
    finally:
        if reading.done():
            thread.join()
    refuse_changeable("config", resolved.file, running.user, running.group)
    return resolved
