"""Settings loaded as a start loads them, from files that a test writes."""

import os
from pathlib import Path

import pytest

from aserver.config import Resolved
from aserver.config.layers import load
from aserver.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def failure(**arguments: object) -> ConfigError:
    """The error of `load` with these arguments."""
    with pytest.raises(ConfigError) as caught:
        load(**arguments)  # type: ignore[arg-type]
    return caught.value


def run_gunicorn_file(tmp_path: Path, text: str, **environ: str) -> Resolved:
    """The settings of a start where this `gunicorn.conf.py` lies, with these variables of other servers alone."""
    write(tmp_path / "gunicorn.conf.py", text)
    others = {"PORT", "FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"}
    mine = {name: text for name, text in os.environ.items() if name not in others}
    return load(command_line={}, environ={**mine, **environ}, cwd=tmp_path)
