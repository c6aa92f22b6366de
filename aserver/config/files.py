"""The layer of settings from a file: `aserver.toml`, `[tool.aserver]` of pyproject.toml, or the file that `-c` names.

Runs in the command, the embedding program, and the master for a reload. It must never run user code: a `.py` settings
file is run by a child process (`python_file`).
"""

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

from aserver.config.build import Layer
from aserver.config.python_file import run_file
from aserver.config.schema import NAMES
from aserver.errors import ConfigError

_HEADER = re.compile(r"\s*\[\[?\s*([\w.\-\"]+)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[.=]")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file that was read: its settings, and the names of the hooks that it defines."""

    path: Path
    layer: Layer
    hooks: tuple[str, ...] = ()


def find_file(cwd: Path) -> SettingsFile | None:
    """The TOML file of settings in `cwd`, if any. Raises ConfigError.

    A pyproject.toml without settings counts as no file. Of Python files only a gunicorn.conf.py is found unasked, and
    that by `layers`.
    """
    try:
        if is_file(path := cwd / "aserver.toml"):
            return read_file(path, {})
        if is_file(path := cwd / "pyproject.toml") and (file := read_file(path, {})).layer.values:
            return file
    except PermissionError:
        raise ConfigError(
            f"uid {os.geteuid()} may not look for settings in the working directory {cwd}; start the server in "
            "another, or name a settings file (--config)"
        ) from None
    return None


def is_file(path: Path) -> bool:
    """Whether `path` is a file. Raises PermissionError where that is not known, as Path's own does before 3.14."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        raise
    except OSError:
        return False


def read_file(path: Path, environ: dict[str, str]) -> SettingsFile:
    """Read the settings file `path`; a `.py` file runs with the environment `environ`. Raises ConfigError."""
    if path.suffix not in {".toml", ".py"}:
        raise ConfigError(f"config = {str(path)!r}: a settings file is .toml or .py")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"config: {path} cannot be read: {error.strerror}") from None
    if path.suffix == ".py":
        file = SettingsFile(path, *run_file(path, environ))
    else:
        file = SettingsFile(path, _parse_toml(path, text))
    if "config" in file.layer.values:
        raise ConfigError(f"config ({file.layer.origin}): a settings file cannot name another")
    return file


def _parse_toml(path: Path, text: bytes) -> Layer:
    try:
        values = tomllib.loads(text.decode())
    except ValueError as error:  # TOMLDecodeError has line and column in its text, UnicodeDecodeError the byte
        end = f"at the end, line {len(text.splitlines())}"
        raise ConfigError(f"{path}: {str(error).replace('at end of document', end)}") from None
    if path.name != "pyproject.toml":
        lines = _lines(text.decode(), "")
        tables = {name for name, value in values.items() if isinstance(value, dict) and name not in NAMES}
        errors = tuple(
            f"there is no setting [{name}] ({path.name} line {lines.get(name, 1)}); settings stand there in no table"
            for name in values
            if name in tables
        )
        settings = {name: value for name, value in values.items() if name not in tables}
        return Layer(path.name, settings, lines=lines, errors=errors)
    table = values.get("tool", {}).get("aserver", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.aserver is no table")
    return Layer("pyproject.toml [tool.aserver]", table, lines=_lines(text.decode(), "tool.aserver"))


def _lines(text: str, table: str) -> dict[str, int]:
    """The line of each key in `table`, and of each table in it.

    It looks at single lines and parses nothing. So a line within a text of several lines may be taken for a key, which
    only puts a wrong line into a message.
    """
    found: dict[str, int] = {}
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            inside = header[1].replace('"', "")
            name = inside.removeprefix(table).removeprefix(".")
            if inside.startswith(table) and name:
                found.setdefault(name.partition(".")[0], number)
        elif inside == table and (key := _KEY.match(line)):
            found.setdefault(key[1], number)
    return found
