"""Where settings come from, and which place wins; what a `.py` file may do; env_file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aserver.config import Resolved, layers
from aserver.config.layers import load, read_env_file
from aserver.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def failure(**arguments: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(**arguments)  # type: ignore[arg-type]
    return caught.value


def run_file(tmp_path: Path, text: str) -> Resolved:
    write(tmp_path / "settings.py", text)
    return load(environ=dict(os.environ), cwd=tmp_path, config_file="settings.py")


def test_precedence_and_origins(tmp_path: Path) -> None:
    write(tmp_path / "aserver.toml", 'workers = 2\nbacklog = 20\ntimeout = "20s"\nkeep_alive = 20\n')
    resolved = load(
        command_line={"workers": "5", "hang_timeout": "50s"},
        keywords={"workers": 4, "backlog": 40},
        environ={"ASERVER_WORKERS": "3", "ASERVER_BACKLOG": "30", "ASERVER_KEEPALIVE": "30", "WEB_CONCURRENCY": "1"},
        cwd=tmp_path,
    )
    config = resolved.config
    assert (config.workers, config.backlog, config.keep_alive, config.hang_timeout) == (5, 40, 30.0, 50.0)
    assert resolved.origins["workers"] == "command line, --workers"
    assert resolved.origins["backlog"] == "argument"
    assert resolved.origins["keep_alive"] == "environment, ASERVER_KEEPALIVE"
    assert resolved.origins["bind"] == "default"


def test_the_file_is_above_web_concurrency_which_is_above_the_default(tmp_path: Path) -> None:
    environ = {"WEB_CONCURRENCY": "7"}
    resolved = load(environ=environ, cwd=tmp_path)
    assert (resolved.config.workers, resolved.origins["workers"]) == (7, "$WEB_CONCURRENCY")
    assert load(environ=environ | {"ASERVER_WORKERS": "8"}, cwd=tmp_path).config.workers == 8
    write(tmp_path / "aserver.toml", "workers = 2")
    resolved = load(environ=environ, cwd=tmp_path)
    assert (resolved.config.workers, resolved.origins["workers"]) == (2, "aserver.toml")
    assert "workers = 'x' ($WEB_CONCURRENCY)" in str(failure(environ={"WEB_CONCURRENCY": "x"}, cwd=tmp_path))


def test_pyproject_is_read_where_there_is_no_aserver_toml(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[project]\nname='x'\n[tool.aserver]\nworkers = 6\nenv = {A = 'b'}")
    resolved = load(environ={}, cwd=tmp_path)
    assert (resolved.config.workers, resolved.config.env) == (6, ("A=b",))
    assert resolved.origins["workers"] == "pyproject.toml [tool.aserver]"
    write(tmp_path / "aserver.toml", "backlog = 9")
    assert load(environ={}, cwd=tmp_path).config.workers == 1


def test_a_named_file_replaces_the_found_one_and_is_kept_absolute(tmp_path: Path) -> None:
    write(tmp_path / "aserver.toml", "workers = 2")
    write(tmp_path / "other.toml", "backlog = 9")
    for arguments in ({"config_file": "other.toml"}, {"command_line": {"config": "other.toml"}}):
        resolved = load(environ={}, cwd=tmp_path, **arguments)
        assert (resolved.config.workers, resolved.config.backlog) == (1, 9)
        assert resolved.config.config == str(tmp_path / "other.toml")
    assert load(environ={"ASERVER_CONFIG": "other.toml"}, cwd=tmp_path).config.backlog == 9


def test_an_unknown_variable_names_the_nearest(tmp_path: Path) -> None:
    message = str(failure(environ={"ASERVER_WORKRS": "1"}, cwd=tmp_path))
    assert message == "there is no setting ASERVER_WORKRS (environment); did you mean ASERVER_WORKERS?"
    message = str(failure(command_line={"max_reqests": "1"}, environ={}, cwd=tmp_path))
    assert message.endswith("did you mean --max-requests?")


def test_variables_that_are_empty_or_kubernetes_own_are_no_settings(tmp_path: Path) -> None:
    environ = {
        "ASERVER_USER": "",
        "ASERVER_PORT": "tcp://10.0.0.1:80",
        "ASERVER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "ASERVER_PORT_80_TCP_ADDR": "10.0.0.1",
        "ASERVER_SERVICE_HOST": "10.0.0.1",
        "ASERVER_SERVICE_PORT": "80",
        "ASERVER_SERVICE_PORT_HTTP": "80",
        "ASERVER_WEB_PORT": "tcp://10.0.0.1:80",
        "ASERVER_WEB_SERVICE_HOST": "10.0.0.1",
    }
    assert load(environ=environ, cwd=tmp_path).config.bind == ("127.0.0.1:8000",)
    assert load(environ={"ASERVER_PORT": "81"}, cwd=tmp_path).config.bind == ("127.0.0.1:81",)


def test_lists_and_flags_in_the_environment(tmp_path: Path) -> None:
    config = load(
        environ={"ASERVER_BIND": "a:1,unix:/b", "ASERVER_LAZY": "yes", "ASERVER_HEADER": "A: 1, 2"}, cwd=tmp_path
    ).config
    assert (config.bind, config.preload, config.header) == (("a:1", "unix:/b"), False, ("A: 1, 2",))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", "workers = 1\nbind = [", "line 2"),
        ("a.toml", "workers = 1\nbind : 2", "line 2, column"),
        ("a.toml", "wrokers = 1", "there is no setting wrokers (a.toml); did you mean workers?"),
        ("a.toml", "workers = 'x'", "workers = 'x' (a.toml)"),
        ("a.toml", "config = 'b.toml'", "cannot name another"),
        ("a.ini", "", ".toml or .py"),
        (
            "a.toml",
            "[tool.aserver]\nworkers = 1",
            "there is no setting [tool] (a.toml); settings stand there in no table",
        ),
        ("pyproject.toml", "tool.aserver = 1", "no table"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    write(tmp_path / name, text)
    message = str(failure(environ={}, cwd=tmp_path, config_file=name))
    assert says in message
    assert name in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "none.toml cannot be read: No such file" in str(failure(environ={}, cwd=tmp_path, config_file="none.toml"))


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
    assert resolved.origins["workers"] == "settings.py"
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
    monkeypatch.setattr(layers, "FILE_TIMEOUT", 0.3)
    with pytest.raises(ConfigError, match=r"did not finish within 0\.3 s"):
        run_file(tmp_path, "import time\ntime.sleep(5)\n")


def test_a_python_file_whose_reader_has_gone_says_nothing(tmp_path: Path) -> None:
    """As when the master is just ending. Fails without suppress(BrokenPipeError): a traceback on standard error."""
    write(tmp_path / "settings.py", "workers = 2\n")
    read, write_end = os.pipe()
    os.close(read)
    code = "import os, sys\nfrom aserver.config.layers import tell\ntell(sys.argv[1], os.getppid())"
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


def test_a_python_file_is_never_found_unasked(tmp_path: Path) -> None:
    write(tmp_path / "aserver.py", "workers = 9")
    assert load(environ={}, cwd=tmp_path).config.workers == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x_y = 4", "there is no setting x_y (settings.py); begin a name of your own with _"),
        ("workres = 4", "did you mean workers?; begin"),
        ("def post_frok(s, w): pass", "there is no hook post_frok; did you mean post_fork?"),
        ("workers = object()", "workers is of type object, no plain value"),
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
    assert "sources.py" not in note


def test_env_wins_over_env_file(tmp_path: Path) -> None:
    write(tmp_path / "env", "A=file\nB=file\n")
    config = load(keywords={"env": ["A=given"], "env_file": "env"}, environ={}, cwd=tmp_path).config
    assert dict(assignment.split("=") for assignment in config.env) == {"A": "given", "B": "file"}


def test_env_file(tmp_path: Path) -> None:
    text = """
# comment
A=1
export B = two words # comment
C="x \\"y\\" \\n$A" # comment
D='\\n # no'
E=
F=# nothing
G=a#b
"""
    assert read_env_file(write(tmp_path / "env", text)) == {
        "A": "1", "B": "two words", "C": 'x "y" \n$A', "D": "\\n # no", "E": "", "F": "", "G": "a#b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"), [("A=1\nsecret", "line 2: expected NAME=VALUE"), ("A='x", "line 1: the quotes")]
)
def test_a_bad_env_file_names_the_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_env_file(write(tmp_path / "env", text))
    with pytest.raises(ConfigError, match=r"none cannot be read: No such file or directory$"):
        read_env_file(tmp_path / "none")
