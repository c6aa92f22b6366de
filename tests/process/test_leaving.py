"""A worker leaves as a Python program does: threads, executors, child processes and exit functions come to their end.

Each test starts the real command. Each docstring says how it was seen to fail.
"""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Notes, ServerProcess
from tests.process.rolling import variant

pytestmark = pytest.mark.process

HOUSEHOLD = "tests.apps.lifecycle.household:app"
Start = Callable[..., ServerProcess]


# ── threads and pools ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["--preload", pytest.param("--lazy", marks=variant)])
@pytest.mark.parametrize("what", ["thread", "executor", "default-executor", "process", "processes"])
def test_work_under_way_is_finished_at_a_stop(server: Start, what: str, mode: str, tmp_path: Path) -> None:
    """It takes twice the hang_timeout, so only a heart that beats meanwhile lets it.

    Fails without threading._shutdown in ProcessExit.go (thread, executors; ProcessPoolExecutor's children are waited
    for until the kill, exit code 6), and without `beat` (aborted: "its event loop stood still").
    """
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, mode, "--hang-timeout", "1", "--slow-callback", "0.5", env=notes.env)
    running.ask(f"/begin?what={what}&seconds=2")
    running.wait_for(lambda: notes.of("begun"), what="the job to begin")
    assert running.stop() == 0
    assert len(notes.of("done")) == 1
    assert len(notes.of("atexit-import")) == 1
    assert "stood still" not in running.log
    assert "cuts off" not in running.log
    assert notes.lines.index(next(line for line in notes.lines if line.startswith("done"))) > notes.lines.index(
        next(line for line in notes.lines if line.startswith("shutdown"))
    ), "the premise: it was still under way"


def test_work_under_way_is_finished_at_a_recycle(server: Start, tmp_path: Path) -> None:
    """The replacement serves meanwhile. Fails without threading._shutdown in ProcessExit.go."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, "--min-lifetime", "0", "--max-requests", "1", "--hang-timeout", "1", env=notes.env)
    old = running.ask("/begin?what=executor&seconds=2")
    running.wait_log("has left after")
    assert notes.pids("done") == [old]
    assert running.ask("/") != old
    assert running.stop() == 0


@pytest.mark.parametrize("what", ["pool", "processes"])
def test_idle_pools_cost_a_worker_no_time(server: Start, what: str, tmp_path: Path) -> None:
    """multiprocessing.Pool and ProcessPoolExecutor. Each one's children end with it.

    Fails without threading._shutdown (ProcessPoolExecutor: exit code 6), and with the worker's own signal handlers in
    its children (Pool ends them by SIGTERM).
    """
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, env=notes.env)
    running.ask(f"/begin?what={what}")
    (child,) = notes.pids("pool")
    assert running.stop() == 0
    assert not Path(f"/proc/{child}").exists()
    assert "cuts off" not in running.log


def test_daemon_threads_are_no_reason_to_wait(server: Start, tmp_path: Path) -> None:
    """As in Python. Fails with all threads joined."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, env=notes.env)
    running.ask("/begin?what=daemon&seconds=600")
    assert running.stop() == 0
    assert "waits up to" not in running.log


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("thread", r"thread 'lingering' at \S+household\.py:\d+ in job: time\.sleep\(seconds\)"),
        ("executor", r"thread 'jobs_0' at \S+household\.py:\d+ in job"),
        ("default-executor", r"thread 'uvloop_0' at \S+household\.py:\d+ in job"),
        ("process", r"process 'lingering-process' \(pid \d+\)"),
        ("processes", r"process '\S+' \(pid \d+\)"),
        ("atexit", r"the main thread at \S+household\.py:\d+ in job"),
    ],
)
def test_what_takes_longer_than_graceful_timeout_is_cut_off_and_named(
    server: Start, what: str, named: str, tmp_path: Path
) -> None:
    """The stop goes on, the exit functions run (unless they are what hangs), no process is left, the exit code is 0.

    Fails without ProcessExit._keep_watch: the drain overruns, exit code 6. Fails in parts without _take_over (no atexit
    function runs), and without _kill_children (the harness finds the process).
    """
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, "--graceful-timeout", "1.5", "--hang-timeout", "1", env=notes.env)
    running.ask("/register")
    running.ask(f"/begin?what={what}&seconds=600")
    if what != "atexit":
        running.wait_for(lambda: notes.of("begun"), what="the job to begin")
    assert running.stop() == 0
    assert re.search(rf"after \d\.\d s this process leaves, and cuts off: .*{named}", running.log)
    assert len(notes.of("atexit-worker")) == (what != "atexit")
    assert notes.of("done") == []


def test_it_is_said_what_is_waited_for_and_an_impatient_operator_is_heard(server: Start, tmp_path: Path) -> None:
    """SIGINT after SIGTERM ends the wait. Fails without `listen` in the worker's ProcessExit: it lasts for 600 s."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, "--graceful-timeout", "600", env=notes.env)
    running.ask("/begin?what=thread&seconds=1200")
    running.terminate()
    running.wait_log(r"this process waits up to \d+\.\d s for: thread 'lingering' at \S+household\.py")
    running.signal(signal.SIGINT)
    assert running.wait_exit() == 0
    assert "cuts off: thread 'lingering'" in running.log


def test_signals_of_a_terminal_do_no_harm_to_who_leaves(server: Start, tmp_path: Path) -> None:
    """The work is finished. Fails without ignore_signals at the end of the loop: the first of them kills."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, env=notes.env)
    (worker,) = running.workers()
    running.ask("/begin?what=thread&seconds=3")
    running.terminate()
    running.wait_log("this process waits up to")
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        worker.kill(signum)
    assert running.wait_exit() == 0
    assert notes.pids("done") == [worker.pid]


# ── exit functions ───────────────────────────────────────────────────────────────────────────


def test_preloaded_exit_hooks_run_once_in_the_zygote_and_in_no_worker(server: Start, tmp_path: Path) -> None:
    """A directory made at import outlives recycled workers, and is gone at the end, also if only atexit holds it.

    Fails without disown_exit_hooks (a recycled worker removes the directory), without `inherits` (its atexit function
    runs), with atexit._clear() for the barrier (the second directory), and without ProcessExit in Zygote.leave (both
    stay).
    """
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, "--min-lifetime", "0", "--max-requests", "9", env=notes.env)
    (zygote,) = running.zygotes()
    while running.log.count("has left after") < 2:
        assert running.ask("/read") == "shared by all workers"
    directories = [Path(each) for each in notes.of("directory")]
    assert len(directories) == 2
    assert all(directory.is_dir() for directory in directories)
    assert notes.of("atexit-import") == notes.of("finalize-import") == []
    assert running.stop() == 0
    assert notes.pids("atexit-import") == notes.pids("finalize-import") == [zygote.pid]
    assert not any(directory.exists() for directory in directories)


@pytest.mark.parametrize("mode", ["--preload", "--lazy"])
def test_what_a_worker_registers_runs_in_that_worker(server: Start, mode: str, tmp_path: Path) -> None:
    """After lifespan shutdown, once. Fails without atexit._run_exitfuncs, and without weakref's in _LIBRARY."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, mode, "--workers", "2", env=notes.env)
    paths = [Path(each) for each in running.ask("/register")]
    assert all(path.is_dir() for path in paths)
    assert running.stop() == 0
    (worker,) = notes.pids("atexit-worker")
    assert notes.pids("finalize-worker") == [worker]
    assert not any(path.exists() for path in paths)
    assert notes.lines.index(f"shutdown {worker}") < notes.lines.index(f"atexit-worker {worker}")


def test_a_lazy_worker_runs_the_exit_hooks_of_its_own_import(server: Start, tmp_path: Path) -> None:
    """Each its own; and the zygote has none. Fails with `inherits` from a barrier that is registered after the load."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, "--lazy", "--workers", "2", env=notes.env)
    workers = sorted(worker.pid for worker in running.workers())
    assert running.stop() == 0
    assert sorted(notes.pids("atexit-import")) == sorted(notes.pids("finalize-import")) == workers
    assert not any(Path(each).exists() for each in notes.of("directory"))


@pytest.mark.parametrize(("failing", "code"), [("FAIL_AT_IMPORT", 4), ("LINGER_AT_IMPORT", 0)])
def test_a_zygote_that_has_nothing_to_fork_leaves_in_order_too(
    server: Start, failing: str, code: int, tmp_path: Path
) -> None:
    """What a failed import has made is removed, and so is what a census has rejected, whose thread is not waited for.

    Fails with the reason told before the exit hooks run: the master ends a zygote that says that it has failed.
    """
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, "--graceful-timeout", "1", env=notes.env | {failing: "1"}, ready=False)
    if code == 0:
        running.wait_ready()
        running.stop()
        assert "it is killed" not in running.log
    assert running.wait_exit() == code
    imports = notes.pids("import")
    assert len(imports) == (1 if code else 2)
    assert sorted(notes.pids("atexit-import")) == sorted(imports)
    assert not any(Path(each).exists() for each in notes.of("directory"))


def test_the_generation_that_a_reload_replaces_runs_its_exit_hooks(server: Start, tmp_path: Path) -> None:
    """Once, in its zygote, when its last worker has left. Fails without ProcessExit in Zygote.leave."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, env=notes.env)
    (old,) = running.zygotes()
    running.signal(signal.SIGHUP)
    running.wait_for(lambda: notes.pids("atexit-import") == [old.pid], what="the old zygote's exit hooks")
    first, _, second, _ = notes.of("directory")
    assert not Path(first).exists()
    assert Path(second).exists()
    assert running.stop() == 0


def test_a_zygote_whose_master_was_killed_runs_its_exit_hooks(server: Start, tmp_path: Path) -> None:
    """Nobody else removes what the import has made. Fails with os._exit for ProcessExit after end_stragglers."""
    notes = Notes(tmp_path)
    running = server(HOUSEHOLD, env=notes.env)
    (zygote,) = running.zygotes()
    running.kill()
    running.wait_for(lambda: notes.pids("atexit-import") == [zygote.pid], what="the zygote's exit hooks")
    running.wait_for(lambda: not running.family(), what="the processes to go")
    assert not any(Path(each).exists() for each in notes.of("directory"))
