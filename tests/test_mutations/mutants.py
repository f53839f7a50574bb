"""What becomes of a patched file when a statement that the patch adds is left out."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple, Set, Tuple

import whatthepatch
from usr1.patches import Part


class Mutant(NamedTuple):
    target: str  # The file, as RECORD names it
    where: str  # The function or class that the statement is in
    statement: str  # Its first line
    source: str

    def __str__(self) -> str:
        return f"{self.target}: {self.where}: {self.statement}"


def without_a_statement(part: Part, patched: str) -> Iterator[Mutant]:
    """For each statement that a patch adds to a file, docstrings aside, the file with pass in its place."""
    added, lines = _added_lines(part), patched.splitlines(keepends=True)
    for where, statement in _statements(ast.parse(patched), "module"):
        if statement.lineno not in added or _is_docstring(statement) or isinstance(statement, ast.Pass):
            continue
        text = lines[statement.lineno - 1]
        indent = text[: len(text) - len(text.lstrip())]
        instead = f"{indent}else:\n{indent}    pass\n" if text.lstrip().startswith("elif ") else f"{indent}pass\n"
        source = "".join([*lines[: statement.lineno - 1], instead, *lines[statement.end_lineno :]])
        yield Mutant(part.target, where, text.strip(), source)


def _added_lines(part: Part) -> Set[int]:
    """The numbers, from 1, of the lines that a patch adds to the file."""
    [diff] = whatthepatch.parse_patch(part.text)
    return {change.new for change in diff.changes if change.old is None and change.line.strip()}


def _statements(tree: ast.AST, where: str) -> Iterator[Tuple[str, ast.stmt]]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.stmt):
            yield where, child
        inside = child.name if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) else where
        yield from _statements(child, inside)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def has_undefined_names(source: str) -> bool:
    """Which ruff finds, also those that only annotations use, and no run."""
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--quiet", "--select", "F821", "-"]
    return subprocess.run(ruff, input=source, stdout=subprocess.DEVNULL, text=True).returncode != 0
