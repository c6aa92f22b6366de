"""Variables for the application from `env_file`."""

from pathlib import Path

import pytest

from aserver.config.env_file import read_env_file
from aserver.errors import ConfigError
from tests.unit.config.starts import write


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
