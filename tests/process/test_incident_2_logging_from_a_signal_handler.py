"""Incident 2: SIGCHLD interrupted gunicorn's master while it flushed a log line, and the handler logged.

Seen to fail with the guards taken out: with `signal.signal(signum, lambda *_: action())` for `loop.add_signal_handler`
in `master/signals.py`, and records written to `sys.stderr.buffer`, the master dies within a few lines ("lost
sys.stderr", a RuntimeError that is raised again while it is printed). And without `warn_on_full_buffer=False` there,
50,000 signals leave "Exception ignored when trying to write to the signal wakeup fd" between two records.

`make test` sends a few thousand signals, TEST_STORM=50000 (`make storm`) as many as it says, for each of six logs.
"""

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import termios
import threading
import tty
from collections import Counter
from pathlib import Path
from typing import Any, Self

import pytest

from aserver.errors import ExitCode
from tests.harness import PATIENCE, ClosedEarlyError, ServerProcess, wait_for

pytestmark = [pytest.mark.process, pytest.mark.alone]

SIGNALS = int(os.environ.get("TEST_STORM", "1000"))
KILLS = 2
CLIENTS = 3
#: What a turn of the storm sends: mostly deaths of children, as in the incident.
TURN = [signal.SIGCHLD] * 16 + [signal.SIGUSR1] * 2 + [signal.SIGTTIN, signal.SIGTTOU]
#: SIGHUP starts a generation, which takes a processor for half a second: no flood of them.
RELOADS = 1

APP = """
import logging, os
log = logging.getLogger("aserver.app")

async def app(scope, receive, send):
    log.info("app %s end", scope["query_string"].decode())
    pid = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(pid))]})
    await send({"type": "http.response.body", "body": pid})
"""


class Redirected(ServerProcess):
    """A server whose both outputs go to a file, a pipe or a terminal, which is read all the time."""

    def __init__(self, kind: str, directory: Path, *options: str) -> None:
        self._kind = kind
        self._got = bytearray()
        path = directory / "output"
        self._keep = -1
        self._copier: subprocess.Popen[bytes] | None = None
        if kind == "file":
            path.touch()
            self._reader = os.open(path, os.O_RDONLY)
        elif kind == "pipe":
            os.mkfifo(path)
            self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, 1 << 20)  # never full, however busy the machine is
        else:
            # By a process that does nothing else, because a terminal has only 8 KB, and a thread of ours waits for our
            # other threads.
            terminal, self._keep = os.openpty()
            tty.setraw(self._keep, termios.TCSANOW)
            with path.open("wb") as copy:
                self._copier = subprocess.Popen(["cat"], stdin=terminal, stdout=copy, stderr=subprocess.DEVNULL)
            os.close(terminal)
            self._reader = os.open(path, os.O_RDONLY)
            path = Path(os.ttyname(self._keep))
        command = [*self.command("numbered:app"), "--bind", "127.0.0.1:0", "--app-dir", str(directory), *options]
        super().__init__(argv=["/bin/sh", "-c", f'exec "$@" >{path} 2>&1', "sh", *command])
        self._stopping = False
        self._thread = threading.Thread(target=self._collect, name="reader")
        self._thread.start()

    def _collect(self) -> None:
        pace = select.poll()
        while not self._stopping:
            piece = b""
            if self._kind != "pipe" or select.select([self._reader], [], [], 0.05)[0]:
                piece = os.read(self._reader, 1 << 20)
            self._got += piece
            if not piece:
                pace.poll(10)

    def close(self) -> None:
        """Read what is left."""
        if self._copier is not None:
            os.close(self._keep)  # the last writer: `cat` comes to the end
            self._copier.wait(PATIENCE)
        size = -1
        while size < len(self._got):
            size = len(self._got)
            select.select([], [], [], 0.1)
        self._stopping = True
        self._thread.join(PATIENCE)
        os.close(self._reader)

    @property
    def log(self) -> str:
        return re.sub(r"\x1b\[[\d;]*m", "", bytes(self._got).decode())


class Clients:
    """Each asks with numbers of its own, and goes on with the next one when its worker was killed."""

    def __init__(self, server: ServerProcess) -> None:
        self.asked: list[str] = []
        self.answered: dict[str, int] = {}  # by which pid
        self.failures: list[str] = []
        self._server = server
        self._stopping = False
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in "abcdefgh"[:CLIENTS]]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, name: str) -> None:
        number = 0
        pace = select.poll()
        while not self._stopping:
            try:
                with self._server.connect() as connection:
                    closing = False
                    while not (closing or self._stopping):
                        number += 1
                        self.asked.append(f"{name}{number}")
                        answer = connection.request(f"/?{name}{number}")
                        assert answer.status == 200
                        self.answered[f"{name}{number}"] = int(answer.body)
                        closing = answer.header("connection") == "close"
                        pace.poll(2)
            except (ClosedEarlyError, ConnectionError):
                self.failures.append(f"{name}{number}")
            except OSError as error:  # such as a timeout: the server has stopped serving
                self.failures.append(repr(error))
                return


def pending(pid: int) -> int:
    """The signals that wait for the process: a second one of the same kind would be merged with it (signal(7))."""
    found = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[0], 16) | int(found[1], 16)


def send_storm(running: ServerProcess) -> list[int]:
    """Send SIGNALS signals, each after the one before was taken, and kill workers meanwhile; returns their pids."""
    pace = select.poll()
    killed = []
    for number in range(SIGNALS):
        signum = signal.SIGHUP if number % (SIGNALS // RELOADS) == 50 else TURN[number % len(TURN)]
        while pending(running.pid) >> (signum - 1) & 1:
            assert running.returncode is None, "the master died in the storm"
            pace.poll(1)
        running.signal(signum)
        if number % (SIGNALS // KILLS) == SIGNALS // KILLS // 2 and (workers := running.workers()):
            workers[0].kill()
            killed.append(workers[0].pid)
    return killed


TEXT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d{3} "
    r"(?P<process>master|zygote g\d+|worker \d+/g\d+) +\[\d+\] (?P<level>[A-Z]+) +(?P<message>\S.*)"
)


def understand(line: str, log_format: str) -> tuple[str, str]:
    """Return ("access", number), ("app", number) or ("record", message). AssertionError if the line is not whole."""
    if log_format == "json":
        fields: dict[str, Any] = json.loads(line)
        if "target" in fields:
            return "access", fields["target"].removeprefix("/?")
        assert list(fields)[:6] == ["time", "level", "process", "pid", "logger", "message"]
        message = fields["message"]
    else:
        if access := re.fullmatch(r"access ([a-h]\d+) \d+ end", line):
            return "access", access[1]
        record = TEXT.fullmatch(line)
        assert record, f"torn: {line!r}"
        message = record["message"]
    return ("app", message[4:-4]) if re.fullmatch(r"app [a-h]\d+ end", message) else ("record", message)


@pytest.mark.timeout(60 + SIGNALS // 20)
@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("kind", ["file", "pipe", "terminal"])
def test_incident_2_a_storm_of_signals_leaves_every_line_whole(kind: str, log_format: str, tmp_path: Path) -> None:
    """And none is missing. But a busy machine reads a terminal of 8 KB too late, and workers are killed meanwhile.

    Such a worker loses the lines that the terminal did not take, and the next process ends its half line. It also ends
    one of which the kill came between the write and the note that it was whole, and so leaves an empty line. An empty
    line is right there: the terminal cannot say what it took, and without it the next line could stand behind half of
    another.
    """
    (tmp_path / "numbered.py").write_text(APP)
    access_format = "json" if log_format == "json" else "access %(q)s %(s)s end"
    options = ["--workers", "2", "--lifespan", "off", "--min-lifetime", "0", "--graceful-timeout", "5"]
    options += ["--log-format", log_format, "--access-log-format", access_format]
    running = Redirected(kind, tmp_path, *options)
    try:
        with running:
            running.wait_ready()
            with Clients(running) as clients:
                killed = send_storm(running)
                served = len(clients.answered)
                running.wait_for(lambda: len(clients.answered) > served + 50, what="answers after the storm")
                running.wait_log("was killed by SIGKILL")
            assert running.stop() == ExitCode.OK
    finally:
        running.close()
    found: dict[str, Counter[str]] = {"access": Counter(), "app": Counter(), "record": Counter()}
    ended = []
    for line in running.log.splitlines():
        try:
            what, text = understand(line, log_format)
        except (AssertionError, ValueError):
            ended.append(line)
        else:
            found[what][text] += 1
    assert len(ended) <= (len(killed) if kind == "terminal" else 0), ended
    assert all(set(found[what].values()) == {1} for what in ("access", "app")), "a line is there twice"
    # An error record is written before anything else happens: none may be missing, also of a killed worker.
    assert found["app"].keys() <= set(clients.asked)
    missing = clients.answered.keys() - found["app"].keys()
    assert {clients.answered[each] for each in missing} <= set(killed if kind == "terminal" else []), missing
    # Access lines leave at the end of the tick: of each killed worker, at most one for each connection.
    assert found["access"].keys() <= set(clients.asked)
    missing = clients.answered.keys() - found["access"].keys()
    assert {clients.answered[each] for each in missing} <= set(killed), missing
    assert kind == "terminal" or len(missing) <= len(killed) * CLIENTS
    assert all(re.fullmatch(r"[a-h]\d+", failure) for failure in clients.failures), clients.failures
    explained = sum(count for message, count in found["record"].items() if "was killed by SIGKILL" in message)
    # One may have been on its way out when it was killed; and at a moment of the storm there may be no worker to kill.
    assert 1 <= explained <= len(killed) <= KILLS
    assert found["record"]["logs reopened"] > SIGNALS // 100  # a tenth asked; a busy master takes several as one
    assert found["record"]["stopped"] == 1


def test_pending_signals_are_seen() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        assert pending(os.getpid()) >> (signal.SIGUSR1 - 1) & 1
        assert signal.sigwait([signal.SIGUSR1]) == signal.SIGUSR1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    wait_for(lambda: not pending(os.getpid()), what="no signal to be pending")
