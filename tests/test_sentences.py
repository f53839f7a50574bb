"""What the properties say of a server that breaks promises: sentences with figures, and a verdict."""

import ast
import re
from pathlib import Path
from typing import List

import environments
import pytest
from properties import run as properties

#: What an expression in the place of a sentence has in it, or an exception that nobody put in words.
EXPRESSION = re.compile(
    r"\bassert\b|[!=<>]=|\bnot \[|\[\]|\bNone\b|\blambda\b|timed out|: (?:True|False)$|^\w*(?:Error|Exception)\b"
)


def modules() -> List[Path]:
    return sorted(properties.PROPERTIES.glob("*.py"))


def reasons(output: str) -> List[str]:
    """Why properties failed or were skipped, as printed."""
    return re.findall(r"^(?:FAILED|ERROR|SKIPPED) .*\n +(.*)", output, re.MULTILINE)


@pytest.mark.parametrize("module", modules(), ids=lambda path: path.stem)
def test_properties_say_what_they_expect(module: Path) -> None:
    """None of them states anything by assert, whose message is the expression, or raises what has no sentence."""
    nodes = list(ast.walk(ast.parse(module.read_text())))
    asserts = [node.lineno for node in nodes if isinstance(node, ast.Assert)]
    raised = {
        ast.unparse(node.exc.func) for node in nodes if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    }
    assert asserts == []
    assert raised <= {"Broken", "Unanswered", "Unusable", "pytest.UsageError"}


@pytest.mark.full
@pytest.mark.parametrize("release", ["0.13.2", "0.18.3", environments.NEWEST])
def test_pristine_releases_are_told_in_sentences(release: str) -> None:
    workers = environments.uvicorn(release)
    python = environments.pythons_for(workers.uvicorn)[-1 if workers.release == environments.NEWEST else 0]
    environment = environments.cached(python, *workers.packages())
    status, output = properties.run(environment.path, "--tb=no", "-rN")
    assert status == 1, output
    said = reasons(output)
    assert len(said) == len(re.findall("^(?:FAILED|ERROR|SKIPPED) ", output, re.MULTILINE)) > 5, output
    assert [reason for reason in said if EXPRESSION.search(reason)] == [], output
    assert re.search(r"^\d+ of \d+ promises are broken here: .*does not reopen log files", output, re.MULTILINE), output
