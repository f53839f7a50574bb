"""What exchanges a log file is the same text in the module and in the newest patches."""

import ast
import re

import pytest
from packaging.version import Version
from test_module.conftest import MODULE
from usr1 import patches


def reopen(source: str) -> str:
    """The function, without annotations and docstring, in one form."""
    [function] = [
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "reopen"
    ]
    function.returns, function.args.args[0].annotation = None, None
    function.body = function.body[1:]
    return ast.unparse(function)


def added(patch: patches.Patch) -> str:
    """The function as a patch adds it: from its first line to the next one that is not indented."""
    lines = "".join(re.findall(r"^\+(?!\+\+ )(.*\n)", patch.text, re.MULTILINE))
    found = re.search(r"^def reopen\(.*\n(?:(?: .*)?\n)+", lines, re.MULTILINE)
    assert found
    return found[0]


@pytest.mark.parametrize("distribution", patches.DISTRIBUTIONS)
def test_the_patches_exchange_a_file_as_the_module_does(distribution: str) -> None:
    newest = max(patches.catalogue(distribution), key=lambda patch: Version(patch.releases[-1]))
    assert reopen(added(newest)) == reopen(MODULE.read_text())
