"""What a function or class is, as text: itself and whatever its file defines that it names."""

import ast
import hashlib
import inspect
from typing import Any


def digest(thing: Any) -> str:
    """sha256 (16 hex digits) of `thing` and of what it names in its file, and what that names,
    comments left out.

    What it imports counts as the line that imports it.

    Raises:
        OSError, TypeError: its source cannot be read.
    """
    # A class of a notebook's cell is found by its methods alone.
    seen = vars(thing).get("forward", thing) if isinstance(thing, type) else thing
    lines, start = inspect.findsource(inspect.unwrap(seen))  # not what a decorator made of it
    statements = ast.parse("".join(lines)).body
    reached = [
        each for each in statements if _first_line(each) <= start + 1 <= (each.end_lineno or 0)
    ]
    if not reached:
        raise OSError("no statement stands where its source should be")
    for statement in reached:  # grows on the way
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        reached += [
            other for other in statements if other not in reached and _defined(other) & names
        ]
    text = "\n".join(ast.unparse(each) for each in statements if each in reached)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _first_line(statement: ast.stmt) -> int:
    """That of its first decorator, where it has one."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(each.lineno for each in decorators)])


def _defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    stored = (
        node
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return {node.id for node in stored}
