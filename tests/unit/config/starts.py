"""Settings loaded as a start loads them, from files that a test writes."""

from pathlib import Path

import pytest

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
