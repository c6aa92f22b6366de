"""The extras as docs/quickstart.md has them, and pins for CI that pyproject.toml has not."""

import re
import tomllib
from typing import Any

from tests.documents.pages import DOCS
from tests.harness.server import REPOSITORY

PYPROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def extras(name: str) -> set[str]:
    """The extra and all that it brings of others."""
    own = {
        each
        for text in EXTRAS[name]
        for part in re.findall(r"^aserver-asgi\[(.+)\]$", text)
        for each in part.split(",")
    }
    return {name, *own}.union(*map(extras, own))


def test_the_page_has_each_extra() -> None:
    page = (DOCS / "quickstart.md").read_text("utf-8").split("| extra |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE) == list(EXTRAS)


def test_all_brings_every_extra() -> None:
    assert extras("all") == EXTRAS.keys()


def test_upper_bounds_are_in_the_constraints_and_nowhere_else() -> None:
    texts = [*PROJECT["dependencies"], *(text for each in EXTRAS.values() for text in each)]
    groups = PYPROJECT["dependency-groups"]
    hooks = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    tools = [text for name in groups.keys() - {"peers"} for text in groups[name]]  # verdicts are about peers' versions
    tools += [*PYPROJECT["build-system"]["requires"]]
    tools += [text for each in hooks.values() for text in each["dependencies"]]
    assert [text for text in (*texts, *tools) if re.search(r"<|==|~=", text.split(";")[0])] == []
    pins = (REPOSITORY / ".ci" / "constraints.txt").read_text("utf-8")
    tools += groups["peers"]
    names = {re.split(r"[\[<=>;]", text)[0].strip() for text in (*texts, *tools)} - {"aserver-asgi"}
    assert [name for name in sorted(names) if not re.search(rf"(?i)^{name}==", pins, re.MULTILINE)] == []
