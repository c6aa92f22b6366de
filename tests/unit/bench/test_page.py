"""A report becomes rows of the documents."""

import pytest

from bench import page
from bench.figures import Sample
from bench.report import Report, ScenarioReport
from tests.harness.server import REPOSITORY

COLUMNS = [{"key": "cpu", "title": "CPU", "digits": 1, "compare": True}]
ROLES = {"limit": "limit", "aserver": "subject", "h2corn": "peer", "granian": "peer"}


def report(name: str, **cpu: float) -> Report:
    """Two rounds, the second twice as slow."""
    samples = [Sample(name, server, n, {"cpu": value * n}) for server, value in cpu.items() for n in (1, 2)]
    scenario = ScenarioReport(name, "a title", COLUMNS, samples=samples)
    return Report("2026-01-01 09:00", {"cpus": "2"}, {"rounds": 2}, {"aserver": "1"}, ROLES, [scenario])


def test_a_row_has_ratios_of_rounds_and_the_best_peer() -> None:
    rows = page.table([report("hello", limit=2, aserver=3, h2corn=6, granian=4)])
    assert rows[2:] == ["| hello | 4.5 (3.0-6.0) | 1.50 | 0.75 (0.75-0.75) | granian | - | 0.75 | 0.50 | - | - |"]


def test_rows_come_in_the_documents_order_from_whichever_report_has_them() -> None:
    reports = [report("tls", aserver=1, h2corn=1), report("hello", aserver=1, h2corn=1)]
    assert [row.split()[1] for row in page.table(reports)[2:]] == ["hello", "tls"]
    assert [row.split()[1] for row in page.table(reports, ["tls"])[2:]] == ["tls"]


def test_rows_that_were_not_measured_again_stay_with_their_origin() -> None:
    old = [report("tls", aserver=1, h2corn=1), report("hello", aserver=1, h2corn=1)]
    before = "\n".join([*page.table(old), *page.origins(old)])
    new = report("hello", aserver=3, h2corn=1)
    new.date = "2026-02-02 10:00"
    assert [row.split()[1:4:2] for row in page.table([new], before=before)[2:]] == [["hello", "4.5"], ["tls", "1.5"]]
    assert [line.split(". ")[0] for line in page.origins([new], before)] == [
        "* 2026-01-01 09:00: tls",
        "* 2026-02-02 10:00: hello",
    ]
    assert page.table([old[1], new]) == page.table([new])  # the last


def test_a_page_keeps_what_is_around_the_marks() -> None:
    text = "before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n"
    new = page.replaced(text, "figures", ["| new |"])
    assert new == "before\n<!-- figures -->\n\n| new |\n\n<!-- end of figures -->\nafter\n"
    assert page.replaced(new, "figures", ["| new |"]) == new
    with pytest.raises(ValueError, match="no place for figures"):
        page.replaced("nothing", "figures", [])


@pytest.mark.parametrize("name", ["README.md", "docs/performance.md"])
def test_the_documents_have_a_place_for_figures(name: str) -> None:
    assert "÷ best peer" in page.replaced((REPOSITORY / name).read_text("utf-8"), "figures", page.table([]))
