"""The documents as tests see them: pages, their blocks, and the reason for each block that is not run.

A block is fenced, and says its language. Its first line may be a comment with a file's name, and the file is written
under that name before the page's commands run. A comment `<!-- not run: REASON -->` above a block excuses it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness.server import REPOSITORY

DOCS = REPOSITORY / "docs"

#: The pages that users read: their blocks are run.
PAGES = (REPOSITORY / "README.md", *sorted(DOCS.glob("*.md")))
#: The pages whose links are followed.
LINKED = (*PAGES, *(REPOSITORY / name for name in ("CONTRIBUTING.md", "SECURITY.md")), *REPOSITORY.glob("bench/*.md"))

#: Languages of blocks, and what they are for: text is shown, never run.
LANGUAGES = ("python", "sh", "toml", "text", "json", "yaml", "ini", "nginx", "haproxy", "caddy", "docker")

_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `name` of the file that it is, or empty; `reason` why it is not run, or empty."""

    page: str
    line: int
    language: str
    text: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    for found in _FENCE.finditer(text):
        body = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        named = re.match(r"(?:#|//) (\S+\.\w+)\n", body)
        yield Block(
            page=page.relative_to(REPOSITORY).as_posix(),
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            text=body,
            name=named[1] if named else "",
            reason=found["reason"] or "",
        )


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("\n", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them alike."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\s-]", "", text).strip().lower()
        found.add(re.sub(r"[\s-]+", "-", anchor))
    return found


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and images, without what lies in code."""
    text = re.sub(r"`[^`\n]+`(?!\])", "", prose(page))
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
