"""docs/comparison.md against the servers that it compares: each option of a cell is one that the server's --help has.

In the group of the tables (`make migrate-tables`), since the servers are installed there.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"
#: Those of the group `peers`, by their columns; the page's other servers are looked at by hand.
PROGRAMS = {
    name: Path(sys.executable).parent / name.lower() for name in ("gunicorn", "uvicorn", "Hypercorn", "granian")
}

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_REQUIRE_PEERS"), reason="`make migrate-tables` runs it")


def cells(server: str) -> Iterator[str]:
    """What stands in the column of a server."""
    table = PAGE.read_text("utf-8").split("## What each has")[1].split("##")[0]
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if line.startswith("|")]
    column = rows[0].index(server)
    yield from (row[column] for row in rows[2:])


@pytest.mark.parametrize("server", PROGRAMS)
def test_a_cell_names_an_option_that_the_server_has(server: str) -> None:
    """Fails with a misspelt option in a cell."""
    named = {option for cell in cells(server) for option in re.findall(r"`(--[\w-]+)", cell)}
    told = subprocess.run([PROGRAMS[server], "--help"], capture_output=True, text=True, check=True).stdout
    assert named
    assert [option for option in named if not re.search(rf"{option}(?![\w-])", told)] == []
