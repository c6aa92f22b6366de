"""Traps 20 to 39 of docs/traps.md: deaths, stops and signals, as far as they need neither recycling nor reload.

Each test starts the real command. Each docstring says how the test was seen to fail.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from tests.harness import (
    PATIENCE,
    Load,
    Notes,
    Process,
    ServerProcess,
    free_port,
    process,
    require_tool,
    wait_for,
)
from tests.harness.groups import group
from tests.harness.server import REPOSITORY
from tests.process.rolling import Start, hold, keep_to, settle

pytestmark = pytest.mark.process

PROBE = "tests.apps.lifecycle.probe:app"
LIFESPANS = "tests.apps.lifecycle.lifespans"


def _the(processes: list[Process], pid: int) -> Process:
    return next(each for each in processes if each.pid == pid)


def _port_is_free(server: ServerProcess) -> bool:
    assert isinstance(server.where, tuple)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(server.where)
        except OSError:
            return False
    return True


def _pidfds(holder: Process) -> set[int]:
    """The pids behind the pidfds of a process (proc(5), fdinfo)."""
    found = set()
    for fd, what in holder.descriptors().items():
        if what == "anon_inode:[pidfd]":
            text = Path(f"/proc/{holder.pid}/fdinfo/{fd}").read_text()
            found.add(int(re.search(r"^Pid:\s*(-?\d+)", text, re.MULTILINE)[1]))  # type: ignore[index]
    return found


# ── deaths ───────────────────────────────────────────────────────────────────────────────────


def test_trap_20_a_killed_worker_is_replaced_and_its_neighbours_notice_nothing(server: Start) -> None:
    """Fails without the Died event in Workers._report_end (no replacement)."""
    running = server(PROBE, "--workers", "2")
    with running.connect() as kept:
        survivor = int(kept.request("/").body)
        victim = next(each for each in running.workers() if each.pid != survivor)
        victim.kill()
        settle(running, 2, other_than=victim.pid)
        assert int(kept.request("/").body) == survivor
    assert running.stop() == 0


def test_trap_21_and_12_and_24_a_killed_zygote_costs_nothing(server: Start) -> None:
    """Its workers serve on under another parent, the next death is replaced, and the new deputy knows all of them.

    Fails with a worker that leaves when getppid() changes (12), without the respawn in on_zygote_gone (21), and
    without AdoptWorkers (24).
    """
    running = server(PROBE, "--workers", "2")
    before = {each.pid for each in running.workers()}
    (zygote,) = running.zygotes()
    with Load(running.where, connections=4) as load:
        zygote.kill()
        running.wait_log(r"zygote of generation 1 is up", count=2)
        load.wait_for_more(50)
    load.outcome.check()
    deputy = _the(running.zygotes(), max(set(_children(running)) - before))
    running.wait_for(lambda: _pidfds(deputy) >= before, what="the new zygote to hold the workers' pidfds")
    victim = process(min(before))
    assert victim is not None
    assert victim.parent == running.pid, "the master is the net under a zygote that dies"
    victim.kill()
    running.wait_log(f"pid {victim.pid}\\) was killed by SIGKILL")
    running.wait_log("is ready after", count=3)
    assert {int(running.fetch("/").body) for _ in range(20)}.isdisjoint({victim.pid})
    assert running.stop() == 0


def _children(server: ServerProcess) -> list[int]:
    return [each.pid for each in server.zygotes()]


@pytest.mark.parametrize("at", ["before the fork", "after the fork"])
def test_trap_22_a_zygote_killed_while_forking(server: Start, at: str, tmp_path: Path) -> None:
    """The order is given again, and a worker that nobody knows does not stay.

    Before: it is stopped with the order in its channel. After: strace kills it at the first message that follows
    the fork, so that a child exists that the master was never told of. Fails without dropping the workers that have no
    pid in on_zygote_gone (the slot stays empty until FORK_TIMEOUT), and without the drain at EOF in the worker.
    """
    running = server(PROBE, "--workers", "2")
    (zygote,) = running.zygotes()
    victim, other = running.workers()
    if at == "before the fork":
        zygote.kill(signal.SIGSTOP)
        victim.kill()
        running.wait_log(f"pid {victim.pid}\\) (killed|ended)")  # with this, the next one is ordered
        zygote.kill()
    else:
        # The first sendmsg after the worker's death reports it; the second tells of the fork.
        inject = "inject=sendmsg:signal=SIGKILL:when=2"
        tracer = [require_tool("strace"), "-qq", "-e", "trace=sendmsg,clone,clone3,fork", "-e", inject]
        trace = tmp_path / "trace"
        with _Tracer([*tracer, "-o", str(trace), "-p", str(zygote.pid)]) as attached:
            running.wait_for(lambda: zygote.status("TracerPid") != "0", what="strace to be attached")
            victim.kill()
            attached.wait()
        assert "SIGKILL" in trace.read_text()
    running.wait_log("zygote of generation 1 is up", count=2)
    new = {int(pid) for pid in re.findall(r"pid (\d+)\) is ready", running.log)} - {victim.pid, other.pid}
    running.wait_for(
        lambda: len(re.findall(r"pid \d+\) is ready", running.log)) >= 3, what="a third worker to become ready"
    )
    new = {int(pid) for pid in re.findall(r"pid (\d+)\) is ready", running.log)} - {victim.pid}
    known = {running.pid, *_children(running), *new}
    running.wait_for(lambda: {each.pid for each in running.family()} <= known, what="nobody unknown to be left")
    assert len(running.family()) == 4
    assert running.stop() == 0


class _Tracer:
    """A third-party program in the background."""

    def __init__(self, argv: list[str]) -> None:
        self._popen = subprocess.Popen(argv, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def wait(self) -> None:
        """Until it has ended."""
        wait_for(lambda: self._popen.poll() is not None, what="the tracer to end")

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.wait()


#: A master that waits 3 s for a zygote's answer instead of 10.
IMPATIENT = """
import sys
if "aserver" in sys.orig_argv:
    from aserver.master.core import limits
    limits.FORK_TIMEOUT = 3.0
"""


def test_trap_23_a_stopped_zygote_is_replaced(server: Start, tmp_path: Path) -> None:
    """The master answers meanwhile, and the slot is filled after FORK_TIMEOUT at last.

    Fails without the deadline for unforked workers in _expire_zygotes.
    """
    (tmp_path / "sitecustomize.py").write_text(IMPATIENT)
    running = server(PROBE, "--workers", "2", env={"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"})
    (zygote,) = running.zygotes()
    victim = running.workers()[0]
    zygote.kill(signal.SIGSTOP)
    victim.kill()
    running.wait_log(f"pid {victim.pid}\\) (killed|ended)")  # though its parent cannot reap it
    running.signal(signal.SIGTTIN)
    running.wait_log("scaling from 2 to 3 workers")
    running.wait_log("zygote of generation 1 did not answer and was killed")
    running.wait_log("scale complete: 3 workers serve")
    assert not zygote.alive
    assert running.stop() == 0


@pytest.mark.parametrize("deputy", ["the parent", "a successor"])
def test_trap_25_a_killed_master_leaves_nothing_behind(server: Start, deputy: str, tmp_path: Path) -> None:
    """One worker hangs, one has a request under way that is finished; then nobody is left and the port is free.

    Fails without deputy.end_stragglers (the hung one stays), and for the successor without AdoptWorkers.
    """
    notes = Notes(tmp_path)
    limits = ("--graceful-timeout", "1", "--lifespan-shutdown-timeout", "0.2", "--slow-callback", "0")
    running = server(PROBE, "--workers", "2", *limits, env=notes.env)
    if deputy == "a successor":
        running.zygotes()[0].kill()
        running.wait_log("zygote of generation 1 is up", count=2)
    with hold(running, "/block?seconds=600"):
        running.wait_for(lambda: "blocking" in notes.lines, what="a worker to hang")
        with hold(running, "/slow?seconds=0.5") as slow:
            running.wait_for(lambda: "slow" in notes.lines, what="a request to be under way")
            running.kill()
            assert slow.read_response().status == 200
        running.wait_for(lambda: not running.family(), what="all processes to go")
        assert _port_is_free(running)
    running.wait_log("1 workers did not drain within 2.2 s: they are killed")


def test_trap_27_a_living_grandchild_does_not_hide_a_death(server: Start) -> None:
    """It holds the worker's end of the channel, so there is no EOF. Fails with EOF as the death notice."""
    running = server(PROBE)
    grandchild = process(running.ask("/bare-child"))
    assert grandchild is not None
    try:
        (worker,) = (each for each in running.workers() if each.pid == grandchild.parent)
        ends = {what for what in worker.descriptors().values() if what.startswith("socket:")}
        assert ends & set(grandchild.descriptors().values()), "the premise: it holds the worker's sockets"
        worker.kill()
        running.wait_log(f"pid {worker.pid}\\) was killed by SIGKILL")
        running.wait_log("is ready after", count=2)
        assert grandchild.alive
    finally:
        grandchild.kill()
    assert running.stop() == 0


def test_trap_28_workers_are_signalled_through_pidfds_only(server: Start, tmp_path: Path) -> None:
    """Fails with os.kill(worker.pid, ...) in `Workers.signal`."""
    trace, notes = tmp_path / "trace", Notes(tmp_path)
    calls = "trace=kill,tkill,tgkill,pidfd_send_signal"
    strace = [require_tool("strace"), "-D", "-qq", "-e", calls, "-e", "signal=none", "-o", str(trace)]
    argv = [*strace, *ServerProcess.command(PROBE), "--bind", "127.0.0.1:0", "--slow-callback", "0"]
    running = server("", argv=argv, env=notes.env)
    with hold(running, "/block?seconds=600"):
        running.wait_for(lambda: "blocking" in notes.lines, what="the worker to hang")
        for count, signum in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), 1):
            running.signal(signum)
            running.wait_log("stopping", count=count)
        assert running.wait_exit() == 6
    lines = trace.read_text().splitlines()
    assert any(line.startswith("pidfd_send_signal(") and "SIGKILL" in line for line in lines), lines
    assert not any(line.startswith(("kill(", "tkill(", "tgkill(")) for line in lines), lines


def test_trap_29_orphans_of_user_code_are_reaped(server: Start) -> None:
    """A daemon that a handler made ends, and leaves no zombie. Fails without unix.reap_strangers in the chores."""
    running = server(PROBE)
    for pid in [running.ask("/daemon") for _ in range(3)]:
        running.wait_for(lambda: process(pid) is None, what=f"pid {pid} to be reaped")  # noqa: B023
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("/leave?code=41", r"ended with exit code 41 \(an unhandled error or sys.exit in the app\)"),
        ("/leave?code=0", r"left by itself with exit code 0"),
        (f"/signal?number={signal.SIGKILL}", r"was killed by SIGKILL from outside aserver"),
        (f"/signal?number={signal.SIGSEGV}", r"crashed with SIGSEGV"),
    ],
)
def test_trap_30_every_death_is_explained(server: Start, request_: str, said: str) -> None:
    """And what happens next is said; a crash comes with its stack.

    Fails without the status in Exited (all are "ended; its zygote did not report how"), and the last without
    faulthandler.enable in the worker.
    """
    running = server(PROBE)
    (worker,) = running.workers()
    with hold(running, request_) as lost:
        lost.expect_close()
    (line,) = running.wait_log(rf"^.*worker 1 .*pid {worker.pid}\) {said}.*$")
    assert "0 of 1 serve, a new one starts now" in line[0]
    if "SEGV" in said:
        running.wait_log(r"the stacks at its end.*:(\n.*)*probe\.py.* in app")
    running.wait_log("is ready after", count=2)
    assert running.stop() == 0


def test_trap_30_a_kill_by_the_kernel_for_memory_is_named() -> None:
    """In a real control group; where only version 2 is mounted there are tests/unit/test_cgroups.py alone.

    Fails with the count of the group that contains this one, and with the system's.
    """
    with group("memory") as folder:
        (folder / "memory.limit_in_bytes").write_text(str(256 << 20))
        enter = f'echo $$ >{folder}/cgroup.procs && exec "$@"'
        command = [sys.executable, "-m", "aserver", "run", PROBE, "--bind", "127.0.0.1:0"]
        whose = f"cgroup /{folder.relative_to('/sys/fs/cgroup/memory')}"
        with ServerProcess(argv=["sh", "-c", enter, "sh", *command]) as running:
            with hold(running.wait_ready(), "/eat") as lost:
                lost.expect_close()
            running.wait_log(rf"worker 1 .* ran out of memory \(oom_kill of {whose} rose from 0 to 1\)")
            running.wait_log("is ready after", count=2)
            assert running.stop() == 0


def test_trap_30_sigterm_to_a_worker_replaces_it_gently(server: Start, tmp_path: Path) -> None:
    """It goes on serving until its replacement does, and finishes. Fails with SIGTERM's default disposition."""
    notes = Notes(tmp_path)
    running = server(PROBE, "--min-lifetime", "0", env=notes.env)
    (worker,) = running.workers()
    with hold(running, "/slow?seconds=0.5") as slow:
        running.wait_for(lambda: "slow" in notes.lines, what="a request to be under way")
        worker.kill(signal.SIGTERM)
        running.wait_log("is due: it got SIGTERM")
        assert slow.read_response().status == 200
    running.wait_log(f"pid {worker.pid}\\) has left")
    assert int(running.fetch("/").body) != worker.pid
    assert running.stop() == 0


def test_trap_31_a_crash_loop_backs_off_and_leaves_the_others_alone(server: Start, tmp_path: Path) -> None:
    """Growing pauses, one line for each death, and the worker that is well serves as if nothing were.

    Fails with `return 0.0` in BackOff.died: hundreds of forks.
    """
    notes = Notes(tmp_path)
    env = notes.env | {"STAYER": str(tmp_path / "stayer")}
    running = server("tests.apps.lifecycle.leaving:app", "--workers", "2", env=env, ready=False)
    running.wait_log("listening on")
    (stayer,) = running.wait_for(lambda: notes.pids("stays"), what="the worker that stays")
    with keep_to(running, stayer) as kept:
        seen: list[float] = []
        while len(seen) < 4:
            found = running.wait_log(r"exit code 41 .*a new one starts (?:now|in ([\d.]+) s)", count=len(seen) + 3)
            seen = [float(each[1]) for each in found if each[1]]
            assert int(kept.request("/").body) == stayer
    assert all(pause >= 0.25 for pause in seen)
    assert max(seen) >= 1.0 > min(seen), f"they grow: {seen}"
    assert running.log.count("exit code 41") <= len(seen) + 4, "three deaths are free, each other one is paid for"
    assert running.stop() == 0


# ── stopping ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_trap_36_a_lifespan_that_waits_for_ever_can_be_stopped(server: Start, signal_: int, tmp_path: Path) -> None:
    """At once, and nothing has to be killed. Fails without _boot_scope.cancel() in Server.drain."""
    notes = Notes(tmp_path)
    running = server(f"{LIFESPANS}:hangs", ready=False, env=notes.env)
    running.wait_for(lambda: "hanging" in notes.lines, what="lifespan startup to hang")
    running.signal(signal_)
    assert running.wait_exit() == 0
    assert "Traceback" not in running.log


def test_trap_36_a_lifespan_that_holds_the_loop_is_killed(server: Start, tmp_path: Path) -> None:
    """Fails without the deadline that a drain sets for a worker that boots."""
    notes = Notes(tmp_path)
    limit = ("--lifespan-shutdown-timeout", "0.1")
    running = server(f"{LIFESPANS}:blocks", *limit, ready=False, env=notes.env)
    running.wait_for(lambda: "hanging" in notes.lines, what="lifespan startup to hang")
    assert running.stop() == 6
    running.wait_log("did not leave in time; it is killed")


@pytest.mark.parametrize("app", ["hangs", "blocks"])
def test_trap_36_boot_timeout(server: Start, app: str) -> None:
    """A hanging startup is ended, with the stack of what holds the loop, and is a failed boot (exit code 3).

    Fails without the deadline of a BOOTING worker.
    """
    limits = ("--boot-timeout", "5", "--boot-retries", "1", "--lifespan-shutdown-timeout", "0.1")
    running = server(f"{LIFESPANS}:{app}", *limits, ready=False)
    assert running.wait_exit() == 3
    running.wait_log(r"was not ready within 5 s; it is aborted")
    if app == "blocks":
        running.wait_log(r"lifespans\.py.* in blocks")
    assert running.log.splitlines()[-1].startswith("aserver: error: worker 1")


def test_trap_37_ctrl_c_to_the_whole_group_is_one_stop(server: Start, tmp_path: Path) -> None:
    """The terminal signals everybody; the master alone decides; each worker leaves in order, hooks and all.

    Fails without ignore_signals in the worker (KeyboardInterrupt), and without SIGINT in zygote.main._WAKING.
    """
    notes = Notes(tmp_path)
    running = server(PROBE, "--lazy", "--workers", "2", env=notes.env)
    workers = sorted(each.pid for each in running.workers())
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait_exit() == 0
    assert running.log.count("stopping (SIGINT)") == 1
    assert running.log.count("has left") == 2
    assert "Traceback" not in running.log
    assert "KeyboardInterrupt" not in running.log
    assert sorted(notes.pids("atexit")) == workers


def test_trap_38_a_second_sigterm_shortens_the_drain(server: Start, tmp_path: Path) -> None:
    """Once a second has gone by. The request under way is cancelled, in order.

    Fails with `mode = self.stop` for a repeated request.
    """
    hurried = r"stopping (SIGTERM): requests in flight are cancelled"
    notes = Notes(tmp_path)
    running = server(PROBE, env=notes.env)
    with hold(running, "/slow?seconds=600") as slow:
        running.wait_for(lambda: "slow" in notes.lines, what="a request to be under way")
        running.terminate()
        running.wait_log(r"stopping \(SIGTERM\): requests in flight get up to 30 s")
        assert running.returncode is None

        def told_again() -> bool:
            running.terminate()
            return hurried in running.log

        running.wait_for(told_again, what="SIGTERM to count again")
        assert running.wait_exit() == 0
        running.wait_log(r"request cancelled.*GET /slow")
        slow.sock.close()


def test_trap_39_everybody_dies_while_the_master_is_told_to_stop(server: Start) -> None:
    """It finds all of them dead at once: no traceback. Fails without the OSError branch of Channel.flush."""
    running = server(PROBE, "--workers", "2")
    family = [*running.workers(), *running.zygotes()]
    running.signal(signal.SIGSTOP)
    for each in family:
        each.kill()
    running.terminate()
    running.signal(signal.SIGCONT)
    assert running.wait_exit() in (0, 6)
    assert "Exception ignored" not in running.log
    assert "Traceback" not in running.log


LATE = """
import asyncio, signal
from unittest.mock import Mock
from aserver.master.signals import handled

async def main():
    with handled(asyncio.get_running_loop(), Mock(noted=[])):
        signal.raise_signal(signal.SIGUSR1)

asyncio.run(main())
signal.raise_signal(signal.SIGCHLD)
handlers = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
print(signal.set_wakeup_fd(-1), [signum.name for signum, handler in handlers.items() if callable(handler)])
"""


def test_trap_39_a_death_after_the_loop_has_closed_prints_nothing() -> None:
    """Fails with a SIGCHLD handler and a wakeup descriptor that are still there when the loop has closed."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("-1 ['SIGINT']\n", ""), "Python's own KeyboardInterrupt alone"


def test_a_stop_before_anything_serves(server: Start, tmp_path: Path) -> None:
    """SIGTERM while the zygote still imports: at once, code 0, the import's process gone."""
    (tmp_path / "slowly.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    running = server("slowly:app", "--app-dir", str(tmp_path), ready=False)
    running.wait_log("importing")
    assert running.stop() == 0


def test_a_master_killed_while_the_app_is_imported_leaves_nothing(server: Start, tmp_path: Path) -> None:
    """Nobody reads the channel then. Fails without signal_at_parents_end in Zygote.load."""
    (tmp_path / "slowly.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    running = server("slowly:app", "--app-dir", str(tmp_path), ready=False)
    running.wait_log("importing")
    running.kill()
    running.wait_for(lambda: not running.family(), what="the zygote to go")


@pytest.mark.parametrize("preload", ["--preload", "--lazy"])
def test_readiness_nobody_connects_before_startup_is_complete(server: Start, preload: str, tmp_path: Path) -> None:
    """The port refuses until the first worker is ready, and a worker that boots gets no connection.

    Fails with listen() at bind time, and with Server._open before lifespan.startup (incident 3).
    """
    notes, go, port = Notes(tmp_path), tmp_path / "go", free_port()
    env = notes.env | {"LIFESPAN_WAITS": str(go)}
    bind = (f"127.0.0.1:{port}",)
    running = server(f"{LIFESPANS}:waits", "--workers", "2", preload, bind=bind, env=env, ready=False)
    running.wait_for(lambda: notes.lines.count("waiting") == 2, what="both workers to be in startup")
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))
    go.touch()
    running.wait_ready()
    pids = {each.pid for each in running.workers()}
    go.unlink()
    victim = running.workers()[0]
    victim.kill()
    running.wait_for(lambda: notes.lines.count("waiting") == 3, what="the replacement to be in startup")
    seen = {json.loads(running.fetch().body)["pid"] for _ in range(20)}
    assert seen == pids - {victim.pid}
    go.touch()
    running.wait_log("is ready after", count=3)
    assert running.stop() == 0
