"""Where the server is started: a name that a deploy switches, a directory that has gone or may not be searched; limits.

Each docstring says how the test was seen to fail.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import PATIENCE, ServerProcess
from tests.harness.server import REPOSITORY
from tests.process.rolling import Start, settle, variant

pytestmark = pytest.mark.process

APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"{version}"}})
"""


def _release(tmp_path: Path, version: str, settings: str = "") -> Path:
    release = tmp_path / version
    release.mkdir()
    (release / "release_app.py").write_text(APP.format(version=version))
    (release / "aserver.toml").write_text(settings)
    return release


def _switch(current: Path, release: Path) -> None:
    """As deploy tools do: a new link, renamed over the old one."""
    fresh = current.with_name("fresh")
    fresh.symlink_to(release)
    fresh.rename(current)


def _start_in(server: Start, directory: Path, *options: str) -> ServerProcess:
    """The command in a shell that has changed to `directory`, whose PWD keeps the symlink."""
    command = [*ServerProcess.command("release_app:app"), "--bind", "127.0.0.1:0", *options]
    return server(argv=["sh", "-c", 'cd "$0" && exec "$@"', str(directory), *command])


BOTH = ["--preload", pytest.param("--lazy", marks=variant)]


@pytest.mark.parametrize("mode", BOTH)
def test_a_deploy_that_switches_a_symlink(server: Start, tmp_path: Path, mode: str) -> None:
    """HUP serves the new release with its settings, an upgrade the one after it, and each old one may go.

    Fails with os.getcwd() for $PWD (old code, and the log says "generation 2 serves"), and without `handed_on`.
    """
    current, releases = tmp_path / "current", [_release(tmp_path, "one"), _release(tmp_path, "two", "workers = 2\n")]
    _switch(current, releases[0])
    running = _start_in(server, current, mode)
    assert running.fetch().body == b"one"
    _switch(current, releases[1])
    shutil.rmtree(releases[0])
    running.signal(signal.SIGHUP)
    settle(running, 2, generation=2)
    assert running.fetch().body == b"two"
    _switch(current, _release(tmp_path, "three"))
    running.signal(signal.SIGUSR2)
    settle(running, 1, generation=3)
    assert running.fetch().body == b"three"
    assert "no loaded file has changed" not in running.log
    assert running.stop() == 0


def test_a_reload_of_a_name_that_leads_nowhere_changes_nothing(server: Start, tmp_path: Path) -> None:
    """Nor does an upgrade. Fails without layers._refuse_missing: the defaults, and the old code, would serve."""
    current = tmp_path / "current"
    _switch(current, _release(tmp_path, "one", "workers = 2\n"))
    running = _start_in(server, current)
    current.unlink()
    running.signal(signal.SIGHUP)
    said = f"everything stays as it is: .*the working directory {current} does not exist any more"
    running.wait_log(rf"reload \(SIGHUP\) refused, {said}")
    running.signal(signal.SIGUSR2)
    running.wait_log(rf"upgrade \(SIGUSR2\) refused, (?s:{said})")
    settle(running, 2, generation=1)
    assert running.fetch().body == b"one"
    assert running.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user in a directory of its own")
def test_a_working_directory_whose_path_may_not_be_walked_is_inherited(tmp_path: Path) -> None:
    """A zygote could not change to it. Fails with str(cwd) alone: the start that worked so far is refused."""
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o755)
    inner.parent.chmod(0o700)
    program = (
        "import os, aserver.config.layers as layers\n"
        "from aserver import unix\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "layers.find_file = lambda cwd: None\n"
        "print(layers.load(environ={}, cwd=unix.working_directory(os.environ)).directory)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=inner,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "None\n", done


@pytest.mark.parametrize("mode", BOTH)
def test_a_reload_of_unchanged_code_says_so(server: Start, tmp_path: Path, mode: str) -> None:
    """And one of changed code does not. Fails without the comparison in CodeWatch.know."""
    release = _release(tmp_path, "one")
    running = _start_in(server, release, mode)
    running.signal(signal.SIGHUP)
    settle(running, 1, generation=2)
    running.wait_log("generation 2 has the code of generation 1: no loaded file has changed")
    (release / "release_app.py").write_text(APP.format(version="changed"))
    running.signal(signal.SIGHUP)
    settle(running, 1, generation=3)
    assert running.fetch().body == b"changed"
    assert running.log.count("no loaded file has changed") == 1
    assert running.stop() == 0


def test_a_pwd_that_names_another_directory_is_not_believed(server: Start, tmp_path: Path) -> None:
    """`sudo` and service managers may leave a stale one. Fails without samefile."""
    release, other = _release(tmp_path, "one"), _release(tmp_path, "other")
    running = server("release_app:app", cwd=release, env={"PWD": str(other)})
    assert running.fetch().body == b"one"
    assert running.stop() == 0


# ── what keeps a server from starting ────────────────────────────────────────────────────────


def _refused(script: str, directory: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a shell script that ends in `exec "$@"`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "ASERVER"))}
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, *arguments],
        cwd=directory,
        env=environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr


RUN = ("-m", "aserver", "run", "tests.apps.raw:app", "--bind", "127.0.0.1:0")


@pytest.mark.parametrize("command", ["run", "check", "config"])
def test_exit_2_a_working_directory_that_has_been_removed(tmp_path: Path, command: str) -> None:
    """Fails with Path.cwd(): a traceback, and exit code 1."""
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [command if word == "run" else word for word in RUN]
    code, said = _refused(f'cd {gone}; rmdir {gone}; exec "$@"', tmp_path, *words)
    assert code == 2
    assert f"the working directory has been removed (PWD is {gone}); start the server in one that exists" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("open_tree")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user in a directory of its own")
def test_exit_2_a_working_directory_that_may_not_be_searched(tmp_path: Path) -> None:
    """A sentence with the uid. Fails without the except in files.find_file: a traceback, and exit code 1."""
    closed = Path("/var/tmp") / f"aserver-closed-{os.getpid()}"  # tmp_path itself is closed to others
    closed.mkdir()
    try:
        closed.chmod(0o700)
        # Loaded while we may read this Python, which may lie in root's home.
        program = (
            "import os, sys, aserver.command.cli, aserver.launch.run, encodings.idna\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "aserver.command.cli.main(sys.argv[1:])\n"
        )
        code, said = _refused('exec "$@"', closed, "-c", program, *RUN[2:])
    finally:
        closed.rmdir()
    assert "Traceback" not in said
    assert f"uid 65534 may not look for settings in the working directory {closed}; start the server in another" in said
    assert code == 2


@pytest.mark.parametrize(("limit", "said"), [("-f 0", "file sizes (ulimit -f)"), ("-n 11", "open files (ulimit -n)")])
def test_exit_2_limits_that_leave_no_room_for_a_server(tmp_path: Path, limit: str, said: str) -> None:
    """Fails without launch/run.py, _start: the board's ftruncate, or the descriptor of one, in a traceback."""
    code, error = _refused(f'ulimit {limit}; exec "$@"', tmp_path, *RUN)
    assert code == 2, error
    assert said in error
    assert "Traceback" not in error


def test_few_descriptors_are_a_sentence_wherever_they_run_out(tmp_path: Path) -> None:
    """In the start, at the exec of the zygote, and in the first message to it.

    Fails without `except OSError` around the send in processes.Processes.spawn: a traceback, and exit code 1.
    """
    for limit in (7, 12, 14, 16):
        code, error = _refused(f'ulimit -n {limit}; exec "$@"', tmp_path, *RUN)
        assert code in (2, 3, 5), error
        error = error.partition("Exception ignored")[0]  # asyncio's own, of 3.14, about a loop that could not be made
        assert error.splitlines()[-1].startswith("aserver: error: "), error
        assert "Traceback" not in error, limit
