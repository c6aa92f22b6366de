"""A project of modules that a test writes and loads."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from aserver.errors import AppLoadError, ExitCode
from aserver.importer import LoadedApp, load

APP = "async def app(scope, receive, send): ...\n"


class Project:
    """A directory of modules; names begin with a prefix of their own where a test wants fresh imports."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str = APP) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def load(self, target: str, **more: Any) -> LoadedApp:
        return load(target, **{"app_dir": str(self.root), **more})

    def fail(self, target: str, **more: Any) -> AppLoadError:
        with pytest.raises(AppLoadError) as caught:
            self.load(target, **more)
        assert caught.value.exit_code is ExitCode.APP_LOAD
        return caught.value
