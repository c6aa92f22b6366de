"""Settings, listeners and log files of a generation; those of the next are made from them.

Runs in the master. Listeners and logs that a reload does not change are the same objects in both generations, so the
addresses stay bound; those that only an ended generation used are closed. It never accepts.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

import msgspec

from aserver import unix
from aserver.config import Config, Resolved
from aserver.errors import BindError, ConfigError
from aserver.ipc import messages as msg
from aserver.log.access.format import compile_format
from aserver.log.opening import open_log
from aserver.log.setup import read_log_config
from aserver.master.snapshot import SavedResources, Snapshot
from aserver.sockets import Kept, Listener, bind_for, by_manager, take_over

log = logging.getLogger("aserver.master")

#: Stands for `bind` while systemd's sockets replace it.
_SYSTEMD = "systemd"

#: Settings that a reload does not change, and says so: they are of the process, or of things that are made once.
ONLY_AT_START = (
    "pidfile",
    "daemon",
    "notify_fd",
    "control",
    "admin",
    "proc_name",
    "uds_mode",
    "uds_owner",
    "uds_group",
    "reuse_port",
)


class LogFile:
    """An open log, shared by every generation that writes to the same path."""

    def __init__(self, path: str, which: Literal["error", "access"], fd: int | None = None) -> None:
        """Open the file, or take it over as `fd`. Raises ConfigError."""
        self.path = path
        self.which = which
        self.fd = open_log(path, which=which) if fd is None else fd

    def reopen(self) -> None:
        """Open the path again, for log rotation. Raises ConfigError, and then the old file stays."""
        if self.path == "-":
            return  # standard error is not rotated
        fresh = open_log(self.path, which=self.which)
        os.close(self.fd)
        self.fd = fresh

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


@dataclass(slots=True, eq=False)
class Resources:
    """The resources of a generation. `bound` is by the words of `bind`, which can stand for several listeners."""

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
        """The logs' descriptors, as messages carry them."""
        return [log.fd for log in self.logs]

    def boot(self, generation: int, *, lazy: bool) -> tuple[msg.Boot, list[int]]:
        """The first message to a zygote, and the descriptors that follow the board's in it."""
        listeners = self.listeners
        boot = msg.Boot(
            generation=generation,
            settings=self.config.to_wire(),
            lazy=lazy,
            hooks=self.hooks,
            master_pid=os.getpid(),
            listeners=tuple(msg.ListenerInfo(li.name, li.family, li.tls) for li in listeners),
            access_log=len(self.logs) > 1,
            directory=self.directory,
            arguments=tuple(map(os.fsencode, sys.argv)),
        )
        return boot, [*self.log_fds, *(listener.socket.fileno() for listener in listeners)]

    def saved(self) -> SavedResources:
        """The resources as the next image of this master reads them."""
        bound = {spec: [listener.socket.fileno() for listener in found] for spec, found in self.bound.items()}
        return SavedResources(self.config.to_wire(), self.workers, bound, self.hooks, self.directory)


class AllResources:
    """The resources of every generation, those of the next, and which listeners accept."""

    def __init__(self, first: Resources) -> None:
        self.next = first
        self.of: dict[int, Resources] = {}
        self.serving = 0  # the generation whose listeners accept
        self.accepting: list[Listener] = []  # those that clients can connect to

    @classmethod
    def restored(cls, snapshot: Snapshot) -> Self:
        """The resources of this master's former image; shared objects are shared again."""
        listeners = {handover.fd: take_over(handover) for handover in snapshot.listeners}
        logs = {(log.which, log.path): LogFile(log.path, log.which, log.fd) for log in snapshot.logs}
        of: dict[int, Resources] = {}
        for generation, each in snapshot.resources.items():
            config = Config.from_wire(each.settings)
            own = [logs[wanted] for wanted in _wanted_logs(config)]
            bound = {spec: [listeners[fd] for fd in fds] for spec, fds in each.bound.items()}
            of[generation] = Resources(config, each.workers, bound, own, each.directory, each.hooks)
        self = cls(of[max(of)])
        self.of, self.serving, self.accepting = of, snapshot.serving, of[snapshot.serving].listeners
        return self

    def give(self, generation: int) -> Resources:
        """The resources of `generation`; a new generation gets `next`."""
        return self.of.setdefault(generation, self.next)

    @property
    def listeners(self) -> list[Listener]:
        """All listeners, each once."""
        return list({id(li): li for resources in self.of.values() for li in resources.listeners}.values())

    @property
    def logs(self) -> list[LogFile]:
        """All logs, each once."""
        return list({id(log): log for resources in self.of.values() for log in resources.logs}.values())

    def listen(self, generation: int) -> list[BindError]:
        """Let clients connect to the listeners of a generation; returns a refusal for each that another server took."""
        resources, before = self.of[generation], self.accepting
        self.serving, self.accepting = generation, []
        refused = []
        for listener in resources.listeners:
            try:
                listener.listen(resources.config.backlog)  # again, most of them: the backlog may be another
            except BindError as error:  # another master may have bound it too, and listened first (docs/traps.md, 56)
                refused.append(error)
                continue
            self.accepting.append(listener)
            if listener not in before:
                log.info("listening on %s", listener.name)
        return refused

    def close_listeners(self) -> None:
        """Accept no more; each listener closes again with its generation, which does nothing."""
        for listener in self.listeners:
            listener.open_no_more()
            listener.close()

    def reopen_logs(self) -> None:
        """Open every log file again, for rotation."""
        for each in self.logs:
            try:
                each.reopen()
            except ConfigError as error:
                log.error("%s; the old file is written on", error)  # noqa: TRY400

    def replace_next(self, fresh: Resources) -> None:
        """Give `fresh` to the next generation; resources that were ready for it and never given are closed."""
        superseded, self.next = self.next, fresh
        if superseded not in self.of.values():
            close_unused(superseded, (*self.of.values(), fresh))

    def forget(self, generation: int) -> None:
        """Forget a generation, and close the listeners and logs that only it used."""
        gone = self.of.pop(generation)
        if gone is self.next and self.of:
            self.next = self.of[max(self.of)]  # the newest generation failed: nothing of it may stay open
        for listener in close_unused(gone, (*self.of.values(), self.next)):
            log.info("%s is no longer listened on", listener.name)

    def close(self) -> None:
        """Close everything."""
        for generation in list(self.of):
            close_unused(self.of.pop(generation), (*self.of.values(), self.next))
        close_unused(self.next, ())


def _workers(config: Config) -> int:
    return config.workers if isinstance(config.workers, int) else unix.usable_cpus()


def _refuse_other_tls(config: Config, bound: Mapping[str, list[Listener]]) -> None:
    """Raise ConfigError where the settings ask for TLS on a listener that was bound without, or the other way round.

    While two generations accept on it, clients would get either.
    """
    for spec, listeners in bound.items():
        wanted = bool(config.certfile) and not spec.startswith(("http://", "h2c://"))
        for listener in listeners:
            if listener.family != "unix" and listener.tls is not wanted:
                was, now = ("TLS", "is not") if listener.tls else ("in the clear", "is")
                raise ConfigError(
                    f"certfile {now} set now, but {listener.name} was bound to be {was}; restart to change"
                )


def provide(resolved: Resolved, environ: Mapping[str, str]) -> Resources:
    """The resources of the first generation. Raises BindError or ConfigError; then nothing is left open."""
    config = resolved.config
    with contextlib.ExitStack() as undo:
        logs = _open_logs(config, [], undo)
        bound: dict[str, list[Listener]] = {}
        kept = Kept.found(environ, os.getpid())
        undo.callback(kept.close)
        if by_manager(environ, os.getpid(), config.admin) and not any(s.startswith("fd://") for s in config.bind):
            bound[_SYSTEMD] = bind_for(config, config.bind, environ)
        else:
            _bind_missing(config, bound, undo, environ, kept)
        kept.close()
        undo.pop_all()
    return Resources(config, _workers(config), bound, logs, resolved.directory, resolved.hooks)


def _open_logs(config: Config, previous: list[LogFile], undo: contextlib.ExitStack) -> list[LogFile]:
    # Settings that only the processes use are tried now as well, before anything happens.
    compile_format(config.access_log_format)
    if config.log_config is not None:
        read_log_config(config.log_config)
    logs = []
    for which, path in _wanted_logs(config):
        file = next((each for each in previous if (each.which, each.path) == (which, path)), None)
        if file is None:
            file = LogFile(path, which)
            undo.callback(file.close)
        logs.append(file)
    return logs


def _wanted_logs(config: Config) -> list[tuple[Literal["error", "access"], str]]:
    wanted: list[tuple[Literal["error", "access"], str]] = [("error", config.errorlog)]
    if config.accesslog is not None:
        wanted.append(("access", config.accesslog))
    return wanted


def _bind_missing(
    config: Config,
    bound: dict[str, list[Listener]],
    undo: contextlib.ExitStack,
    environ: Mapping[str, str],
    kept: Kept | None = None,
) -> None:
    for spec in config.bind:
        if spec in bound:
            continue
        bound[spec] = bind_for(config, (spec,), environ if spec.startswith("fd://") else {}, kept)
        for listener in bound[spec]:
            undo.callback(listener.close)


def provide_next(previous: Resources, resolved: Resolved) -> tuple[Resources, list[str]]:
    """The resources after a reload: unchanged listeners and logs stay, others are opened now, to find a mistake now.

    Also returns a sentence for each setting that a reload cannot change. Raises BindError or ConfigError; then nothing
    changes.
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
            _bind_missing(config, bound, undo, {})
        undo.pop_all()
    return Resources(config, _workers(config), bound, logs, resolved.directory, resolved.hooks), remarks


def close_unused(gone: Resources, kept: Iterable[Resources]) -> list[Listener]:
    """Close listeners and logs that only `gone` used; returns the listeners that were closed."""
    kept = list(kept)
    used = {id(thing) for each in kept for thing in (*each.listeners, *each.logs)}
    for each in gone.logs:
        if id(each) not in used:
            each.close()
    closed = [listener for listener in gone.listeners if id(listener) not in used]
    for listener in closed:
        listener.close()
    return closed
