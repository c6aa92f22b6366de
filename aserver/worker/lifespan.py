"""The ASGI lifespan of one worker: startup before the first connection, shutdown after the last.

Runs in the worker's loop (or the embedding program's). The app's lifespan call is one task from start to end, because
cancel scopes and context variables that it enters at startup it leaves at shutdown. It must never decide
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

#: Part of the limit after which a startup that has not ended is said to wait, and where. The limit counts from the
#: fork: a lazy worker has spent some of it on loading.
LATE = 0.5


class _Phase(enum.Enum):
    STARTING = "starting"
    UP = "up"
    UNSUPPORTED = "unsupported"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Lifespan:
    """`state` is what the app put there at startup; each request's scope gets a copy."""

    def __init__(self, app: ASGIApp, mode: Literal["auto", "on", "off"]) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._phase = _Phase.STARTING
        self._failure = ""
        self._heard = False  # whether the app has asked for an event: then it speaks lifespan
        self._changed = asyncio.Event()
        self._shutdown_sent = asyncio.Event()
        self._events = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
        self._task: asyncio.Task[None] | None = None

    async def startup(self, limit: float = math.inf) -> None:
        """Run the app's startup. Raises BootError if it failed; with `auto`, an app without lifespan is fine.

        The caller ends it after `limit` seconds; half-way there, the log says where it waits.
        """
        if self._mode == "off":
            self._phase = _Phase.UNSUPPORTED
            return
        self._task = asyncio.get_running_loop().create_task(self._run(), name="aserver lifespan")
        late = asyncio.get_running_loop().call_later(LATE * limit, self._say_late, self._task, limit)
        try:
            await self._changed.wait()
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):  # a scope goes on cancelling whoever waits in it
                await self._end()
            raise
        finally:
            late.cancel()
        if self._phase is _Phase.FAILED:
            await self._end()
            raise self._startup_error()

    def _say_late(self, task: asyncio.Task[None], limit: float) -> None:
        """The stacks that are dumped at the end show what runs, and a coroutine that waits does not run."""
        text = "lifespan startup has not ended after %g s (boot_timeout is %g s); it waits here:\n%s"
        log.warning(text, LATE * limit, limit, importer.waiting(task.get_coro()).rstrip())

    def _startup_error(self) -> BootError:
        """One line, with the rest as a note: Starlette and others put a whole traceback into the message."""
        lines = self._failure.strip().splitlines()
        error = BootError(f"lifespan startup failed: {lines[-1].strip()}" if lines else "lifespan startup failed")
        if len(lines) > 1:
            error.add_note(self._failure)
        return error

    @property
    def supported(self) -> bool:
        """Whether the app has completed startup."""
        return self._phase is _Phase.UP

    async def shutdown(self, limit: float) -> None:
        """Run the app's shutdown for at most `limit` seconds; says in the log what went wrong, never raises."""
        if self._phase is not _Phase.UP or self._task is None:
            await self._end()
            return
        self._phase = _Phase.STOPPING
        self._changed.clear()
        self._shutdown_sent.set()
        try:
            await asyncio.wait_for(self._changed.wait(), limit)
        except TimeoutError:
            text = "lifespan shutdown did not end within %g s (lifespan_shutdown_timeout); it is cancelled"
            log.error(text, limit)  # noqa: TRY400  (our own deadline has no traceback worth showing)
        if self._phase is _Phase.FAILED:
            log.error("lifespan shutdown failed: %s", self._failure or "the app gave no message")
        await self._end()

    async def _end(self) -> None:
        if self._task is None:
            return
        if self._phase is not _Phase.STOPPED:
            self._task.cancel()
        # An app that swallows the cancellation must not keep the worker: it is left behind after a moment.
        await asyncio.wait([self._task], timeout=1.0)
        self._task = None

    def _move(self, phase: _Phase, failure: str = "") -> None:
        self._phase, self._failure = phase, failure
        self._changed.set()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._move(_Phase.STOPPED)
            raise
        except BaseException as error:  # noqa: BLE001  (the app's: SystemExit there must not end the worker)
            self._returned(error)
        else:
            self._returned(None)

    def _returned(self, error: BaseException | None) -> None:
        """The app's lifespan call has ended: what that means depends on how far it was."""
        if self._phase is _Phase.STARTING:
            if self._mode == "auto":
                # The specification: an exception here means that the app does not speak lifespan, so go on without.
                if error is not None and not self._heard:
                    log.info("the app does not speak lifespan (%s: %s)", type(error).__name__, error)
                elif error is not None:
                    text = (
                        "the app raised in lifespan startup; as the ASGI specification wants it, it is served without"
                    )
                    log.warning("%s (lifespan=on makes this an error)", text, exc_info=error)
                self._move(_Phase.UNSUPPORTED)
            else:
                text = importer.user_traceback(error) if error else "the app returned before startup was complete"
                self._move(_Phase.FAILED, text)
        elif self._phase is _Phase.UP:
            log.error("the app's lifespan ended while the worker serves", exc_info=error)
            self._move(_Phase.UNSUPPORTED)
        elif self._phase is _Phase.STOPPING:
            if error is not None:
                log.error("the app raised in lifespan shutdown", exc_info=error)
            self._move(_Phase.STOPPED)

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
        if self._phase is _Phase.STARTING and kind == "lifespan.startup.complete":
            self._move(_Phase.UP)
        elif self._phase is _Phase.STARTING and kind == "lifespan.startup.failed":
            self._move(_Phase.FAILED, message.get("message", ""))
        elif self._phase is _Phase.STOPPING and kind == "lifespan.shutdown.complete":
            self._move(_Phase.STOPPED)
        elif self._phase is _Phase.STOPPING and kind == "lifespan.shutdown.failed":
            self._move(_Phase.FAILED, message.get("message", ""))
        elif self._phase is not _Phase.FAILED:
            raise RuntimeError(f"{kind!r} is out of order: lifespan is {self._phase.value}")
