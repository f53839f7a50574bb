"""The environment of the tools, made by whichever script is run first: scripts/tools.sh."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import List

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the scripts, without any tools, in a path that needs quoting."""
    return copy(tmp_path / "o'clone")


def copy(repository: Path) -> Path:
    for part in ("scripts", "patches"):
        shutil.copytree(ROOT / part, repository / part, ignore=shutil.ignore_patterns("__pycache__"))
    requirements = repository / "scripts" / "requirements.txt"
    [enough] = [line for line in requirements.read_text().splitlines() if line.startswith("whatthepatch")]
    requirements.write_text(enough)
    return repository


def command(repository: Path) -> List[str]:
    """Sets up the tools and does nothing with them."""
    return [str(repository / "scripts" / "build-fork.sh"), "--help"]


def run(repository: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(repository), env={**os.environ, **variables}, capture_output=True, text=True)


def refusal(answer: "subprocess.CompletedProcess[str]") -> str:
    assert answer.returncode == 2
    assert answer.stdout == ""
    [message] = answer.stderr.splitlines()
    return message


BASH = [path.name for path in sorted((ROOT / "scripts").glob("*.sh")) if b"bash" in path.read_bytes().splitlines()[0]]


@pytest.mark.parametrize("script", [name for name in BASH if name != "tools.sh"])
def test_by_another_shell(script: str, repository: Path) -> None:
    answer = subprocess.run(["dash", f"scripts/{script}"], cwd=repository, capture_output=True, text=True)
    assert refusal(answer) == f"{script}: expected bash, found another shell; run it as it is, without sh in front"
    assert not list(repository.glob(".tools*"))


def test_help_by_another_shell() -> None:
    answer = subprocess.run(["dash", "scripts/apply.sh", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "--tests-only" in answer.stdout
