"""docs/messages.md has each WARNING and ERROR that is written out in the source. Each docstring says how it failed."""

import ast
import re
from collections.abc import Iterator

from tests.documents.pages import DOCS
from tests.harness.server import REPOSITORY

LEVELS = ("warning", "error", "critical", "exception")
#: Pieces shorter than this would be found anywhere; of longer ones the page has the beginning.
PIECE, BEGINNING = 12, 40


def literals() -> Iterator[tuple[str, str]]:
    """Where a message is written, and its text: the argument itself, or the text that the function gave a name."""
    for path in sorted((REPOSITORY / "aserver").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            named = {
                node.targets[0].id: node.value.value
                for node in ast.walk(function)
                if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            }
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and (argument := _message(node)) is not None:
                    text = named.get(argument.id, "") if isinstance(argument, ast.Name) else ast.unparse(argument)
                    yield f"{path.relative_to(REPOSITORY)}:{node.lineno}", text


def _message(call: ast.Call) -> ast.expr | None:
    """The text's argument, of a logger at these levels or of `report` about a request."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if isinstance(call.func, ast.Attribute) and name in LEVELS and call.args:
        argument = call.args[0]
    elif name == "report" and len(call.args) > 1:
        argument = call.args[1]
    else:
        return None
    return argument if isinstance(argument, ast.Constant | ast.Name) else None


def test_each_message_that_asks_for_something_is_explained() -> None:
    """Fails with a message that has no row, or whose words have changed since."""
    page = (DOCS / "messages.md").read_text("utf-8")
    seen, missing = 0, []
    for place, text in literals():
        pieces = [piece.strip(" ;:,('\"\n") for piece in re.split(r"%\.?\d*[a-z]|\\n", text)]
        longest = max(pieces, key=len)[:BEGINNING].strip()
        if len(longest) < PIECE:
            continue  # `%s`: the text comes from elsewhere
        seen += 1
        if longest not in page:
            missing.append((place, longest))
    assert missing == []
    assert seen > 40
