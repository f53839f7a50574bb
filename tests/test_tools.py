"""The environment of the tools, made by whichever script is run first: scripts/tools.sh."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List

import environments
import pytest
from properties import wait

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


def tools(repository: Path) -> List[Path]:
    """The environments, oldest first; each must be whole, and nothing besides left behind."""
    found = sorted(repository.glob(".tools*"), key=lambda path: path.stat().st_ctime)
    for path in found:
        subprocess.run([path / "bin" / "python", "-c", "import whatthepatch"], check=True)
    return found


@pytest.mark.parametrize("uv", [True, False])
def test_it_has_a_pip_of_its_own(uv: bool, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it: the next run may find no uv. And what somebody constrains is not ours."""
    if not uv:
        monkeypatch.setenv("PATH", environments.path_without("uv"))
    constraint = repository / "constraint.txt"
    constraint.write_text("whatthepatch==1.0.2\n")
    answer = run(repository, PIP_CONSTRAINT=str(constraint), UV_CONSTRAINT=str(constraint))
    assert answer.returncode == 0, answer.stderr
    [made] = tools(repository)
    subprocess.run([made / "bin" / "python", "-m", "pip", "--version"], check=True)


@pytest.mark.full
def test_packages_that_went_elsewhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", environments.path_without("uv"))
    answer = run(repository, PIP_TARGET=str(repository / "elsewhere"))
    assert answer.returncode == 2
    assert "; is there a setting like PIP_TARGET, " in answer.stderr.splitlines()[-1]
    assert tools(repository) == []


def test_made_once(repository: Path) -> None:
    first = run(repository)
    assert first.returncode == 0 and first.stderr.startswith("Setting up the tools in ")
    [made] = tools(repository)
    before = made.stat().st_ino
    again = run(repository)
    assert (again.returncode, again.stderr) == (0, "")
    assert [path.stat().st_ino for path in tools(repository)] == [before]


def test_of_two_first_runs_the_slower_leaves_the_tools_of_the_faster(repository: Path, tmp_path: Path) -> None:
    """They are in use."""
    slow = tmp_path / "slow" / "uv"
    slow.parent.mkdir()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    slow.write_text(f'#!/bin/sh\n[ "$1" != venv ] || read -r _ <"{fifo}"\nexec "{environments.UV}" "$@"\n')
    slow.chmod(0o755)

    def opened() -> int:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return 0

    variables = {**os.environ, "PATH": f"{slow.parent}:{os.environ['PATH']}"}
    with subprocess.Popen(command(repository), env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as slower:
        # Closed, it lets the slower one go on
        with open(wait.until(opened, lambda: "the slower run does not come to make an environment"), "w"):
            assert run(repository).returncode == 0
            [before] = [path.stat().st_ino for path in repository.glob(".tools*") if (path / "bin").is_dir()]
        slower.communicate(timeout=60)
    assert slower.returncode == 0
    assert [path.stat().st_ino for path in tools(repository)] == [before]


def test_other_requirements_get_another(repository: Path) -> None:
    """What has the old ones may still be running; but not after a month."""
    assert run(repository).returncode == 0
    [first] = tools(repository)
    before = first.stat().st_ino
    requirements = repository / "scripts" / "requirements.txt"
    requirements.write_text(requirements.read_text() + "\n# More\n")
    assert run(repository).returncode == 0
    assert len(tools(repository)) == 2 and first.stat().st_ino == before
    long_ago = time.time() - 32 * 24 * 3600
    for path in tools(repository):
        os.utime(path, (long_ago, long_ago))
    assert run(repository).returncode == 0
    assert len(tools(repository)) == 2, "nothing is made anew, and so nothing thrown away"
    requirements.write_text(requirements.read_text() + "\n# Still more\n")
    assert run(repository).returncode == 0
    used, newest = tools(repository)
    assert used != first and newest != first


def test_its_python_is_gone(repository: Path) -> None:
    assert run(repository).returncode == 0
    [made] = tools(repository)
    (made / "bin" / "python").unlink()
    (made / "bin" / "python").symlink_to(repository / "none")
    assert run(repository).returncode == 0
    assert tools(repository) == [made]


def test_something_in_its_place(repository: Path) -> None:
    assert run(repository).returncode == 0
    [made] = tools(repository)
    (made / "bin" / "python").unlink()
    answer = run(repository)
    assert answer.returncode == 2
    assert answer.stderr.endswith(f" to {made}; is that in the way?\n")
    assert list(repository.glob(".tools*")) == [made]


def test_without_a_home(repository: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "HOME"}
    answer = subprocess.run(command(repository), env=variables, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert len(tools(repository)) == 1


def test_the_python_that_is_asked_for(repository: Path) -> None:
    """Also when there are tools already."""
    assert run(repository).returncode == 0
    others = [python for python in environments.pythons() if python >= (3, 9) and python != sys.version_info[:2]]
    for python in others[-1:]:
        assert run(repository, PYTHON=str(environments.pythons()[python])).returncode == 0
        made = tools(repository)[-1]
        assert (made / "lib" / f"python{python[0]}.{python[1]}").is_dir()
    before = tools(repository)
    older = [str(path) for python, path in environments.pythons().items() if python < (3, 9)]
    for python_of_no_use in ("/nonexistent", "/bin/false", *older):
        assert refusal(run(repository, PYTHON=python_of_no_use)) == (
            f"build-fork.sh: expected Python 3.9 or later for the tools, found {python_of_no_use};"
            " install one, or name it: PYTHON=/path/to/python3"
        )
    assert tools(repository) == before


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
