"""The real server's logs: rotation, kills, readers that do not read. Storms of signals are incident 2."""

import json
import os
import re
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import Load, ServerProcess, wait_for
from tests.harness.client import ClosedEarlyError, fetch
from tests.harness.server import REPOSITORY, addresses_in
from tests.process.rolling import variant

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
    assert running.fetch("/").status == 200  # though nobody will ever read again
    assert running.stop() == ExitCode.OK


TALKATIVE = """
import os, subprocess
print("python, at import")
subprocess.run("echo child, at import", shell=True)
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    print("python:", scope["path"])
    subprocess.run(f"printf 'child: {scope['path']}'; echo error of it >&2", shell=True)
    if scope["path"] == "/crash":
        os.write(2, b"C: a last word")
        os.abort()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
"""


def test_capture_output_in_the_real_server(server: Start, tmp_path: Path) -> None:
    """With JSON, each line of what Python, C code and subprocesses print is an object with its process's name.

    Across a crash, a rotation, an upgrade, recycled workers and the stop. Fails if the crashed worker's pipe is closed
    with it, if the upgrade leaves the pipes or two readers, and if the stop does not wait for the reader.
    """
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    path = tmp_path / "error.log"
    options = ["--capture-output", "--log-format", "json", "--no-access-log", "--errorlog", str(path)]
    running = server("talkative:app", "--app-dir", str(tmp_path), *options, ready=False)

    def told() -> set[tuple[str, str]]:
        text = "".join(each.read_text() for each in tmp_path.glob("error.log*"))
        records = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return {(record["process"], record["message"]) for record in records}

    def says(text: str) -> bool:
        return any(text in message for _, message in told())

    running.wait_for(lambda: path.exists() and addresses_in(path.read_text()), what="its address")
    [where] = [each.where for each in addresses_in(path.read_text())]
    with pytest.raises((OSError, ClosedEarlyError)):
        fetch(where, "/crash")
    running.wait_for(lambda: ("worker 1/g1", "stderr: C: a last word") in told(), what="the last words")
    path.rename(f"{path}.1")
    running.signal(signal.SIGUSR1)
    running.wait_for(lambda: path.exists() and says("logs reopened"), what="the new file")
    fetch(where, "/rotated")
    running.signal(signal.SIGUSR2)
    running.wait_for(lambda: says("upgrade complete"), what="the upgrade")

    def titles() -> list[str]:
        return [each.title for each in running.children()]

    running.wait_for(lambda: "generation 1)" not in str(titles()), what="the end of what the former image began")
    running.wait_for(lambda: sum("output" in title for title in titles()) == 1, what="one reader")
    fetch(where, "/upgraded")
    running.wait_for(lambda: ("worker 1/g2", "stderr: error of it") in told(), what="the new reader at work")
    assert running.stop() == ExitCode.OK  # at which half a line is left, that of stdout
    expected = {
        ("zygote g1", "stdout: python, at import"),
        ("zygote g1", "stdout: child, at import"),
        ("worker 1/g1", "stdout: python: /crash"),
        ("worker 1/g1", "stdout: child: /crash"),
        ("worker 1/g1", "stderr: error of it"),
        ("worker 1/g1", "stdout: child: /rotated"),
        ("zygote g2", "stdout: child, at import"),
        ("worker 1/g2", "stdout: child: /upgraded"),
        ("worker 1/g2", "stderr: error of it"),
    }
    assert expected - told() == set()
    assert running.log == ""


def test_trap_79_two_logs_of_a_worker_that_dropped_its_rights(server: Start, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can drop privileges")
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o700)  # the workers could not open anything in it
    tmp_path.parent.chmod(0o755)
    names = [logs / "error", logs / "access"]
    options = ["--user", "65534", "--group", "65534", "--chdir", "/", "--loglevel", "info"]
    running = server(
        "tests.apps.raw:app", "--app-dir", str(REPOSITORY), "--workers", "2", *options,
        "--errorlog", str(names[0]), "--accesslog", str(names[1]), "--access-log-format", "%(q)s", ready=False,
    )  # fmt: skip
    running.wait_for(lambda: names[0].exists() and "workers are ready" in names[0].read_text(), what="readiness")
    [where] = [each.where for each in addresses_in(names[0].read_text())]
    with Load(where, "/boom?line", connections=2, good=lambda status, _: status == 500) as load:
        for number in range(3):
            load.wait_for_more(30)
            for name in names:
                name.rename(f"{name}.{number}")
            running.signal(signal.SIGUSR1)
            wait_for(lambda: all(name.exists() and name.stat().st_size for name in names), what="the new files")
        load.wait_for_more(30)
    load.outcome.check()
    assert running.stop() == ExitCode.OK
    errors = "".join(file.read_text() for file in logs.glob("error*"))
    accesses = "".join(file.read_text() for file in logs.glob("access*"))
    assert accesses.splitlines() == ["line"] * load.outcome.ok
    assert errors.count("the application raised RuntimeError") == load.outcome.ok


def test_trap_79_copytruncate_under_load(server: Start, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    running = server(APP, "--workers", "2", "--accesslog", str(path), "--access-log-format", "%(r)s %(s)s")
    with Load(running.where, connections=4) as load:
        for _ in range(3):
            load.wait_for_more(50)
            os.truncate(path, 0)
        load.wait_for_more(50)
    load.outcome.check()
    assert running.stop() == ExitCode.OK
    # O_APPEND: after the truncation writing goes on at the file's new end, without a hole of zeros before it.
    assert set(path.read_bytes().split(b"\n")) == {b"GET / HTTP/1.1 200", b""}


def test_log_config_in_json_in_the_real_server(server: Start, tmp_path: Path) -> None:
    target, config = tmp_path / "own.log", tmp_path / "log.json"
    handler = {"class": "logging.FileHandler", "filename": str(target)}
    loggers = {"aserver": {"handlers": ["file"], "level": "INFO", "propagate": False}}
    config.write_text(json.dumps({"handlers": {"file": handler}, "loggers": loggers}))
    running = server(APP, "--log-config", str(config), ready=False)
    running.wait_for(lambda: target.exists() and "worker is ready" in target.read_text(), what="readiness")
    assert running.stop() == ExitCode.OK
    assert "stopped" in target.read_text()
    config.write_text("{")
    refused = server(APP, "--log-config", str(config), ready=False)
    assert refused.wait_exit() == ExitCode.CONFIG
    assert f"log_config {config}: cannot be read as JSON" in refused.log


@pytest.mark.parametrize("mode", ["--preload", pytest.param("--lazy", marks=variant)])
@pytest.mark.parametrize("configures", [False, True])
def test_what_the_app_writes_to_loggers_of_other_servers_is_told_once(
    server: Start, tmp_path: Path, mode: str, configures: bool
) -> None:
    """In the error log, or where the app has led its records. Fails without `serve_others` in the zygote."""
    errors = tmp_path / "error.log"
    env = {"CONFIGURES": "1"} if configures else {}
    running = server("tests.apps.other_loggers:app", mode, "--errorlog", str(errors), env=env, ready=False)
    wait_for(lambda: errors.exists() and addresses_in(errors.read_text()), what="its address")
    (address,) = addresses_in(errors.read_text())
    assert fetch(address.where).body == b"told"
    assert running.stop() == ExitCode.OK
    for name in ("uvicorn", "uvicorn.error", "gunicorn.error"):
        for when in ("import", "lifespan", "http"):
            line = f"{name} writes at {when}."
            assert errors.read_text().count(f" INFO  {line}\n") == (not configures)
            assert running.log.count(f"mine: {line}\n") == configures
