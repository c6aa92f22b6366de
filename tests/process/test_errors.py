"""What cannot be served says why, as the last thing printed, and ends with the exit code for it; `aserver check`.

Each docstring says how the test was seen to fail.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import PATIENCE, Notes, ServerProcess
from tests.harness.server import REPOSITORY

pytestmark = pytest.mark.process

APPS = "tests.apps.lifecycle"
Start = Callable[..., ServerProcess]


def _refused(server: Start, target: str, *options: str, code: int, **more: object) -> list[str]:
    """The lines that the command printed before it ended with `code`."""
    running = server(target, *options, ready=False, **more)
    assert running.wait_exit() == code, running.log
    assert "listening" not in running.log
    return running.log.splitlines()


def _error(lines: list[str]) -> str:
    """The one line that says what is wrong."""
    (line,) = (each for each in lines if each.startswith("aserver: error: "))
    return line


# ── 4: the app ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["--preload", "--lazy"])
def test_exit_4_an_import_that_raises(server: Start, mode: str) -> None:
    """The sentence, and the traceback with the user's two frames only, as the last thing printed.

    Fails with traceback.format_exc() for user_traceback: importlib's and aserver's frames are in it.
    """
    lines = _refused(server, f"{APPS}.broken:app", mode, "--workers", "2", code=4)
    assert "importing module 'tests.apps.lifecycle.broken' raised RuntimeError: no such database: orders" in _error(
        lines
    )
    trace = lines[lines.index("Traceback (most recent call last):") :]
    frames = [line for line in trace if line.startswith("  File ")]
    assert len(frames) == 2, trace
    assert all("broken.py" in frame for frame in frames)
    assert "RuntimeError: no such database: orders" in lines[-1]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nothing:app", "no module 'nothing'"),
        ("lifespans:god", "did you mean"),
        ("lifespans:asyncio", "is a module, not an app"),
        ("identity:at_import", "is a dict and cannot be called"),
    ],
)
def test_exit_4_what_is_missing_and_what_was_found(server: Start, target: str, said: str) -> None:
    """Fails with the importer's own exceptions let through (exit code 1)."""
    lines = _refused(server, f"{APPS}.{target}", code=4)
    assert said in _error(lines)
    assert "Traceback" not in "\n".join(lines), "nothing of the user's has raised"


def test_exit_4_sys_exit_at_import(server: Start, tmp_path: Path) -> None:
    """A SystemExit is a failed load, not a wish of the zygote. Fails with `except Exception` around the import."""
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    lines = _refused(server, "leaves:app", "--app-dir", str(tmp_path), code=4)
    assert "called sys.exit(0)" in _error(lines)
    assert lines[-1] == "SystemExit: 0"


# ── 3: booting ───────────────────────────────────────────────────────────────────────────────


NESTED = """
import asyncio
import aserver, aserver.command.cli
async def app(scope, receive, send): pass
def factory():
    {factory}
    return app
{top}
"""
RUN = "aserver.run('nested:app', bind='127.0.0.1:0')"


@pytest.mark.parametrize(
    ("call", "more"),
    [
        (RUN, ()),
        (RUN, ("--lazy",)),
        ("asyncio.run(aserver.serve(app, bind='127.0.0.1:0'))", ()),
        ("aserver.command.cli.main(['run', 'nested:app', '--bind', '127.0.0.1:0'])", ()),
    ],
)
def test_exit_4_a_module_that_starts_a_server_when_it_is_imported(
    server: Start, tmp_path: Path, call: str, more: tuple[str, ...]
) -> None:
    """A sentence instead of a server in each server, without end. Fails without loading.refuse_nested in each."""
    (tmp_path / "nested.py").write_text(NESTED.format(top=call, factory="pass"))
    lines = _refused(server, "nested:app", "--app-dir", str(tmp_path), *more, code=4)
    assert 'put the call under `if __name__ == "__main__":`' in _error(lines)
    assert any('nested.py", line 8, in <module>' in line for line in lines)
    assert sum("aserver 0.1.0, pid" in line for line in lines) == 1


def test_exit_4_a_factory_that_starts_a_server(server: Start, tmp_path: Path) -> None:
    """Fails without `application_code` around the call."""
    (tmp_path / "nested.py").write_text(NESTED.format(top="", factory=RUN))
    lines = _refused(server, "nested:factory", "--factory", "--app-dir", str(tmp_path), code=4)
    assert 'put the call under `if __name__ == "__main__":`' in _error(lines)


def test_an_unguarded_run_in_the_program_itself_ends(server: Start, tmp_path: Path) -> None:
    """`python nested.py`, of which the zygote imports a second copy: a sentence, and no traceback of a correct call.

    Fails without loading.refuse_nested, and without SystemExit in `run`.
    """
    (tmp_path / "nested.py").write_text(NESTED.format(top=RUN, factory="pass"))
    running = server(argv=[sys.executable, str(tmp_path / "nested.py")], cwd=tmp_path, ready=False)
    assert running.wait_exit() == ExitCode.APP_LOAD
    started, error = running.log.splitlines()
    assert "aserver 0.1.0, pid" in started
    assert error.startswith("aserver: error: importing module 'nested' is refused: aserver.run() is called while")
    assert error.endswith('put the call under `if __name__ == "__main__":`')


def test_exit_2_a_settings_file_that_starts_a_server(server: Start, tmp_path: Path) -> None:
    """Fails without `application_code` around exec: the child serves until FILE_TIMEOUT."""
    conf = tmp_path / "conf.py"
    conf.write_text("import aserver\naserver.run('tests.apps.raw:app', bind='127.0.0.1:0')\n")
    lines = _refused(server, "tests.apps.raw:app", "--config", str(conf), code=2)
    assert "line 2: aserver.errors.AppLoadError: aserver.run() is called while a server imports" in _error(lines)


def test_trap_32_exit_3_lifespan_failed_after_all_retries(server: Start, tmp_path: Path) -> None:
    """As many attempts as boot_retries says, each said, with pauses. Fails with `tries = 1` in the state machine."""
    notes = Notes(tmp_path)
    lines = _refused(server, f"{APPS}.lifespans:fails", "--boot-retries", "2", code=3, env=notes.env)
    assert notes.lines == ["attempt", "attempt"]
    assert "lifespan startup failed: the database is away" in _error(lines)
    assert sum("attempt 2 of 2 in " in line for line in lines) == 1


def test_exit_3_lifespan_on_and_the_app_raises(server: Start) -> None:
    """With the app's own frames as the last thing printed. Fails with an empty detail in WorkerProcess._main."""
    lines = _refused(server, f"{APPS}.lifespans:raises", "--lifespan", "on", "--boot-retries", "2", code=3)
    assert "lifespan startup failed: ValueError: no lifespan here" in _error(lines)
    assert lines[-1] == "ValueError: no lifespan here"
    assert sum("Traceback" in line for line in lines) == 1, "one for a failure, however often it is tried"
    assert [line for line in lines if line.startswith("  File ")] == [line for line in lines if "lifespans.py" in line]


def test_exit_3_starlettes_failed_lifespan_is_one_line_and_its_traceback(server: Start, tmp_path: Path) -> None:
    """Starlette sends the whole traceback as the message. Fails without Lifespan._startup_error."""
    (tmp_path / "star.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from starlette.applications import Starlette\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    raise RuntimeError('no such database')\n"
        "    yield\n"
        "app = Starlette(lifespan=lifespan)\n"
    )
    lines = _refused(server, "star:app", "--app-dir", str(tmp_path), "--boot-retries", "1", code=3)
    assert _error(lines).endswith("lifespan startup failed: RuntimeError: no such database")
    assert any('star.py", line 5, in lifespan' in line for line in lines)


@pytest.mark.parametrize(
    ("app", "mode", "serves"),
    [("raises", "auto", True), ("raises", "off", True), ("good", "on", True), ("fails", "off", True)],
)
def test_lifespan_modes(server: Start, app: str, mode: str, serves: bool, tmp_path: Path) -> None:
    """auto: an app that raises is served without; off: lifespan is never called. Fails with `mode` ignored."""
    notes = Notes(tmp_path)
    running = server(f"{APPS}.lifespans:{app}", "--lifespan", mode, env=notes.env)
    if app != "fails":
        assert running.fetch("/").status == 200
    assert running.stop() == 0
    expected = ["startup", "shutdown"] if mode == "on" else []
    assert notes.lines == expected


# ── 5: sockets ───────────────────────────────────────────────────────────────────────────────


def test_exit_5_and_trap_26_a_taken_port_names_its_holder(server: Start, tmp_path: Path) -> None:
    """Whoever it is, by pid, and no pidfile stays. Fails with the system's "Address already in use" alone."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        options = ("--pidfile", str(tmp_path / "pid"))
        lines = _refused(server, f"{APPS}.probe:app", *options, bind=(f"127.0.0.1:{port}",), code=5)
    assert list(tmp_path.iterdir()) == []
    assert str(port) in _error(lines)
    assert f"pid {os.getpid()}" in _error(lines)


def test_trap_26_an_orphan_that_holds_the_port_is_named(server: Start, tmp_path: Path) -> None:
    """After kill -9 of a master, a worker that hangs keeps the port until the deputy ends it; a second start says so.

    Fails as the one above.
    """
    notes = Notes(tmp_path)
    first = server(f"{APPS}.probe:app", "--graceful-timeout", "6", "--lifespan-shutdown-timeout", "0.1", env=notes.env)
    (worker,) = first.workers()
    with first.connect() as connection:
        connection.send(b"GET /block?seconds=600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        first.wait_for(lambda: "blocking" in notes.lines, what="the worker to hang")
        first.kill()
        first.wait_log("the master is gone")
        assert isinstance(first.where, tuple)
        lines = _refused(server, f"{APPS}.probe:app", bind=(f"127.0.0.1:{first.where[1]}",), code=5)
        assert f"pid {worker.pid}" in _error(lines)
        worker.kill()


# ── 2: settings ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "many"), "many"),
        (("--wrokers", "2"), "--workers"),
        (("--errorlog", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--chdir", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--user", "nobody-of-that-name"), "nobody-of-that-name"),
    ],
)
def test_exit_2_settings(server: Start, options: tuple[str, ...], said: str) -> None:
    """Also what only the zygote can find out. Fails with ConfigError mapped to BootError in launch._conclude."""
    assert said in _error(_refused(server, f"{APPS}.probe:app", *options, code=2))


# ── check ────────────────────────────────────────────────────────────────────────────────────


def _check(target: str, *options: str, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ASERVER_")}
    return subprocess.run(
        [sys.executable, "-m", "aserver", "check", target, *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=REPOSITORY,
        env=environ | {"PYTHONPATH": str(REPOSITORY)} | dict(env or {}),
        check=False,
    )


def test_check_of_a_good_app(tmp_path: Path) -> None:
    """Lifespan goes up and down, and nothing else happens. Fails without lifespan.shutdown in the check."""
    notes = Notes(tmp_path)
    log = tmp_path / "error.log"
    result = _check(f"{APPS}.lifespans:good", "--max-requests-jitter", "5", "--errorlog", str(log), env=notes.env)
    assert result.returncode == 0, result.stderr
    assert "warning    max_requests_jitter does nothing" in result.stdout
    assert not log.exists(), "it would be the operator's, and the service might not write it"
    assert notes.lines == ["startup", "shutdown"]
    assert "lifespan   up and down" in result.stdout
    assert "nothing that would not survive a fork" in result.stdout


@pytest.mark.parametrize(
    ("target", "options", "code", "said"),
    [
        ("lifespans:fails", (), 3, "the database is away"),
        ("lifespans:hangs", ("--boot-timeout", "0.3"), 3, "boot_timeout"),
        ("lifespans:raises", ("--lifespan", "on"), 3, "ValueError: no lifespan here"),
        ("lifespans:nothing", (), 4, "nothing"),
        ("broken:app", (), 4, "no such database: orders"),
        ("probe:app", ("--workers", "many"), 2, "many"),
    ],
)
def test_check_of_what_would_not_serve(target: str, options: tuple[str, ...], code: int, said: str) -> None:
    """The same exit codes as `run`. Fails with `return ExitCode.OK` in each place that raises."""
    result = _check(f"{APPS}.{target}", *options)
    assert (result.returncode, said in result.stderr) == (code, True), result.stderr
    assert "\nok\n" not in result.stdout


def test_check_reports_fork_hazards(tmp_path: Path) -> None:
    """Each by name; only `refuse` makes them an error. Fails without the census in check."""
    env = {"JOBS_DONE": str(tmp_path / "jobs")}
    result = _check(f"{APPS}.threaded:app", env=env)
    assert result.returncode == 0
    assert "hazard     thread 'appdb_0' started at" in result.stdout
    assert "each worker will load the app itself (on_fork_hazard=lazy)" in result.stdout
    assert _check(f"{APPS}.threaded:app", "--on-fork-hazard", "refuse", env=env).returncode == 4
