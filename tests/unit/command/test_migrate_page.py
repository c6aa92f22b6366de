"""docs/migrate.md is what the tables say."""

from pathlib import Path

from aserver.command.migrate_page import markdown


def test_the_committed_page_is_up_to_date() -> None:
    committed = Path(__file__).parents[3] / "docs" / "migrate.md"
    assert committed.read_text() == markdown(), "run: make docs"
