"""`log_config` in its four formats, and as text. Each docstring says how the test was seen to fail."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aserver.errors import ConfigError
from aserver.log.setup import apply_log_config, read_log_config

FORMATS = {
    "json": json.dumps({"loggers": {"gunicorn.error": {"level": "ERROR", "propagate": False}}}),
    "toml": '[loggers."gunicorn.error"]\nlevel = "ERROR"\npropagate = false\n',
    "yaml": "loggers:\n  gunicorn.error:\n    level: ERROR\n    propagate: false\n",
    "yml": "version: 1\nloggers: {gunicorn.error: {level: ERROR, propagate: no}}\n",
    "ini": "[loggers]\nkeys=root,error\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
    "[logger_error]\nqualname=gunicorn.error\nlevel=ERROR\npropagate=0\nhandlers=\n",
}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Loggers are the process's."""
    root = logging.getLogger()
    loggers = [logging.getLogger(name) for name in ("aserver", "gunicorn.error")]
    before: list[Any] = [(each.level, each.propagate, each.handlers[:]) for each in (root, *loggers)]
    yield
    for each, (level, propagate, handlers) in zip((root, *loggers), before, strict=True):
        each.setLevel(level)
        each.propagate, each.handlers[:] = propagate, handlers


@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format_is_applied_and_other_servers_loggers_stand_for_ours(tmp_path: Path, suffix: str) -> None:
    """Fails without the format's branch, and without LOGGERS: the server's records have no handler."""
    path = tmp_path / f"log.{suffix}"
    path.write_text(FORMATS[suffix])
    config = apply_log_config(str(path))
    assert "aserver" in config["loggers"] or suffix == "ini"
    ours = logging.getLogger("aserver")
    assert (ours.level, ours.propagate) == (logging.ERROR, False)


def test_of_uvicorns_two_loggers_the_one_with_handlers_is_ours(tmp_path: Path) -> None:
    """As in uvicorn's own configuration. Fails without the two names: the server's records have no handler."""
    loggers = {"uvicorn": {"handlers": ["h"], "propagate": False}, "uvicorn.error": {"level": "INFO"}}
    for given in (loggers, dict(reversed(loggers.items()))):
        config = read_log_config(json.dumps({"loggers": given}))
        assert config["loggers"]["aserver"] == {"handlers": ["h"], "propagate": False}


def test_text_is_taken_for_a_file(tmp_path: Path) -> None:
    """gunicorn's logconfig_dict. Fails without `is_text`: File name too long, or cannot be read."""
    assert "aserver" in read_log_config(FORMATS["json"])["loggers"]
    with pytest.raises(ConfigError, match="log_config of logconfig_dict: cannot be read as JSON"):
        read_log_config("{")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", "a: [", "cannot be read as YAML"),
        ("a.ini", "a = 3", "cannot be read as INI"),
        ("a.ini", "[x]\na = 3", "cannot be read as INI: No section: 'loggers'"),
        ("a.yml", "- a", "must be an object"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    """Fails with the traceback of the library."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_log_config(str(tmp_path / name))


def test_yaml_without_pyyaml_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with ModuleNotFoundError."""
    (tmp_path / "a.yaml").write_text("a: 1")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="YAML needs PyYAML"):
        read_log_config(str(tmp_path / "a.yaml"))
