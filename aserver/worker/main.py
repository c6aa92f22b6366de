"""The worker process, from the instant after the fork to `os._exit`.

Runs in the worker, in a copy of the zygote's memory. The zygote's half of the fork (zygote/main.py) has closed the
descriptors that a worker must not have. Signal handlers only wake the loop: on SIGTERM the worker asks to be recycled;
a terminal's SIGINT and SIGQUIT are left to the master. It must never return into the zygote's code.
"""

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import uvloop

from aserver import importer, standard_streams, terminal, unix
from aserver.asgi import ASGIApp
from aserver.config import Config
from aserver.errors import AppLoadError, AserverError, BootError, ChannelError, ExitCode
from aserver.importer.application import load_app
from aserver.importer.bytecode import keep_fresh_bytecode_out
from aserver.importer.hooks import Hooks, WorkerView
from aserver.ipc.board import Board, Debugged, Field
from aserver.ipc.channel import Channel
from aserver.ipc.messages import BootFailed, Drain, Fork, Look, MoreFiles, Ready, RecycleAsked, ToWorker, in_pieces
from aserver.log.access.recorder import AccessLog
from aserver.log.setup import Logging, shows_colours
from aserver.worker.acceptor import Endpoint
from aserver.worker.debugger import DebuggerWatch
from aserver.worker.development import DevelopedApp, welcome
from aserver.worker.exit import ProcessExit, disown_exit_hooks
from aserver.worker.fairness import Fairness
from aserver.worker.fork_guard import DUMP_SIGNAL, ForkGuard
from aserver.worker.heap import Heap
from aserver.worker.inspection import inspect
from aserver.worker.multiprocess import merge_dead
from aserver.worker.recycling import RecycleLimits
from aserver.worker.relay import Relay
from aserver.worker.server import Server

log = logging.getLogger("aserver.error")

#: The signals that a terminal or supervisor sends to the whole group; DUMP_SIGNAL, the only other, has a handler of
#: its own. While the loop runs, SIGTERM asks for the worker's recycling.
_PASSING = terminal.GROUP_SIGNALS - {DUMP_SIGNAL}
#: The loop hears of these. Its handler would take the place of an ignored TTIN or TTOU (terminal.leave_to_master).
_HEARD = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

#: Seconds that the master may take for each part of the last message before the worker leaves without it.
LAST_MESSAGE = 5.0
#: The serial of a server's first worker. If workers load the app themselves, only the first logs remarks about the app.
FIRST = 1


@dataclass(frozen=True, slots=True)
class Seed:
    """All that the zygote hands to a worker."""

    order: Fork
    generation: int
    config: Config
    app: importer.LoadedApp | None  # None: lazy, the worker loads it itself
    endpoints: Sequence[Endpoint]
    board: Board
    channel: socket.socket
    trace: int
    logs: Logging
    hooks: Hooks
    view: WorkerView
    on_loaded: Callable[[], None] | None = None  # for a worker that loads the app itself
    relay: Relay | None = None
    heap: Heap | None = None  # of the preloaded app, with `max_memory`


def run(seed: Seed) -> NoReturn:
    """Be the worker. Ends the process."""
    disown_exit_hooks()
    worker = WorkerProcess(seed)
    try:
        code = worker.run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else ExitCode.UNEXPECTED
    except BaseException:
        log.critical("the worker failed", exc_info=True)
        code = ExitCode.UNEXPECTED
    worker.exit.go(code)


class WorkerProcess:
    """The process around a `Server`: its signals, its channel to the master, and its end."""

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._order = seed.order
        self._channel: Channel[ToWorker] = Channel(seed.channel, ToWorker)
        self._server: Server | None = None
        config = seed.config
        self._recycle_limits = RecycleLimits(seed.order, time.monotonic(), config.max_memory, config.memory_metric)
        self._wsgi = seed.app.wsgi if seed.app is not None else None
        self._asked = ""  # why it has asked to be recycled
        self._heap: Heap | None = None
        self._loop_handlers: list[object] = []  # those that the loop installs, to be woken by signals
        own = (seed.channel.fileno(), *(endpoint.sock.fileno() for endpoint in seed.endpoints))
        self._fork_guard = ForkGuard(own, lambda: self._loop_handlers, traced=True)
        self._cell = seed.board.cell(self._order.cell)
        single = config.workers == 1
        self._debugger = DebuggerWatch(self._on_debugger) if single else None
        self.exit = ProcessExit(
            seed.logs,
            inherits=True,
            beat=self._beat,
            listen=self._listen,
            first=lambda: seed.hooks.run("worker_exit", seed.hooks.server, seed.view),
        )

    def run(self) -> int:
        """Load, serve, drain; returns the exit code."""
        seed = self._seed
        seed.view.pid = os.getpid()
        unix.set_process_title(f"{seed.config.proc_name}: worker {self._order.slot} (generation {seed.generation})")
        terminal.leave_to_master(_PASSING)
        faulthandler.register(DUMP_SIGNAL, file=seed.trace, all_threads=True, chain=False)
        faulthandler.enable(file=seed.trace, all_threads=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # blocked since before the fork: now the handlers are ours
        self._fork_guard.begin()
        gc.enable()
        try:
            seed.hooks.run("post_fork", seed.hooks.server, seed.view)
            app = seed.app.app if seed.app else self._load()
        except AppLoadError as error:
            return self._boot_failed(error, error.detail)
        self._heap = seed.heap
        if seed.app is None:
            self._heap = Heap() if seed.config.max_memory else None
            gc.freeze()  # as the zygote does after preload: it takes half a second out of each full collection
        merge_dead(os.environ)
        seed.hooks.run("post_worker_init", seed.view)
        standard_streams.keep()  # the app may have closed some; libuv aborts at its own below 3
        # The loop is made now, not before: an app that runs a loop of its own at import must find none running.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._main(app))

    def _load(self) -> ASGIApp:
        """Load the app in this process. Raises AppLoadError."""
        config = self._seed.config
        if config.reload:
            keep_fresh_bytecode_out()
        try:
            loaded = load_app(config)
        except AppLoadError as error:
            if not self._shows_failures:
                raise
            return self._failure(error, error.detail)
        finally:
            if self._seed.on_loaded is not None:
                self._seed.on_loaded()
        self._wsgi = loaded.wsgi
        if self._order.serial == FIRST:
            for remark in importer.remarks(loaded, config):
                log.warning("%s", remark)
        if not config.reload:
            return loaded.app
        if self._order.serial == FIRST:
            log.info("%s", welcome(loaded.app, [endpoint.name for endpoint in self._seed.endpoints]))
        return DevelopedApp(loaded.app, live=config.live)

    @property
    def _shows_failures(self) -> bool:
        """Whether a failure of the app is served as a page, instead of ending this process."""
        config = self._seed.config
        return config.reload and (not config.keep_serving or self._order.serial == FIRST)

    def _failure(self, error: AserverError, detail: str) -> ASGIApp:
        """Log a failure of the app; returns the app that shows it."""
        detail = importer.users_part(detail).rstrip()
        log.error("%s%s", error, f"\n{detail}" if detail else "")
        return DevelopedApp(None, failure=detail or str(error))

    def _boot_failed(self, error: AserverError, detail: str) -> int:
        self._channel.send(BootFailed(self._order.serial, error.exit_code, str(error), detail))
        self._channel.flush_blocking(LAST_MESSAGE)
        return error.exit_code

    async def _main(self, app: ASGIApp) -> int:
        code: int = ExitCode.UNEXPECTED
        try:
            code = await self._serve(app)
        finally:
            unix.let_others_first()
            # From here on the loop may stand still: its own end waits for the threads of its executor.
            self.exit.begin(code, self._server.time_left if self._server is not None else 0.0)
        if self._heap is not None and self._asked.endswith("(max_memory)"):
            log.info(
                "objects that have grown since boot: %s", ", ".join(self._heap.growth()) or "none in Python's heap"
            )
        return code

    async def _serve(self, app: ASGIApp) -> int:
        seed, loop = self._seed, asyncio.get_running_loop()
        seed.logs.set_process(f"worker {self._order.slot}/g{seed.generation}", loop)
        # loop.add_signal_handler is a wake-up: the callback runs in the loop, never in signal context.
        loop.add_signal_handler(signal.SIGTERM, self._ask, "it got SIGTERM")
        for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            loop.add_signal_handler(signum, _nothing)
        self._loop_handlers.append(signal.getsignal(signal.SIGTERM))  # the same for all signals
        logs = seed.logs
        colour = logs.access is not None and shows_colours(logs.access.kind)
        access = AccessLog(seed.config, logs.lines, colour=colour) if logs.lines is not None else None
        self._server = self._make_server(app, access)
        loop.add_reader(self._channel.fileno(), self._on_message)
        self._channel.flush_by(loop)
        try:
            try:
                await self._server.run(self._on_ready)
            except BootError as error:
                if not self._shows_failures or self._server.service is not None:
                    raise
                page = self._failure(error, "\n".join(getattr(error, "__notes__", ())))
                self._server = self._make_server(page, access)
                await self._server.run(self._on_ready)
        except BootError as error:
            return self._boot_failed(error, "\n".join(getattr(error, "__notes__", ())))
        except OSError as error:  # of the loop or of a listener, such as too many open files: the master logs why
            return self._boot_failed(BootError(repr(error)), traceback.format_exc())
        finally:
            loop.remove_reader(self._channel.fileno())
            self._channel.flush_by(None)
            with terminal.blocked(_PASSING):  # the loop sets the defaults, which would cut off the exit hooks
                for signum in _HEARD:
                    loop.remove_signal_handler(signum)
                unix.ignore_signals(_HEARD)
        return ExitCode.OK

    def _make_server(self, app: ASGIApp, access: AccessLog | None) -> Server:
        seed = self._seed
        return Server(
            app,
            seed.config,
            seed.endpoints,
            release=self._close_listeners,
            access=access,
            cell=self._cell,
            note=seed.board.writer(self._order.cell) if seed.config.slow_callback else None,
            fairness=Fairness(seed.board, self._order.cell),
            on_beat=self._on_beat,
            page=seed.board.page(self._order.cell),
            dropped=lambda: seed.logs.dropped,
            relay=seed.relay,
            wsgi=self._wsgi,
            readiness=seed.board.readiness,
        )

    def _on_ready(self) -> None:
        *parts, last = in_pieces(importer.fingerprint() if self._seed.app is None else {})
        for part in parts:
            self._channel.send(MoreFiles(part))
        self._channel.send(Ready(self._order.serial, last))
        unix.let_others_first(enable=False)

    def _on_message(self) -> None:
        assert self._server is not None
        server = self._server
        self._hear(
            lambda order: server.drain(final=order.final, graceful=order.graceful),
            lambda look: self._channel.send(inspect(look, self._order.serial, server.service, server.owed)),
        )
        if self._channel.eof:
            # The master is gone, and no other worker will take the connections that come: this is a final drain.
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            log.error("the master is gone: this worker drains and leaves")
            server.drain(final=True, graceful=self._seed.config.graceful_timeout)

    def _listen(self, seconds: float) -> None:
        """Hear the master after the loop has ended: orders to hurry, reopened logs. Runs in the thread of `exit`."""
        if unix.readable([] if self._channel.eof else [self._channel.fileno()], seconds):
            # The main thread has just closed the logs; or the master is broken, and its channel cut off by `receive`.
            with contextlib.suppress(OSError, ChannelError):
                self._hear(lambda order: self.exit.hurry(order.graceful))

    def _hear(self, drain: Callable[[Drain], None], look: Callable[[Look], None] | None = None) -> None:
        """Take in the master's orders: to drain, to tell its requests, or to go on in reopened logs."""
        for message, fds in self._channel.receive():
            if isinstance(message, Drain):
                drain(message)
            elif isinstance(message, Look):
                if look is not None:  # else the master takes the trace instead
                    look(message)
            else:
                self._seed.logs.replace(fds[0], fds[1] if len(fds) > 1 else None)

    def _on_debugger(self, state: Debugged) -> None:
        self._cell[Field.DEBUGGED] = state
        if state is Debugged.NO:
            log.debug("the debugger has gone")

    def _beat(self) -> None:
        self._cell[Field.BEAT] = time.monotonic_ns()

    def _on_beat(self, server: Server) -> None:
        if self._debugger is not None:
            self._debugger.look()
        if self._asked or server.service is None:
            return
        if server.stuck:
            self._ask("a thread of its WSGI application is stuck in a request (request_timeout)")
        elif reason := self._recycle_limits.reached(server.service.requests, time.monotonic()):
            self._ask(reason)

    def _ask(self, reason: str) -> None:
        self._asked = reason
        self._channel.send(RecycleAsked(self._order.serial, reason))

    def _close_listeners(self) -> None:
        for endpoint in self._seed.endpoints:
            endpoint.sock.close()


def _nothing() -> None:
    """Handle a signal that a terminal or supervisor sends to the whole group: the master obeys it."""
