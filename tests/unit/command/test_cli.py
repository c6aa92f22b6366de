"""The command: options from the table, its output, and how errors end it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from aserver import __version__
from aserver.command import check
from aserver.config import Resolved, settings
from aserver.errors import AppLoadError, BindError, ExitCode
from aserver.launch import run
from tests.unit.command.stage import Command


def test_gunicorns_and_uvicorns_command_lines(aserver: Command) -> None:
    values = aserver.settings("-w", "4", "-b", ":8000", "-b", "unix:/a", "--timeout", "60", "app:x", "--preload")
    assert (values["workers"], values["bind"], values["hang_timeout"]) == (4, ["0.0.0.0:8000", "unix:/a"], 60)
    assert (values["target"], values["preload"]) == ("app:x", True)
    values = aserver.settings(
        "app:x", "--host", "0.0.0.0", "--port", "80", "--limit-max-requests", "9", "--log-level", "debug"
    )
    assert (values["bind"], values["max_requests"], values["loglevel"]) == (["0.0.0.0:80"], 9, "debug")


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--lazy"], "preload", False),
        (["--no-preload"], "preload", False),
        (["--no-access-log"], "accesslog", None),
        (["--no-date-header"], "date_header", False),
        (["--server-header"], "server_header", True),
        (["--max-requests", "3"], "max_requests", 3),
        (["-e", "A=1,2", "-e", "B=3"], "env", "A=***; B=***"),
        (["--header", "A: 1, 2", "--header", "B: 3"], "header", ["A: 1, 2", "B: 3"]),
        (["--forwarded-allow-ips", "10.0.0.1,unix"], "forwarded_allow_ips", ["10.0.0.1", "unix"]),
        (["-D", "--errorlog", "/e"], "daemon", True),
        (["--control", "off"], "control", None),
    ],
)
def test_flags_and_lists(aserver: Command, arguments: Sequence[str], name: str, value: object) -> None:
    assert json.loads(aserver("config", "--json", *arguments).out)["settings"][name]["value"] == value


def test_every_setting_has_its_option_and_every_alias_too(aserver: Command) -> None:
    for info in settings():
        if info.name in {"target", "config"}:
            continue
        for name in (info.name, *info.aliases):
            option = "--" + name.replace("_", "-")
            outcome = aserver("config", option) if info.default in {"on", "off"} else aserver("config", f"{option}=\0")
            assert "No such option" not in outcome.err, option


def test_config_prints_every_setting_aligned_with_its_origin(aserver: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASERVER_WORKERS", "3")
    outcome = aserver("config", "--keep-alive", "2m", "--certfile=c", "--keyfile=k", "--keyfile-password=hunter2")
    rows = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert list(rows) == [info.name for info in settings()]
    assert rows["workers"].split(maxsplit=2)[1:] == ["3", "environment, ASERVER_WORKERS"]
    assert rows["keep_alive"].split(maxsplit=2)[1:] == ["2m", "command line, --keep-alive"]
    assert len({line.index("default") for line in rows.values() if line.endswith("  default")}) == 1
    assert "hunter2" not in outcome.out


def test_config_warns_of_likely_mistakes(aserver: Command) -> None:
    outcome = aserver("config", "--max-requests-jitter", "5")
    assert outcome.err.startswith("aserver: warning: max_requests_jitter does nothing")
    assert outcome.status == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["config", "--workers", "four"],
            "workers = 'four' (command line, --workers): expected auto or a",
        ),
        (["config", "--worker", "4"], "there is no option --worker; did you mean --workers?\n"),
        (["config", "--log-lvl=info"], "there is no option --log-lvl; did you mean --log-level or --loglevel?\n"),
        (["config", "--zzz"], "there is no option --zzz\n"),
        (["config", "-y"], "there is no option -y\n"),
        (["config", "-c", "none.toml"], "none.toml cannot be read"),
        (["run"], "there is no target to serve"),
        (["check"], "there is no target to serve"),
        (["rum"], "No such command 'rum'."),
        (["shop", "-w", "2"], "A module is served by `aserver run shop`.\n"),
        (["shop.wsgi", "-w", "two"], "workers = 'two' (command line, -"),
        (["-w", "two", "app:x"], "workers = 'two' (command line, --workers)"),
        (["check", "app:x", "--user", "nobody-of-that-name"], "user nobody-of-that-name does not exist"),
        (["check", "app:x", "--certfile", "none", "--keyfile", "none"], "cannot be read by uid"),
        (["check", "app:x", "--chdir", "none"], "chdir none: No such"),
        (["check", "app:x", "--log-config", "none.json"], "log_config none.json"),
        (["check", "app:x", "--access-log-format", "%(zz)s"], "no atom %(zz)s"),
        (["check", "app:x", "--errorlog", "none/e"], "errorlog none/e cannot be opened"),
        (["check", "app:x", "--accesslog", "none/a"], "accesslog none/a cannot be opened"),
        (["check", "app:x", "--errorlog", "."], "errorlog . cannot be opened: it is a directory"),
        (["check", "app:x", "--pidfile", "none/p"], "pidfile none/p cannot be written: the directory none does not"),
        (["check", "app:x", "--pidfile", "."], "pidfile . cannot be written: it is a directory"),
        (["check", "app:x", "--pidfile", "/dev/null"], "pidfile /dev/null is no regular file"),
        (["check", "app:x", "--pidfile", "/etc/passwd"], "pidfile /etc/passwd "),  # not a pid's, or not ours to write
    ],
)
def test_a_bad_command_line_is_one_line_and_exit_2(aserver: Command, arguments: Sequence[str], line: str) -> None:
    outcome = aserver(*arguments)
    assert outcome.status == 2
    assert outcome.err.startswith("aserver: error: ")
    assert line in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_python_files_traceback_is_the_last_thing_printed(aserver: Command) -> None:
    Path("settings.py").write_text("1 / 0\n")
    outcome = aserver("config", "-c", "settings.py")
    first, *detail = outcome.err.splitlines()
    assert outcome.status == 2
    assert first.startswith("aserver: error: ")
    assert first.endswith("line 1: ZeroDivisionError: division by zero")
    assert detail[0].startswith("Traceback")
    assert detail[-1] == "ZeroDivisionError: division by zero"


def test_run_and_check_hand_over_and_their_result_is_the_status(
    aserver: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Resolved] = []

    def killed(resolved: Resolved, *_: object, **__: object) -> ExitCode:
        seen.append(resolved)
        return ExitCode.KILLED

    monkeypatch.setattr(run, "run_resolved", killed)
    monkeypatch.setattr(check, "check", killed)
    assert aserver("run", "app:x", "-w", "2").status == ExitCode.KILLED
    assert aserver("check", "app:y").status == ExitCode.KILLED
    assert [(resolved.config.target, resolved.config.workers) for resolved in seen] == [("app:x", 2), ("app:y", 1)]


def test_ctrl_c_before_there_is_a_master(aserver: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> ExitCode:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_resolved", interrupted)
    outcome = aserver("run", "app:x")
    assert (outcome.status, outcome.err.strip()) == (130, ""), "the shell's number for SIGINT, and no traceback"


def test_nobody_reads_the_output(tmp_path: Path) -> None:
    """`aserver config | head -1`: click ends it, and Python's own flush at exit must not complain."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "aserver", "config"]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_config_shows_the_hooks_of_a_file(aserver: Command) -> None:
    Path("settings.py").write_text("def post_fork(server, worker): pass\n")
    last = aserver("config", "-c", "settings.py").out.splitlines()[-1]
    assert last.split() == ["(hooks)", "post_fork", str(Path("settings.py").absolute())]


@pytest.mark.parametrize(("error", "status"), [(AppLoadError("no app", "the frames"), 4), (BindError("no app"), 5)])
def test_expected_errors_end_with_their_exit_code(
    aserver: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: object, **__: object) -> ExitCode:
        raise error

    monkeypatch.setattr(run, "run_resolved", fail)
    outcome = aserver("run", "app:x")
    assert outcome.status == status
    assert outcome.err == "aserver: error: no app\n" + ("the frames\n" if status == 4 else "")


def test_help_is_grouped_and_shows_defaults(aserver: Command) -> None:
    outcome = aserver("run", "--help")
    assert outcome.status == 0
    for part in ("Workers and threads:\n", "-w, --workers", "[30s]", "--timeout", "-c, --config", "--[no-]preload"):
        assert part in outcome.out
    assert aserver("--version").out.startswith(f"aserver {__version__} (")


def test_help_has_an_example_of_each_setting_in_80_columns(aserver: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment, as the option's name stands beside it. Fails with click's own list, whose lines run on."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = aserver("run", "--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = {line.strip() for line in lines}
    assert {info.assignment for info in settings() if info.name != "target"} <= shown


def test_a_real_bash_completes_commands_options_and_choices(aserver: Command) -> None:
    """Fails without `hidden`: flags of other servers would be offered as well."""
    bash = shutil.which("bash")
    assert bash
    script = aserver("completion", "bash").out
    script += """
    try() {
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _aserver_completion aserver; echo "${COMPREPLY[*]}"
    }
    try aserver che; try aserver run --max-req; try aserver main:app --interface w; try aserver run --worker-c
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "--norc", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["check", "--max-requests --max-requests-jitter", "wsgi", ""]


@pytest.mark.parametrize(("shell", "word"), [("zsh", "compdef"), ("fish", "complete --no-files")])
def test_completion_of_other_shells(aserver: Command, shell: str, word: str) -> None:
    outcome = aserver("completion", shell)
    assert (outcome.status, outcome.err) == (0, "")
    assert word in outcome.out
    assert "_ASERVER_COMPLETE" in outcome.out


def test_options_that_there_are_not_are_told_at_once(aserver: Command) -> None:
    """Fails with click's own message: it names the first, and offers whatever is a little like it."""
    outcome = aserver("config", "--work-class", "sync", "-b", ":1", "--tmieout=3", "-w", "2", "--", "--rest")
    assert outcome.status == 2
    assert outcome.err.splitlines() == [
        "aserver: error: 2 settings are wrong:",
        "  there is no option --work-class; did you mean --worker-class?",
        "  there is no option --tmieout; did you mean --timeout?",
    ]
