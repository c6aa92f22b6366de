"""aserver: a production ASGI server.

`run("module:app", workers=4)` blocks and is what the command calls; `await serve(app)` serves inside a running loop.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aserver.config import Config
    from aserver.launch.run import run, serve

__all__ = ["Config", "__version__", "run", "serve"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the zygote and `aserver config` import this package too, and need neither.
    if name in ("run", "serve"):
        import aserver.launch.run  # noqa: PLC0415

        return getattr(aserver.launch.run, name)
    if name == "Config":
        from aserver.config import Config  # noqa: PLC0415

        return Config
    raise AttributeError(f"module 'aserver' has no attribute {name!r}")
