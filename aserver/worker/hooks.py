"""The user's hooks from a Python settings file, with gunicorn's names and meanings.

Runs in the zygote and in workers; the master runs no user code, so what gunicorn runs in its arbiter (`on_starting`,
`when_ready`, `nworkers_changed`, `on_reload`, `on_exit`, `pre_exec`) runs in the zygote, when the master says so. A
hook that raises is reported and does no harm.

Source: https://docs.gunicorn.org/en/stable/settings.html#server-hooks
"""

import logging
import os
import runpy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aserver.config import Config

log = logging.getLogger("aserver.error")


@dataclass(frozen=True, slots=True)
class ServerView:
    """What a hook gets as `server`."""

    cfg: Config
    generation: int
    master_pid: int
    log: logging.Logger = log

    @property
    def pid(self) -> int:
        """The master's, as under gunicorn."""
        return self.master_pid


@dataclass(slots=True)
class WorkerView:
    """What a hook gets as `worker`."""

    cfg: Config
    age: int
    slot: int
    generation: int
    pid: int | None = None
    log: logging.Logger = field(default=log)


class Hooks:
    """The hooks of one settings file; without one, `run` does nothing."""

    def __init__(self, path: str | None, names: tuple[str, ...], server: ServerView) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        self.server = server
        if path is None or not names:
            return
        try:
            namespace = runpy.run_path(path, run_name="aserver_settings")
        except Exception:
            log.exception("hooks of %s cannot be used: the file raised now, though it did not when it was read", path)
            return
        self._functions = {name: namespace[name] for name in names if callable(namespace.get(name))}

    def run(self, name: str, *arguments: object) -> None:
        """Call a hook if there is one."""
        function = self._functions.get(name)
        if function is None:
            return
        try:
            function(*arguments)
        except Exception:
            log.exception("hook %s raised; the server goes on without it (pid %d)", name, os.getpid())
