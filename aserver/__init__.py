"""aserver: a production ASGI server.

`run("module:app", workers=4)` blocks and is what the command calls, `run(app)` serves an object in this process, and
`await serve(app)` serves inside a running loop.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aserver.errors import AppLoadError, AserverError, BindError, BootError, ConfigError, ExitCode
    from aserver.launch.run import run, serve

__all__ = [
    "AppLoadError",
    "AserverError",
    "BindError",
    "BootError",
    "ConfigError",
    "ExitCode",
    "__version__",
    "run",
    "serve",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the zygote and `aserver config` import this package too, and need no launcher.
    if name not in __all__:
        raise AttributeError(f"module 'aserver' has no attribute {name!r}")
    home = "aserver.launch.run" if name in ("run", "serve") else "aserver.errors"
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
