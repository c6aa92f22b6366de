"""The order of the layers, and the names of their settings in errors."""

from pathlib import Path

from aserver.config.layers import load
from tests.unit.config.starts import failure, write


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
    assert (resolved.config.workers, resolved.origins["workers"]) == (2, "aserver.toml line 1")
    assert "workers = 'x' ($WEB_CONCURRENCY)" in str(failure(environ={"WEB_CONCURRENCY": "x"}, cwd=tmp_path))


def test_env_wins_over_env_file(tmp_path: Path) -> None:
    write(tmp_path / "env", "A=file\nB=file\n")
    config = load(keywords={"env": ["A=given"], "env_file": "env"}, environ={}, cwd=tmp_path).config
    assert dict(assignment.split("=") for assignment in config.env) == {"A": "given", "B": "file"}


def test_an_unknown_variable_names_the_nearest(tmp_path: Path) -> None:
    message = str(failure(environ={"ASERVER_WORKRS": "1"}, cwd=tmp_path))
    assert message == "there is no setting ASERVER_WORKRS (environment); did you mean ASERVER_WORKERS?"
    message = str(failure(command_line={"max_reqests": "1"}, environ={}, cwd=tmp_path))
    assert message.endswith("did you mean --max-requests?")
