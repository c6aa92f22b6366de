"""A real server for tests of an application: `with live_server(app) as url:`, and the pytest fixture `aserver_live`.

Runs in the process of the tests, in a thread with an event loop of its own, so that a debugger, coverage and mocks
reach the application. It reads neither settings files nor the environment: a test gives all settings.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from aserver.config.keywords import Settings

__all__ = ["LiveUrl", "live_server"]

#: A test waits for nothing that its own client has left open.
_DEFAULTS: dict[str, object] = {
    "bind": "127.0.0.1:0",
    "accesslog": "off",
    "graceful_timeout": 2,
    "idle_grace": 0,
    "stream_grace": 0,
}


class LiveUrl(str):
    """The address of a live server, `http://127.0.0.1:41234`, or `https://localhost:41234` with a certificate."""

    __slots__ = ()

    @property
    def ws(self) -> str:
        """The same for WebSockets: `ws://` or `wss://`."""
        return "ws" + self.removeprefix("http")


@contextlib.contextmanager
def live_server(app: Callable[..., Any], **settings: "Unpack[Settings]") -> Iterator[LiveUrl]:
    """Serve `app`, ASGI or WSGI, on a free port of 127.0.0.1, with lifespan; leaving stops it and waits.

    `settings` are those of docs/settings.md; with `certfile` and `keyfile` it is https. Raises ConfigError,
    AppLoadError, BindError or BootError.
    """
    # Imported only here: pytest imports this package at each start, for the fixture.
    from anyio.from_thread import start_blocking_portal  # noqa: PLC0415

    from aserver.config import Layer, build  # noqa: PLC0415
    from aserver.launch.embedded import serve_here  # noqa: PLC0415

    resolved = build([Layer("argument", settings), Layer("live_server", _DEFAULTS)])
    serve = partial(serve_here, app, resolved, install_signal_handlers=False)
    with start_blocking_portal("asyncio", {"use_uvloop": True}) as portal:
        serving, addresses = portal.start_task(serve)
        try:
            yield _url(addresses[0], tls=bool(resolved.config.certfile))
        finally:
            serving.cancel()


def _url(address: tuple[str, int] | str, *, tls: bool) -> LiveUrl:
    if isinstance(address, str):  # a unix socket's path
        return LiveUrl(address)
    host, port = address
    # Certificates for tests are made for a name.
    return LiveUrl(f"https://localhost:{port}" if tls else f"http://{f'[{host}]' if ':' in host else host}:{port}")
