"""docs/api.md has each public name, and the hooks as docs/signals.md has them."""

import ast
import re

import aserver
from aserver import testing
from tests.documents.pages import DOCS, blocks

PAGE = DOCS / "api.md"


def test_each_public_name_is_on_the_page() -> None:
    """`make site` fails for a name on the page that does not exist."""
    told = set(re.findall(r"^::: (\S+)", PAGE.read_text("utf-8"), re.MULTILINE))
    public = {f"aserver.{name}" for name in aserver.__all__ if name != "__version__"}
    assert public | {f"aserver.testing.{name}" for name in testing.__all__} <= told


def test_the_hooks_are_those_of_the_table() -> None:
    table = re.findall(r"^\| `(\w+\([\w, ]+\))` \|", (DOCS / "signals.md").read_text("utf-8"), re.MULTILINE)
    (block,) = [block for block in blocks(PAGE) if block.language == "python"]
    functions = [node for node in ast.parse(block.text).body if isinstance(node, ast.FunctionDef)]
    assert [f"{node.name}({ast.unparse(node.args)})" for node in functions] == table
