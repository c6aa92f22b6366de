"""The ASGI lifespan of a worker: startup before the first connection, shutdown after the last.

Runs in the worker's loop (or the embedding program's). The app's lifespan call is one task from start to end, because
the app leaves at shutdown the cancel scopes and context variables that it entered at startup. It must never decide
whether the server goes on: it raises, and the caller decides.

Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

import asyncio
import enum
import logging
import math
from typing import Any, Literal

import anyio

from aserver import importer
from aserver.asgi import ASGIApp, Message
from aserver.errors import BootError

log = logging.getLogger("aserver.error")

#: After this part of the limit, the log says at which lines a startup that has not ended waits. The limit counts from
#: the fork, so a lazy worker has spent some of it on loading.
LATE = 0.5


class LifespanPhase(enum.Enum):
    """The phases of an app's lifespan; UNSUPPORTED and FAILED are ends, too."""

    STARTING = "starting"
    UP = "up"
    UNSUPPORTED = "unsupported"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Lifespan:
    """The lifespan of an app. The app fills `state` at startup; each request's scope gets a copy."""

    def __init__(self, app: ASGIApp, mode: Literal["auto", "on", "off"]) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._phase = LifespanPhase.STARTING
        self._failure = ""
        self._heard = False  # the app has asked for an event, so it speaks lifespan
        self._changed = asyncio.Event()
        self._shutdown_sent = asyncio.Event()
        self._events = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
        self._task: asyncio.Task[None] | None = None

    async def startup(self, limit: float = math.inf) -> None:
        """Run the app's startup. Raises BootError if it failed; with `auto`, an app without lifespan is fine.

        The caller ends it after `limit` seconds; half-way there, the log says where it waits.
        """
        if self._mode == "off":
            self._phase = LifespanPhase.UNSUPPORTED
            return
        self._task = asyncio.get_running_loop().create_task(self._run(), name="aserver lifespan")
        late = asyncio.get_running_loop().call_later(LATE * limit, self._say_late, self._task, limit)
        try:
            await self._changed.wait()
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):  # the cancelled scope would cancel each further `await` in it
                await self._end()
            raise
        finally:
            late.cancel()
        if self._phase is LifespanPhase.FAILED:
            await self._end()
            raise self._startup_error()

    def _say_late(self, task: asyncio.Task[None], limit: float) -> None:
        """Log where the startup waits. The stacks that are dumped at the limit do not show a coroutine that waits."""
        text = "lifespan startup has not ended after %g s (boot_timeout is %g s); it waits here:\n%s"
        log.warning(text, LATE * limit, limit, importer.waiting(task.get_coro()).rstrip())

    def _startup_error(self) -> BootError:
        """The error for the app's message: its last line, with the whole as a note, as it may be a traceback."""
        lines = self._failure.strip().splitlines()
        error = BootError(f"lifespan startup failed: {lines[-1].strip()}" if lines else "lifespan startup failed")
        if len(lines) > 1:
            error.add_note(self._failure)
        return error

    @property
    def supported(self) -> bool:
        """Whether the app has completed startup, and will be asked to shut down."""
        return self._phase is LifespanPhase.UP

    async def shutdown(self, limit: float) -> None:
        """Run the app's shutdown for at most `limit` seconds. Errors go to the log; it never raises."""
        if self._phase is not LifespanPhase.UP or self._task is None:
            await self._end()
            return
        self._phase = LifespanPhase.STOPPING
        self._changed.clear()
        self._shutdown_sent.set()
        try:
            await asyncio.wait_for(self._changed.wait(), limit)
        except TimeoutError:
            text = "lifespan shutdown did not end within %g s (lifespan_shutdown_timeout); it is cancelled"
            log.error(text, limit)  # noqa: TRY400  (our own deadline has no traceback worth showing)
        if self._phase is LifespanPhase.FAILED:
            log.error("lifespan shutdown failed: %s", self._failure or "the app gave no message")
        await self._end()

    async def _end(self) -> None:
        if self._task is None:
            return
        if self._phase is not LifespanPhase.STOPPED:
            self._task.cancel()
        # An app that swallows the cancellation must not keep the worker: it is left behind after a moment.
        await asyncio.wait([self._task], timeout=1.0)
        self._task = None

    def _move(self, phase: LifespanPhase, failure: str = "") -> None:
        self._phase, self._failure = phase, failure
        self._changed.set()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._move(LifespanPhase.STOPPED)
            raise
        except BaseException as error:  # noqa: BLE001  (the app's: SystemExit there must not end the worker)
            self._returned(error)
        else:
            self._returned(None)

    def _returned(self, error: BaseException | None) -> None:
        """Note that the app's lifespan call has ended, with `error` or by itself. The phase says if that is wrong."""
        if self._phase is LifespanPhase.STARTING:
            if self._mode == "auto":
                # The specification: an exception here means that the app does not speak lifespan, so go on without.
                if error is not None and not self._heard:
                    log.debug("the app does not speak lifespan (%s: %s)", type(error).__name__, error)
                elif error is not None:
                    text = (
                        "the app raised in lifespan startup; as the ASGI specification wants it, it is served without"
                    )
                    log.warning("%s (lifespan=on makes this an error)", text, exc_info=error)
                self._move(LifespanPhase.UNSUPPORTED)
            else:
                text = importer.user_traceback(error) if error else "the app returned before startup was complete"
                self._move(LifespanPhase.FAILED, text)
        elif self._phase is LifespanPhase.UP:
            log.error("the app's lifespan ended while the worker serves", exc_info=error)
            self._move(LifespanPhase.UNSUPPORTED)
        elif self._phase is LifespanPhase.STOPPING:
            if error is not None:
                log.error("the app raised in lifespan shutdown", exc_info=error)
            self._move(LifespanPhase.STOPPED)

    async def _receive(self) -> Message:
        self._heard = True
        event = next(self._events, None)
        if event is None:
            await asyncio.Event().wait()  # nothing follows shutdown: cancelled when the worker ends
            raise AssertionError
        if event["type"] == "lifespan.shutdown":
            await self._shutdown_sent.wait()
        return dict(event)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._phase is LifespanPhase.STARTING and kind == "lifespan.startup.complete":
            self._move(LifespanPhase.UP)
        elif self._phase is LifespanPhase.STARTING and kind == "lifespan.startup.failed":
            self._move(LifespanPhase.FAILED, message.get("message", ""))
        elif self._phase is LifespanPhase.STOPPING and kind == "lifespan.shutdown.complete":
            self._move(LifespanPhase.STOPPED)
        elif self._phase is LifespanPhase.STOPPING and kind == "lifespan.shutdown.failed":
            self._move(LifespanPhase.FAILED, message.get("message", ""))
        elif self._phase is not LifespanPhase.FAILED:
            raise RuntimeError(f"{kind!r} is out of order: lifespan is {self._phase.value}")
