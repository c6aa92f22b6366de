"""The app that the settings name: loaded, and made servable.

Runs in the zygote (preload), in a lazy worker, in `aserver check`. It must start no thread and no loop.
"""

from dataclasses import replace

from aserver import importer
from aserver.config import Config
from aserver.wsgi.application import WSGIApplication


def load_app(config: Config) -> importer.LoadedApp:
    """Import `config.target`, and make it servable. Raises AppLoadError."""
    assert config.target is not None
    loaded = importer.load(config.target, factory=config.factory, app_dir=config.app_dir, interface=config.interface)
    return servable(loaded, config)


def servable(loaded: importer.LoadedApp, config: Config) -> importer.LoadedApp:
    """Make an ASGI app of a WSGI app, and put `config.static` before it. Raises AppLoadError."""
    wsgi = WSGIApplication(loaded.app, config) if loaded.interface == "wsgi" else None
    app = wsgi or loaded.app
    if config.static:
        from aserver.static.app import with_static  # noqa: PLC0415 - rarely needed, and a start waits for each import

        app = with_static(app, config.static)
    return replace(loaded, app=app, wsgi=wsgi)
