"""Settings and hooks from a Python file, and the process that runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aserver.config import Resolved, python_file
from aserver.config.layers import load
from aserver.errors import ConfigError
from tests.unit.config.starts import write


def run_file(tmp_path: Path, text: str) -> Resolved:
    write(tmp_path / "settings.py", text)
    return load(environ=dict(os.environ), cwd=tmp_path, config_file="settings.py")


PY_FILE = """
import multiprocessing
from os.path import join
from pathlib import Path
class Helper: pass
def max_workers(): return 3
_private = object()
bind = [":8000", "unix:/a"]
workers = max_workers()
timeout = 45
user = None
raw_env = ["A=1"]
chdir = Path("/srv")
print("chatter")
def post_fork(server, worker): pass
def when_ready(server): pass
"""


def test_a_python_file_gives_settings_and_names_of_hooks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    resolved = run_file(tmp_path, PY_FILE)
    config = resolved.config
    assert (config.bind, config.workers, config.hang_timeout) == (("0.0.0.0:8000", "unix:/a"), 3, 45.0)
    assert (config.user, config.env, config.chdir) == (None, ("A=1",), "/srv")
    assert set(resolved.hooks) == {"post_fork", "when_ready"}
    assert resolved.hooks_file == str(tmp_path / "settings.py")
    assert resolved.origins["workers"] == "settings.py line 9"
    assert capfd.readouterr().err == "chatter\n"


def test_a_python_file_runs_as_a_module_in_its_own_directory(tmp_path: Path) -> None:
    """Fails without cwd, without the name in sys.modules, and without -P, each by itself."""
    write(tmp_path / "name.txt", "shop")
    write(tmp_path / "json.py", "raise RuntimeError('what lies beside a settings file takes the place of no library')")
    text = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class _Size:\n    small: int = 2\n"
        "workers = _Size().small\n"
        "proc_name = open('name.txt').read()\n"
    )
    config = run_file(tmp_path, text).config
    assert (config.workers, config.proc_name) == (2, "shop")


def test_a_python_file_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_file, "FILE_TIMEOUT", 0.3)
    with pytest.raises(ConfigError, match=r"did not finish within 0\.3 s"):
        run_file(tmp_path, "import time\ntime.sleep(5)\n")


def test_a_python_file_whose_reader_has_gone_says_nothing(tmp_path: Path) -> None:
    """As when the master is just ending. Fails without suppress(BrokenPipeError): a traceback on standard error."""
    write(tmp_path / "settings.py", "workers = 2\n")
    read, write_end = os.pipe()
    os.close(read)
    code = "import os, sys\nfrom aserver.config.python_file import tell\ntell(sys.argv[1], os.getppid())"
    command = [sys.executable, "-c", code, str(tmp_path / "settings.py")]
    with os.fdopen(write_end, "w") as nobody:
        child = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, check=False)
    assert (child.returncode, child.stderr) == (0, b"")


def test_ctrl_c_while_a_python_file_runs_prints_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A terminal sends it to both processes; the command says what is to be said."""
    text = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
os.kill(os.getpid(), signal.SIGINT)
os.read(os.pipe()[0], 1)
"""
    with pytest.raises(ConfigError, match="ended with status 130"):
        run_file(tmp_path, text)
    assert capfd.readouterr().err == ""


def test_a_python_file_that_reads_its_input_finds_none(tmp_path: Path) -> None:
    """Fails without stdin=DEVNULL: it waits for what nobody types."""
    read, write_end = os.pipe()
    ours = os.dup(0)
    os.dup2(read, 0)
    os.write(write_end, b"typed\n")
    try:
        assert (
            run_file(tmp_path, "import sys\nproc_name = sys.stdin.readline() or 'nothing'").config.proc_name
            == "nothing"
        )
    finally:
        os.dup2(ours, 0)
        for fd in (ours, read, write_end):
            os.close(fd)


def test_gunicorns_hooks_that_nothing_calls_are_told(tmp_path: Path) -> None:
    resolved = run_file(tmp_path, "def pre_request(worker, req): pass\ndef post_fork(server, worker): pass\n")
    (told,) = resolved.warnings
    assert told.startswith("hook pre_request does nothing")


def test_a_python_file_never_runs_in_this_process(tmp_path: Path) -> None:
    resolved = run_file(tmp_path, "import os, sys\nproc_name = str(os.getpid())\nsys.modules['intruder'] = sys")
    assert resolved.config.proc_name != str(os.getpid())
    assert "intruder" not in sys.modules


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("workers = object()", "workers (settings.py line 1) is of type object, no plain value"),
        ("import sys; sys.exit(3)", "it called exit(3)"),
        ("import os; os._exit(9)", "ended with status 9"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        ("x = (", "line 1: SyntaxError"),
    ],
)
def test_what_a_python_file_may_not_do(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_file(tmp_path, text)
    assert says in str(caught.value)


def test_a_traceback_is_cut_to_the_users_frames(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run_file(tmp_path, "def f():\n    return nothing\nworkers = f()\n")
    assert str(caught.value).endswith("line 2: NameError: name 'nothing' is not defined")
    (note,) = caught.value.__notes__
    assert note.count("settings.py") == 2
    assert "python_file.py" not in note
