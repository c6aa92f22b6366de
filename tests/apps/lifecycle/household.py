"""Forks children, starts threads and pools, and registers exit functions, at import and in requests.

FORK_AT_IMPORT, FAIL_AT_IMPORT and LINGER_AT_IMPORT make the import do so. What happens is noted in the file that
APP_EVENTS names.
"""

import asyncio
import atexit
import faulthandler
import json
import multiprocessing
import os
import resource
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl

from aserver.asgi import Receive, Scope, Send
from tests.apps import content

_fork = multiprocessing.get_context("fork")


class Thing:
    """Something that can be referred to weakly."""


def note(event: str) -> None:
    content.note(f"{event} {os.getpid()}")


# ── exit functions ───────────────────────────────────────────────────────────────────────────

content.note(f"import {os.getpid()}")
directory = tempfile.TemporaryDirectory(prefix="household-")
content.note(f"directory {directory.name}")
Path(directory.name, "file").write_text("shared by all workers")
atexit.register(note, "atexit-import")
imported = Thing()
weakref.finalize(imported, note, "finalize-import")


def register_closure() -> str:
    """A directory that only the exit function refers to: it is removed as well if that is merely forgotten."""
    held = tempfile.TemporaryDirectory(prefix="household-")
    atexit.register(held.cleanup)
    return held.name


closure = register_closure()
content.note(f"directory {closure}")


def register() -> list[str]:
    """The same in a worker; the paths of its directories."""
    atexit.register(note, "atexit-worker")
    late = Thing()
    weakref.finalize(late, note, "finalize-worker")
    late_directory = tempfile.TemporaryDirectory(prefix="household-")
    kept.extend((late, late_directory))
    return [late_directory.name, register_closure()]


kept: list[object] = []

# ── children ─────────────────────────────────────────────────────────────────────────────────


def disposition() -> dict[str, object]:
    """What a child that the app forks has of its parent's."""
    handlers = {signum.name: signal.getsignal(signum) for signum in signal.Signals}
    return {
        "pid": os.getpid(),
        "wakeup": signal.set_wakeup_fd(-1),
        "handled": [name for name, handler in handlers.items() if callable(handler) and name != "SIGINT"],
        "interrupt": getattr(handlers["SIGINT"], "__name__", str(handlers["SIGINT"])),
        "faulthandler": faulthandler.is_enabled(),
    }


def _tell_and_rest(writer: int) -> None:
    os.write(writer, json.dumps(disposition()).encode())
    while True:
        signal.pause()


def _bare_fork(writer: int) -> None:
    if os.fork() == 0:
        try:
            _tell_and_rest(writer)
        finally:
            os._exit(1)


def _multiprocessing(writer: int) -> None:
    child = _fork.Process(target=_tell_and_rest, args=(writer,), daemon=True)
    child.start()
    kept.append(child)


def _forked_by_a_thread(writer: int) -> None:
    thread = threading.Thread(target=_bare_fork, args=(writer,))
    thread.start()
    thread.join()


WAYS: dict[str, Callable[[int], None]] = {
    "fork": _bare_fork,
    "multiprocessing": _multiprocessing,
    "thread": _forked_by_a_thread,
}


def child(way: str) -> dict[str, object]:
    """Fork a child that rests; what it has."""
    reader, writer = os.pipe()
    WAYS[way](writer)
    os.close(writer)
    answer: dict[str, object] = json.loads(os.read(reader, 1 << 16))
    os.close(reader)
    return answer


def terminate() -> int | None:
    """End the child of `multiprocessing` as its documentation says; its exit code."""
    process = kept[-1]
    assert isinstance(process, _fork.Process)
    process.terminate()
    process.join(20)
    return process.exitcode


def crash() -> int:
    """A child that aborts; its wait status."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()
    return os.waitpid(pid, 0)[1]


# ── work that outlives a request ─────────────────────────────────────────────────────────────

processes = ProcessPoolExecutor(1, mp_context=_fork)
threads = ThreadPoolExecutor(1, thread_name_prefix="jobs")


def job(seconds: float) -> None:
    note("begun")
    time.sleep(seconds)
    note("done")


def pool_job() -> None:
    kept.append(_fork.Pool(1))
    assert isinstance(kept[-1], multiprocessing.pool.Pool)
    kept[-1].apply(note, ("pool",))


async def begin(what: str, seconds: float) -> None:
    """Begin what the request does not wait for."""
    loop = asyncio.get_running_loop()
    match what:
        case "thread":
            threading.Thread(target=job, args=(seconds,), name="lingering").start()
        case "daemon":
            threading.Thread(target=job, args=(seconds,), daemon=True).start()
        case "executor":
            threads.submit(job, seconds)
        case "default-executor":
            kept.append(loop.run_in_executor(None, job, seconds))
        case "processes":
            await loop.run_in_executor(None, processes.submit(note, "pool").result)
            processes.submit(job, seconds)
        case "pool":
            await loop.run_in_executor(None, pool_job)
        case "process":
            _fork.Process(target=job, args=(seconds,), name="lingering-process").start()
        case "atexit":
            atexit.register(job, seconds)
        case _:
            raise ValueError(what)


if "FORK_AT_IMPORT" in os.environ:
    content.note(f"child {json.dumps(child('fork'))}")
if "LINGER_AT_IMPORT" in os.environ:
    threading.Thread(target=time.sleep, args=(600,), name="lingering").start()
if "FAIL_AT_IMPORT" in os.environ:
    raise RuntimeError("the import fails")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    answer: object = os.getpid()
    match scope["path"]:
        case "/child":
            answer = child(query["way"])
        case "/terminate":
            answer = terminate()
        case "/crash":
            answer = crash()
        case "/register":
            answer = register()
        case "/read":
            answer = Path(directory.name, "file").read_text()
        case "/begin":
            await begin(query["what"], float(query.get("seconds", 0)))
        case _:
            pass
    body = json.dumps(answer).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
