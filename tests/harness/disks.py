"""Small file systems of the test's own, to be filled up."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.tools import lacking


@contextmanager
def tmpfs(where: Path, options: str) -> Iterator[Path]:
    """Mount a tmpfs (tmpfs(5)) on a new directory; needs root, else the test is skipped, or fails in CI."""
    where.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], capture_output=True, check=False)
    if made.returncode:
        lacking(f"a tmpfs cannot be mounted here: {made.stderr.decode(errors='replace').strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)
