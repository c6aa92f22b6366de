"""What a generation is given: its settings, listeners and log files; and how the next one's grow out of the last one's.

Runs in the master. Listeners and logs that a reload does not change are the same objects in both generations, so an
address is never let go of in between; what only a gone generation used is closed. It never listens and never accepts.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from aserver import unix
from aserver.config import Config, Resolved
from aserver.errors import ConfigError
from aserver.log.access.format import compile_format
from aserver.log.opening import open_log
from aserver.log.setup import read_log_config
from aserver.master.snapshot import SavedLog, SavedResources, Snapshot
from aserver.sockets import Listener, bind_for, take_over

#: Stands for `bind` while systemd's sockets replace it.
_SYSTEMD = "systemd"

#: Settings that belong to the process or to what it made once: a reload leaves them as they are and says so.
ONLY_AT_START = ("pidfile", "daemon", "control", "proc_name", "uds_mode", "uds_owner", "uds_group", "reuse_port")


class LogFile:
    """An open log, shared by every generation that writes to the same path."""

    def __init__(self, path: str, which: Literal["error", "access"], fd: int | None = None) -> None:
        """Open it, unless it is open as `fd`, which is taken over. Raises ConfigError."""
        self.path = path
        self.which = which
        self.fd = open_log(path, which=which) if fd is None else fd

    def reopen(self) -> None:
        """Open the path again, for log rotation. Raises ConfigError, and then the old file stays."""
        if self.path == "-":
            return  # nobody rotates it
        fresh = open_log(self.path, which=self.which)
        os.close(self.fd)
        self.fd = fresh

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


@dataclass(slots=True, eq=False)
class Resources:
    """Of one generation. `bound` is by what `bind` says; one spec can come to several listeners."""

    config: Config
    workers: int
    bound: dict[str, list[Listener]]
    logs: list[LogFile]  # the error log and, unless it is off, the access log
    directory: str | None = None  # where the code is looked for, by the name that a deploy may switch
    hooks: tuple[str, ...] = ()  # names of functions in the settings file `config.config`

    @property
    def listeners(self) -> list[Listener]:
        """All listeners, in the order of `bind`."""
        return [listener for listeners in self.bound.values() for listener in listeners]

    @property
    def log_fds(self) -> list[int]:
        """For the channel."""
        return [log.fd for log in self.logs]


def _workers(config: Config) -> int:
    return config.workers if isinstance(config.workers, int) else unix.usable_cpus()


def _refuse_other_tls(config: Config, bound: Mapping[str, list[Listener]]) -> None:
    """A listener is TLS or in the clear for life: while two generations accept on it, clients would get either.

    Raises ConfigError where the settings now say otherwise.
    """
    for spec, listeners in bound.items():
        wanted = bool(config.certfile) and not spec.startswith("http://")
        for listener in listeners:
            if listener.family != "unix" and listener.tls is not wanted:
                was, now = ("TLS", "is not") if listener.tls else ("in the clear", "is")
                raise ConfigError(
                    f"certfile {now} set now, but {listener.name} was bound to be {was}; restart to change"
                )


def provide(resolved: Resolved, environ: Mapping[str, str]) -> Resources:
    """For the first generation. Raises BindError or ConfigError; then nothing is left open."""
    config = resolved.config
    with contextlib.ExitStack() as undo:
        logs = _open_logs(config, [], undo)
        bound: dict[str, list[Listener]] = {}
        if environ.get("LISTEN_PID") == str(os.getpid()) and not any(s.startswith("fd://") for s in config.bind):
            bound[_SYSTEMD] = bind_for(config, config.bind, environ)
        else:
            _bind_missing(config, bound, undo)
        undo.pop_all()
    return Resources(config, _workers(config), bound, logs, resolved.directory, resolved.hooks)


def _open_logs(config: Config, previous: list[LogFile], undo: contextlib.ExitStack) -> list[LogFile]:
    # A mistake in what only the processes use is found now as well, before anything happens.
    compile_format(config.access_log_format)
    if config.log_config is not None:
        read_log_config(config.log_config)
    logs = []
    for which, path in _wanted_logs(config):
        log = next((each for each in previous if (each.which, each.path) == (which, path)), None)
        if log is None:
            log = LogFile(path, which)
            undo.callback(log.close)
        logs.append(log)
    return logs


def _wanted_logs(config: Config) -> list[tuple[Literal["error", "access"], str]]:
    wanted: list[tuple[Literal["error", "access"], str]] = [("error", config.errorlog)]
    if config.accesslog is not None:
        wanted.append(("access", config.accesslog))
    return wanted


def _bind_missing(config: Config, bound: dict[str, list[Listener]], undo: contextlib.ExitStack) -> None:
    for spec in config.bind:
        if spec in bound:
            continue
        bound[spec] = bind_for(config, (spec,), {})
        for listener in bound[spec]:
            undo.callback(listener.close)


def provide_next(previous: Resources, resolved: Resolved) -> tuple[Resources, list[str]]:
    """For a reload: what is unchanged stays, what is new is bound and opened now, so that a mistake is found now.

    Also returns what the reload cannot change, a sentence each. Raises BindError or ConfigError; then nothing changes.
    """
    config, fixed = resolved.config, {name: getattr(previous.config, name) for name in ONLY_AT_START}
    remarks = [
        f"{name} is {getattr(config, name)!r} in the settings, but stays {value!r} until a restart"
        for name, value in fixed.items()
        if getattr(config, name) != value
    ]
    config = msgspec.structs.replace(config, **fixed)
    with contextlib.ExitStack() as undo:
        logs = _open_logs(config, previous.logs, undo)
        if _SYSTEMD in previous.bound:
            bound = dict(previous.bound)
        else:
            bound = {spec: previous.bound[spec] for spec in config.bind if spec in previous.bound}
        _refuse_other_tls(config, bound)
        if _SYSTEMD not in bound:
            _bind_missing(config, bound, undo)
        undo.pop_all()
    return Resources(config, _workers(config), bound, logs, resolved.directory, resolved.hooks), remarks


def save(resources: Resources) -> SavedResources:
    """For the next image of this master."""
    bound = {spec: [listener.socket.fileno() for listener in found] for spec, found in resources.bound.items()}
    return SavedResources(resources.config.to_wire(), resources.workers, bound, resources.hooks, resources.directory)


def all_logs(every: Iterable[Resources]) -> list[LogFile]:
    """Each once."""
    return list({id(log): log for resources in every for log in resources.logs}.values())


def save_logs(every: Iterable[Resources]) -> list[SavedLog]:
    """For the next image: they stay open, since their paths may lead elsewhere by then."""
    found = {(log.which, log.path): SavedLog(log.path, log.which, log.fd) for log in all_logs(every)}
    return list(found.values())


def inherit(snapshot: Snapshot) -> dict[int, Resources]:
    """All resources of the former image, sharing what was shared."""
    listeners = {handover.fd: take_over(handover) for handover in snapshot.listeners}
    resources: dict[int, Resources] = {}
    logs = {(log.which, log.path): LogFile(log.path, log.which, log.fd) for log in snapshot.logs}
    for generation, each in snapshot.resources.items():
        config = Config.from_wire(each.settings)
        own = [logs[wanted] for wanted in _wanted_logs(config)]
        bound = {spec: [listeners[fd] for fd in fds] for spec, fds in each.bound.items()}
        resources[generation] = Resources(config, each.workers, bound, own, each.directory, each.hooks)
    return resources


def let_go(gone: Resources, kept: Iterable[Resources]) -> list[Listener]:
    """Close what only `gone` used; returns the listeners that were closed."""
    kept = list(kept)
    used = {id(thing) for each in kept for thing in (*each.listeners, *each.logs)}
    for log in gone.logs:
        if id(log) not in used:
            log.close()
    closed = [listener for listener in gone.listeners if id(listener) not in used]
    for listener in closed:
        listener.close()
    return closed
