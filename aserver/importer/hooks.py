"""The user's hooks from a Python settings file, with gunicorn's names and meanings.

Runs in the zygote and in workers. The master runs no user code, so hooks that gunicorn runs in its arbiter
(`on_starting`, `when_ready`, `nworkers_changed`, `on_reload`, `on_exit`, `pre_exec`) run in the zygote, when the master
says so. A hook that raises is logged and does no harm.

Source: https://docs.gunicorn.org/en/stable/settings.html#server-hooks
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from aserver.importer.hook_views import ServerView, WorkerView

__all__ = ["Hooks", "ServerView", "WorkerView"]

log = logging.getLogger("aserver.error")

_MODULE = "aserver_settings"


class Hooks:
    """The hooks of a settings file; without a file, and before `define`, `run` does nothing."""

    def __init__(self, path: str | None, names: tuple[str, ...], server: ServerView) -> None:
        """Read and compile the file, before privileges are dropped: only root may be allowed to read it."""
        self._functions: dict[str, Callable[..., Any]] = {}
        self._path, self._names = path, names
        self._code: CodeType | None = None
        self.server = server
        if path is not None and names:
            with self._reporting():
                self._code = compile(Path(path).read_bytes(), path, "exec")

    def define(self) -> None:
        """Run the file; its functions are the hooks. Call it when privileges are dropped: it is user code."""
        if self._code is None or self._path is None:
            return
        module = ModuleType(_MODULE)
        module.__file__ = self._path
        sys.modules[_MODULE] = module  # dataclasses and pickle look their module up there
        with self._reporting():
            exec(self._code, module.__dict__)  # noqa: S102 - the operator's settings file
            found = {name: module.__dict__.get(name) for name in self._names}
            self.server.namespace.update(vars(module))
            self._functions = {name: function for name, function in found.items() if callable(function)}

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            log.exception(
                "hooks of %s cannot be used: the file raised now, though it did not when it was read", self._path
            )

    def run(self, name: str, *arguments: object) -> None:
        """Call the hook `name` with `arguments`, if it is defined."""
        function = self._functions.get(name)
        if function is None:
            return
        try:
            function(*arguments)
        except Exception:
            log.exception("hook %s raised; the server goes on without it (pid %d)", name, os.getpid())
