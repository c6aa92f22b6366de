"""Logs under signals, kills and crashes (docs/traps.md: 71, 72, 76), in real child processes."""

import ast
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import termios
import tty
from pathlib import Path

import pytest

import aserver.log
from aserver.log.crash import read_trace
from aserver.log.opening import open_log
from tests.harness import PATIENCE

# Three ways at once: our handler, `print`, and the standard library's StreamHandler on the replaced stream.
STORM = """
import logging, os, signal, sys
from types import SimpleNamespace
from aserver.log.opening import open_log
from aserver.log.setup import configure
from aserver.log.stdio import replace_stdio

replace_stdio()
settings = SimpleNamespace(loglevel="info", log_format=sys.argv[1], log_config=None)
logs = configure(settings, process="worker 1/g1", error_fd=open_log("-", which="error"), environ={})
log = logging.getLogger("aserver.error")
app = logging.getLogger("app")
app.addHandler(logging.StreamHandler(sys.stderr))
app.propagate = False
handled = 0

def handler(signum, frame):
    global handled
    handled += 1
    log.info("handled %d", handled)
    print("printed", handled, file=sys.stderr) if sys.argv[2] == "user" else None
    app.warning("app %d", handled) if sys.argv[2] == "user" else None

signal.signal(signal.SIGUSR1, handler)
sys.stdout.write("ready\\n")
number = 0
while handled < 500:
    number += 1
    log.info("line %d", number) if sys.argv[2] == "own" else print("main", number, "." * 100, file=sys.stderr)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
log.info("end %d", number)
sys.exit(logs.error.close(30))
"""


def storm(log_format: str, mode: str, stderr: int) -> "subprocess.Popen[bytes]":
    environ = {
        name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
    }  # it would hide the trap
    command = [sys.executable, "-c", STORM, log_format, mode]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environ)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.stdout.close()
    return child


def collect(child: "subprocess.Popen[bytes]", reader: int, most: int = 1 << 20) -> bytes:
    """Send a thousand signals a second and read on the side, until the child ends.

    Not faster: a handler that is itself interrupted each time before it ends recurses until Python gives up.
    """
    pieces: list[bytes] = []
    pace = select.poll()
    while child.poll() is None:
        child.send_signal(signal.SIGUSR1)
        pace.poll(1)
        room = most
        while room > 0 and select.select([reader], [], [], 0)[0]:
            try:
                pieces.append(os.read(reader, room))
            except OSError:  # a terminal whose other end is gone
                break
            if not pieces[-1]:
                break
            room -= len(pieces[-1])
    child.wait(PATIENCE)
    return b"".join(pieces)


def read_rest(reader: int) -> bytes:
    pieces: list[bytes] = []
    try:
        while piece := os.read(reader, 1 << 20):
            pieces.append(piece)
    except OSError:  # EIO: a terminal without writers; EAGAIN: nothing is left
        pass
    return b"".join(pieces)


def check(got: bytes, log_format: str) -> None:
    """Every line whole, none missing, none doubled; the order of each source kept."""
    text = got.decode()
    assert "Traceback" not in text
    assert "reentrant" not in text
    numbers: dict[str, list[int]] = {}
    for line in text.splitlines():
        if log_format == "json" and line.startswith("{"):
            message = json.loads(line)["message"]
        else:
            match = re.fullmatch(
                r"(?:[\d-]+ )?\d\d:\d\d:\d\d\.\d{3} worker 1/g1 \[\d+\] INFO  (\w+ \d+)|(\w+ \d+)", line
            )
            assert match, f"torn: {line!r}"
            message = match[1] or match[2]
        word, number = message.split()
        numbers.setdefault(word, []).append(int(number))
    [last] = numbers.pop("end")
    # A handler may be interrupted by the next signal before it has written: then the later number comes first.
    handled = sorted(numbers.pop("handled"))
    assert handled == list(range(1, len(handled) + 1))
    assert len(handled) >= 500
    assert numbers.pop("line") == list(range(1, last + 1))
    assert not numbers


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("kind", ["file", "pipe", "terminal"])
def test_trap_71_a_handler_that_logs_is_never_re_entered(kind: str, log_format: str, tmp_path: Path) -> None:
    if kind == "file":
        path = tmp_path / "log"
        writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        reader = os.open(path, os.O_RDONLY)
    elif kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = os.openpty()
        tty.setraw(writer, termios.TCSANOW)
    child = storm(log_format, "own", writer)
    os.close(writer)
    got = collect(child, reader) + (b"" if kind == "terminal" else read_rest(reader))
    if kind == "terminal":
        os.set_blocking(reader, False)
        got += read_rest(reader)
    os.close(reader)
    assert child.returncode == 0, got[-2000:]
    check(re.sub(rb"\x1b\[[\d;]*m", b"", got), log_format)


def test_trap_71_print_and_the_apps_logging_in_a_user_handler() -> None:
    """Through a pipe that is read slowly: only in a write that waits does a signal find the stream's lock taken."""
    reader, writer = os.pipe()
    child = storm("text", "user", writer)
    os.close(writer)
    text = (collect(child, reader, 4096) + read_rest(reader)).decode()
    os.close(reader)
    assert child.returncode == 0, text[-2000:]
    assert "reentrant" not in text
    assert "Traceback" not in text
    # `print` writes the text and its end by one write each, so another line may come in between: only ours are lines.
    assert {int(number) for number in re.findall(r"INFO  handled (\d+)", text)} >= set(range(1, 501))


def test_trap_72_nothing_here_can_wait_for_a_lock() -> None:
    """No queue, no lock of our own, no buffered stream, in any module of aserver.log."""
    banned = {"queue", "threading", "multiprocessing", "concurrent", "signal"}
    for path in Path(aserver.log.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = {alias.name.partition(".")[0] for alias in node.names} & banned
            elif isinstance(node, ast.ImportFrom):
                found = {str(node.module).partition(".")[0]} & banned
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found = {node.func.id} & {"open", "print"}
            else:
                continue
            assert not found, f"{path.name}:{node.lineno} uses {found}"


# ── 76: dying ────────────────────────────────────────────────────────────────────────────────

DYING = """
import asyncio, ctypes, faulthandler, logging, os, signal, sys
from types import SimpleNamespace
import uvloop
from aserver.log.sink import Sink
from aserver.log.setup import configure
from tests.unit.log.lines import add_line

how, error_fd, access_fd, trace = sys.argv[1], *map(int, sys.argv[2:])
settings = SimpleNamespace(loglevel="info", log_format="text", log_config=None)
logs = configure(settings, process="worker 1/g1", error_fd=error_fd, access_fd=access_fd)
faulthandler.enable(file=trace)

async def main():
    logs.set_process("worker 1/g1", asyncio.get_running_loop())
    for tick in range(200):
        for line in range(20):
            add_line(logs.access, "%d %d\\n" % (tick, line))
        if tick == 199:
            logging.getLogger("aserver.error").error("last words")
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif how == "abort":
                os.abort()
            ctypes.string_at(0)
        await asyncio.sleep(0)

uvloop.run(main())
"""


@pytest.mark.parametrize("how", ["kill", "segfault", "abort"])
def test_trap_76_what_was_logged_before_a_violent_death_is_there(how: str, tmp_path: Path) -> None:
    error_fd, access_fd = (open_log(str(tmp_path / name), which="error") for name in ("error", "access"))
    trace = os.memfd_create("trace")
    fds = (error_fd, access_fd, trace)
    done = subprocess.run(
        [sys.executable, "-c", DYING, how, *map(str, fds)], pass_fds=fds, check=False, timeout=PATIENCE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),  # no core file
    )  # fmt: skip
    expected = {"kill": signal.SIGKILL, "segfault": signal.SIGSEGV, "abort": signal.SIGABRT}[how]
    assert done.returncode == -expected
    got = (tmp_path / "access").read_bytes().splitlines()
    # asyncio.sleep(0) and the flush are both callbacks of the next tick: all but the tick it died in must be there.
    assert got[: 198 * 20] == [b"%d %d" % (tick, line) for tick in range(198) for line in range(20)]
    assert (tmp_path / "error").read_bytes().rstrip().endswith(b"ERROR last words")
    text, offset = read_trace(trace)
    if how == "kill":
        assert (text, offset) == ("", 0)
    else:
        assert "Fatal Python error: " in text
        assert 'File "<string>", line' in text
    for fd in fds:
        os.close(fd)
