"""Answers questions about the process that it runs in: pids, signals, memory, descriptors, interpreter flags.

What happens at import and at exit is noted in the file that APP_EVENTS names.
"""

import asyncio
import atexit
import ctypes
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl

from aserver.asgi import Receive, Scope, Send
from tests.apps import content

content.note(f"import {os.getpid()}")
atexit.register(lambda: content.note(f"atexit {os.getpid()}"))
os.register_at_fork(after_in_child=lambda: content.note(f"forked {os.getpid()}"))
print("printed at import without a newline|", end="")

#: Mappings that a collection has to walk: PROBE_MEGABYTES of them, shared with the zygote under preload.
ballast = [
    {"key": str(number), "more": [number]} for number in range(int(os.environ.get("PROBE_MEGABYTES", "0")) * 1800)
]


if "PROBE_THRESHOLD" in os.environ:
    gc.set_threshold(int(os.environ["PROBE_THRESHOLD"]))


def _private_dirty() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def collect() -> dict[str, int]:
    """A full collection, and how much of the shared memory it has made ours."""
    before = _private_dirty()
    gc.collect()
    return {"dirtied": _private_dirty() - before, "objects": len(ballast)}


def state() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "gc": gc.isenabled(),
        "frozen": gc.get_freeze_count(),
        "threshold": gc.get_threshold()[0],
        "threads": threading.active_count(),
        "optimize": sys.flags.optimize,
        "warnoptions": sys.warnoptions,
        "xoptions": sys._xoptions,
        "isolated": sys.flags.isolated,
        "environ": dict(os.environ),
        "path": sys.path,
    }


def child_descriptors() -> list[str]:
    """What a subprocess sees that closes nothing itself: `close_fds=False` leaves only close-on-exec between us."""
    listing = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True)
    return listing.stdout.split()


def child_signals() -> dict[str, str]:
    """The signal mask and the ignored signals of a subprocess of the app."""
    text = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _rest() -> None:
    while True:
        signal.pause()


def multiprocessing_child() -> int:
    """A forked child of this worker that lives until it is killed."""
    child = multiprocessing.get_context("fork").Process(target=_rest, daemon=False)
    child.start()
    assert child.pid is not None
    return child.pid


def bare_child() -> int:
    """A child forked behind Python's back (no at-fork hooks): it holds every descriptor, the channel too."""
    libc = ctypes.CDLL(None)
    pid: int = libc.fork()
    if pid == 0:
        libc.sleep(120)
        libc._exit(0)
    return pid


def daemon() -> int:
    """A grandchild whose parent has gone, which ends at once."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os.setsid()
            os.read(reader, 1)  # until the worker has told its pid
            os._exit(7)
        os.write(writer, grandchild.to_bytes(4, "big"))
        os._exit(0)
    os.waitpid(child, 0)
    pid = int.from_bytes(os.read(reader, 4), "big")
    os.write(writer, b".")
    os.close(reader)
    os.close(writer)
    return pid


QUESTIONS: dict[str, Callable[[], object]] = {
    "/state": state,
    "/collect": collect,
    "/child-descriptors": child_descriptors,
    "/child-signals": child_signals,
    "/multiprocessing": multiprocessing_child,
    "/bare-child": bare_child,
    "/daemon": daemon,
    "/imports": lambda: sorted(sys.modules),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http", "no lifespan here"
    path, query = scope["path"], dict(parse_qsl(scope["query_string"].decode()))
    match path:
        case "/block":
            content.note("blocking")
            time.sleep(float(query["seconds"]))
        case "/slow":
            content.note("slow")
            await asyncio.sleep(float(query["seconds"]))
        case "/leave":
            os._exit(int(query["code"]))
        case "/eat":
            ballast.append({"": ["x" * (1 << 30)]})
        case "/signal":
            os.kill(os.getpid(), int(query["number"]))
        case _:
            pass
    answer = QUESTIONS[path]() if path in QUESTIONS else os.getpid()
    body = json.dumps(answer).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
