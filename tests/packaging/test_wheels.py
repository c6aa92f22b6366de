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

from tests.harness.server import ServerProcess

DIST = Path(__file__).parents[2] / "dist"
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


@pytest.mark.parametrize("wheel", [pytest.param(path, id=path.name) for path in wheels()])
def test_a_wheel_is_installed_run_and_removed(wheel: Path, tmp_path: Path) -> None:
    """Without a compiler: CC leads nowhere, and PATH has none. A compiled wheel says that it is compiled."""
    compiled = "none-any" not in wheel.name
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    environ = {"PATH": str(home / "bin"), "CC": "/nonexistent", "HOME": str(tmp_path)}

    def run(*words: str) -> str:
        command = [str(home / "bin" / words[0]), *words[1:]]
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def files() -> set[str]:
        return {str(path.relative_to(home)) for path in home.rglob("*") if "__pycache__" not in path.parts}

    pip = ("python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    with zipfile.ZipFile(wheel) as archive:
        requirements = re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata(archive), re.MULTILINE)
    run(*pip, "install", *requirements)
    before = files()
    run(*pip, "install", "--no-deps", "--no-index", str(wheel))
    assert ("protocol compiled" in run("aserver", "--version")) == compiled
    command = [str(home / "bin" / "aserver"), "run", "aserver.command.demo:app", "--bind", "127.0.0.1:0"]
    with ServerProcess(argv=command, env={"PYTHONPATH": ""}, cwd=tmp_path) as server:
        server.wait_ready()
        assert server.fetch("/hello").status == 200
        assert (", protocol compiled" in server.log) == compiled
    run(*pip, "uninstall", "--yes", "aserver-asgi")
    assert files() == before


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
    table = tomllib.loads((DIST.parent / "pyproject.toml").read_text("utf-8"))["tool"]["cibuildwheel"]
    jsonschema: Any = importlib.import_module("jsonschema")
    jsonschema.validate(table, json.loads(schema))
