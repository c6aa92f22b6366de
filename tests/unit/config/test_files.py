"""Settings from TOML files: which file is read, and errors in it."""

from pathlib import Path

import pytest

from aserver.config.layers import load
from tests.unit.config.starts import failure, write


def test_pyproject_is_read_where_there_is_no_aserver_toml(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[project]\nname='x'\n[tool.aserver]\nworkers = 6\nenv = {A = 'b'}")
    resolved = load(environ={}, cwd=tmp_path)
    assert (resolved.config.workers, resolved.config.env) == (6, ("A=b",))
    assert resolved.origins["workers"] == "pyproject.toml [tool.aserver] line 4"
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


def test_a_python_file_is_never_found_unasked(tmp_path: Path) -> None:
    write(tmp_path / "aserver.py", "workers = 9")
    assert load(environ={}, cwd=tmp_path).config.workers == 1


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", "workers = 1\nbind = [", "line 2"),
        ("a.toml", "workers = 1\nbind : 2", "line 2, column"),
        ("a.toml", "wrokers = 1", "there is no setting wrokers (a.toml line 1); did you mean workers?"),
        ("a.toml", "workers = 'x'", "workers = 'x' (a.toml line 1)"),
        ("a.toml", "config = 'b.toml'", "cannot name another"),
        ("a.ini", "", ".toml or .py"),
        (
            "a.toml",
            "[tool.aserver]\nworkers = 1",
            "there is no setting [tool] (a.toml line 1); settings stand there in no table",
        ),
        ("pyproject.toml", "tool.aserver = 1", "no table"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    write(tmp_path / name, text)
    message = str(failure(environ={}, cwd=tmp_path, config_file=name))
    assert says in message
    assert name in message


def test_all_mistakes_of_a_toml_file_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    """Fails with tables that are refused as the file is read, and without `_lines`."""
    write(
        tmp_path / "a.toml",
        "# workers = 1\nwrokers = 3\nbind = [\n  ':1',\n]\n'max_requests' = 'many'\nloglevel = 'loud' # x\n"
        "[env]  # a setting that is a table\nA = 'b'\nworkers = '9'\n[[server.names]]\nloglevel = 1\n",
    )
    assert str(failure(environ={}, cwd=tmp_path, config_file="a.toml")).splitlines() == [
        "4 settings are wrong:",
        "  there is no setting [server] (a.toml line 11); settings stand there in no table",
        "  there is no setting wrokers (a.toml line 2); did you mean workers?",
        "  max_requests = 'many' (a.toml line 6): expected a whole number, at least 0",
        "  loglevel = 'loud' (a.toml line 7): expected one of debug, info, warning, error, critical",
    ]
    write(
        tmp_path / "pyproject.toml", "[project]\nworkers = 'a'\n[tool.aserver]\nenv = 7\n[tool.aserver.header]\nA = 1\n"
    )
    message = str(failure(environ={}, cwd=tmp_path))
    assert "pyproject.toml [tool.aserver] line 4" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "none.toml cannot be read: No such file" in str(failure(environ={}, cwd=tmp_path, config_file="none.toml"))
