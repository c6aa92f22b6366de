"""`Processes` with fake handles: what it makes of the board, of a flood, of half a message."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from aserver import unix
from aserver.errors import ChannelError
from aserver.ipc import messages as msg
from aserver.ipc.board import Board, Field
from aserver.ipc.channel import TURN_MESSAGES, Channel
from aserver.master.core import events as ev
from aserver.master.handles import WorkerHandle, ZygoteHandle
from aserver.master.processes import Processes

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop


class Stage:
    """A `Processes` whose zygote and worker are only channels; `heard` are the events."""

    def __init__(self) -> None:
        self.heard: list[ev.Event] = []
        self.processes = Processes(self.heard.append, lambda generation, files: None)
        self.zygote_sock, ours = unix.stream_pair()
        self.zygote = ZygoteHandle(1, 1, None, Channel(ours, msg.FromZygote))
        self.processes._keep_zygote(self.zygote)
        self.processes.fork(ev.Fork(1, 1, 1, 0, 0.0))
        self.worker: WorkerHandle = self.processes.workers[1]
        self.worker_sock, ours = unix.stream_pair()
        self.worker.pid, self.worker.channel = 2, Channel(ours, msg.FromWorker)
        self.worker.trace = os.dup(self.processes.board.fd)
        self.processes._watch_worker(self.worker)

    def close(self) -> None:
        """Let go of everything."""
        self.processes.close()
        self.zygote_sock.close()
        self.worker_sock.close()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    made.close()


def _frame(message: msg.Message) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + b"\0\0" + body


async def test_a_heartbeat_that_lies_ahead_is_none(stage: Stage) -> None:
    """Written by a worker that wants to be seen alive for ever. Fails without the comparison with now."""
    board = Board(os.dup(stage.processes.board.fd))
    cell = board.cell(stage.worker.cell)
    cell[Field.BEAT] = time.monotonic_ns()
    assert 0 < stage.processes.beats()[1] <= time.monotonic()
    for nonsense in (time.monotonic_ns() + 10**9, 2**64 - 1):
        cell[Field.BEAT] = nonsense
        assert stage.processes.beats() == {1: 0.0}
    cell.release()
    board.close()


async def test_a_worker_that_floods_is_heard_for_its_share_and_then_no_more(stage: Stage) -> None:
    """Other peers are heard in between. Fails without `count`, and with a channel that is only not read any more."""
    stage.worker_sock.send(_frame(msg.RecycleAsked(1, "flood")) * 200)
    stage.processes._on_worker_message(stage.worker)
    assert len(stage.heard) == TURN_MESSAGES
    stage.processes._on_worker_message(stage.worker)
    *asked, breached = stage.heard
    assert len(asked) == stage.worker.may_say
    assert isinstance(breached, ev.Breached)
    assert breached.reason == "it has sent 65 messages, and can have had 64 to send"
    with pytest.raises(BrokenPipeError):
        stage.worker_sock.send(b"more")
    stage.processes.tell(1, msg.Drain(final=False, graceful=1.0))
    assert b"Drain" in stage.worker_sock.recv(100), "it can still be told to leave"


async def test_what_a_dead_zygote_has_said_is_heard_to_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a turn's share of deaths. Fails with one turn: those behind would have no status."""
    monkeypatch.setattr(ZygoteHandle, "reap", lambda _: 0)
    serials = range(2, 2 + TURN_MESSAGES + 20)
    for serial in serials:
        stage.processes.fork(ev.Fork(1, serial, 1, 0, 0.0))
        stage.zygote_sock.send(_frame(msg.ForkFailed(serial, "EAGAIN")))
    stage.processes._on_zygote_dead(stage.zygote)
    assert [event.serial for event in stage.heard if isinstance(event, msg.ForkFailed)] == list(serials)
    assert isinstance(stage.heard[-1], ev.ZygoteGone)


async def test_the_pid_of_a_worker_that_was_reaped_may_be_the_next_ones(stage: Stage) -> None:
    """Both are told in one turn, before the first one's pidfd is seen to be readable. Fails with every pid `known`: the
    zygote would be killed as a liar.
    """
    stage.worker.pidfd = os.dup(stage.processes.board.fd)  # not a process's: its end is seen later
    stage.processes.fork(ev.Fork(1, 2, 1, 0, 0.0))
    theirs, channel = unix.stream_pair()
    fds = [channel.detach(), unix.memory_file("trace")]
    with pytest.raises(ChannelError, match="pid 2, which is another process"):
        stage.processes._on_forked(stage.zygote, msg.Forked(2, 2), fds)
    stage.processes._on_zygote_says(stage.zygote, msg.Exited(1, 2, 0), [])
    stage.processes._on_forked(stage.zygote, msg.Forked(2, 2), fds)
    assert stage.heard == [msg.Forked(2, 2)]
    theirs.close()


@pytest.mark.parametrize("who", ["zygote", "worker"])
async def test_half_a_message_is_waited_for_until_it_is_cut_off(
    stage: Stage, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an upgrade; of a zygote its end, too, whose cause the next image would not know. Fails without `_halves`."""
    killed: list[Any] = []

    def kill(zygote: ZygoteHandle) -> None:
        killed.append(zygote)

    monkeypatch.setattr(ZygoteHandle, "kill", kill)
    assert stage.processes.quiet
    sock = stage.zygote_sock if who == "zygote" else stage.worker_sock
    sock.send(_frame(msg.Ready(1, {}))[:-1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not stage.processes.quiet
    stage.processes.cut_off_halves("half a message")
    if who == "worker":
        assert stage.heard == [ev.Breached(1, "half a message")]
        assert stage.processes.quiet
    else:
        assert killed == [stage.zygote]
        assert not stage.processes.quiet
        monkeypatch.setattr(ZygoteHandle, "reap", lambda _: 9)
        stage.processes._on_zygote_dead(stage.zygote)
        assert stage.heard == [ev.ZygoteGone(1, "broke the protocol and was killed (half a message)")]
        assert stage.processes.quiet
