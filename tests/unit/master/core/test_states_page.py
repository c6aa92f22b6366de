"""docs/states.md names exactly the states there are."""

import enum
import re
from pathlib import Path

import pytest

from aserver.master.core.model import Role, ServerPhase, WorkerPhase, ZygotePhase

PAGE = Path(__file__).parents[4] / "docs" / "states.md"


@pytest.mark.parametrize(
    ("title", "states"),
    [("Worker", WorkerPhase), ("Zygote", ZygotePhase), ("Generation", Role), ("Server", ServerPhase)],
)
def test_page_and_enum_name_the_same_states(title: str, states: type[enum.Enum]) -> None:
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")][
        2:
    ]
    named = {cell for row in rows for cell in (row[0], row[2]) if re.fullmatch("[A-Z]+", cell)}
    assert named == {state.name for state in states}
