"""docs/develop.md: its files are written as they stand there, its tests are run, its commands serve."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import PATIENCE, wait_for
from tests.harness.server import REPOSITORY

pytestmark = pytest.mark.process

LISTENS = re.compile(r"listening on (http://\S+)")
PAGE = (REPOSITORY / "docs" / "develop.md").read_text()


def blocks(language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def imports(source: str) -> set[str]:
    return {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files of the page, on free ports. A test that needs what is not installed (a browser) is only parsed."""
    for block in blocks("python"):
        named = re.match(r"# (\S+\.py)\n", block)
        assert named, f"which file is it?\n{block}"
        missing = {name for name in imports(block) if name != "main" and importlib.util.find_spec(name) is None}
        assert missing <= {"playwright"}
        if not missing:
            path = tmp_path / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.replace("port=8000", "port=0"))
    return tmp_path


def environ() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("ASERVER_", "PYTEST_"))}
    return {**ours, "PYTHONUNBUFFERED": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_the_tests_of_the_page_pass(project: Path) -> None:
    """By pytest as a user runs it. Fails without the entry point `aserver.testing.plugin`."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:faker"],
        cwd=project,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^3 passed", done.stdout, re.MULTILINE), done.stdout


def test_the_commands_of_the_page_work(project: Path) -> None:
    """Those that serve get to where they listen, and stop as asked; the others end with 0."""
    for line in (line for block in blocks("sh") for line in block.splitlines()):
        command = line.partition("  #")[0].strip()
        serves = command.startswith(("aserver run", "aserver dev"))
        with (project / "output").open("w+") as output:
            run = subprocess.Popen(
                ["sh", "-c", f"exec {command}" if serves else command],
                cwd=project,
                env={**environ(), "ASERVER_BIND": "127.0.0.1:0"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if serves:
            wait_for(lambda: LISTENS.search((project / "output").read_text()), what=f"{line} to listen")
            url = LISTENS.findall((project / "output").read_text())[0]
            if "--static" in line:
                assert "teal" in httpx.get(f"{url}/static/site.css", timeout=PATIENCE).text
            run.terminate()
        run.wait(PATIENCE)
        assert run.returncode == 0, (line, (project / "output").read_text())
