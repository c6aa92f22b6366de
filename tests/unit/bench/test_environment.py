"""The environment of the servers: what aserver is built from there."""

import tomllib
from pathlib import Path

from bench import environment
from bench.environment import CHECKOUT


def test_the_copy_that_is_built_has_all_that_its_build_names(tmp_path: Path) -> None:
    """Fails without hatch_build.py: a compiled build ended then, and the table had the interpreted server's figures."""
    environment.copy_subject(tmp_path)
    pyproject = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))
    project, hatch = pyproject["project"], pyproject["tool"]["hatch"]
    wheel = hatch["build"]["targets"]["wheel"]
    named = [project["readme"], *project["license-files"], *wheel["packages"], hatch["version"]["path"]]
    for name, hook in wheel["hooks"].items():
        named += hook.get("include", [])
        if name == "custom":
            named.append(hook.get("path", "hatch_build.py"))  # hatchling's default
    assert [each for each in named if not (tmp_path / each.lstrip("/")).exists()] == []


def test_a_change_of_any_source_makes_the_build_stale() -> None:
    """Fails with `*.py` alone: Cython's module was measured as it had been before."""
    sources = environment.subject_files()
    assert {CHECKOUT / "hatch_build.py", *(CHECKOUT / "aserver").rglob("*.pyx")} < set(sources)
    assert not [path for path in sources if "__pycache__" in path.parts]
