"""Incident 5: threads started before the fork are dead in the worker, and work given to them is never done.

The program of the report (a ThreadPool made at import, used by each request), and the same with an executor.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Notes, ServerProcess

pytestmark = pytest.mark.process

TARGET = "tests.apps.lifecycle.threaded:app"
Start = Callable[..., ServerProcess]


def _census(server: ServerProcess) -> str:
    (line,) = server.wait_log(r"^.*does not survive.*$")
    return line[0]


def test_incident_5_the_jobs_are_done(server: Start, tmp_path: Path) -> None:
    """The default finds the threads, says so, loads the app in each worker, and every job of every worker is done.

    Fails with the census taken out of preload() (hazards=()): requests are answered 200, and no job is ever done.
    """
    notes, jobs = Notes(tmp_path), tmp_path / "jobs"
    jobs.touch()
    running = server(TARGET, "--workers", "2", env=notes.env | {"JOBS_DONE": str(jobs)})
    assert "each worker loads the app itself instead (on_fork_hazard=lazy)" in _census(running)
    asked = 12
    for _ in range(asked):
        assert running.fetch("/").status == 200
    for name in ("pool", "executor"):
        running.wait_for(
            lambda: re.findall(rf"^{name} ", jobs.read_text(), re.MULTILINE) == [f"{name} "] * asked,  # noqa: B023
            what=f"{asked} jobs of the {name}",
        )
    workers = {worker.pid for worker in running.workers()}
    assert {int(pid) for pid in re.findall(r"\d+$", jobs.read_text(), re.MULTILINE)} <= workers
    assert workers < set(notes.pids("import"))
    assert running.stop() == 0


def test_trap_04_the_census_names_each_thread_and_its_line(server: Start, tmp_path: Path) -> None:
    """In one record: name, file, line, function and source of what started it, in the app's own code.

    Fails without ThreadWatch ("an unknown place"), and with the innermost frame as the place (threading.py).
    """
    running = server(TARGET, env={"JOBS_DONE": str(tmp_path / "jobs")})
    census = _census(running)
    assert (
        len(re.findall(r"thread '[^']+' started at \S+/lifecycle/threaded\.py:\d+ in <module>: pool = ", census)) == 4
    )
    assert re.search(r"thread 'appdb_0' started at \S+/threaded\.py:\d+ in <module>: executor\.submit", census)
    assert "threading.py" not in census
    assert running.log.count("does not survive") == 1, "once, not again by each worker"


def test_trap_04_warn_forks_all_the_same(server: Start, tmp_path: Path) -> None:
    """The operator's own decision: preloaded, with the record. Fails with the branch for `warn` removed."""
    notes = Notes(tmp_path)
    env = notes.env | {"JOBS_DONE": str(tmp_path / "jobs")}
    running = server(TARGET, "--workers", "2", "--on-fork-hazard", "warn", env=env)
    assert "forked all the same (on_fork_hazard=warn)" in _census(running)
    assert notes.pids("import") == [zygote.pid for zygote in running.zygotes()]
    assert running.fetch("/").status == 200


def test_trap_04_refuse_exits_with_4(server: Start, tmp_path: Path) -> None:
    """Nothing is served. Fails with the branch for `refuse` removed."""
    running = server(TARGET, "--on-fork-hazard", "refuse", env={"JOBS_DONE": str(tmp_path / "jobs")}, ready=False)
    assert running.wait_exit() == 4
    assert "appdb_0" in _census(running)
    assert "refused (on_fork_hazard=refuse)" in running.log
    assert "listening" not in running.log


def test_lazy_needs_no_census(server: Start, tmp_path: Path) -> None:
    """Threads are the worker's own then. Fails with a lazy zygote that loads the app and looks all the same."""
    running = server(TARGET, "--lazy", env={"JOBS_DONE": str(tmp_path / "jobs")})
    assert "does not survive" not in running.log
