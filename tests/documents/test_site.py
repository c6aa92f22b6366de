"""The site that `make site` has built: its links lead to what is in it, and it fetches nothing from elsewhere."""

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.documents.pages import DOCS
from tests.harness.server import REPOSITORY

SITE = REPOSITORY / "build" / "site"

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_SITE"), reason="`make site` runs it")


class Reading(HTMLParser):
    """The links, fetched addresses and anchors of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in {"img", "script", "link", "source"} and values.get("rel") != "canonical":
            self.fetched += [values[name] for name in ("src", "href") if name in values]


@pytest.fixture(scope="module")
def pages() -> dict[Path, Reading]:
    return {path: Reading(path.read_text("utf-8")) for path in SITE.rglob("*.html")}


def target_of(page: Path, link: str) -> Path:
    """The file that a link of a page leads to."""
    path = unquote(urlsplit(urljoin(f"/{page.relative_to(SITE).as_posix()}", link)).path)
    target = SITE / path.lstrip("/")
    return target / "index.html" if target.is_dir() else target


def test_each_document_is_a_page(pages: dict[Path, Reading]) -> None:
    names = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert {SITE / name / "index.html" for name in names} <= pages.keys()


def test_links_lead_to_pages_of_the_site(pages: dict[Path, Reading]) -> None:
    """Files and anchors. Fails without docs/hooks.py, at the first link into deploy/."""
    wrong = []
    for page, read in pages.items():
        if page.name == "404.html":
            continue
        for link in read.links + read.fetched:
            if urlsplit(link).scheme in {"http", "https", "data", "mailto"}:
                continue
            target = target_of(page, link)
            anchor = unquote(urlsplit(link).fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                wrong.append(f"{page.relative_to(SITE)}: {link}")
    assert not wrong


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Reading]) -> None:
    assert {each for read in pages.values() for each in read.fetched if urlsplit(each).netloc} == set()
