"""Looks into workers: answered, blocked, dead, or telling what nobody asked."""

import asyncio
import os
import signal
from typing import Any

import pytest

from aserver import unix
from aserver.ipc import messages as msg
from aserver.ipc.channel import Channel
from aserver.master import looks
from aserver.master.handles import WorkerHandle
from aserver.master.looks import Looks
from tests.harness import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop

REQUEST = msg.RequestSeen("GET /\x1b[2J", "127.0.0.1:9", 1.5, begun=False, request_id="", stack="line 1")


class Stage:
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
    stage = Stage()
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
    monkeypatch.setattr(looks, "ANSWER_PATIENCE", 0.01)
    stage = Stage()
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
    stage = Stage()
    stage.looks.ask(stage.worker, stage.replies.append)
    stage.looks.died(stage.worker)
    assert stage.replies[0]["trace"] == "the process has ended"
    await asyncio.sleep(0)
    stage.close()
