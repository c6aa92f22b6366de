"""`Processes` and `Workers` with fake handles: their channels are sockets, their pidfds pipes.

The tests are the other ends of the channels; they look at the events and at what is sent.
"""

import os
import signal

import pytest

from aserver import cgroups, unix
from aserver.ipc import messages as msg
from aserver.ipc.channel import TURN_MESSAGES
from aserver.master import border, handles, processes
from aserver.master.core import events as ev
from aserver.master.handles import ZygoteHandle
from tests.unit.master.stage import Stage, frame, say, sent, turn

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop


# ── zygotes ──────────────────────────────────────────────────────────────────────────────────


async def test_a_zygote_that_has_loaded(stage: Stage) -> None:
    """The parts of its fingerprint are put together. Fails without `know`."""
    say(stage.sock, msg.MoreFiles({"/a.py": (1, 2)}))
    say(stage.sock, msg.Loaded(1, False, "asgi\x1b[0m", (), 1.5, {"/b.py": (3, 4)}))
    await turn()
    files = {"/a.py": (1, 2), "/b.py": (3, 4)}
    assert stage.heard == [msg.Loaded(1, False, "asgi\\x1b[0m", (), 1.5, files)]


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
    stage.all.workers.fork(msg.Fork(1, 2, 2, 0, 0.0))
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
    monkeypatch.setattr(cgroups, "oom_kills", lambda: ("cgroup /a", 10**6))
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
        stage.all.workers.fork(msg.Fork(1, serial, 1, 0, 0.0))
    stage.sock.send(b"".join(frame(msg.ForkFailed(serial, "EAGAIN")) for serial in serials))
    os.write(stage.ends[0], b"x")
    await turn()
    assert [event.serial for event in stage.heard if isinstance(event, msg.ForkFailed)] == list(serials)
    assert isinstance(stage.heard[-1], ev.ZygoteGone)


async def test_a_new_zygote_adopts_the_living(stage: Stage) -> None:
    """Fails with the dead among them, whose pidfd nobody is to signal."""
    await stage.fork()
    await stage.fork(msg.Fork(1, 2, 2, 0, 0.0), 903)
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
