"""A worker in the caller's process, for `serve(app)` and `run(app)` with an app object.

Runs in the embedding program: `serve_here` in its event loop, `run_here` in a loop of its own. It starts no process,
installs no signal handler unless asked, and closes all that it has opened.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.abc
import uvloop

from aserver import __version__, standard_streams
from aserver.config import Config, Resolved
from aserver.errors import ConfigError, ExitCode
from aserver.importer import adapt, remarks
from aserver.importer.application import servable
from aserver.log.access.recorder import AccessLog
from aserver.log.opening import open_log
from aserver.log.setup import Lines, configure, report_access_log
from aserver.log.sink import ACCESS_BOUND, Sink, SinkState
from aserver.log.waker import LOOK_PAUSE
from aserver.sockets import Address, Listener, bind_for
from aserver.tls import Certificates
from aserver.worker.acceptor import Endpoint
from aserver.worker.fork_guard import ForkGuard
from aserver.worker.server import BEAT, Server

log = logging.getLogger("aserver.error")

#: Seconds for the last access lines if the reader of the log is slow.
LAST_LINES = 1.0
#: Heartbeats between two looks at socket paths: a second.
TEND_BEATS = round(1 / BEAT)
#: Settings of a server that has processes of its own, and sets them up before the application is imported.
OF_PROCESSES = (
    "workers",
    "preload_warmup",
    "pidfile",
    "user",
    "group",
    "umask",
    "chdir",
    "env",
    "env_file",
    "capture_output",
    "daemon",
    "control",
    "admin",
    "reload",
)


@contextlib.contextmanager
def _bound(config: Config) -> Iterator[list[Listener]]:
    listeners = bind_for(config, config.bind, os.environ)
    guard = ForkGuard(listener.socket.fileno() for listener in listeners)
    guard.begin()
    try:
        yield listeners
    finally:
        guard.end()
        for listener in listeners:
            listener.close()


@contextlib.contextmanager
def _stop_signals(server: Server, config: Config) -> Iterator[None]:
    """Obey SIGTERM and SIGINT as a master does: SIGTERM gives requests `graceful_timeout`, SIGINT ends them at once."""
    loop = asyncio.get_running_loop()
    patience = {signal.SIGTERM: config.graceful_timeout, signal.SIGINT: 0.0}
    for signum, graceful in patience.items():
        loop.add_signal_handler(signum, partial(server.drain, final=True, graceful=graceful))
    handler = signal.getsignal(signal.SIGTERM)  # the loop's own, the same for all signals
    guard = ForkGuard(handlers=lambda: [handler])
    guard.begin()
    try:
        yield
    finally:
        guard.end()
        for signum in patience:
            loop.remove_signal_handler(signum)


@contextlib.asynccontextmanager
async def _access_sink(config: Config) -> AsyncIterator[Lines | None]:
    """The target of access lines, a sink of ours. Only errors of the log go to the caller's logging."""
    if config.accesslog is None:
        yield None
        return
    sink = Sink.for_fd(open_log(config.accesslog, which="access"), name="access log", bound=ACCESS_BOUND)
    sink.report = report_access_log
    try:
        sink.attach(asyncio.get_running_loop())
        yield sink
    finally:
        with anyio.move_on_after(LAST_LINES, shield=True):  # not `close()`, which would keep the caller's loop waiting
            while sink.batch or sink.state is SinkState.BLOCKED:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(LOOK_PAUSE)
        sink.close(0.0)


def _weigh(resolved: Resolved) -> Iterator[str]:
    """A sentence for each setting that an app object cannot have. Raises ConfigError for those that are arguments."""
    for name in OF_PROCESSES:
        value, origin = getattr(resolved.config, name), resolved.origins[name]
        if origin == "default" or value == getattr(Config(), name):
            continue
        told = f"{name} = {value!r} ({origin}): an app object is served by one worker, in this process"
        if origin == "argument":
            raise ConfigError(f'{told}; give a target string, such as "module:app", for more')
        yield f"{told}, so this does nothing"


def run_here(app: Callable[..., Any], resolved: Resolved) -> ExitCode:
    """`run(app)`: serve in a loop of our own until a signal ends it. In a thread no signal does."""
    standard_streams.keep()
    signals = threading.current_thread() is threading.main_thread()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_logged(app, resolved, signals=signals))
    return ExitCode.OK


async def _serve_logged(app: Callable[..., Any], resolved: Resolved, *, signals: bool) -> None:
    """Serve with logs as the command has them."""
    config = resolved.config
    logs = configure(
        config,
        process="server",
        error_fd=open_log(config.errorlog, which="error"),
        access_fd=None if config.accesslog is None else open_log(config.accesslog, which="access"),
        loop=asyncio.get_running_loop(),
    )
    try:
        logs.serve_others()
        log.info("aserver %s, pid %d: Ctrl-C stops", __version__, os.getpid())
        for message in (*resolved.notes, *resolved.warnings, *_weigh(resolved)):
            log.warning("%s", message)
        await _serve(app, config, logs.lines, anyio.TASK_STATUS_IGNORED, signals=signals)
        log.info("stopped")
    finally:
        logs.close()


async def serve_here(
    app: Callable[..., Any],
    resolved: Resolved,
    task_status: anyio.abc.TaskStatus[tuple[Address, ...]],
    *,
    install_signal_handlers: bool,
) -> None:
    """`serve(app)`: serve in the caller's loop and with its logging, until this is cancelled or a signal comes."""
    for warning in _weigh(resolved):
        log.warning("%s", warning)
    config = resolved.config
    async with _access_sink(config) as lines:
        await _serve(app, config, lines, task_status, signals=install_signal_handlers)


async def _serve(
    app: Callable[..., Any],
    config: Config,
    lines: Lines | None,
    task_status: anyio.abc.TaskStatus[tuple[Address, ...]],
    *,
    signals: bool,
) -> None:
    """Serve `app` until this is cancelled or, with `signals`, a signal comes; then drain.

    Raises AppLoadError, ConfigError, BindError or BootError.
    """
    loaded = adapt(app, f"the {type(app).__name__} object", config.interface, factory=config.factory)
    loaded = servable(loaded, config)
    for remark in remarks(loaded, config):
        log.warning("%s", remark)
    access = None if lines is None else AccessLog(config, lines)
    with _bound(config) as listeners:

        def release() -> None:
            for listener in listeners:
                listener.close()

        def ready() -> None:
            for listener in listeners:
                listener.listen(config.backlog)
                log.info("listening on %s", listener.name)
            task_status.started(tuple(listener.address for listener in listeners))

        def tend(server: Server) -> None:
            """Once a second, as a master does, make a unix socket's path again that has been deleted."""
            if server.beats % TEND_BEATS == 0:
                for listener in listeners:
                    if (news := listener.tend()) is not None:
                        log.warning("%s", news)

        certificates = Certificates(config) if any(listener.tls for listener in listeners) else None
        endpoints = [Endpoint(li.socket, li.name, certificates if li.tls else None) for li in listeners]
        server = Server(loaded.app, config, endpoints, release, access=access, on_beat=tend, wsgi=loaded.wsgi)
        with _stop_signals(server, config) if signals else contextlib.nullcontext():
            await server.run(ready)
