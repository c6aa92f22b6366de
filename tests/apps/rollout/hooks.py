"""A settings file with every hook of gunicorn's: each notes its name, its process and what it was given."""

import os
from pathlib import Path
from typing import Any


def _note(name: str, *facts: object) -> None:
    title = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode()
    process = next((word for word in ("master", "zygote", "worker") if f": {word}" in title), "command")
    with Path(os.environ["APP_EVENTS"]).open("a") as file:
        file.write(" ".join(map(str, ("hook", name, process, os.getpid(), *facts))) + "\n")
    if name in os.environ.get("HOOKS_RAISE", "").split(","):
        raise RuntimeError(f"{name} raises")


def on_starting(server: Any) -> None:
    _note("on_starting", server.pid, server.cfg.workers)


def on_reload(server: Any) -> None:
    _note("on_reload", server.pid)


def when_ready(server: Any) -> None:
    _note("when_ready", server.pid)


def pre_fork(server: Any, worker: Any) -> None:
    _note("pre_fork", worker.pid, worker.age)


def post_fork(server: Any, worker: Any) -> None:
    _note("post_fork", worker.pid, worker.age)


def post_worker_init(worker: Any) -> None:
    _note("post_worker_init", worker.pid)


def worker_exit(server: Any, worker: Any) -> None:
    _note("worker_exit", worker.pid)


def child_exit(server: Any, worker: Any) -> None:
    _note("child_exit", worker.pid)


def worker_abort(worker: Any) -> None:
    _note("worker_abort", worker.pid)


def nworkers_changed(server: Any, new_value: int, old_value: int) -> None:
    _note("nworkers_changed", new_value, old_value)


def on_exit(server: Any) -> None:
    _note("on_exit", server.pid)


def pre_exec(server: Any) -> None:
    _note("pre_exec", server.pid)
