"""What is said at the start of an app whose framework does not get what it needs."""

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from aserver.config import Config
from aserver.importer import LoadedApp, remarks
from aserver.importer.interface import Interface
from tests.apps.raw import app

Loads = Callable[[str], ModuleType]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Make an empty module count as loaded."""

    def load(name: str) -> ModuleType:
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return load


def _said(workers: int = 2, interface: Interface = "asgi") -> list[str]:
    return list(remarks(LoadedApp(app, interface, "some:app"), Config(target="some:app", workers=workers)))


def _socketio_server(loads: Loads, *transports: str) -> object:
    """As python-socketio makes one."""

    class BaseServer:
        def __init__(self) -> None:
            self.transports = list(transports)

    loads("engineio.base_server").BaseServer = BaseServer  # type: ignore[attr-defined]
    return BaseServer()


def test_of_most_apps_there_is_nothing_to_say() -> None:
    assert _said() == _said(interface="wsgi") == []


@pytest.mark.parametrize(("module", "name"), [("nicegui", "NiceGUI"), ("marimo._server.session_manager", "marimo")])
def test_sessions_in_memory_want_one_worker(loads: Loads, module: str, name: str) -> None:
    """Fails without the row of `_KEEPS_SESSIONS`, and where one worker is warned of."""
    loads(module)
    (said,) = _said(3)
    assert said.startswith(f"{name} keeps sessions in the process, and 3 workers share the connections: ")
    assert "use --workers 1" in said
    assert _said(1) == []


def test_long_polling_wants_one_worker(loads: Loads) -> None:
    """Fails without the look for servers."""
    server = _socketio_server(loads, "polling", "websocket")
    (said,) = _said()
    assert said.startswith("socket.io's long polling keeps sessions")
    assert server


def test_websockets_alone_do_not(loads: Loads) -> None:
    """A socket.io connection stays with its worker. Fails with any server taken for one that polls."""
    server = _socketio_server(loads, "websocket")
    assert _said() == []
    assert server


def test_a_client_of_socketio_is_no_server(loads: Loads) -> None:
    """Fails with the module alone taken for a sign."""
    loads("engineio.base_server").BaseServer = type("BaseServer", (), {})  # type: ignore[attr-defined]
    assert _said() == []


@pytest.mark.parametrize(("module", "name"), [("flask_socketio", "Flask-SocketIO"), ("flask_sock", "Flask-Sock")])
def test_websockets_by_a_raw_socket_are_not_to_be_had(loads: Loads, module: str, name: str) -> None:
    """In WSGI apps. Fails without the row of `_TAKES_SOCKETS`, and without the look at the interface."""
    loads(module)
    (said,) = _said(1, "wsgi")
    assert said.startswith(f"{name} takes WebSockets from a raw socket in the WSGI environ, which is not there: ")
    assert "long polling" not in said
    assert _said(1, "asgi") == []


def test_flask_socketio_stays_with_long_polling(loads: Loads) -> None:
    """So it works, and with several workers it wants affinity as well."""
    loads("flask_socketio")
    server = _socketio_server(loads, "polling", "websocket")
    affinity, sockets = _said(2, "wsgi")
    assert "socket.io's long polling keeps sessions" in affinity
    assert "its clients stay with long polling" in sockets
    assert server
