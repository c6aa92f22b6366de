"""The app that the settings name: loaded, and with `preload_warmup` warmed up in a loop that is gone before the fork.

Runs in the zygote (preload), in a lazy worker, in `aserver check`. Workers share the memory that the warm-up has
touched (a worker's own memory went from 40 to 9.5 MB, docs/design.md). The census finds connections and the like that
the warm-up leaves open.
"""

import asyncio
import inspect
from dataclasses import replace

import uvloop

from aserver import importer
from aserver.config import Config
from aserver.errors import AppLoadError
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


def warm_up(config: Config) -> None:
    """Call `preload_warmup`, sync or async, if it is set. Raises AppLoadError if it cannot be found or raises."""
    target = config.preload_warmup
    if target is None:
        return
    hook = importer.load_object(target, app_dir=config.app_dir)
    if not callable(hook):
        raise AppLoadError(f"preload_warmup {target} is not a function but {type(hook).__name__}")
    try:
        if inspect.iscoroutinefunction(hook):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(hook())
        else:
            hook()
    except Exception as error:
        raise AppLoadError(f"preload_warmup {target} raised {error!r}", importer.user_traceback(error)) from error
