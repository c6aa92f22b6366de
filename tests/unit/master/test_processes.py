"""`Processes` and `Workers` with fake handles: their channels are sockets, their pidfds pipes.

The tests are the other ends of the channels; they look at the events and at what is sent.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from aserver import unix
from aserver.ipc import messages as msg
from aserver.ipc.board import Board, Field
from aserver.ipc.channel import TURN_MESSAGES, Channel
from aserver.master import border, handles, processes, workers
from aserver.master.core import events as ev
from aserver.master.handles import WorkerHandle, ZygoteHandle
from aserver.master.processes import Processes

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop

FORK = ev.Fork(1, 1, 1, 0, 0.0)


class FakeZygote(ZygoteHandle):
    """Without a process: notes that it is killed, and has the wait status that the test gives it."""

    killed: bool = False
    status: int | None = None

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        self.killed = True

    def reap(self) -> int | None:
        return self.status


class Stage:
    """A `Processes` with the zygote of generation 1; `heard` are the events, `files` what it says of the code."""

    def __init__(self, *, pidfds: bool = True) -> None:
        self.heard: list[ev.Event] = []
        self.files: list[tuple[int, int]] = []
        self.pidfds = pidfds
        self.all = Processes(self.heard.append, lambda generation, files: self.files.append((generation, len(files))))
        self.sock, ours = unix.stream_pair()
        self.ends: list[int] = []
        self.zygote = FakeZygote(1, 901, self._pidfd(), Channel(ours, msg.FromZygote), unix.memory_file("trace"))
        self.all.keep(self.zygote)
        self.socks: dict[int, socket.socket] = {}

    def _pidfd(self) -> int | None:
        """A descriptor that is readable once the test writes into the last of `ends`: the process has ended."""
        if not self.pidfds:
            return None
        reader, writer = os.pipe()
        self.ends.append(writer)
        return reader

    async def fork(self, order: ev.Fork = FORK, pid: int = 902) -> WorkerHandle:
        """Order a worker, and have the zygote answer; `socks` has the worker's end of its channel."""
        self.all.workers.fork(order)
        self.socks[order.serial], theirs = unix.stream_pair()
        fds = [theirs.detach(), unix.memory_file("trace")]
        if (pidfd := self._pidfd()) is not None:
            fds.append(pidfd)
        say(self.sock, msg.Forked(order.serial, pid), fds)
        for fd in fds:
            os.close(fd)
        await turn()
        return self.all.workers.all[order.serial]

    def close(self) -> None:
        self.all.close()
        for sock in (self.sock, *self.socks.values()):
            sock.close()
        for end in self.ends:
            os.close(end)


def frame(message: msg.Message, count: int = 0) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + count.to_bytes(2, "big") + body


def say(sock: socket.socket, message: msg.Message, fds: list[int] | None = None) -> None:
    """Send as a zygote or worker does."""
    socket.send_fds(sock, [frame(message, len(fds or []))], fds or [])


def sent(sock: socket.socket) -> list[tuple[str, int]]:
    """The types of the messages that the master has sent, with the number of their descriptors."""
    data, found = b"", []
    with contextlib.suppress(BlockingIOError):
        while True:  # a call ends where descriptors begin
            data += sock.recv(1 << 16, socket.MSG_DONTWAIT)
    while data:
        length, count = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:6], "big")
        found.append((msgspec.msgpack.decode(data[6 : 6 + length])["type"], count))
        data = data[6 + length :]
    return found


async def turn() -> None:
    """Selected, called, and what that calls soon."""
    for _ in range(4):
        await asyncio.sleep(0)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(border, "check_process", lambda *_: None)
    monkeypatch.setattr(unix, "wait_pidfd", lambda _: None)
    made = Stage()
    yield made
    made.close()


@pytest.fixture
async def bare() -> AsyncIterator[Stage]:
    """Where there are no pidfds."""
    made = Stage(pidfds=False)
    yield made
    made.close()


# ── zygotes ──────────────────────────────────────────────────────────────────────────────────


async def test_a_zygote_that_has_loaded(stage: Stage) -> None:
    """The parts of its fingerprint are put together. Fails without `know`."""
    say(stage.sock, msg.MoreFiles({"/a.py": (1, 2)}))
    say(stage.sock, msg.Loaded(1, False, "asgi\x1b[0m", (), 1.5, {"/b.py": (3, 4)}))
    await turn()
    assert stage.heard == [msg.Loaded(1, False, "asgi\\x1b[0m", (), 1.5, {"/b.py": (3, 4)})]
    assert stage.files == [(1, 2)]


async def test_a_zygote_that_speaks_for_another_generation(stage: Stage) -> None:
    """Fails without check_generation: a zygote of old code could have the new generation fail."""
    say(stage.sock, msg.LoadFailed(2, 4, "no", ""))
    await turn()
    assert stage.heard == []
    assert stage.zygote.broken == "LoadFailed about generation 2, but it is of 1"


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (msg.Unforkable(1, ("a thread",)), msg.Unforkable(1, ("a thread",))),
        (msg.LoadFailed(1, 4, "no\x07", "Traceback\x1b"), msg.LoadFailed(1, 4, "no\\x07", "Traceback\\x1b")),
    ],
)
async def test_a_zygote_that_could_not_load(stage: Stage, message: msg.Message, event: ev.Event) -> None:
    """Fails without `clean`: the application writes to the operator's terminal."""
    say(stage.sock, message)
    await turn()
    assert stage.heard == [event]


async def test_orders_to_a_zygote(stage: Stage) -> None:
    """An order to a generation that is gone is dropped. Fails without the look-up in `tell` and `kill`."""
    for generation in (1, 7):
        stage.all.tell(generation, msg.Quit())
        stage.all.kill(generation, signal.SIGKILL)
    assert sent(stage.sock) == [("Quit", 0)]
    assert stage.zygote.killed


async def test_a_zygote_that_cannot_be_started(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is told in a later turn: the state machine is in the middle of its orders. Fails without call_soon."""

    def refuse(*_: object) -> ZygoteHandle:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(handles, "spawn_zygote", refuse)
    stage.all.spawn(msg.Boot(2, {}, False, (), 1, (), False), [])
    assert stage.heard == []
    await turn()
    assert stage.heard == [ev.ZygoteGone(2, "could not be started (Resource temporarily unavailable)")]


async def test_a_zygotes_death_takes_its_orders_along(stage: Stage) -> None:
    """The worker that it has not forked is forgotten without an event, the one whose status it owed is taken without.

    Fails without `orphaned`: both would be waited for.
    """
    forked = await stage.fork()
    stage.all.workers.fork(ev.Fork(1, 2, 2, 0, 0.0))
    os.write(stage.ends[1], b"x")
    await turn()
    assert forked.dead
    stage.heard.clear()
    stage.zygote.status = signal.SIGKILL
    os.write(stage.ends[0], b"x")
    await turn()
    assert stage.all.zygotes == {}
    assert stage.all.workers.all == {}
    gone = ev.ZygoteGone(1, "was killed by SIGKILL from outside aserver (no out-of-memory kill was counted)")
    assert stage.heard == [ev.Died(1), gone]
    assert stage.all.pids == []


async def test_a_zygotes_death_by_a_full_memory(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without `OutOfMemory`."""
    monkeypatch.setattr(unix, "oom_kills", lambda: 10**6)
    stage.zygote.status = signal.SIGKILL
    os.write(stage.ends[0], b"x")
    await turn()
    assert "ran out of memory" in str(stage.heard)


async def test_without_pidfds_the_end_of_the_channel_is_the_notice(
    bare: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "EOF_PATIENCE", 0.0)
    bare.zygote.status = 0
    worker = await bare.fork()
    bare.sock.close()
    await turn()
    assert bare.heard[1:] == [ev.ZygoteGone(1, "left by itself with exit code 0")]
    bare.socks[1].close()
    await turn()
    assert bare.heard[2:] == [ev.Died(1)], "its zygote can tell no more"
    assert worker.serial not in bare.all.workers.all


async def test_a_zygote_that_breaks_the_protocol_is_killed(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Fails without `broken`: its death would be said to come from outside."""
    say(stage.sock, msg.Exited(5, 1, 0))  # unknown: given up on, no lie
    say(stage.sock, msg.ForkFailed(5, "EAGAIN"))
    await turn()
    assert stage.zygote.killed
    assert "for serial 5, which it was not told to fork; it is killed" in caplog.text
    assert not stage.all.quiet
    stage.zygote.status = signal.SIGKILL
    os.write(stage.ends[0], b"x")
    await turn()
    (event,) = stage.heard
    assert isinstance(event, ev.ZygoteGone)
    assert event.how.startswith("broke the protocol and was killed (ForkFailed for serial 5")


async def test_what_a_dead_zygote_has_said_is_heard_to_the_end(stage: Stage) -> None:
    """More than a turn's share of deaths. Fails with one turn: those behind would have no status."""
    serials = range(2, 2 + 2 * TURN_MESSAGES + 20)  # one share is heard beside the death
    for serial in serials:
        stage.all.workers.fork(ev.Fork(1, serial, 1, 0, 0.0))
    stage.sock.send(b"".join(frame(msg.ForkFailed(serial, "EAGAIN")) for serial in serials))
    os.write(stage.ends[0], b"x")
    await turn()
    assert [event.serial for event in stage.heard if isinstance(event, msg.ForkFailed)] == list(serials)
    assert isinstance(stage.heard[-1], ev.ZygoteGone)


async def test_a_new_zygote_adopts_the_living(stage: Stage) -> None:
    """Fails with the dead among them, whose pidfd nobody is to signal."""
    await stage.fork()
    await stage.fork(ev.Fork(1, 2, 2, 0, 0.0), 903)
    os.write(stage.ends[-1], b"x")
    await turn()
    assert [kind for kind, _ in sent(stage.sock)] == ["Fork", "Fork"]
    stage.all.adopt_workers(1)
    assert sent(stage.sock) == [("Adopt", 1)]


async def test_log_files_go_to_every_process(stage: Stage) -> None:
    await stage.fork()
    assert sent(stage.sock) == [("Fork", 0)]
    stage.all.reopen_logs(lambda generation: [stage.all.board.fd] * generation)
    assert sent(stage.sock) == [("Reopen", 1)]
    assert sent(stage.socks[1]) == [("Reopen", 1)]


async def test_close_lets_go_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with a descriptor of any handle left open."""
    monkeypatch.setattr(border, "check_process", lambda *_: None)
    before = unix.open_fds()
    stage = Stage()
    await stage.fork()
    stage.close()
    assert unix.open_fds() == before


# ── workers ──────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_from_its_fork_to_its_end(stage: Stage) -> None:
    worker = await stage.fork()
    assert (str(worker), worker.cell) == ("worker 1 (generation 1, pid 902)", 1)
    assert stage.all.pids == [901, 902]
    ready = msg.Ready(1, {"/a.py": (1, 2)})
    say(stage.socks[1], ready)
    await turn()
    assert stage.files == [(1, 1)]
    say(stage.sock, msg.Exited(1, 902, 3 << 8))
    say(stage.socks[1], msg.RecycleAsked(1, "its last words"))
    os.write(stage.ends[-1], b"x")
    await turn()
    assert stage.heard == [msg.Forked(1, 902), ready, msg.RecycleAsked(1, "its last words"), ev.Died(1, 3)]
    assert (await stage.fork(ev.Fork(1, 2, 1, 0, 0.0))).cell == 1, "the cell is free again"


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (msg.BootFailed(1, 3, "no\x07", "Traceback\x1b"), msg.BootFailed(1, 3, "no\\x07", "Traceback\\x1b")),
        (msg.RecycleAsked(1, "max\x07"), msg.RecycleAsked(1, "max\\x07")),
        (msg.RecycleAsked(2, "max"), ev.Breached(1, "RecycleAsked about serial 2, but it is 1")),
    ],
)
async def test_a_workers_words(stage: Stage, message: msg.Message, event: ev.Event) -> None:
    """Fails without `clean`, and without the comparison of serials: it could speak for another worker."""
    await stage.fork()
    say(stage.socks[1], message)
    await turn()
    assert stage.heard[1:] == [event]


async def test_a_fork_that_failed(stage: Stage) -> None:
    stage.all.workers.fork(FORK)
    say(stage.sock, msg.ForkFailed(1, "EAGAIN\x07"))
    await turn()
    assert stage.heard == [msg.ForkFailed(1, "EAGAIN\\x07")]
    assert stage.all.workers.all == {}


async def test_a_status_that_is_late(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The death is told once, with the status, or without it once that was waited for. Fails without `dead`."""
    await stage.fork()
    os.write(stage.ends[-1], b"x")
    await turn()
    assert stage.heard[1:] == []
    say(stage.sock, msg.Exited(1, 902, signal.SIGTERM))
    await turn()
    assert stage.heard[1:] == [ev.Died(1, None, "SIGTERM")]

    monkeypatch.setattr(workers, "STATUS_PATIENCE", 0.0)
    await stage.fork(ev.Fork(1, 2, 1, 0, 0.0))
    os.write(stage.ends[-1], b"x")
    await turn()
    assert stage.heard[-1] == ev.Died(2)


async def test_the_status_of_an_orphan_is_ours(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its zygote died before it, so the master is its parent. Fails without `wait_pidfd`."""
    await stage.fork()
    monkeypatch.setattr(unix, "wait_pidfd", lambda _: 7 << 8)
    os.write(stage.ends[-1], b"x")
    await turn()
    assert stage.heard[1:] == [ev.Died(1, 7)]


async def test_signals_go_to_that_very_process(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never to a pid. Fails without the look at `dead`."""
    signalled: list[tuple[int, int]] = []
    monkeypatch.setattr(unix, "send_signal", lambda fd, signum: signalled.append((fd, signum)))
    worker = await stage.fork()
    stage.all.workers.signal(1, signal.SIGTERM)
    stage.all.workers.signal(7, signal.SIGTERM)
    assert signalled == [(worker.pidfd, signal.SIGTERM)]
    os.write(stage.ends[-1], b"x")
    await turn()
    stage.all.workers.signal(1, signal.SIGTERM)
    assert len(signalled) == 1


async def test_without_pidfds_the_zygote_signals(bare: Stage) -> None:
    await bare.fork()
    bare.all.workers.signal(1, signal.SIGTERM)
    assert [kind for kind, _ in sent(bare.sock)] == ["Fork", "Kill"]


async def test_stacks_are_logged_with_the_request_that_was_begun_last(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails without `read_text`, and without `trace_offset`: old stacks would be logged again."""
    monkeypatch.setattr(workers, "DUMP_PATIENCE", 0.0)
    monkeypatch.setattr(unix, "send_signal", lambda fd, signum: None)
    worker = await stage.fork()
    assert worker.trace is not None
    board = Board(os.dup(stage.all.board.fd))
    board.writer(worker.cell)(b"GET /slow")
    for line in (b'  File "/app.py", line 7 in slow\n', b'  File "/app.py", line 8 in slow\n'):
        os.write(worker.trace, line)
        stage.all.workers.dump_stacks(ev.DumpStacks(1, 2.5))
        await turn()
    first, second = caplog.messages
    assert "its event loop has stood still for 2.5 s (the request begun last: GET /slow), the stacks" in first
    assert ("line 7" in first, "line 7" in second, "line 8" in second) == (True, False, True)
    board.close()


async def test_a_heartbeat_that_lies_ahead_is_none(stage: Stage) -> None:
    """Written by a worker that wants to be seen alive for ever. Fails without the comparison with now."""
    worker = await stage.fork()
    board = Board(os.dup(stage.all.board.fd))
    cell = board.cell(worker.cell)
    cell[Field.BEAT] = time.monotonic_ns()
    assert 0 < stage.all.workers.beats()[1] <= time.monotonic()
    for nonsense in (time.monotonic_ns() + 10**9, 2**64 - 1):
        cell[Field.BEAT] = nonsense
        assert stage.all.workers.beats() == {1: 0.0}
    cell.release()
    board.close()


async def test_a_worker_that_floods_is_heard_for_its_share_and_then_no_more(stage: Stage) -> None:
    """Other peers are heard in between. Fails without `count`, and with a channel that is only not read any more."""
    worker = await stage.fork()
    stage.heard.clear()
    flood = [frame(msg.RecycleAsked(1, "flood"))] * 200
    stage.socks[1].send(b"".join(flood))
    while not stage.heard:
        await asyncio.sleep(0)
    assert len(stage.heard) == TURN_MESSAGES
    await turn()
    *asked, breached = stage.heard
    assert len(asked) == worker.may_say
    assert breached == ev.Breached(1, "it has sent 65 messages, and can have had 64 to send")
    with pytest.raises(BrokenPipeError):
        stage.socks[1].send(b"more")
    stage.all.workers.tell(1, msg.Drain(final=False, graceful=1.0))
    assert sent(stage.socks[1]) == [("Drain", 0)], "it can still be told to leave"


async def test_the_pid_of_a_worker_that_was_reaped_may_be_the_next_ones(stage: Stage) -> None:
    """Both are told in one turn, before the first one's pidfd is seen to be readable. Fails with every pid `known`: the
    zygote would be killed as a liar.
    """
    await stage.fork()
    say(stage.sock, msg.Exited(1, 902, 0))
    await stage.fork(ev.Fork(1, 2, 2, 0, 0.0), 902)
    assert stage.heard == [msg.Forked(1, 902), msg.Forked(2, 902)]


async def test_the_pid_of_a_worker_that_lives_is_no_other_ones(stage: Stage) -> None:
    """Fails without `known`: one process would be waited for twice."""
    await stage.fork()
    stage.all.workers.fork(ev.Fork(1, 2, 2, 0, 0.0))
    reader, writer = unix.stream_pair()
    trace = unix.memory_file("trace")
    say(stage.sock, msg.Forked(2, 902), [writer.fileno(), trace, trace])
    await turn()
    assert stage.zygote.killed
    assert "pid 902, which is another process" in stage.zygote.broken
    os.close(trace)
    reader.close()
    writer.close()


@pytest.mark.parametrize("who", ["zygote", "worker"])
async def test_half_a_message_is_waited_for_until_it_is_cut_off(stage: Stage, who: str) -> None:
    """For an upgrade; of a zygote its end, too, whose cause the next image would not know. Fails without `_halves`."""
    await stage.fork()
    stage.heard.clear()
    assert stage.all.quiet
    sock = stage.sock if who == "zygote" else stage.socks[1]
    sock.send(frame(msg.Ready(1, {}))[:-1])
    await turn()
    assert not stage.all.quiet
    stage.all.cut_off_halves("half a message")
    if who == "worker":
        assert stage.heard == [ev.Breached(1, "half a message")]
        assert stage.all.quiet
    else:
        assert stage.zygote.killed
        assert not stage.all.quiet
        stage.zygote.status = 9
        os.write(stage.ends[0], b"x")
        await turn()
        assert stage.heard == [ev.ZygoteGone(1, "broke the protocol and was killed (half a message)")]
        assert stage.all.quiet


async def test_an_upgrade_saves_and_restores_both(stage: Stage) -> None:
    """Fails with a field of a handle left out of `saved` or `restored`."""
    worker = await stage.fork()
    worker.trace_offset, worker.status = 7, 9
    saved = worker.saved()
    assert saved.channel is not None
    saved.channel = os.dup(saved.channel)
    again = WorkerHandle.restored(saved)
    assert again.saved() == saved
    assert again.channel is not None
    again.channel.close()
    assert [each.generation for each in stage.all.saved_zygotes()] == [1]
