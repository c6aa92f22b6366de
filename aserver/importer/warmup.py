"""The warm-up of a loaded app (`preload_warmup`): functions are called, and requests run through the app.

Runs in the zygote (preload) and in `aserver check`, in loops that are gone before the fork. Workers share the memory
that it has touched. The census finds connections, threads and the like that it leaves open. Lifespan startup does not
run, since it would open what a fork breaks. It must not end a start because a request fails: the request may need
lifespan startup.
"""

import asyncio
import inspect
from collections.abc import Iterator
from urllib.parse import unquote

import uvloop

from aserver import __version__, importer
from aserver.asgi import VERSIONS, ASGIApp, Message
from aserver.config import Config
from aserver.errors import AppLoadError

#: Seconds for a request, which may wait for a task that only lifespan startup would begin.
PATIENCE = 10.0


def warm_up(config: Config, loaded: importer.LoadedApp) -> Iterator[str]:
    """Yield a sentence for each request that had no good answer. Raises AppLoadError for functions that fail."""
    for entry in config.preload_warmup:
        method, _, target = entry.partition(" ")
        if not target:
            _call(entry, config)
        elif loaded.wsgi is not None:
            raise AppLoadError(f"preload_warmup {entry}: a WSGI application is warmed up by a function alone")
        elif (fault := _ask(loaded.app, method, target, config.root_path)) is not None:
            yield f"preload_warmup {entry} {fault}; the workers start all the same (lifespan startup has not run)"


def _call(target: str, config: Config) -> None:
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


def _ask(app: ASGIApp, method: str, target: str, root_path: str) -> str | None:
    """Run a request through `app`; return what was wrong with its answer."""
    statuses: list[int] = []
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": VERSIONS.copy(),
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "root_path": root_path,
        "path": root_path + unquote(path),
        "raw_path": (root_path + path).encode("ascii"),
        "query_string": query.encode("ascii"),
        "headers": [(b"host", b"localhost"), (b"user-agent", f"aserver/{__version__} (preload_warmup)".encode())],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 0),
        "state": {},
        "extensions": {},
    }
    events = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return next(events, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def ask() -> None:
        async with asyncio.timeout(PATIENCE):
            await app(scope, receive, send)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(ask())
    except TimeoutError:
        return f"was not answered within {PATIENCE:g} s"
    except Exception as error:  # noqa: BLE001 - the application's, and the log has it
        return f"raised {error!r}"
    if not statuses:
        return "was not answered"
    return f"was answered {statuses[0]}" if statuses[0] >= 400 else None
