"""The objects that hooks are given as `server` and `worker`, with the attributes that gunicorn's have.

Runs in the zygote and in workers. They only show: an attribute that a hook sets changes nothing in the server.

Source: gunicorn 27, `gunicorn.arbiter.Arbiter`, `gunicorn.workers.base.Worker`, `gunicorn.glogging.Logger`.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aserver import __version__
from aserver.config import Config
from aserver.config.schema import NAMES

log = logging.getLogger("aserver.error")


class LogView(logging.LoggerAdapter[logging.Logger]):
    """`server.log`: a logger's methods, and gunicorn's two loggers by name."""

    error_log = log
    access_log = logging.getLogger("aserver.access")

    def __init__(self) -> None:
        super().__init__(log, {})

    def reopen_files(self) -> None:
        """Nothing: the master opens log files again at SIGUSR1."""


class SettingsView:
    """`server.cfg`: each setting by its name here and by gunicorn's. Values without a setting here are the file's.

    Raises AttributeError for a name that neither aserver nor gunicorn has a setting for.
    """

    def __init__(self, config: Config, namespace: Mapping[str, Any]) -> None:
        self.config = config
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        if (setting := NAMES.get(name)) is not None:
            return _as_gunicorn_has_it(setting, getattr(self.config, setting))
        if name in self._namespace and not name.startswith("_"):
            return self._namespace[name]
        from aserver.config import foreign  # noqa: PLC0415 - 10 ms that a zygote without such a hook does not need

        verdict = foreign.SERVERS["gunicorn"].verdict(name)
        if verdict is None:
            raise AttributeError(f"cfg.{name}: neither aserver nor gunicorn has a setting {name}")
        return getattr(self.config, verdict.to, None) if verdict.to else None

    @property
    def address(self) -> list[Any]:
        """The addresses of `bind`: a pair of host and port, the path of a unix socket, or a descriptor."""
        return [_address(each) for each in self.bind]

    @property
    def bind(self) -> list[str]:
        """The addresses as gunicorn shows them: a relative path as the file has it, without the `./` it gets here."""
        written = self._namespace.get("bind")
        names = [written] if isinstance(written, str) else list(written or ())
        paths = {f"unix:./{str(each).removeprefix('unix:')}": str(each) for each in names}
        return [paths.get(each, each) for each in self.config.bind]

    @property
    def env(self) -> dict[str, str]:
        """The variables of `env`."""
        return dict(each.split("=", 1) for each in self.config.env)

    @property
    def is_ssl(self) -> bool:
        """Whether there is a certificate."""
        return bool(self.config.certfile)


def _as_gunicorn_has_it(setting: str, value: Any) -> Any:
    """A list for several values, and a whole number for whole seconds."""
    if isinstance(value, tuple):
        values = list(value)
        return (values[0] if values else None) if setting in {"certfile", "keyfile"} else values
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _address(bind: str) -> Any:
    if bind.startswith("unix:"):
        return bind.removeprefix("unix:")
    if bind.startswith("fd://"):
        descriptor = bind.removeprefix("fd://")
        return int(descriptor) if descriptor.isdecimal() else descriptor
    host, _, port = bind.rpartition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)


@dataclass(slots=True)
class ServerView:
    """The object that a hook gets as `server`."""

    config: Config
    generation: int
    master_pid: int
    log: LogView = field(default_factory=LogView)
    namespace: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

    @property
    def cfg(self) -> SettingsView:
        """The settings, by gunicorn's names too."""
        return SettingsView(self.config, self.namespace)

    @property
    def pid(self) -> int:
        """The master's, as under gunicorn."""
        return self.master_pid

    @property
    def address(self) -> list[Any]:
        """As `cfg.address`."""
        return self.cfg.address

    @property
    def num_workers(self) -> int | str:
        """The number of workers at the start, or `auto`."""
        return self.config.workers

    @property
    def proc_name(self) -> str:
        """The name in process titles."""
        return self.config.proc_name

    @property
    def timeout(self) -> float:
        """`hang_timeout`, which is `timeout` in gunicorn."""
        return self.config.hang_timeout


@dataclass(slots=True)
class WorkerView:
    """The object that a hook gets as `worker`. `age` counts the workers that were forked, from 1."""

    server: ServerView
    age: int
    slot: int
    pid: int | None = None

    @property
    def cfg(self) -> SettingsView:
        """The settings, by gunicorn's names too."""
        return self.server.cfg

    @property
    def log(self) -> LogView:
        """The error log's logger."""
        return self.server.log

    @property
    def generation(self) -> int:
        """The generation of code that it runs."""
        return self.server.generation

    @property
    def ppid(self) -> int:
        """The master's pid, as under gunicorn; its parent is the zygote."""
        return self.server.master_pid

    @property
    def timeout(self) -> float:
        """Half of `hang_timeout`, as gunicorn has it."""
        return self.server.timeout / 2

    @property
    def booted(self) -> bool:
        """Whether it has been forked."""
        return self.pid is not None

    @property
    def alive(self) -> bool:
        """Whether this is the worker itself."""
        return self.pid == os.getpid()

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"
