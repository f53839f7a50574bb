"""What becomes of a patched file when a statement that the patch adds is left out."""

import ast
import re
from typing import Iterator, NamedTuple, Set

import whatthepatch
from usr1.patches import Patch


class Mutant(NamedTuple):
    where: str  # The qualified name of what the statement is in
    statement: str  # Its first line
    source: str

    def __str__(self) -> str:
        return f"{self.where}: {self.statement}"


def added_lines(patch: Patch) -> Set[int]:
    """The numbers, from 1, of the lines that a patch adds to the file."""
    [diff] = whatthepatch.parse_patch(patch.text)
    return {change.new for change in diff.changes if change.old is None and change.line.strip()}


def code(line: str) -> str:
    """A line without annotations and comments, to compare it with that of another patch."""
    bare = re.sub(r"\s+#.*", "", line.strip())
    return re.sub(r"^(def \w+|worker:).*", r"\1", bare)


def added_code(patch: Patch) -> Set[str]:
    [diff] = whatthepatch.parse_patch(patch.text)
    return {code(change.line) for change in diff.changes if change.old is None}


def statement_lines(patch: Patch, patched: str, unused: str) -> Set[int]:
    """Where the statements that a patch adds begin, but for those in a function that goes unused."""
    statements = _statements(ast.parse(patched), "")
    return {s.lineno for where, s in statements if where != unused and not _is_docstring(s)} & added_lines(patch)


def without_a_statement(patch: Patch, patched: str, unused: str) -> Iterator[Mutant]:
    """For each statement that the patch adds, docstrings and pass aside, the file with pass in its place."""
    added, lines = added_lines(patch), patched.splitlines(keepends=True)
    for where, statement in _statements(ast.parse(patched), "module"):
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        if first not in added or _is_docstring(statement) or isinstance(statement, ast.Pass):
            continue
        if unused in (where, getattr(statement, "name", "")):
            continue
        text = lines[statement.lineno - 1]
        indent = text[: len(text) - len(text.lstrip())]
        instead = f"{indent}else:\n{indent}    pass\n" if text.lstrip().startswith("elif ") else f"{indent}pass\n"
        assert statement.end_lineno is not None
        source = "".join([*lines[: first - 1], instead, *lines[statement.end_lineno :]])
        yield Mutant(where, text.strip(), source)


def _statements(tree: ast.AST, where: str) -> "Iterator[tuple[str, ast.stmt]]":
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.stmt):
            yield where, child
        inside = child.name if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) else where
        yield from _statements(child, inside)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def replaced(patched: str, old: str, new: str) -> str:
    """The file with something else in one place; the place must be there, once."""
    assert patched.count(old) == 1, f"expected {old!r} once in the patched file, found it {patched.count(old)} times"
    return patched.replace(old, new)
