"""The real server's logs: rotation, kills, readers that do not read. Storms of signals are incident 2."""

import os
import re
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import Load, ServerProcess, wait_for

pytestmark = pytest.mark.process

APP = "tests.apps.raw:app"
Start = Callable[..., ServerProcess]


def test_trap_79_rotation_under_load_loses_no_line(server: Start, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    running = server(APP, "--workers", "2", "--accesslog", str(path), "--access-log-format", "%(r)s %(s)s")
    rotated = []
    with Load(running.where, connections=4) as load:
        for number in range(5):
            load.wait_for_more(50)
            rotated.append(tmp_path / f"access.log.{number}")
            path.rename(rotated[-1])
            running.signal(signal.SIGUSR1)
            running.wait_log("logs reopened", count=number + 1)
            wait_for(path.exists, what="the new file")
        load.wait_for_more(50)
    load.outcome.check()
    assert running.stop() == ExitCode.OK
    lines = [line for file in [*rotated, path] for line in file.read_text().splitlines()]
    assert set(lines) == {"GET / HTTP/1.1 200"}
    assert len(lines) == load.outcome.ok
    assert path.stat().st_size > 0


def test_trap_76_a_killed_worker_has_logged_all_but_its_last_tick(server: Start, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    running = server(APP, "--workers", "2", "--accesslog", str(path), "--access-log-format", "%(r)s %(s)s")
    with Load(running.where, connections=4) as load:
        for number in range(2):
            load.wait_for_more(100)
            running.workers()[0].kill()
            running.wait_log(r"worker \d .* is ready", count=3 + number)
    assert running.stop() == ExitCode.OK
    lines = path.read_text().splitlines()
    assert set(lines) == {"GET / HTTP/1.1 200"}
    # Of each killed worker, at most one answer for each connection.
    assert load.outcome.ok - 2 * 4 <= len(lines)


def test_traps_73_and_74_nobody_reads_standard_output(server: Start, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = [*ServerProcess.command(APP), "--bind", "127.0.0.1:0", "--access-log-format", "%(q)s"]
    running = server(argv=["/bin/sh", "-c", f'exec "$@" >{fifo}', "sh", *command], target="")
    total = 700
    with running.connect() as client:
        for number in range(total):  # 2.7 MB: the pipe holds 64 kB, the sink 1 MB
            assert client.request(f"/?{number:04d}{'x' * 3900}").status == 200
    for process in [running.pid, *(child.pid for child in running.children())]:
        flags = re.search(r"flags:\s*(\d+)", Path(f"/proc/{process}/fdinfo/1").read_text())
        assert flags
        assert not int(flags[1], 8) & os.O_NONBLOCK
    got = b""

    def told() -> "list[str]":
        nonlocal got
        while select.select([reader], [], [], 0)[0] and (piece := os.read(reader, 1 << 20)):
            got += piece
        return re.findall(r"WARN  access log: (\d+) lines were lost", running.log)

    [lost] = wait_for(told, what="the line that tells the loss")
    lines = got.splitlines()
    assert all(re.fullmatch(rb"\d{4}x{3900}", line) for line in lines)
    assert len(lines) + int(lost) == total
    assert len(got) > 1 << 20
    os.close(reader)
    assert running.fetch("/").status == 200  # trap 80: nobody will ever read again
    assert running.stop() == ExitCode.OK


def test_capture_output_in_the_real_server(server: Start, tmp_path: Path) -> None:
    app = tmp_path / "talkative.py"
    app.write_text(
        "import os, sys\n"
        "print('hello from the import')\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http':\n"
        "        raise RuntimeError('no lifespan')\n"
        "    print('hello from', scope['path'], file=sys.stderr)\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'0')]})\n"
        "    await send({'type': 'http.response.body'})\n"
    )
    running = server("talkative:app", "--app-dir", str(tmp_path), "--capture-output", "--no-access-log")
    running.fetch("/there")
    assert running.stop() == ExitCode.OK
    assert re.search(r" zygote g1 +\[\d+\] INFO  stdout: hello from the import\n", running.log)
    assert re.search(r" worker 1/g1 +\[\d+\] INFO  stderr: hello from /there\n", running.log)
