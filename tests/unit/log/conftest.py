"""The fixture of tests that log."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.log.starting import Start, started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """See `started`."""
    yield from started(tmp_path)


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    """Descriptors to close afterwards."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def pipe(descriptors: list[int]) -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    descriptors += [reader, writer]
    return reader, writer
