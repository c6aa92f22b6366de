"""Each link of the documents leads to a file, and each anchor to a heading. `make site` asks the same of the site."""

import re

import pytest

from tests.documents.pages import DOCS, LINKED, anchors, links
from tests.harness.server import REPOSITORY

NAMES = [page.relative_to(REPOSITORY).as_posix() for page in LINKED]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = REPOSITORY / name
    wrong = []
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: no such heading")
    assert not wrong


def test_a_link_leads_to_a_page_of_the_site_where_there_is_one() -> None:
    """Only deploy/ and what has no page may be linked by its place in the repository."""
    outside = {link for page in DOCS.glob("*.md") for link in links(page) if link.startswith("../")}
    assert {link for link in outside if not link.startswith("../deploy/")} == {"../SECURITY.md", "../bench/README.md"}


def test_each_page_is_in_the_index_and_in_the_navigation() -> None:
    index = set(links(DOCS / "index.md"))
    navigation = (REPOSITORY / "mkdocs.yml").read_text("utf-8").split("nav:\n")[1]
    for page in DOCS.glob("*.md"):
        if page.name != "index.md":
            assert page.name in index, f"{page.name} is not in docs/index.md"
        assert len(re.findall(rf"[ [] *{re.escape(page.name)}\b", navigation)) == 1, page.name
