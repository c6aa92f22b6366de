"""docs/quickstart.md and docs/frameworks.md: their files are written as they stand there, and served."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from aserver.testing import live_server
from tests.harness import PATIENCE, ServerProcess
from tests.harness.server import REPOSITORY

pytestmark = pytest.mark.process

DOCS = REPOSITORY / "docs"


def files(page: str) -> Iterator[tuple[str, str]]:
    """Name and text of each file on a page: a block whose first line is a comment with the name."""
    text = (DOCS / page).read_text("utf-8")
    for block in re.findall(r"^```(?:python|toml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        named = re.match(r"# (\S+\.(?:py|toml))\n", block)
        assert named, f"which file is it?\n{block}"
        yield named[1], block


def commands(page: str) -> list[str]:
    """The lines of the shell blocks, in order."""
    text = (DOCS / page).read_text("utf-8")
    return "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()


APPLICATIONS = dict(files("frameworks.md"))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_application_of_each_framework_is_served(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(APPLICATIONS[name], "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        with live_server(module.app) as url:
            answer = httpx.get(url)
            assert (answer.status_code, "hello" in answer.text) == (200, True)
    finally:
        del sys.modules[path.stem]


def test_the_quick_start_works_as_it_is_written(tmp_path: Path) -> None:
    """`check`, then `run` with the file of settings alone, and a reload that is waited for."""
    for name, text in files("quickstart.md"):
        (tmp_path / name).write_text(text.replace(":8000", ":0"), "utf-8")
    check, dev, run, reload = commands("quickstart.md")
    assert [each.split()[1] for each in (check, dev, run, reload)] == ["check", "dev", "run", "reload"]
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    ours = {"XDG_RUNTIME_DIR": str(runtime), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def do(command: str) -> str:
        done = subprocess.run(
            command.split(),
            cwd=tmp_path,
            env={**os.environ, **ours},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    do(check)
    with ServerProcess(argv=["aserver", "run"], cwd=tmp_path, env=ours) as server:
        server.wait_log("all 2 workers are ready")
        assert server.fetch("/").body == b"Hello, world!\n"
        assert "reload complete" in do(f"{reload} --pid {server.pid}")
        do(f"aserver stop --pid {server.pid}")
        assert server.wait_exit() == 0
