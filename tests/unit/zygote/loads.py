"""A module that is written and preloaded, as a zygote does."""

from pathlib import Path

from aserver.config import Config
from aserver.zygote.preload import Preloaded, preload

APP = "async def app(scope, receive, send):\n    pass\n"


def load(directory: Path, name: str, code: str, **settings: object) -> Preloaded:
    """Write the module `name` of `code` and an app into `directory`, and preload it."""
    (directory / f"{name}.py").write_text(code if "def app(" in code else f"{code}\n{APP}")
    return preload(Config(target=f"{name}:app", app_dir=str(directory), **settings))  # type: ignore[arg-type]
