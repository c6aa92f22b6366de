"""Which names a Python settings file assigns, imports and reads, and on which lines.

Pure: it is given the file's text. Runs in the child that runs the file. A name that is only assigned is a setting,
maybe misspelt; a name that the file reads itself may be its own.
"""

import ast
from collections.abc import Iterator

_SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef


def names_in(text: bytes) -> dict[str, object]:
    """`lines` by name, and the names that are plainly `assigned`, `imported` and `read`."""
    tree = ast.parse(text)
    lines: dict[str, int] = {}
    assigned: set[str] = set()
    imported: set[str] = set()
    for node in _at_module_level(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines[node.name] = node.lineno
        for target in _targets(node):
            assigned.add(target.id)
            lines[target.id] = target.lineno
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return {"lines": lines, "assigned": sorted(assigned), "imported": sorted(imported), "read": sorted(read)}


def _at_module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module does: not the insides of functions and classes."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, _SCOPES):
            yield from _at_module_level(node)


def _targets(node: ast.AST) -> Iterator[ast.Name]:
    if isinstance(node, ast.Assign):
        found = node.targets
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        found = [node.target]
    else:
        return
    for target in found:
        yield from (each for each in ast.walk(target) if isinstance(each, ast.Name))
