"""Traps 1 to 18 of docs/traps.md: what fork copies, what exec resets, and what neither must take along.

Each test starts the real command. Each docstring says how the test was seen to fail.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Load, Notes, Process, RawConnection, ServerProcess, process, require_tool
from tests.process.rolling import variant

pytestmark = pytest.mark.process

PROBE = "tests.apps.lifecycle.probe:app"
Start = Callable[..., ServerProcess]

#: Python itself ignores these two in every process, so that write() returns an error (Python/pylifecycle.c).
PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}


def _signals(process_: Process, field: str) -> set[int]:
    """The signals in a mask of /proc/PID/status, without the two that glibc keeps for itself (32, 33)."""
    mask = int(process_.status(field), 16)
    return {number for number in range(1, 65) if mask & (1 << (number - 1))} - {32, 33}


def _under_strace(target: str, trace: Path, calls: str) -> list[str]:
    """The command with its master traced; `-D` leaves the master the process that the test started."""
    strace = [require_tool("strace"), "-D", "-qq", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(trace)]
    return [*strace, *ServerProcess.command(target), "--bind", "127.0.0.1:0", "--workers", "2"]


def test_trap_01_master_never_imports_the_app(server: Start, tmp_path: Path) -> None:
    """Only the zygote imports the app under preload. Fails with `preload(config)` called in launch._run_master."""
    notes = Notes(tmp_path)
    running = server(PROBE, "--workers", "2", env=notes.env)
    (zygote,) = running.zygotes()
    assert notes.pids("import") == [zygote.pid]
    assert running.stop() == 0
    assert notes.pids("import") == [zygote.pid]


def test_trap_01_master_never_forks(server: Start, tmp_path: Path) -> None:
    """Each process that the master makes is posix_spawn's vfork-like clone. Fails with subprocess.Popen(preexec_fn)."""
    trace = tmp_path / "trace"
    argv = _under_strace(PROBE, trace, "clone,clone3,fork,vfork")
    running = server("", argv=argv)
    assert running.fetch("/").status == 200
    assert running.stop() == 0
    calls = [line for line in trace.read_text().splitlines() if "(" in line]
    assert calls, "strace saw the zygote being made"
    assert all("CLONE_VM" in call and "CLONE_VFORK" in call for call in calls), calls


def test_trap_02_clean_signals_below_a_master_with_blocked_ones(server: Start) -> None:
    """Masks are empty, nothing is ignored, though the master was started so.

    Fails without posix_spawn's setsigdef (ignored), for the workers without the SIG_SETMASK in WorkerProcess.run
    (everything stays blocked across the fork), with both setsigmask and the master's obey_pending removed, and without
    unix.keep_exit_statuses in the master: under an ignored SIGCHLD nobody learns how its children ended.
    """
    block = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD, signal.SIGALRM})\n"
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGCONT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    argv = [sys.executable, "-c", block, *ServerProcess.command(PROBE), "--bind", "127.0.0.1:0", "--workers", "2"]
    running = server("", argv=argv)
    master = process(running.pid)
    assert master is not None
    assert signal.SIGALRM in _signals(master, "SigIgn"), "the test's own premise"
    assert signal.SIGCHLD not in _signals(master, "SigIgn")
    for each in (*running.zygotes(), *running.workers()):
        assert _signals(each, "SigBlk") == set(), each.title
        assert _signals(each, "SigIgn") == PYTHONS_OWN, each.title
    assert running.stop() == 0


def test_trap_02_subprocesses_of_the_app_start_clean(server: Start) -> None:
    """Nothing blocked or ignored in what the app starts.

    Fails with SIG_IGN in unix.ignore_signals, and with TTIN and TTOU ignored where no terminal controls us.
    """
    running = server(PROBE)
    status = running.ask("/child-signals")
    assert int(status["SigBlk"], 16) == 0
    ignored = int(status["SigIgn"], 16)
    assert [number for number in range(1, 32) if ignored & (1 << (number - 1))] == []


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_trap_03_one_thread_and_no_loop_in_the_zygote(server: Start, preload: str) -> None:
    """Nothing in the zygote that a fork breaks. Fails with an asyncio loop, or a thread, made in Zygote.__init__."""
    running = server(PROBE, "--workers", "2", preload)
    (zygote,) = running.zygotes()
    assert zygote.status("Threads") == "1"
    loops = [what for what in zygote.descriptors().values() if what.startswith(("anon_inode:[event", "anon_inode:[io"))]
    assert loops == []
    for worker in running.workers():
        assert any("eventpoll" in what for what in worker.descriptors().values()), "the premise: workers have one"


def test_trap_05_and_06_native_threads_connections_and_loops_are_named(server: Start, tmp_path: Path) -> None:
    """Each with what identifies it; and the app works, loaded by each worker.

    Fails without the /proc/self/task listing in ThreadWatch.hazards, and without `descriptor_hazards`.
    """
    notes = Notes(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as peer:
        port = peer.getsockname()[1]
        env = notes.env | {"PEER_PORT": str(port)}
        running = server("tests.apps.lifecycle.native:app", "--workers", "2", env=env)
        (census,) = running.wait_log(r"^.*does not survive.*$")
        assert "native thread 'libuv-worker' of uvloop/loop.cpython-" in census[0]
        assert f"a connected socket to 127.0.0.1:{port}" in census[0]
        assert "an event loop that was not closed" in census[0]
        assert running.fetch("/").status == 200
        workers = {worker.pid for worker in running.workers()}
        assert workers <= set(notes.pids("import")), "each worker has loaded the app"


def test_trap_05_numpy_and_a_loop_that_never_ran_leave_preload_on(server: Start, tmp_path: Path) -> None:
    """OpenBLAS ends its threads before a fork, and each worker has the loop for itself; numpy computes in each.

    Fails without `native.survivors`, and without the calls of `make_private` in the zygote.
    """
    notes = Notes(tmp_path)
    target = "tests.apps.lifecycle.number_cruncher:app"
    running = server(target, "--workers", "2", env=notes.env | {"OPENBLAS_NUM_THREADS": "4"})
    assert "does not survive" not in running.log
    assert notes.pids("import") == [zygote.pid for zygote in running.zygotes()]
    pipes: dict[int, int] = {}

    def both_answered() -> bool:
        total, pid, pipe = map(int, running.fetch().body.split())
        assert total == 200**3
        pipes[pid] = pipe
        return len(pipes) == 2

    running.wait_for(both_answered, what="an answer of each worker")
    assert len(set(pipes.values())) == 2


@pytest.mark.parametrize("capture", ["--no-capture-output", "--capture-output"])
def test_trap_07_text_printed_at_import_appears_once(server: Start, capture: str) -> None:
    """Without a newline, so that it is in a buffer when the zygote forks.

    Fails with stdio.replace_stdio and the flush before the fork both removed (each alone suffices).
    """
    running = server(PROBE, "--workers", "4", capture, env={"PYTHONUNBUFFERED": ""})  # which would hide it
    assert running.stop() == 0
    assert running.log.count("printed at import without a newline|") == 1


def test_trap_08_jitter_differs_between_workers(server: Start) -> None:
    """A generator copied by fork would give each worker the same limit.

    Fails with the draw moved into the worker, from a random.Random made in the zygote.
    """
    jitter = ("--max-requests", "1", "--max-requests-jitter", "30", "--min-lifetime", "0")
    running = server(PROBE, "--workers", "3", *jitter)
    with Load(running.where, "/", connections=4, keep_alive=False) as load:
        found = running.wait_log(r"limit is (\d+) \(max_requests\)", count=6)
    load.outcome.check()
    limits = [int(each[1]) for each in found]
    assert len(set(limits)) > 1, limits
    assert all(1 <= limit <= 31 for limit in limits), limits


def test_trap_09_a_full_collection_leaves_preloaded_memory_shared(server: Start) -> None:
    """100 MB of mappings: gc is on, and a collection in a worker copies next to nothing of them.

    Fails without gc.freeze() in Zygote.load: the collection then dirties 50 MB and more; without gc.set_threshold() in
    aserver/zygote/__main__.py.
    """
    running = server(PROBE, env={"PROBE_MEGABYTES": "100"})
    state = running.ask("/state")
    assert state["gc"] is True
    assert state["frozen"] > 100_000
    assert state["threshold"] == 10_000
    collected = running.ask("/collect")
    assert collected["objects"] > 100_000
    assert collected["dirtied"] < 5 << 20, collected


def test_trap_09_gc_is_on_and_frozen_in_lazy_workers_too(server: Start) -> None:
    """With a threshold of the application's own. Fails without gc.freeze() after load_app in WorkerProcess.run."""
    running = server(PROBE, "--lazy", env={"PROBE_MEGABYTES": "20", "PROBE_THRESHOLD": "650"})
    state = running.ask("/state")
    assert state["gc"] is True
    assert state["threshold"] == 650
    assert state["frozen"] > 60_000, "the zygote alone has 29,000"


@pytest.mark.parametrize("mode", ["--preload", "--lazy"])
def test_traps_10_and_11_hooks_of_fork_and_exit_run_once_and_nowhere_else(
    server: Start, mode: str, tmp_path: Path
) -> None:
    """Exit hooks run where they were registered. There is no double fork, so no process in between that could run any.

    Fails with `inherits=False` in the worker, without atexit._run_exitfuncs in ProcessExit, and with another fork at
    the beginning of Zygote._become_worker, whose parent waits for the worker.
    """
    notes = Notes(tmp_path)
    running = server(PROBE, mode, "--workers", "2", env=notes.env)
    workers = sorted(worker.pid for worker in running.workers())
    assert sorted(notes.pids("forked")) == (workers if mode == "--preload" else [])
    (zygote,) = running.zygotes()
    assert running.stop() == 0
    assert sorted(notes.pids("atexit")) == ([zygote.pid] if mode == "--preload" else workers)


def test_trap_15_a_subprocess_of_the_app_sees_only_the_standard_streams(server: Start) -> None:
    """Even with close_fds=False, while a request and both logs are open (3 is what `ls` reads the directory with).

    Fails with any descriptor made inheritable, such as by Channel._read without MSG_CMSG_CLOEXEC.
    """
    running = server(PROBE, "--workers", "2")
    assert running.ask("/child-descriptors") == ["0", "1", "2", "3"]
    os.kill(running.workers()[0].pid, signal.SIGKILL)  # a second look, at a worker that was forked later
    running.wait_log("is ready", count=3)
    seen = {tuple(running.ask("/child-descriptors")) for _ in range(8)}
    assert seen == {("0", "1", "2", "3")}


def test_trap_15_a_subprocess_started_at_import_sees_only_the_standard_streams(server: Start, tmp_path: Path) -> None:
    """It is the zygote's child, and must not hold its channel. Fails without set_inheritable(fd, False) there."""
    (tmp_path / "lister.py").write_text(
        "import json, subprocess\n"
        "listing = subprocess.run(['ls', '/proc/self/fd'], close_fds=False, capture_output=True, text=True).stdout\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': json.dumps(listing.split()).encode()})\n"
    )
    running = server("lister:app", "--app-dir", str(tmp_path))
    assert running.ask("/") == ["0", "1", "2", "3"]


def test_trap_16_a_forked_child_of_a_worker_holds_no_listener(server: Start) -> None:
    """It outlives the server here, and the port must be free all the same.

    Fails without ForkGuard.begin in WorkerProcess.run: the orphan keeps the port open and answers nobody.
    """
    running = server(PROBE)
    child = process(running.ask("/multiprocessing"))
    assert child is not None
    try:
        (worker,) = running.workers()
        worker.kill()  # so that multiprocessing cannot end its child at exit
        running.wait_log("is ready", count=2)
        where = running.where
        assert running.stop() == 0
        assert child.alive, "the premise"
        with pytest.raises(ConnectionRefusedError):
            RawConnection(where)
    finally:
        child.kill()


@pytest.mark.parametrize("mode", ["--preload", pytest.param("--lazy", marks=variant)])
def test_trap_17_interpreter_flags_and_variables_reach_the_workers(server: Start, mode: str) -> None:
    """Fails without _args_from_interpreter_flags in programs.spawn_program."""
    flags = ["-O", "-W", "error::SyntaxWarning", "-X", "utf8=1", "-X", "no_debug_ranges", "-s"]
    command = [sys.executable, *flags, *ServerProcess.command(PROBE)[1:], "--bind", "127.0.0.1:0", mode]
    running = server("", argv=command, env={"PYTHONHASHSEED": "7"})
    state = running.ask("/state")
    assert state["optimize"] == 1
    assert "error::SyntaxWarning" in state["warnoptions"]
    assert state["xoptions"]["utf8"] == "1"
    assert "no_debug_ranges" in state["xoptions"]
    assert state["environ"]["PYTHONHASHSEED"] == "7"


@pytest.mark.usefixtures("open_tree")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", ["--preload", "--lazy"])
def test_trap_18_privileges_are_dropped_before_the_app_is_imported(server: Start, mode: str) -> None:
    """Groups, too. Fails with drop_privileges after preload, and without setgroups in it."""
    grouped = "import os, sys; os.setgroups([0, 4]); os.execv(sys.argv[1], sys.argv[1:])"
    command = ServerProcess.command("tests.apps.lifecycle.identity:app")
    argv = [sys.executable, "-c", grouped, *command, "--bind", "127.0.0.1:0", "--user", "nobody", mode]
    running = server("", argv=argv)
    nobody = running.ask("/")
    assert running.ask("/import") == nobody
    assert 0 not in nobody["uids"]
    assert 0 not in nobody["gids"]
    assert not {0, 4} & set(nobody["groups"])
    master = process(running.pid)
    assert master is not None
    assert master.status("Uid").split()[0] == "0", "the premise"
