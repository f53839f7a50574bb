"""The environment of the tools, made by whichever script is run first: scripts/tools.sh."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List

import environments
import pytest
from properties import wait
from test_apply import trees

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the scripts, without any tools, in a path that needs quoting."""
    return copy(tmp_path / "o'clone")


def copy(repository: Path) -> Path:
    for part in ("scripts", "patches"):
        shutil.copytree(ROOT / part, repository / part, ignore=shutil.ignore_patterns("__pycache__"))
    (repository / "scripts" / "requirements.txt").write_text("packaging\n")
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


def tools(repository: Path) -> List[Path]:
    """The environments, oldest first; each must be whole, and nothing besides left behind."""
    found = sorted(repository.glob(".tools*"), key=lambda path: path.stat().st_ctime)
    for path in found:
        subprocess.run([path / "bin" / "python", "-c", "import packaging"], check=True)
    return found


@pytest.mark.full
def test_made_once(repository: Path) -> None:
    """What somebody constrains is not ours, and there may be no home."""
    constraint = repository / "constraint.txt"
    constraint.write_text("packaging==20.0\n")
    variables = {name: value for name, value in os.environ.items() if name != "HOME"}
    first = subprocess.run(
        command(repository),
        env={**variables, "PIP_CONSTRAINT": str(constraint), "PIP_TARGET": str(repository / "elsewhere")},
        capture_output=True,
        text=True,
    )
    assert first.returncode == 0 and first.stderr.startswith("Setting up the tools in "), first.stderr
    [made] = tools(repository)
    before = made.stat().st_ino
    again = run(repository)
    assert (again.returncode, again.stderr) == (0, "")
    assert [path.stat().st_ino for path in tools(repository)] == [before]

    # Another Python, and other requirements, get another: what has the old one may still be running
    oldest, python = next(iter(environments.pythons().items()))
    assert run(repository, PYTHON=str(python)).returncode == 0
    assert (tools(repository)[-1] / "lib" / f"python{oldest[0]}.{oldest[1]}").is_dir()
    with (repository / "scripts" / "requirements.txt").open("a") as requirements:
        requirements.write("\n# More\n")
    assert run(repository).returncode == 0
    assert len(tools(repository)) == 3 and made.stat().st_ino == before


@pytest.mark.full
def test_of_two_first_runs_the_slower_leaves_the_tools_of_the_faster(repository: Path, tmp_path: Path) -> None:
    """They are in use. But what is no tools stays in the way."""
    python, fifo = tmp_path / "python", tmp_path / "fifo"
    os.mkfifo(fifo)
    python.write_text(f'#!/bin/sh\n[ "$SLOW$2" != 1venv ] || read -r _ <"{fifo}"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    def opened() -> int:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return 0

    variables = {**os.environ, "PYTHON": str(python), "SLOW": "1"}
    with subprocess.Popen(command(repository), env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as slower:
        # Closed, it lets the slower one go on
        with open(wait.until(opened, lambda: "the slower run does not come to make an environment"), "w"):
            assert run(repository, PYTHON=str(python)).returncode == 0
            [made] = tools(repository)
            before = made.stat().st_ino
        slower.communicate(timeout=600)
    assert slower.returncode == 0
    assert [path.stat().st_ino for path in tools(repository)] == [before]

    (made / "bin" / "python").unlink()
    answer = run(repository, PYTHON=str(python))
    assert answer.returncode == 2
    assert answer.stderr.endswith(f" to {made}; if there is something at {made}, remove it\n")
    assert list(repository.glob(".tools*")) == [made]


def test_a_python_of_no_use(repository: Path) -> None:
    for python in ("/nonexistent", "/bin/false"):
        assert refusal(run(repository, PYTHON=python)) == (
            f"build-fork.sh: expected Python 3.6 or later for the tools, found {python};"
            " install one, or name it: PYTHON=/path/to/python3"
        )
    assert tools(repository) == []


def test_packages_that_cannot_be_had(repository: Path) -> None:
    answer = run(repository, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert answer.returncode == 2
    told, dots, said = answer.stderr.split("\n", 2)
    assert told.startswith("Setting up the tools in ") and re.fullmatch(r"\.+", dots), "it goes on"
    assert said.startswith(
        "build-fork.sh: pip cannot install the tools; check the network, the index and its certificate"
    )
    assert "scripts/bundle.sh" in answer.stderr and "Debian" not in answer.stderr
    assert tools(repository) == []


def test_a_python_without_venv(repository: Path, tmp_path: Path) -> None:
    """As Debian's, without python3-venv."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$2" != venv ] || {{ echo no ensurepip; exit 1; }}\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    answer = run(repository, PYTHON=str(python))
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1] == (
        "build-fork.sh: cannot make the tools' environment (on Debian: apt install python3-venv): no ensurepip"
    )


def test_without_tests_apply_needs_none(repository: Path, tmp_path: Path) -> None:
    venv = trees.light(tmp_path / "venv", trees.source()).path
    for option, status in (("--check", 1), ("--dry-run", 0), ("--no-tests", 0), ("--check", 0), ("--revert", 0)):
        answer = subprocess.run([repository / "scripts" / "apply.sh", option, venv], capture_output=True, text=True)
        assert (answer.returncode, answer.stderr) == (status, "")
    assert tools(repository) == []


@pytest.mark.full
def test_one_set_for_all(repository: Path) -> None:
    """Whatever is run first, nothing else is set up later."""
    for arguments in (["apply.sh", "none"], ["build-fork.sh", "--help"]):
        script, *options = arguments
        subprocess.run([repository / "scripts" / script, *options], cwd=repository, capture_output=True)
        assert len(tools(repository)) == 1


def test_a_clone_that_may_not_be_written() -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        repository = copy(directory / "clone")
        for path in (directory, repository):
            path.chmod(0o555)
        user = 65534 if os.geteuid() == 0 else None
        answer = subprocess.run(command(repository), user=user, capture_output=True, text=True)
        assert refusal(answer) == (
            f"build-fork.sh: cannot write to {repository}, where the tools' environment goes;"
            " run this once as a user who may, or in a clone of your own"
        )
    finally:
        for path in (directory, repository):
            path.chmod(0o755)
        shutil.rmtree(directory)


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
