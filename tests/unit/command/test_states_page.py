"""docs/states.md is what the table of transitions says, and the table has every phase."""

import enum
from pathlib import Path

import pytest

from aserver.command.states_page import markdown
from aserver.master.core.model import Role, ServerPhase, WorkerPhase, ZygotePhase
from aserver.master.core.transitions import GENERATION, SERVER, WORKER, ZYGOTE, Row

PAGE = Path(__file__).parents[3] / "docs" / "states.md"


def test_the_page_is_current() -> None:
    """Fails with a table that was changed without `make docs`."""
    assert PAGE.read_text() == markdown()


@pytest.mark.parametrize(
    ("rows", "phases"), [(WORKER, WorkerPhase), (ZYGOTE, ZygotePhase), (GENERATION, Role), (SERVER, ServerPhase)]
)
def test_the_table_has_every_phase(rows: tuple[Row, ...], phases: type[enum.Enum]) -> None:
    assert {phase for row in rows for phase in (row.before, row.after) if phase} == set(phases)
