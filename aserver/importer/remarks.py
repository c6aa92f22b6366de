"""Remarks about the framework of a loaded app, for the log at the start: needs of it that this server does not meet.

Runs where the app was loaded (zygote, first lazy worker, `aserver check`, the embedding program). It recognises a
framework by the names of the loaded modules. For a framework with other names there is no remark, and nothing else
changes.
"""

import gc
import sys
from collections.abc import Iterator
from typing import Any

from aserver import unix
from aserver.config import Config
from aserver.importer.target import LoadedApp

#: Module: framework that keeps each browser's session in its process. marimo's is not loaded before an app is built.
_KEEPS_SESSIONS = {"nicegui": "NiceGUI", "marimo._server.session_manager": "marimo"}
#: Module: extension for WSGI that takes WebSockets from the socket that gunicorn and werkzeug put into `environ`.
_TAKES_SOCKETS = {"flask_socketio": "Flask-SocketIO", "flask_sock": "Flask-Sock"}


def remarks(loaded: LoadedApp, config: Config) -> Iterator[str]:
    """Yield the sentences. Call it before gc.freeze(), which hides objects from the look for socket.io's servers."""
    workers = config.workers if isinstance(config.workers, int) else unix.usable_cpus()
    polling = any("polling" in transports for transports in _socketio_transports())
    keeper = _first_loaded(_KEEPS_SESSIONS) or ("socket.io's long polling" if polling else None)
    if keeper is not None and workers > 1:
        yield (
            f"{keeper} keeps sessions in the process, and {workers} workers share the connections: requests reach "
            "workers that do not know their session; use --workers 1, or servers of one worker each behind a proxy "
            "with session affinity (docs/deploying.md, Sessions)"
        )
    taker = _first_loaded(_TAKES_SOCKETS)
    if taker is not None and loaded.interface == "wsgi":
        rest = "; its clients stay with long polling" if polling else ""
        yield (
            f"{taker} takes WebSockets from a raw socket in the WSGI environ, which is not there: they are refused"
            f"{rest}; WebSockets need an ASGI app, such as python-socketio's ASGIApp"
        )


def _first_loaded(names: dict[str, str]) -> str | None:
    return next((name for module, name in names.items() if module in sys.modules), None)


def _socketio_transports() -> list[Any]:
    """The transports of each socket.io server that was made. A program that is only a client has none."""
    kind = getattr(sys.modules.get("engineio.base_server"), "BaseServer", None)
    if kind is None:
        return []
    # By the type: isinstance() asks the object for its class, which may run the app's code.
    servers = [each for each in gc.get_objects() if issubclass(type(each), kind)]
    return [getattr(server, "transports", None) or ("polling", "websocket") for server in servers]
