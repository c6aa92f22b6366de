"""The admin endpoint's process: takes its listeners from the master, drops its rights, serves until the master goes.

The first message from the master is the settings as JSON, with the descriptors of the trace (`log.crash`), of the error
log and of the listeners.
"""

import asyncio
import faulthandler
import json
import os
import select
import socket
from functools import partial
from typing import Any

import anyio
import msgspec
import uvloop

from aserver import privileges, unix
from aserver.admin.app import AdminApp
from aserver.admin.line import MasterLine
from aserver.config import Config, Layer, Resolved, build
from aserver.launch.embedded import serve_here
from aserver.log.setup import configure

#: Of the first message: bytes read at once, and descriptors at most.
_PIECE, _MOST_FDS = 1 << 16, 64
#: The settings of a small server. It must end quickly, since at an upgrade another process takes over.
_SETTINGS: dict[str, object] = {
    "interface": "asgi",
    "lifespan": "off",
    "accesslog": "off",
    "proxy_headers": False,
    "limit_connections": 256,
    "limit_request_body": 1,
    "keep_alive": 20,
    "graceful_timeout": 1,
    "idle_grace": 0.2,
    "slow_callback": 0,
}


def main(fd: int) -> None:
    """Be the admin endpoint; the master has the other end of the socket `fd`."""
    line = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    settings, fds = _first_message(line)
    if not fds:
        return  # the master has gone already
    config = Config.from_wire(settings)
    trace, *fds = fds
    faulthandler.enable(file=trace, all_threads=True)
    # The master has told where it listens; and a `log_config` may name classes of the application.
    level = "warning" if config.loglevel in ("debug", "info") else config.loglevel
    config = msgspec.structs.replace(config, loglevel=level, log_config=None, capture_output=False)
    unix.set_process_title(f"{config.proc_name}: admin")
    privileges.drop_privileges(config.user, config.group)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, line, fds))


def _first_message(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, fds = b"", list[int]()
    while not data.endswith(b"\n"):
        select.select([line], [], [])
        piece, more, _, _ = socket.recv_fds(line, _PIECE, _MOST_FDS)
        if not piece:
            return {}, []
        data += piece
        fds += more
    for each in fds:
        os.set_inheritable(each, False)
    return json.loads(data), fds


async def _serve(config: Config, line: socket.socket, fds: list[int]) -> None:
    error_fd, *listeners = fds
    logs = configure(config, process="admin", error_fd=error_fd, loop=asyncio.get_running_loop())
    bind = [f"fd://{each}" for each in listeners]
    resolved: Resolved = build([Layer("admin", {**_SETTINGS, "bind": bind})])
    master = MasterLine(line)
    try:
        async with anyio.create_task_group() as group:
            serve = partial(serve_here, AdminApp(master), resolved, anyio.TASK_STATUS_IGNORED)
            group.start_soon(partial(serve, install_signal_handlers=False))
            await master.listen()
            group.cancel_scope.cancel()
    finally:
        logs.close()
