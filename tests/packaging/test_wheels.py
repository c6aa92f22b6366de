"""The files that `make wheels` has built: installed where there is no compiler, run, and removed without a trace."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import fetch
from tests.harness.server import ServerProcess
from tests.harness.terminal import Terminal
from tests.harness.waiting import wait_for

DIST = Path(__file__).parents[2] / "dist"
CIBUILDWHEEL: dict[str, Any] = tomllib.loads((DIST.parent / "pyproject.toml").read_text("utf-8"))["tool"][
    "cibuildwheel"
]
TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_WHEELS"), reason="`make wheels` runs it"),
    pytest.mark.timeout(300),
]


def wheels() -> Iterator[Path]:
    """Those of this Python."""
    for path in sorted(DIST.glob("*.whl")):
        if re.search(rf"-({TAG}|py3)-", path.name):
            yield path


def test_there_is_a_pure_wheel_a_compiled_one_and_the_source() -> None:
    """All under the name that is ours on the index."""
    names = sorted(path.name for path in (*wheels(), *DIST.glob("*.tar.gz")))
    kinds = ["py3-none-any.whl", f"{TAG}-{TAG}-", ".tar.gz"]
    assert [sum(kind in name for name in names) for kind in kinds] == [1, 1, 1], names
    assert all(name.startswith("aserver_asgi-") for name in names)


class Home:
    """A new environment, in which nothing can be compiled: CC leads nowhere, and PATH has no compiler."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "venv" / "bin"
        venv.create(folder / "venv", with_pip=True)
        pins = {name: value for name, value in os.environ.items() if name == "PIP_CONSTRAINT"}
        self.environ = {**pins, "PATH": str(self.bin), "CC": "/nonexistent", "HOME": str(folder)}
        self.environ |= {"XDG_RUNTIME_DIR": str(folder)}  # where `aserver profile` and `top` find the server

    def call(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command of the environment, to its end."""
        command = [str(self.bin / words[0]), *words[1:]]
        return subprocess.run(
            command, env=self.environ, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )

    def run(self, *words: str) -> str:
        """What a command prints that must succeed."""
        done = self.call(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pip(self, *words: str) -> str:
        return self.run("python", "-m", "pip", "--disable-pip-version-check", *words)

    def serve(self, *options: str) -> ServerProcess:
        command = [str(self.bin / "aserver"), "run", "aserver.command.demo:app", "--bind", "127.0.0.1:0", *options]
        return ServerProcess(argv=command, env={**self.environ, "PYTHONPATH": ""}, cwd=self.folder)

    def files(self) -> set[str]:
        found = (path for path in self.folder.rglob("venv/**/*") if "__pycache__" not in path.parts)
        return {str(path.relative_to(self.folder)) for path in found}


@pytest.mark.parametrize("wheel", [pytest.param(path, id=path.name) for path in wheels()])
def test_a_wheel_is_installed_run_and_removed(wheel: Path, tmp_path: Path) -> None:
    """A compiled wheel says that it is compiled, and passes the test that cibuildwheel would make of it."""
    compiled = "none-any" not in wheel.name
    home = Home(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        requirements = re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata(archive), re.MULTILINE)
    home.pip("install", *requirements)
    before = home.files()
    home.pip("install", "--no-deps", "--no-index", str(wheel))
    assert (home.call("/bin/sh", "-c", CIBUILDWHEEL["test-command"]).returncode == 0) == compiled
    with home.serve() as server:
        server.wait_ready()
        assert server.fetch("/hello").status == 200
        assert (", protocol compiled" in server.log) == compiled
    home.pip("uninstall", "--yes", "aserver-asgi")
    assert home.files() == before


def test_each_extra_brings_its_command(tmp_path: Path) -> None:
    """Without it a sentence says how to get it; `dev` and `all` then bring nothing more. Fails with an empty extra."""
    (pure,) = [path for path in wheels() if "none-any" in path.name]
    home = Home(tmp_path)
    home.pip("install", str(pure))
    outcomes = [used(home)]
    for extra in ("top", "profile", "admin"):
        home.pip("install", f"{pure}[{extra}]")
    outcomes.append(used(home))
    missing = {"top": "aserver-asgi[top]", "profile": "aserver-asgi[profile]", "admin": "aserver-asgi[admin]"}
    assert outcomes == [missing, dict.fromkeys(missing, "used")]
    assert "Would install" not in home.pip("install", "--dry-run", f"{pure}[dev,all]")


def used(home: Home) -> dict[str, str]:
    """For each extra "used", or what is to be installed."""
    found = {}
    with home.serve("--admin", "127.0.0.1:0") as server, Terminal() as terminal:
        server.wait_ready()
        (admin,) = server.wait_log(r"admin endpoint: http://127\.0\.0\.1:(\d+)")
        where = "127.0.0.1", int(admin[1])
        wait_for(lambda: fetch(where, "/metrics").status != 503, what="the server's figures")
        metrics = fetch(where, "/metrics").text
        found["admin"] = "used" if "aserver_workers{" in metrics else needs(metrics)
        profile = home.call("aserver", "profile", "1", "--seconds", "1")
        drawn = (home.folder / "flame.svg").exists() or "only waited" in profile.stderr  # it has no client
        found["profile"] = "used" if drawn else needs(profile.stderr)
        command = terminal.attach([str(home.bin / "python"), "-m", "aserver", "top"])
        with subprocess.Popen(
            command, env=home.environ, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as top:
            assert top.stderr is not None
            wait_for(lambda: b"aserver.command.demo:app" in terminal.screen or top.poll() is not None, what="a screen")
            terminal.press(b"q")
            found["top"] = needs(top.stderr.read()) or "used"
    return found


def needs(text: str) -> str:
    """The extra that a message asks for."""
    named = re.search(r"pip install '(.+)'", text)
    return named[1] if named else ""


def metadata(archive: zipfile.ZipFile) -> str:
    """The text of METADATA."""
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return archive.read(name).decode()


@pytest.mark.parametrize(
    ("platform", "built"),
    [
        (
            "linux",
            {f"cp312-{libc}_{machine}" for libc in ("manylinux", "musllinux") for machine in ("x86_64", "aarch64")},
        ),
        ("macos", {"cp312-macosx_x86_64", "cp312-macosx_arm64"}),
    ],
)
def test_cibuildwheel_reads_its_configuration(platform: str, built: set[str]) -> None:
    """It says which wheels it would build; that takes no container. Fails with a table that it does not understand."""
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform]
    done = subprocess.run(command, cwd=DIST.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert built | {name.replace("cp312", "cp313") for name in built} <= set(done.stdout.split())


def test_cibuildwheel_has_these_settings() -> None:
    """By its own schema. Fails with a misspelt key of a platform's table, which it would ignore."""
    schema = resources.files("cibuildwheel").joinpath("resources", "cibuildwheel.schema.json").read_text("utf-8")
    jsonschema: Any = importlib.import_module("jsonschema")
    jsonschema.validate(CIBUILDWHEEL, json.loads(schema))
