"""Hooks of a Python settings file: gunicorn's names and meanings, each in a process that may run user code.

Each docstring says how the test was seen to fail.
"""

import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness import Notes
from tests.process.rolling import APP, Start, settle, variant

pytestmark = pytest.mark.process

FILE = Path(__file__).resolve().parent.parent / "apps/rollout/hooks.py"
NAMES = [
    *("on_starting", "when_ready", "pre_fork", "post_fork", "post_worker_init", "worker_exit", "child_exit"),
    *("worker_abort", "nworkers_changed", "on_reload", "on_exit", "pre_exec"),
]


class Call(NamedTuple):
    """One note of a hook."""

    name: str
    process: str
    pid: int
    facts: tuple[str, ...]


def _calls(notes: Notes, name: str = "") -> list[Call]:
    split = [line.split() for line in notes.of("hook")]
    calls = [Call(words[0], words[1], int(words[2]), tuple(words[3:])) for words in split]
    return [call for call in calls if name in ("", call.name)]


@pytest.mark.parametrize("raising", [pytest.param("none raises", marks=variant), "all raise"])
def test_every_hook_is_called_in_its_process_and_one_that_raises_does_no_harm(
    server: Start, raising: str, tmp_path: Path
) -> None:
    """Start, scale, hang, reload, upgrade, stop: each name, where it runs, what it is told, in gunicorn's order.

    Fails without `self._run_hook(...)` at the place of each, and for the raising ones without the except in Hooks.run.
    """
    notes = Notes(tmp_path)
    env = notes.env | {"HOOKS_RAISE": ",".join(NAMES) if raising == "all raise" else ""}
    limits = ("--hang-timeout", "1.5", "--slow-callback", "0")
    running = server(APP, "-c", str(FILE), "--workers", "1", *limits, env=env)
    (zygote,), (worker,) = running.zygotes(), running.workers()
    running.wait_for(lambda: _calls(notes, "when_ready"), what="when_ready")
    order = [call.name for call in _calls(notes)]
    assert order[:4] == ["on_starting", "pre_fork", "post_fork", "post_worker_init"]
    master = str(running.pid)
    assert _calls(notes, "on_starting") == [Call("on_starting", "zygote", zygote.pid, (master, "1"))]
    assert _calls(notes, "when_ready") == [Call("when_ready", "zygote", zygote.pid, (master,))]
    assert _calls(notes, "pre_fork") == [Call("pre_fork", "zygote", zygote.pid, ("None", "1"))]
    assert _calls(notes, "post_fork") == [Call("post_fork", "worker", worker.pid, (str(worker.pid), "1"))]
    assert _calls(notes, "post_worker_init") == [Call("post_worker_init", "worker", worker.pid, (str(worker.pid),))]

    running.signal(signal.SIGTTIN)
    running.wait_for(lambda: _calls(notes, "nworkers_changed"), what="nworkers_changed")
    assert _calls(notes, "nworkers_changed") == [Call("nworkers_changed", "zygote", zygote.pid, ("2", "1"))]
    settle(running, 2)

    with running.connect() as hung:
        hung.send(b"GET /block?amount=600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        running.wait_for(lambda: _calls(notes, "worker_abort"), what="worker_abort")
    (abort,) = _calls(notes, "worker_abort")
    assert (abort.process, abort.pid) == ("zygote", zygote.pid)
    running.wait_for(lambda: _calls(notes, "child_exit"), what="child_exit")
    assert _calls(notes, "child_exit")[0].facts == abort.facts
    settle(running, 2)

    running.signal(signal.SIGHUP)
    running.wait_log("generation 2 serves")
    second = settle(running, 2, generation=2)
    (reload,) = _calls(notes, "on_reload")
    assert reload.process == "zygote"
    assert reload.pid != zygote.pid
    running.wait_for(lambda: len(_calls(notes, "worker_exit")) == 2, what="worker_exit of the old ones")
    assert {call.process for call in _calls(notes, "worker_exit")} == {"worker"}

    running.signal(signal.SIGUSR2)
    running.wait_log("generation 3 serves")
    assert [call.process for call in _calls(notes, "pre_exec")] == ["zygote"]
    settle(running, 2, generation=3)
    assert running.fetch().status == 200
    assert running.stop() == 0
    assert [call.process for call in _calls(notes, "on_exit")] == ["zygote"]
    assert _calls(notes)[-1].name == "on_exit"
    assert {call.name for call in _calls(notes)} == set(NAMES)
    assert {each.pid for each in second} <= {call.pid for call in _calls(notes, "worker_exit")}
    assert running.pid not in {call.pid for call in _calls(notes)}, "the master runs no user code"
    for name in NAMES if raising == "all raise" else ():
        running.wait_log(f"hook {name} raised; the server goes on without it")
        running.wait_log(f"RuntimeError: {name} raises")
