"""The pages that users read, run: files written, programs imported, tests passed, commands answered with 0.

`make test-more` runs it.
"""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from tests.documents.pages import PAGES, Block, blocks
from tests.documents.stage import Stage
from tests.harness import certificates
from tests.harness.server import REPOSITORY

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="needs more loopback addresses than one"),
]

#: Packages of examples that the suite does without; such an example is only parsed.
MISSING = {"playwright"}

APP = """\
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})

asgi = app

def make_app():
    return app
"""

#: What the readers of a page have already. Addresses and folders are the stage's.
FILES: dict[str, dict[str, str]] = {
    "README.md": {"app.py": APP, "gunicorn.conf.py": "workers = 1\n", "dist/index.html": "hello", "run/app/none": ""},
    "docs/api.md": {"app.py": APP},
    "docs/migrate.md": {"app.py": APP, "shop.py": APP, "gunicorn.conf.py": "workers = 2\n"},
    "docs/operate.md": {"app.py": APP},
    "docs/tls.md": {"app.py": APP},
    "docs/troubleshooting.md": {"app.py": APP},
    "docs/deploying.md": {"srv/releases/2/app.py": APP, "srv/releases/1/app.py": APP},
}


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if not block.reason and (block.name or block.language == "sh")]


RUN = [page.relative_to(REPOSITORY).as_posix() for page in PAGES if runnable(page)]


def imports(source: str) -> set[str]:
    """The packages that a program needs."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {each.name.split(".")[0] for each in node.names}
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RUN)
def test_a_page_does_what_it_says(name: str) -> None:
    """In the page's order, but files first. Fails with a misspelt option, file or import of a page."""
    page = runnable(REPOSITORY / name)
    with Stage(FILES.get(name, {})) as stage:
        if name == "docs/tls.md":
            certificates.Authority(stage.folder).issue("localhost", file="site")
        if name == "docs/deploying.md":
            (stage.folder / "srv/current").symlink_to("releases/1")
        programs = []
        for block in page:
            if block.language == "python" and (missing := imports(block.text) & MISSING):
                assert not any(map(importlib.util.find_spec, missing)), f"{missing} can be had: run {block}"
            elif block.name:
                stage.write(block.name, block.text)
                programs += [block] if block.language == "python" else []
        tests = [block.name for block in programs if block.name.startswith("test_")]
        modules = [block.name[:-3].replace("/", ".") for block in programs if block.name not in tests]
        if modules:
            stage.run(f"python -c 'import {', '.join(modules)}'")
        if tests:
            stage.run(f"python -m pytest -q -W error -p no:cacheprovider -p no:faker {' '.join(tests)}")
        for block in programs:
            if "__main__" in block.text:
                stage.serve(f"python {block.name}")
        for block in page:
            if block.language == "sh":
                for line in re.sub(r"\\\n", " ", block.text).splitlines():
                    stage.run(line)
