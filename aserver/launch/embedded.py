"""A worker in the caller's event loop, for `serve(app)` with an app object.

Runs in the embedding program. It starts no process, installs no signal handler unless asked, and closes all that it has
opened.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.abc

from aserver.config import Config
from aserver.importer import adapt, remarks
from aserver.log.access.recorder import AccessLog
from aserver.log.opening import open_log
from aserver.log.setup import report_access_log
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
async def _access_log(config: Config) -> AsyncIterator[AccessLog | None]:
    """The access log, written by a sink of ours. Only errors of the log go to the caller's logging."""
    if config.accesslog is None:
        yield None
        return
    sink = Sink.for_fd(open_log(config.accesslog, which="access"), name="access log", bound=ACCESS_BOUND)
    sink.report = report_access_log
    try:
        access = AccessLog(config, sink)
        sink.attach(asyncio.get_running_loop())
        yield access
    finally:
        with anyio.move_on_after(LAST_LINES, shield=True):  # not `close()`, which would keep the caller's loop waiting
            while sink.batch or sink.state is SinkState.BLOCKED:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(LOOK_PAUSE)
        sink.close(0.0)


async def serve_here(
    app: Callable[..., Any],
    config: Config,
    task_status: anyio.abc.TaskStatus[tuple[Address, ...]],
    *,
    install_signal_handlers: bool,
) -> None:
    """Serve `app` until this is cancelled or, with `install_signal_handlers`, a signal comes; then drain.

    Raises AppLoadError, ConfigError, BindError or BootError.
    """
    loaded = adapt(app, f"the {type(app).__name__} object", config.interface)
    for remark in remarks(loaded, config):
        log.warning("%s", remark)
    async with _access_log(config) as access:
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
            server = Server(loaded.app, config, endpoints, release, access=access, on_beat=tend)
            with _stop_signals(server, config) if install_signal_handlers else contextlib.nullcontext():
                await server.run(ready)
