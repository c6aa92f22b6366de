"""Settings are read again, for a reload, in a thread: the one thing that the master does beside its loop.

Runs in the master's loop. It must never decide what becomes of the settings, nor keep a thread that has done its work.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

from aserver.config import Config, Resolved
from aserver.obeyed import refuse_changeable


async def read(reread: Callable[[], Resolved], running: Config) -> Resolved:
    """What `reread` returns or raises, in a thread: a settings file in Python is run by a child and may take its time.

    Raises ConfigError for a file that the user of the `running` settings may change: before it is read, where it was
    named, since Python would run as root; and behind, since what it says now may be another user.

    A daemon, so that a stop does not wait for it; the interpreter's end would wait for an executor's. And one that
    ends with it: a thread that waits for work would take signals that are blocked here during an upgrade. Not before
    it, either: the child ends with the thread that started it (`unix.end_with_parent`).
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
