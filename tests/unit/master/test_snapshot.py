"""The master's state survives an exec: everything comes back as it was, and its shape is held against SCHEMA."""

import dataclasses
import hashlib
import random
import re
import typing
from collections.abc import Iterator

import msgspec
import pytest

from aserver.config import Config
from aserver.errors import ConfigError, ExitCode
from aserver.ipc import messages as msg
from aserver.ipc.board import CELL_SIZE, CELLS, Field
from aserver.master import snapshot
from aserver.master.core import events as ev
from aserver.master.core import model
from aserver.master.core.limits import BackOff, Limits
from aserver.master.core.machine import Master
from aserver.master.core.model import Generation, Intent, Operation, Role, ServerPhase, Worker, WorkerPhase, ZygotePhase
from aserver.master.journal import Record
from aserver.master.snapshot import SCHEMA, SavedLog, SavedResources, SavedWorker, SavedZygote, Snapshot
from aserver.metrics.page import PAGE_SIZE, Counter, Histogram
from aserver.sockets import Handover

#: Of the fields that cross the exec, by name and type, for SCHEMA. Both change together: a digest that is wrong here
#: means that SCHEMA must be raised, or a running master of the old kind would be misread instead of left alone.
DIGESTS = {
    1: "3d3a10c57c1ab129",
    2: "f950cfae82e73cbd",
    3: "919e6ca82cff72cc",
    4: "c3a80239a9d9d14f",
    5: "75e651b0202ba8d6",
    6: "51bf62c406bb71ee",
    7: "8a65ae6fb2cd7ca2",
    8: "3fa7634d6d377920",
    9: "e72076af55fc6c56",
    10: "bd705bd975644e0f",
    11: "6b9c41e44f6d7645",
    12: "8d8ec3a13f80afb5",
    13: "dd6098d71d14e44b",
    14: "e12b23db42e7d48d",
    15: "33395c31cd6c7485",
    16: "39c4418f758436ff",
    17: "f4909c4ffa4851d8",
    18: "f4909c4ffa4851d8",  # `Worker.unsent` is a message: it has a tag
    19: "f6da6dafd9bd2d63",  # a BackOff crosses by its own fields
}


def _master() -> Master:
    """Workers in every phase, generations in every role, and a reload that waits."""
    rng = random.Random(1).random
    limits = Limits.of(Config(max_requests=100, canary_time=1.5), workers=3)
    master = Master(limits=limits, rng=rng)
    tired = BackOff(free=3)
    tired.boot_failed(10.0, rng, 9.0)
    tired.died(11.0, rng, 0.1)
    for number, (role, zygote) in enumerate(
        [
            (Role.FAILED, ZygotePhase.LEAVING),
            (Role.OLD, ZygotePhase.DOWN),
            (Role.CURRENT, ZygotePhase.UP),
            (Role.CANDIDATE, ZygotePhase.LOADING),
        ],
        1,
    ):
        master.generations[number] = Generation(
            number=number,
            limits=limits,
            role=role,
            zygote=zygote,
            deadline=None if number == 3 else 50.0 + number,
            backoff=tired,
            spawns=BackOff(free=2),
            lazy=number == 2,
            began=7.25,
            target_before=3,
            overdue="late" * (number == 1),
            failure=ev.Exit(ExitCode.BOOT, "why", "where") if number == 1 else None,
        )
    for serial, phase in enumerate(WorkerPhase, 1):
        master.workers[serial] = Worker(
            serial=serial,
            slot=serial,
            generation=3,
            phase=phase,
            deadline=60.5 + serial,
            began=5.0,
            pid=1000 + serial if serial > 1 else None,
            ready_at=6.0 if serial > 1 else None,
            recycle_reason="old" if phase is WorkerPhase.RECYCLING else "",
            intent=Intent.HUNG if phase is WorkerPhase.KILLING else Intent.NONE,
            failure=msg.BootFailed(serial, 3, "no queue", "trace") if phase is WorkerPhase.FAILED else None,
            unsent=msg.Drain(serial, final=False, graceful=3.0) if serial == 1 else None,
            hurried=serial == 5,
            reported_beat=4.5,
        )
    master.server, master.target, master.announced, master.parked = ServerPhase.SERVING, 3, True, True
    master.pending = ev.ReloadRequested(limits, "SIGHUP", ev.Upgrade(3.5, (1,)), (2, 3))
    master.operations = [Operation("reload", 11.0, 4, (1,)), Operation("scale", 11.5)]
    master.now, master.serials, master.numbers = 12.0, len(WorkerPhase), 4
    master.stop, master.stop_begins, master.listeners_open = ev.StopMode.GRACEFUL, 99.0, False
    master.result = ev.Exit(ExitCode.KILLED, "stopped, but a worker had to be killed")
    master.reload_not_before, master.beats_at, master.clock_restart = 13.0, 11.9, 2.0
    return master


def _snapshot(master: Master) -> Snapshot:
    return Snapshot(
        model=snapshot.write_model(master),
        board=4,
        zygotes=[SavedZygote(3, 999, 5, 6, 7)],
        workers=[
            SavedWorker(1, 3, 1, 9, None, None, None, None, 0, None),
            SavedWorker(2, 3, 2, 8, 1002, 10, 11, 12, 512, 9),
        ],
        listeners=[],
        resources={3: SavedResources({"workers": 3}, 3, {"127.0.0.1:80": [13]}, ("when_ready",))},
        files={3: {"/a.py": (1, 2)}},
        logs=[SavedLog("/log", "error", 15)],
        serving=3,
        records=[Record(number=7, time="2026", event="worker.ready", level="info", message="it is ready", worker=1)],
        upgrade=ev.Upgrade(11.0, (4,)),
        began=3.25,
        ready_lines={19: "\n"},
        admin=[Handover(18, "http://127.0.0.1:9100", ("127.0.0.1", 9100))],
        control=Handover(17, "unix:/run/c.sock", "/run/c.sock", (1, 2), public=True),
        pidfile=14,
        pidfile_lock=16,
    )


def _plain(value: object) -> object:
    """For comparing: a Worker by what it knows."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def test_a_state_with_workers_in_every_phase_comes_back_as_it_was() -> None:
    """Fails with a field left out of Worker's or Generation's conversion, or an enum written by name."""
    before = _master()
    wire = msgspec.msgpack.encode(_snapshot(before))
    read = msgspec.msgpack.decode(wire, type=Snapshot)
    assert msgspec.msgpack.encode(read) == wire
    after = snapshot.read_model(read.model, random.random)
    for field in dataclasses.fields(Master):
        if field.name not in ("rng", "out"):
            assert _plain(getattr(after, field.name)) == _plain(getattr(before, field.name)), field.name
    assert after.rng is random.random
    assert after.out == []
    assert after.workers[3].phase is WorkerPhase.READY
    assert after.generations[4].role is Role.CANDIDATE


def test_the_state_that_comes_back_goes_on() -> None:
    """Its deadlines are armed, and a death is understood. Fails with keys of the tables read as text."""
    before = _master()
    after = snapshot.read_model(snapshot.write_model(before), random.random)
    assert after.next_deadline() == before.next_deadline()
    after.stop, after.listeners_open = None, True
    orders = after.handle(ev.Died(6, None, "SIGABRT"), 13.5)
    assert any(isinstance(order, ev.Say) and "stood still" in order.text for order in orders)


def test_all_descriptors_are_named_once() -> None:
    """Whatever is not in fds() is closed by the exec. Fails with any of them left out."""
    snapshot = _snapshot(_master())
    assert sorted(snapshot.fds()) == [4, 5, 6, 7, 10, 11, 12, 14, 15, 16, 17, 18, 19]


def test_what_is_no_state_is_refused() -> None:
    """Fails without the except in read_model: a bare KeyError at the start of the new image."""
    picture = snapshot.write_model(_master())
    for wrong in (picture | {"target": "many"}, {name: value for name, value in picture.items() if name != "target"}):
        with pytest.raises(ConfigError, match="former master"):
            snapshot.read_model(wrong, random.random)


#: Where a class lies does not cross the exec.
QUALIFIER = r"[\w.]+\."


def _shape(kind: typing.Any, seen: set[object]) -> Iterator[str]:
    """Every class that crosses the exec: its fields, their types, and the values of its enumerations."""
    for inner in typing.get_args(kind):
        yield from _shape(inner, seen)
    if not isinstance(kind, type) or kind in seen or not kind.__module__.startswith("aserver"):
        return
    seen.add(kind)
    members = getattr(kind, "__members__", None)
    if members is not None:
        yield f"{kind.__name__} {[(name, member.value) for name, member in members.items()]}"
        return
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if name not in ("rng", "out")}
    yield f"{kind.__name__} {[(name, re.sub(QUALIFIER, '', str(hint))) for name, hint in hints.items()]}"
    for hint in hints.values():
        yield from _shape(hint, seen)


def test_a_change_of_shape_raises_the_schema() -> None:
    """Fails when a field that crosses the exec is added, removed, renamed or changes its type under the same SCHEMA."""
    seen: set[object] = set()
    board = [f"{kind.__name__} {list(kind)}" for kind in (Field, Histogram, Counter)]  # as workers of before write it
    shape = sorted([*_shape(Master, seen), *_shape(Snapshot, seen), *board, f"{CELL_SIZE} {CELLS} {PAGE_SIZE}"])
    assert {Worker, Generation, Handover, Limits, msg.Drain, Intent, model.WorkerPhase, BackOff} <= seen
    digest = hashlib.sha256("\n".join(shape).encode()).hexdigest()[:16]
    assert DIGESTS.get(SCHEMA) == digest, (
        f"the state has another shape than schema {SCHEMA} says: raise SCHEMA and note {digest!r} for it here"
    )
