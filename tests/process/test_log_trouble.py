"""The real server when its logs or its workers are in trouble: full disks, blocked readers, crashes, and collectors."""

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import Load, ServerProcess, tmpfs, wait_for
from tests.process.rolling import variant

pytestmark = pytest.mark.process

Start = Callable[..., ServerProcess]

APP = """
import ctypes, logging, os, signal
log = logging.getLogger("aserver.app")

async def app(scope, receive, send):
    path = scope["path"]
    if path == "/error":
        log.error("kept %s", scope["query_string"].decode())
    elif path != "/":
        log.error("last words before %s", path)
        if path == "/kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os.abort() if path == "/abort" else ctypes.string_at(0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
"""


@pytest.fixture
def app(tmp_path: Path) -> list[str]:
    """The options that load APP."""
    (tmp_path / "trouble.py").write_text(APP)
    return ["--app-dir", str(tmp_path), "--lifespan", "off"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, so that what the access log keeps (1 MB) fits when there is room again."""
    with tmpfs(tmp_path / "disk", "size=2m") as where:
        yield where


def test_trap_78_a_full_disk_costs_access_lines_and_no_request(server: Start, app: list[str], small_disk: Path) -> None:
    """Compared by events: while the disk is full, as many requests succeed as one likes."""
    ballast, error, access = (small_disk / name for name in ("ballast", "error.log", "access.log"))
    options = [*app, "--errorlog", str(error), "--accesslog", str(access), "--access-log-format", f"%(q)s {'x' * 4000}"]
    running = server("trouble:app", "--workers", "1", *options, ready=False)
    running.wait_for(lambda: error.exists() and "worker is ready" in error.read_text(), what="the server to be ready")
    port = re.search(r"listening on http://127\.0\.0\.1:(\d+)", error.read_text())
    assert port
    where = ("127.0.0.1", int(port[1]))
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(small_disk).f_bavail == 0
    with Load(where, "/?load", connections=2, pause=0) as load:
        load.wait_for_more(500)  # 2 MB of lines: the sink keeps 1 MB
    load.outcome.check(500)
    with Load(where, "/error?1", connections=1, pause=0) as errors:
        errors.wait_for_more(50)
    errors.outcome.check(50)
    ballast.unlink()
    wait_for(lambda: "lines were lost" in error.read_text(), what="the loss to be told")
    assert running.stop() == ExitCode.OK
    assert error.read_text().count("ERROR kept 1") >= errors.outcome.ok
    [lost] = re.findall(r"access log: (\d+) lines were lost in [\d.]+ s \(No space left on device\)", error.read_text())
    whole = re.findall(rb"^(?:load|1) x{4000}$", access.read_bytes(), re.MULTILINE)
    assert len(whole) + int(lost) == load.outcome.ok + errors.outcome.ok


def test_trap_73_a_blocked_standard_error_keeps_errors_for_later(server: Start, app: list[str], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = [*ServerProcess.command("trouble:app"), "--bind", "127.0.0.1:0", "--no-access-log", *app]
    running = server(argv=["/bin/sh", "-c", f'exec "$@" 2>{fifo}', "sh", *command], ready=False, target="")
    got = bytearray()

    def read(pattern: bytes) -> "re.Match[bytes] | None":
        with contextlib.suppress(BlockingIOError):
            got.extend(os.read(reader, 1 << 20))
        return re.search(pattern, got)

    port = wait_for(lambda: read(rb"http://127\.0\.0\.1:(\d+)"), what="the address")
    assert port
    wait_for(lambda: read(b"worker is ready"), what="readiness")
    with Load(("127.0.0.1", int(port[1])), "/error?" + "e" * 1000, connections=2, pause=0) as load:
        load.wait_for_more(500)  # the pipe holds 64 kB of these 500 kB, and nobody reads
    load.outcome.check(500)
    wait_for(lambda: read(b"never there") or got.count(b"ERROR kept") >= load.outcome.ok, what="every record")
    assert got.count(b"ERROR kept") == load.outcome.ok
    running.terminate()
    wait_for(lambda: read(rb"stopped\n"), what="the end")
    assert running.wait_exit() == ExitCode.OK
    os.close(reader)


@pytest.mark.parametrize(
    ("how", "signum"), [("kill", signal.SIGKILL), ("segfault", signal.SIGSEGV), ("abort", signal.SIGABRT)]
)
@pytest.mark.parametrize("log_format", ["text", pytest.param("json", marks=variant)])
def test_trap_76_a_crash_leaves_last_words_and_one_record_with_the_stack(
    server: Start, app: list[str], how: str, signum: signal.Signals, log_format: str
) -> None:
    running = server("trouble:app", *app, "--log-format", log_format)
    [victim] = running.workers()
    running.fetch("/")
    with running.connect() as client:
        client.send(f"GET /{how} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.expect_close()
    running.wait_log(r"worker 1 .* is ready", count=2)
    assert running.stop() == ExitCode.OK
    log = running.log
    assert f"last words before /{how}" in log
    assert signum.name in log
    if how == "kill":
        assert "stacks" not in log
        return
    begin = f"worker 1 (generation 1, pid {victim.pid}): the stacks at its end (the request begun last: /{how}):"
    if log_format == "json":
        records = [json.loads(line) for line in log.splitlines() if line.startswith('{"time"') and "stacks" in line]
        [message] = [record["message"] for record in records if "stacks" in record["message"]]
        assert message.startswith(begin)
        assert "trouble.py" in message
        return
    [(stack)] = re.findall(rf"ERROR {re.escape(begin)}\n((?:    .*\n)+)", log)
    assert "Fatal Python error: " in stack
    assert 'trouble.py", line' in stack


def test_syslog_by_a_standard_handler(server: Start, app: list[str], tmp_path: Path) -> None:
    path = str(tmp_path / "syslog")
    config = tmp_path / "log.toml"
    config.write_text(
        f'[handlers.syslog]\nclass = "logging.handlers.SysLogHandler"\naddress = "{path}"\n'
        '[loggers.aserver]\nhandlers = ["syslog"]\nlevel = "INFO"\npropagate = false\n'
        '[loggers."aserver.access"]\nhandlers = ["syslog"]\npropagate = false\n'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector:
        collector.bind(path)
        collector.setblocking(False)
        got: list[bytes] = []

        def heard(pattern: bytes) -> "re.Match[bytes] | None":
            try:
                while True:
                    got.append(collector.recv(65536))
            except BlockingIOError:
                return re.search(pattern, b"\n".join(got))

        running = server("trouble:app", *app, "--log-config", str(config), ready=False)
        port = wait_for(lambda: heard(rb"listening on http://127\.0\.0\.1:(\d+)"), what="the address")
        assert port
        wait_for(lambda: heard(b"worker is ready"), what="readiness")
        with Load(("127.0.0.1", int(port[1])), "/error?1", connections=1) as load:
            load.wait_for_more(5)
        wait_for(lambda: heard(rb"<11>kept 1"), what="an error record with its priority")
        wait_for(lambda: heard(rb"<14>127\.0\.0\.1 - - .*GET /error\?1 HTTP/1\.1. 200"), what="an access line")
        running.terminate()
        wait_for(lambda: heard(rb"stopped"), what="the end")
        assert running.wait_exit() == ExitCode.OK


def test_journald_gets_standard_error_as_a_stream_socket(server: Start, app: list[str], tmp_path: Path) -> None:
    """journald's stdout is a UNIX stream socket (systemd.exec(5)), which cannot be opened again through /proc."""
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        command = [*ServerProcess.command("trouble:app"), "--bind", "127.0.0.1:0", *app]
        connect = (
            "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "os.dup2(s.fileno(), 1); os.dup2(s.fileno(), 2); os.execvp(sys.argv[2], sys.argv[2:])"
        )
        running = server(argv=[command[0], "-c", connect, path, *command], ready=False, target="")
        journal, _ = listener.accept()
    with journal:
        journal.settimeout(0.05)
        got = bytearray()

        def heard(pattern: bytes) -> "re.Match[bytes] | None":
            with contextlib.suppress(TimeoutError):
                got.extend(journal.recv(1 << 20))
            return re.search(pattern, got)

        port = wait_for(lambda: heard(rb"listening on http://127\.0\.0\.1:(\d+)"), what="the address")
        assert port
        wait_for(lambda: heard(b"worker is ready"), what="readiness")
        with Load(("127.0.0.1", int(port[1])), "/error?1", connections=2) as load:
            load.wait_for_more(50)
        running.terminate()
        wait_for(lambda: heard(rb"INFO  stopped\n"), what="the end")
        assert running.wait_exit() == ExitCode.OK
        assert got.count(b"ERROR kept 1\n") == got.count(b'GET /error?1 HTTP/1.1" 200 -') == load.outcome.ok
