"""Tries how servers act when things go wrong: `python -m bench.promises ENVIRONMENT/bin`.

Runs in the harness process, and starts each server by its own command. docs/comparison.md has the table. It must never
end a process that it did not start: each server has a session of its own, and only processes of that session are ended.
"""

import asyncio
import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import meter
from bench.load import strict
from bench.servers import Address, free_port

#: Seconds for a server's first answer, and for an event that a question waits for.
READY, WAIT = 20.0, 15.0

GOOD = """\
import asyncio, os, time

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(2)
    if scope["path"] == "/hang":
        time.sleep(60)
    body = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(2)
    if environ["PATH_INFO"] == "/hang":
        time.sleep(60)
    body = b"%d" % os.getpid()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
BROKEN = "raise RuntimeError('a broken deploy')\n"

#: Each server has two workers, and a limit of 3 s for a hung worker if it has an option for that.
COMMANDS = {
    "aserver": "{bin}/aserver run app:app --workers 2 --bind 127.0.0.1:{port} --hang-timeout 3 --min-lifetime 0",
    "gunicorn": "{bin}/gunicorn app:app -k asgi --workers 2 --bind 127.0.0.1:{port} --timeout 3",
    "uvicorn": "{bin}/uvicorn app:app --workers 2 --port {port} --timeout-worker-healthcheck 3",
    "hypercorn": "{bin}/hypercorn app:app --workers 2 --bind 127.0.0.1:{port}",
    "granian": "{bin}/granian app:app --interface asgi --workers 2 --port {port} --respawn-failed-workers",
    "h2corn": "{bin}/h2corn app:app --workers 2 --bind 127.0.0.1:{port}",
    "peregrine": "{bin}/peregrine --workers 2 --host 127.0.0.1 --port {port} app:app",
    "uWSGI": "{bin}/uwsgi --http-socket 127.0.0.1:{port} --module app:wsgi --master --processes 2 --harakiri 3 "
    "--die-on-term --so-keepalive --lazy-apps --enable-threads",
}


@dataclass
class Served:
    """A running server, its folder with `app.py`, and its address."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    address: Address

    def ask(self, path: str = "/", timeout: float = 5.0) -> str:
        """Return the body of an answer with 200, else the status or the error's name."""
        try:
            status, body = self.address.exchange(path, timeout=timeout)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        return body.decode() if status == 200 else f"status {status}"

    def answers(self, times: int = 10) -> int:
        """Return how many of `times` requests are answered."""
        return sum(self.ask().isdigit() for _ in range(times))

    def alive(self) -> set[int]:
        """Return the pids of the server's tree, without zombies."""
        return {each.pid for each in meter.tree(self.process.pid) if each.state != "Z"}


@contextmanager
def serving(command: str, binaries: Path, text: str = GOOD) -> Iterator[Served]:
    """Start a server on a free port; the start may fail. Leaving the block ends all its processes."""
    with tempfile.TemporaryDirectory() as name:
        folder, address = Path(name), Address(port=free_port())
        (folder / "app.py").write_text(text, "utf-8")
        words = shlex.split(command.format(bin=binaries, port=address.port))
        with (folder / "log").open("wb") as log:
            # uWSGI's reload starts the interpreter anew, which does not find its virtual environment then.
            path = ":".join([name, *map(str, (binaries.parent / "lib").glob("*/site-packages"))])
            environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "XDG_RUNTIME_DIR": name}
            process = subprocess.Popen(
                words, cwd=name, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        served = Served(process, folder, address)
        try:
            yield served
        finally:
            for _ in range(3):
                for pid in served.alive():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.1)
            process.wait()


def until(condition: Callable[[], bool], seconds: float = WAIT) -> float | None:
    """Return the seconds until the condition holds, or None if it does not within `seconds`."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if condition():
            return time.monotonic() - begun
        time.sleep(0.05)
    return None


def _ready(served: Served) -> None:
    if until(lambda: served.ask().isdigit(), READY) is None:
        raise RuntimeError((served.folder / "log").read_text("utf-8", "replace")[-500:])
    until(lambda: len({served.ask() for _ in range(8)}) > 1, 5.0)


def reloads(command: str, binaries: Path) -> str:
    """Two HUPs with good code under 16 kept and 4 single connections: failed requests."""

    async def load(served: Served) -> strict.Tally:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(strict.load(served.address, seconds=10, kept=16, single=4, think=0.03))
            for _ in range(2):
                await asyncio.sleep(2)
                served.process.send_signal(signal.SIGHUP)
        return task.result()

    with serving(command, binaries) as served:
        _ready(served)
        tally = asyncio.run(load(served))
        return f"{tally.errors.total()} of {tally.requests}, {len(tally.bodies) - 2} workers replaced"


def broken_deploy(command: str, binaries: Path) -> str:
    """HUP with code that does not import; then 20 requests."""
    with serving(command, binaries) as served:
        _ready(served)
        (served.folder / "app.py").write_text(BROKEN, "utf-8")
        served.process.send_signal(signal.SIGHUP)
        time.sleep(5)
        return f"{served.answers(20)} of 20 answered"


def broken_start(command: str, binaries: Path) -> str:
    """The exit code of a start with code that does not import."""
    with serving(command, binaries, BROKEN) as served:
        ended = until(lambda: served.process.poll() is not None)
        return f"exit {served.process.returncode}" if ended is not None else f"still starts after {WAIT:g} s"


def killed_worker(command: str, binaries: Path) -> str:
    """SIGKILL to a worker: the time until two serve again."""
    with serving(command, binaries) as served:
        _ready(served)
        victim = served.ask()
        os.kill(int(victim), signal.SIGKILL)
        back = until(lambda: len({pid for pid in (served.ask() for _ in range(8)) if pid.isdigit()} - {victim}) > 1)
        return "not replaced" if back is None else f"{back:.1f} s"


def killed_master(command: str, binaries: Path) -> str:
    """SIGKILL to the first process: what of the rest lives on, and serves."""
    with serving(command, binaries) as served:
        _ready(served)
        served.process.kill()
        served.process.wait()
        if until(lambda: not served.alive(), 10.0) is not None:
            return "all gone"
        return f"{len(served.alive())} orphans, {served.answers()} of 10 answered"


def hung_worker(command: str, binaries: Path) -> str:
    """A worker blocked for 60 s by its application: the time until another one is in its place."""
    with serving(command, binaries) as served:
        _ready(served)
        known = {served.ask() for _ in range(20)}
        threading.Thread(target=served.ask, args=("/hang", 30.0), daemon=True).start()
        back = until(
            lambda: any(pid.isdigit() and pid not in known for pid in (served.ask("/", 1.0) for _ in range(6)))
        )
        return f"not replaced in {WAIT:g} s" if back is None else f"{back:.1f} s"


def silent_head(command: str, binaries: Path) -> str:
    """Half a head and then nothing: the seconds until the server ends the connection."""
    with serving(command, binaries) as served, socket.socket() as client:
        _ready(served)
        client.settimeout(2 * WAIT)
        client.connect((served.address.host, served.address.port))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-A")
        begun = time.monotonic()
        try:
            client.recv(4096)
        except TimeoutError:
            return f"open after {2 * WAIT:g} s"
        except ConnectionError:
            pass
        return f"ended after {time.monotonic() - begun:.0f} s"


def stop_in_flight(command: str, binaries: Path) -> str:
    """SIGTERM while a request of two seconds is under way: its answer."""
    with serving(command, binaries) as served:
        _ready(served)
        answer: list[str] = []
        asking = threading.Thread(target=lambda: answer.append(served.ask("/slow", 20.0)))
        asking.start()
        time.sleep(0.5)
        served.process.terminate()
        asking.join()
        return "answered" if answer[0].isdigit() else f"lost ({answer[0]})"


QUESTIONS: tuple[Callable[[str, Path], str], ...] = (
    reloads,
    broken_deploy,
    broken_start,
    killed_worker,
    hung_worker,
    killed_master,
    silent_head,
    stop_in_flight,
)


def ask(question: Callable[[str, Path], str], command: str, binaries: Path) -> str:
    """Return the answer for a cell of the table, or the reason why there is none."""
    try:
        return question(command, binaries)
    except (OSError, RuntimeError) as error:
        return textwrap.shorten(f"not asked: {error}", 120)


def table(binaries: Path) -> Iterator[str]:
    """Yield the rows in Markdown as the answers come. Three servers run at a time, because they mostly wait."""
    yield "| question | " + " | ".join(COMMANDS) + " |"
    yield "|---|" + "---|" * len(COMMANDS)
    with ThreadPoolExecutor(3) as pool:
        for question in QUESTIONS:
            cells = list(pool.map(partial(ask, question, binaries=binaries), COMMANDS.values()))
            yield f"| {' '.join((question.__doc__ or '').split())} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    for row in table(Path(sys.argv[1]).resolve()):
        print(row, flush=True)
