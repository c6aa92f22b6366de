"""Logging that is configured for a test."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aserver.log.opening import open_log
from aserver.log.setup import Logging, configure


@dataclass(frozen=True)
class Settings:
    """Those that logging reads, with their defaults."""

    loglevel: str = "info"
    log_format: str = "text"
    log_config: str | None = None
    access_log_format: str = "combined"
    access_log_exclude: tuple[str, ...] = ()


Start = Callable[..., Logging]


def started(tmp_path: Path) -> Iterator[Start]:
    """Configure logging into `error.log` (or `fd`) and `access.log` under tmp_path; undone afterwards."""
    made: list[Logging] = []

    def configure_here(fd: int | None = None, *, process: str = "worker 1/g3", **settings: Any) -> Logging:
        error_fd = open_log(str(tmp_path / "error.log"), which="error") if fd is None else fd
        access_fd = open_log(str(tmp_path / "access.log"), which="access")
        logs = configure(Settings(**settings), process=process, error_fd=error_fd, access_fd=access_fd, environ={})
        made.append(logs)
        return logs

    yield configure_here
    for logs in made:
        logs.close()
    root = logging.getLogger("aserver")
    root.setLevel(logging.NOTSET)
    root.propagate = True
