"""The state that an image of the master leaves to the next: its shape, and the version of that shape.

Runs in the master, on either side of the exec; only data. `upgrade` writes it down and execs, the new image reads it.
A change of a field in `core.model` or here raises SCHEMA: then the preflight refuses an upgrade, and a restart is
needed instead (tests/unit/master/test_snapshot.py holds SCHEMA against the fields).
"""

import typing
from collections.abc import Mapping
from typing import Literal

import msgspec

from aserver.errors import ConfigError
from aserver.master.core.events import Upgrade
from aserver.master.core.limits import Rng
from aserver.master.core.machine import Master
from aserver.master.core.model import Model
from aserver.master.journal import Record
from aserver.metrics.totals import Totals
from aserver.sockets import Handover

SCHEMA = 19

#: Fields that are not saved: `rng` is made anew, and all commands are carried out before the exec.
_OWN = ("rng", "out")


class SavedZygote(msgspec.Struct):
    """A zygote; numbers of descriptors."""

    generation: int
    pid: int
    pidfd: int
    channel: int
    trace: int


class SavedWorker(msgspec.Struct):
    """A worker; it has no descriptors before its fork is reported."""

    serial: int
    generation: int
    slot: int
    cell: int
    pid: int | None
    pidfd: int | None
    channel: int | None
    trace: int | None
    trace_offset: int
    status: int | None


class SavedLog(msgspec.Struct):
    """A log, handed on open: by then its path may be gone, or be another process's file."""

    path: str
    which: Literal["error", "access"]
    fd: int


class SavedOutput(msgspec.Struct):
    """The pipes of a process whose output is captured, until no process can write to them any more.

    `serial` is 0 for a zygote, `pid` 0 before the process exists; `ends` are the reading ends of its output and error.
    """

    process: str
    generation: int
    serial: int
    pid: int
    ends: list[int]


class SavedResources(msgspec.Struct):
    """The resources of a generation: `bound` by descriptor; its logs are among the snapshot's."""

    settings: dict[str, object]
    workers: int
    bound: dict[str, list[int]]
    hooks: tuple[str, ...]
    directory: str | None = None


class Snapshot(msgspec.Struct):
    """The whole state."""

    model: dict[str, object]
    board: int
    zygotes: list[SavedZygote]
    workers: list[SavedWorker]
    listeners: list[Handover]
    resources: dict[int, SavedResources]
    files: dict[int, dict[str, tuple[int, int]]]
    logs: list[SavedLog]
    serving: int
    outputs: list[SavedOutput] = []
    records: list[Record] = []
    counts: dict[str, int] = {}
    totals: Totals = msgspec.field(default_factory=Totals)
    told: dict[str, list[float]] = {}
    began: float = 0.0
    control: Handover | None = None
    admin: list[Handover] = []
    upgrade: Upgrade = Upgrade(0.0)
    ready_lines: dict[int, str] = {}
    pidfile: int | None = None
    pidfile_lock: int | None = None

    def fds(self) -> list[int]:
        """Every descriptor that must live through the exec."""
        found: list[int | None] = [self.board, self.pidfile, self.pidfile_lock]
        found += [fd for z in self.zygotes for fd in (z.pidfd, z.channel, z.trace)]
        found += [fd for w in self.workers for fd in (w.pidfd, w.channel, w.trace)]
        found += [*(log.fd for log in self.logs), *self.ready_lines]
        found += [end for pipes in self.outputs for end in pipes.ends]
        found += [listener.fd for listener in (*self.listeners, *self.admin, self.control) if listener is not None]
        return [fd for fd in found if fd is not None]


def write_model(model: Model) -> dict[str, object]:
    """The model as plain values."""
    return {name: msgspec.to_builtins(getattr(model, name)) for name in _kept()}


def read_model(data: Mapping[str, object], rng: Rng) -> Master:
    """The inverse of `write_model`. Raises ConfigError if `data` has another shape."""
    try:
        values = {name: msgspec.convert(data[name], hint) for name, hint in _kept().items()}
    except (KeyError, msgspec.ValidationError) as error:
        raise ConfigError(f"the state of the former master cannot be read: {error}") from None
    return Master(rng=rng, **values)


def _kept() -> dict[str, typing.Any]:
    return {name: hint for name, hint in typing.get_type_hints(Master).items() if name not in _OWN}
