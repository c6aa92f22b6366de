"""The fixture of tests that log."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.log.starting import Start, started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """See `started`."""
    yield from started(tmp_path)
