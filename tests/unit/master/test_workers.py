"""The workers as processes, with fake handles: messages and deaths in, events out."""

import asyncio
import os
import signal
import time
from typing import Any

import pytest

from aserver import cgroups, unix
from aserver.ipc import messages as msg
from aserver.ipc.board import Board, Field
from aserver.ipc.channel import TURN_MESSAGES, Channel
from aserver.master import workers
from aserver.master.core import events as ev
from aserver.master.handles import WorkerHandle
from aserver.master.workers import Looks
from tests.harness import eventually
from tests.unit.master.stage import FORK, Stage, frame, say, sent, turn

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop


async def test_a_worker_from_its_fork_to_its_end(stage: Stage) -> None:
    worker = await stage.fork()
    assert (str(worker), worker.cell) == ("worker 1 (generation 1, pid 902)", 1)
    assert stage.all.pids == [901, 902]
    ready = msg.Ready(1, {"/a.py": (1, 2)})
    say(stage.socks[1], ready)
    await turn()
    say(stage.sock, msg.Exited(1, 902, 3 << 8))
    say(stage.socks[1], msg.RecycleAsked(1, "its last words"))
    os.write(stage.ends[-1], b"x")
    await turn()
    assert stage.heard == [msg.Forked(1, 902), ready, msg.RecycleAsked(1, "its last words"), ev.Died(1, 3)]
    assert (await stage.fork(msg.Fork(1, 2, 1, 0, 0.0))).cell == 1, "the cell is free again"


async def test_a_worker_for_which_the_board_has_no_cell_is_a_fork_that_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `aserver scale 5000`. Fails with the IndexError of an empty list, which ends the master."""
    monkeypatch.setattr(stage.all.workers, "_free_cells", [])
    stage.all.workers.fork(msg.Fork(1, 7, 1, 0, 0.0))
    await turn()
    assert stage.heard == [msg.ForkFailed(7, "1023 processes are the most that a server can have")]


async def test_each_kill_for_memory_explains_one_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with all that was counted taken for the first death: the second was then a stranger's."""
    counts = iter([4, 4, 6, 6, 6, 7, 8])
    monkeypatch.setattr(cgroups, "oom_kills", lambda: ("cgroup /a", next(counts)))
    memory = workers.OutOfMemory()
    assert memory.why("SIGKILL") == ""
    assert memory.why("SIGKILL") == "oom_kill of cgroup /a rose from 4 to 6"
    assert memory.why("SIGKILL") == "oom_kill of cgroup /a rose from 5 to 6"
    assert memory.why("SIGKILL") == ""
    assert memory.why("SIGSEGV") == "", "a subprocess of the application was killed"
    assert memory.why("SIGKILL") == "oom_kill of cgroup /a rose from 7 to 8"


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
    await stage.fork(msg.Fork(1, 2, 1, 0, 0.0))
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
    stage.all.workers.tell(1, msg.Drain(1, final=False, graceful=1.0))
    assert sent(stage.socks[1]) == [("Drain", 0)], "it can still be told to leave"


async def test_the_pid_of_a_worker_that_was_reaped_may_be_the_next_ones(stage: Stage) -> None:
    """Both are told in one turn, before the first one's pidfd is seen to be readable. Fails with every pid `known`: the
    zygote would be killed as a liar.
    """
    await stage.fork()
    say(stage.sock, msg.Exited(1, 902, 0))
    await stage.fork(msg.Fork(1, 2, 2, 0, 0.0), 902)
    assert stage.heard == [msg.Forked(1, 902), msg.Forked(2, 902)]


async def test_the_pid_of_a_worker_that_lives_is_no_other_ones(stage: Stage) -> None:
    """Fails without `known`: one process would be waited for twice."""
    await stage.fork()
    stage.all.workers.fork(msg.Fork(1, 2, 2, 0, 0.0))
    reader, writer = unix.stream_pair()
    trace = unix.memory_file("trace")
    say(stage.sock, msg.Forked(2, 902), [writer.fileno(), trace, trace])
    await turn()
    assert stage.zygote.killed
    assert "pid 902, which is another process" in stage.zygote.broken
    os.close(trace)
    reader.close()
    writer.close()


# ── looks into workers ──

REQUEST = msg.RequestSeen("GET /\x1b[2J", "127.0.0.1:9", 1.5, begun=False, request_id="", stack="line 1")


class Asked:
    """A worker of which the test has the other end."""

    def __init__(self) -> None:
        ours, theirs = unix.stream_pair()
        self.worker = WorkerHandle(7, 1, 2, 1, pid=99, channel=Channel(ours, msg.FromWorker))
        self.theirs: Channel[Any] = Channel(theirs, msg.ToWorker)
        self.signals: list[tuple[int, signal.Signals]] = []
        self.looks = Looks(lambda serial, signum: self.signals.append((serial, signum)), lambda _cell: "/slow?a=b")
        self.replies: list[dict[str, Any]] = []

    def close(self) -> None:
        self.worker.close()
        self.theirs.close()


async def test_an_answer_is_told_once_and_cleaned() -> None:
    """Fails without `_clean` (the application commands the terminal), and with a late or second answer that counts."""
    stage = Asked()
    stage.looks.ask(stage.worker, stage.replies.append)
    ((look, _),) = stage.theirs.receive()
    seen = msg.Seen(7, look.number, 1, [REQUEST], [msg.Stack("Task-1", "line 2")], [], {"another request": 2})
    for _ in range(2):
        stage.looks.answered(stage.worker, seen)
    stage.looks.answered(stage.worker, msg.Seen(7, 12345, 0, [], [], [], {}))
    (reply,) = stage.replies
    assert (reply["slot"], reply["pid"], reply["blocked"], reply["of"]) == (2, 99, False, 1)
    assert reply["requests"][0]["request"] == "GET /\\x1b[2J"
    assert reply["tasks"] == [{"name": "Task-1", "stack": "line 2"}]
    assert reply["clients"] == {"another request": 2}
    assert not stage.signals
    stage.close()


async def test_a_blocked_worker_is_shown_by_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without the timer: the caller waits as long as the worker is blocked."""
    monkeypatch.setattr(workers, "ANSWER_PATIENCE", 0.01)
    stage = Asked()
    stage.worker.trace = unix.memory_file("trace")
    os.write(
        stage.worker.trace, b'Current thread 0x1 (most recent call first):\n  File "/srv/app.py", line 7 in wait\n'
    )
    stage.looks.ask(stage.worker, stage.replies.append)
    await eventually(lambda: stage.replies)
    assert stage.signals == [(7, signal.SIGUSR2)]
    (reply,) = stage.replies
    assert reply["blocked"]
    assert "line 7 in wait" in reply["trace"]
    assert reply["begun_last"] == "/slow?a=b"
    stage.close()


async def test_a_worker_that_dies_answers_nothing_more() -> None:
    """Fails without `died`: the caller would wait for the timer, and a handle that is closed would be read."""
    stage = Asked()
    stage.looks.ask(stage.worker, stage.replies.append)
    stage.looks.died(stage.worker)
    assert stage.replies[0]["trace"] == "the process has ended"
    await asyncio.sleep(0)
    stage.close()
