"""One worker in the caller's event loop: what `serve(app)` does with an app object.

Runs in the embedding program. It starts no process, and no signal handler unless asked; what it opens it closes.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from functools import partial

import anyio.abc

from aserver.asgi import ASGIApp
from aserver.config import Config
from aserver.sockets import Address, Listener, bind_for
from aserver.tls import Certificates
from aserver.worker.acceptor import Endpoint
from aserver.worker.server import BEAT, Phase, Server

log = logging.getLogger("aserver.error")

#: Heartbeats between two looks at socket paths: a second.
TEND_BEATS = round(1 / BEAT)


@contextlib.contextmanager
def _bound(config: Config) -> Iterator[list[Listener]]:
    listeners = bind_for(config, config.bind, os.environ)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


@contextlib.contextmanager
def _stop_signals(server: Server, config: Config) -> Iterator[None]:
    """SIGTERM and SIGINT, as they are to a master: the first is patient, the second is not."""
    loop = asyncio.get_running_loop()
    patience = {signal.SIGTERM: config.graceful_timeout, signal.SIGINT: 0.0}
    for signum, graceful in patience.items():
        loop.add_signal_handler(signum, partial(server.drain, final=True, graceful=graceful))
    try:
        yield
    finally:
        for signum in patience:
            loop.remove_signal_handler(signum)


async def serve_here(
    app: ASGIApp,
    config: Config,
    task_status: anyio.abc.TaskStatus[tuple[Address, ...]],
    *,
    install_signal_handlers: bool,
) -> None:
    """Serve `app` until cancelled or, if it may hear them, signalled; then drain.

    Raises ConfigError, BindError or BootError.
    """
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
            """Once a second, as a master does: a deleted unix path comes back."""
            if server.beats % TEND_BEATS == 0 and server.phase is Phase.SERVING:
                for listener in listeners:
                    if (news := listener.tend()) is not None:
                        log.warning("%s", news)

        certificates = Certificates(config) if any(listener.tls for listener in listeners) else None
        endpoints = [Endpoint(li.socket, li.name, certificates if li.tls else None) for li in listeners]
        server = Server(app, config, endpoints, release, on_beat=tend)
        with _stop_signals(server, config) if install_signal_handlers else contextlib.nullcontext():
            await server.run(ready)
