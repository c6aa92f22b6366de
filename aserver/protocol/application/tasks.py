"""The application's tasks, for each request and WebSocket: how they start, end, and are counted.

Runs in the worker's loop. `Tasks` makes every call of the application, so that the limit, the note on the board, the
request id and the log are the same for HTTP and WebSockets. An exception of the application must never reach the loop,
nor stop the server.
"""

import asyncio
import contextvars
import logging
import sys
from asyncio import Task
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Final, Protocol

from aserver.asgi import ASGIApp, Message, Scope
from aserver.config import Config
from aserver.importer.tracebacks import waiting
from aserver.log.access.record import AccessRecord, PlainLines
from aserver.metrics.meter import Meter
from aserver.protocol.application.request_ids import RequestIds
from aserver.protocol.semantics.response import DONE, State

log: Final = logging.getLogger("aserver.error")

#: The most pairs of route and status whose dropped bodies are logged: clients can ask for any number of paths.
REMEMBERED: Final = 256

#: Whether a task can begin at its creation (`eager_start`), without another turn of the loop.
EAGER: Final = sys.version_info >= (3, 12)


class Request(Protocol):
    """A request, or a WebSocket, whose application runs."""

    task: asyncio.Task[None] | None
    scope: Scope
    target: bytes
    client: tuple[str, int] | None
    started: float  # by the loop's clock
    request_id: str | None

    @property
    def method(self) -> str:
        """The method, WEBSOCKET for a WebSocket."""

    async def receive(self) -> Message:
        """ASGI `receive()`."""

    async def send(self, message: Message) -> None:
        """ASGI `send()`."""

    @property
    def state(self) -> State | None:
        """The message that an HTTP application has to send next; None for a WebSocket's."""

    def returned(self) -> None:
        """Called when the application has returned, unless `state` is DONE."""

    def failed(self, error: BaseException) -> None:
        """Called when the application has raised an exception."""

    def cancel(self, reason: str) -> None:
        """Cancel the application's task."""

    @property
    def begun(self) -> bool:
        """Whether the application has begun to answer."""

    @property
    def answered(self) -> bool:
        """Whether the answer is complete."""

    @property
    def open_ended(self) -> bool:
        """Whether the answer is a stream: it is HTTP's, has begun, and its length is not known."""

    def end_stream(self) -> None:
        """End an answer that is a stream, as if its client had left."""

    def abandon(self) -> bool:
        """End an answer whose client left long ago; return whether the application was cancelled."""

    def progress(self) -> int | None:
        """Return a number that grows while the application sends or receives; None while it has nothing to do."""

    def refuse(self, status: int) -> None:
        """Answer instead of the application. Call it only if nothing was sent."""

    def give_up(self, status: int) -> str:
        """Answer for the application if nothing was sent, else break the answer off; return which, for the log."""


class Timed(AccessRecord, Protocol):
    """A record that gets its duration when it ends."""

    duration: float


class Tasks:
    """The application of one worker, and its tasks.

    `requests` counts finished requests (for `max_requests`). The functions, where given, are called so:
    `access` with the `AccessRecord` of each finished response, which has a duration if `timed`; for plain requests
    that are served natively, `lines` may take its place;
    `on_limit` each time that a request is refused because of `limit_concurrency`;
    `note` with the target of each request before its application is called;
    `overdue` with the scope of each request that is given up, and returns its stack, or "" for that of its task.
    `meter`, where given, counts requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config,
        *,
        loop: asyncio.AbstractEventLoop,
        variables: contextvars.Context,
        access: Callable[[AccessRecord], None] | None = None,
        lines: PlainLines | None = None,
        timed: bool = True,
        on_limit: Callable[[], None] | None = None,
        note: Callable[[bytes], None] | None = None,
        overdue: Callable[[Scope], str] | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._app = app
        self._config = config
        self._loop = loop
        self._task_factory = loop.get_task_factory
        self._arguments: dict[str, Any] = {"loop": loop, "name": "request"}
        self._variables = variables  # copied for each task, so that no task sees the variables of another
        self.access = access
        self.lines = lines
        self.meter = meter
        self.observed = access is not None or meter is not None
        self.timed = timed and access is not None
        self._clocked = self.timed or meter is not None
        self._turn_began = 0.0  # of a turn of the loop in which a request has begun or ended; else 0
        self._on_limit = on_limit
        self._note = note
        self._overdue = overdue
        self._limit = config.limit_concurrency or inf
        self.ids = RequestIds() if RequestIds.wanted(config) else None
        self._dropped: set[tuple[object, int]] = set()  # route and status of logged bodies
        self.running: set[Request] = set()
        self.requests = 0
        self._ready: list[Request] = []  # to be started by `_start_ready`
        #: Running requests whose client has gone, each with the time of its cancellation by the loop's clock, which is
        #: infinite until the answer has begun.
        self.abandoned: dict[Request, float] = {}
        self._patience = config.disconnect_grace  # seconds from the client's leaving on
        self._timeout = config.request_timeout
        #: With `request_timeout`: the progress of each request, and since when it has made no more.
        self._progress: dict[Request, tuple[int, float]] = {}
        self._stopping = False  # see `stop_streams`
        self._streams: dict[Request, float] = {}  # when `end_streams` first saw each

    # ── begin ────────────────────────────────────────────────────────────────────────────────

    def start(self, request: Request) -> None:
        """Start the application with the next turn of the loop; refuse the request if `limit_concurrency` forbids it.

        Tasks are not started at once, though Python 3.12 could: an application inside `data_received` would answer
        before the loop has read the next connection, which under load costs 20 % more CPU per request. To start all
        requests of a turn eagerly in a single callback saves 6 % (3.12) to 10 % (3.13) over a scheduled task for each.
        """
        if self._clocked:  # monotonic() is uvloop's clock, too, but `loop.time()` has only milliseconds
            request.started = monotonic() if self.timed else self._turn_began or self._begin_turn()
        running = self.running
        if len(running) >= self._limit:
            if self._on_limit is not None:
                self._on_limit()
            request.refuse(503)
            return
        running.add(request)
        if EAGER:
            self._ready.append(request)
            if len(self._ready) == 1:
                self._loop.call_soon(self._start_ready, context=self._variables)
        elif self._task_factory() is None:
            # With a name: asyncio would count one up, which with `create_task` is 4 % of a short request before 3.12.
            arguments = self._arguments
            arguments["context"] = self._variables.copy()
            request.task = Task(self._run(request), **arguments)
        else:  # the application has set a task factory (tracing)
            request.task = self._loop.create_task(self._run(request), context=self._variables.copy())

    def _start_ready(self) -> None:
        ready = self._ready
        self._ready = []
        loop = self._loop
        if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
            for request in ready:
                context = self._variables.copy()
                request.task = Task(self._run(request), loop=loop, context=context, eager_start=True)
        else:
            for request in ready:
                request.task = loop.create_task(self._run(request), context=self._variables.copy())

    async def _run(self, request: Request) -> None:
        if self._note is not None:
            self._note(request.target)
        try:
            await self._app(request.scope, request.receive, request.send)
            if request.state is not DONE:
                request.returned()
        except BaseException as error:  # noqa: BLE001 - the application's SystemExit must not stop the server
            request.failed(error)
        finally:
            self.running.discard(request)
            if self.abandoned:
                self.abandoned.pop(request, None)
            self.requests += 1

    def record(self, ended: Timed) -> None:
        """Count and log a response or a WebSocket that has ended."""
        self.record_end(ended, ended.status, ended.started, ended.sent)

    def record_end(self, ended: Timed, status: int, started: float, sent: int) -> None:
        """Do the same, without looking up attributes of `ended` by name, which is slow in compiled code."""
        if self.meter is not None:
            self.meter.ended[status // 100].append(started)
            self.meter.sent += sent
            if not self._turn_began:
                self._begin_turn()
        if self.access is not None:
            if self.timed:
                ended.duration = monotonic() - started
            self.access(ended)

    def is_first_drop(self, scope: Scope, status: int) -> bool:
        """Tell whether this is the first body that is dropped for a route and `status`, and remember them.

        The route is the endpoint that Starlette and others put into the scope, or the path if there is none.
        """
        endpoint = scope.get("endpoint")
        key = (scope.get("path") if endpoint is None else id(endpoint), status)
        if key in self._dropped or len(self._dropped) >= REMEMBERED:
            return False
        self._dropped.add(key)
        return True

    def _begin_turn(self) -> float:
        """Read the clock for all requests of this turn of the loop: to read it costs 1 % of a short request."""
        self._turn_began = monotonic()
        self._loop.call_soon(self._end_turn, context=self._variables)
        return self._turn_began

    def _end_turn(self) -> None:
        assert self.meter is not None
        self._turn_began = 0.0
        self.meter.end_turn(monotonic())

    def replace(self, request: Request, by: Request) -> None:
        """Let another object go on with a running request (`http1/plain.pyx`), from which its deadlines count on."""
        if request in self.running:
            self.running.remove(request)
            self.running.add(by)
        if request in self._progress:
            self._progress[by] = self._progress.pop(request)
        if request in self._streams:
            self._streams[by] = self._streams.pop(request)

    # ── end ──────────────────────────────────────────────────────────────────────────────────

    def cancel(self, reason: str) -> list[str]:
        """Cancel the tasks that still run; return `GET /x, 31.2 s` for each.

        A client without an answer gets 503; other answers are broken off. The tasks need some turns of the loop to end.
        """
        for request in list(self.running):
            # In the next turn: a task that is cancelled before its first step never runs the `finally` in `_run`.
            self._loop.call_soon(request.cancel, reason)
        return self.describe()

    def standing(self, request: Request) -> str:
        """Return `GET /x, 31.2 s`, and whether the application works on although no client waits for it."""
        how = ""
        if request.answered:
            how = " (over for its client; its application works on)"
        elif request in self.abandoned:
            how = " (its client has gone; its application works on)"
        return describe(request, self._loop.time()) + how

    def describe(self) -> list[str]:
        """Return `GET /x, 31.2 s` for each task that still runs."""
        now = self._loop.time()
        return [describe(request, now) for request in self.running]

    def stop_streams(self, now: float) -> None:
        """Give each stream `stream_grace` to end, because the server stops; a later stream from the next sweep on."""
        self._stopping = True
        self._patience = min(self._config.disconnect_grace, self._config.stream_grace)
        self.end_streams(now)

    def end_streams(self, now: float) -> None:
        """End each stream that was first seen here `stream_grace` ago. After `stop_streams`, `sweep` calls this."""
        grace = self._config.stream_grace
        for request in list(self.running):
            if request.open_ended and now - self._streams.setdefault(request, now) >= grace:
                request.end_stream()

    def leave_behind(self, request: Request, now: float) -> None:
        """Give a request whose client has gone `disconnect_grace` to end. The time begins with its answer."""
        if request in self.running:
            self.abandoned.setdefault(request, now + self._patience if request.begun else inf)

    def postpone(self, seconds: float) -> None:
        """Put off all deadlines by the seconds that the loop stood still."""
        self.abandoned = {request: deadline + seconds for request, deadline in self.abandoned.items()}
        self._progress = {request: (progress, since + seconds) for request, (progress, since) in self._progress.items()}

    def sweep(self, now: float) -> None:
        """End the requests whose deadline has passed."""
        if self.abandoned:
            self._end_abandoned(now)
        if self._stopping:
            self.end_streams(now)
        if self._timeout:
            self._end_overdue(now)

    def _end_overdue(self, now: float) -> None:
        """End requests whose application has sent and received nothing for `request_timeout`."""
        before, self._progress = self._progress, {}
        for request in list(self.running):
            progress = request.progress()
            if progress is None:
                continue
            last, since = before.get(request, (None, now))
            if last != progress:
                since = now
            if now - since < self._timeout:
                self._progress[request] = progress, since
                continue
            stack = self._overdue(request.scope) if self._overdue is not None else ""
            if not stack and request.task is not None:
                stack = waiting(request.task.get_coro())
            report(
                request,
                "its application has done nothing for %.1f s (request_timeout); %s; client %s; it stands here:\n%s",
                now - since,
                request.give_up(504),
                ":".join(map(str, request.client or ("unknown",))),
                stack.rstrip(),
            )
            request.cancel("request_timeout")

    def _end_abandoned(self, now: float) -> None:
        """End answers that go on although their client left `disconnect_grace` ago.

        A request whose answer has not begun is left alone, so that its work does not end half done.
        """
        for request, deadline in list(self.abandoned.items()):
            if request not in self.running or request.answered:
                del self.abandoned[request]
            elif deadline == inf:
                if request.begun:
                    self.abandoned[request] = now + self._patience
            elif deadline <= now:
                cancelled = request.abandon()
                del self.abandoned[request]
                if cancelled:
                    reason = "the stop has ended its stream" if self._stopping else "its client has gone"
                    log.info("request cancelled, %s: %s", reason, describe(request, now))


def report(request: Request, fault: str, *details: object, level: int = logging.ERROR, error: object = None) -> None:
    """Log a fault of the application, with its request's method, path and id.

    They are not taken from the scope, which the application may have changed or emptied.
    """
    text = "%s %s: " + fault
    log.log(
        level,
        text,
        request.method,
        request.target.partition(b"?")[0].decode("ascii", "backslashreplace"),
        *details,
        exc_info=error,  # type: ignore[arg-type]
        extra={"request_id": request.request_id},
    )


def describe(request: Request, now: float) -> str:
    """Return `GET /x, 31.2 s` (or `WEBSOCKET /x, 31.2 s`) for the log."""
    return f"{request.method} {request.target.decode('ascii', 'backslashreplace')}, {now - request.started:.1f} s"
