"""Bytecode of a file that was saved just now. Each docstring says how it was seen to fail."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness.server import REPOSITORY

CODE = """
import sys
from aserver.importer.bytecode import keep_fresh_bytecode_out
keep_fresh_bytecode_out()
sys.path.insert(0, {folder!r})
sys.dont_write_bytecode = False
import saved
"""


@pytest.mark.parametrize(("age", "kept"), [(-60, False), (3600, True)])
def test_a_source_that_was_saved_just_now_is_compiled_again_next_time(tmp_path: Path, age: int, kept: bool) -> None:
    """Its time lies ahead, however slow the test is. Fails with Python's own rule: the first of two saves stays."""
    source = tmp_path / "saved.py"
    source.write_text("value = 1\n")
    os.utime(source, (time.time() - age,) * 2)
    code = CODE.format(folder=str(tmp_path))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, env=environ)
    assert bool(list(tmp_path.glob("__pycache__/saved.*.pyc"))) is kept
