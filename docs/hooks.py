"""What `make site` adds to the documents: a page for each file of the repository that they link to.

MkDocs calls the functions (`hooks` in mkdocs.yml). They must never change what is in docs/: a link there leads to the
file, as a reader of the repository needs it, and on the site to the file's page, below `files/`.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent

_LINK = re.compile(r"(?<=\]\()((?!\w+:)[^)#\s]+)(?=[)#])")
#: Highlighting by a file's suffix; of a file without one, by its name.
_LANGUAGES = {".service": "ini", ".socket": "ini", ".conf": "nginx", "Dockerfile": "docker", ".yaml": "yaml"}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the linked files. A folder's page has all files directly in it."""
    for name in sorted(_linked()):
        files.append(File.generated(config, _page(name), content=_text(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001 - MkDocs' names
    """Turn links that leave docs/, and those of files from elsewhere, to pages of the site."""
    here = posixpath.dirname(page.file.src_uri)
    origin = here.removeprefix("files").lstrip("/") if here.startswith("files") else f"docs/{here}"

    def turned(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(origin, found[1]))
        inside = target.removeprefix("docs/") if target.startswith("docs/") else _page(target)
        return posixpath.relpath(inside, here or ".")

    return _LINK.sub(turned, markdown)


def _linked() -> set[str]:
    return {
        posixpath.normpath(posixpath.join("docs", link))
        for page in (ROOT / "docs").glob("*.md")
        for link in _LINK.findall(page.read_text("utf-8"))
        if link.startswith("../")
    }


def _page(name: str) -> str:
    return f"files/{name.removesuffix('.md')}.md"


def _text(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text("utf-8")
    if path.is_dir():
        return f"# {path.name}\n\n" + "\n".join(_block(each) for each in sorted(path.iterdir()) if each.is_file())
    return f"# {path.name}\n\n{_block(path)}"


def _block(path: Path) -> str:
    language = _LANGUAGES.get(path.suffix or path.name, "text")
    return f"`{path.relative_to(ROOT)}`:\n\n```{language}\n{path.read_text('utf-8').rstrip()}\n```\n"
