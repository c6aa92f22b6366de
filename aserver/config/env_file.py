"""`env_file`: variables for the application, from lines `NAME=VALUE`.

Runs in the command, the embedding program, and the master for a reload.
"""

import os
import re
from pathlib import Path

from aserver import rights
from aserver.errors import ConfigError

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:#.*)?""")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_env_file(path: Path) -> dict[str, str]:
    """Variables from lines `NAME=VALUE`, with or without `export` before them. Raises ConfigError with file and line.

    Blank lines and `# comments` are skipped. In double quotes a backslash escapes (n, t, r as in C), in single quotes
    nothing does; without quotes the value ends at ` #`. Nothing is expanded: `$` is a character.
    """
    try:
        # The file may be the application's, in a folder of its own; a link there must not lead root to other files.
        with open(rights.open_file(str(path), os.O_RDONLY), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"env_file: {path} cannot be read: {why}") from None
    variables: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if (match := _ASSIGNMENT.fullmatch(line)) is None:
            raise ConfigError(f"env_file: {path} line {number}: expected NAME=VALUE, found {line.split('=')[0]!r}")
        name, text = match.groups()
        if not text.startswith(("'", '"')):
            variables[name] = "" if text.startswith("#") else re.split(r"\s#", text, maxsplit=1)[0].rstrip()
        elif (quoted := _QUOTED.fullmatch(text)) is None:
            raise ConfigError(f"env_file: {path} line {number}: the quotes around {name}'s value do not match")
        elif quoted[1] is not None:
            variables[name] = quoted[1]
        else:
            variables[name] = _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), quoted[2])
    return variables
