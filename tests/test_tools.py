"""The tools, set up by whichever script is run first (scripts/tools.sh), and what else tests need (tests/look.sh)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Sequence, Union

import environments
import pytest
from environments import NOBODY
from test_apply import conftest as trees

ROOT = Path(__file__).resolve().parents[1]
Answer = subprocess.CompletedProcess


def run(*command: object, cwd: Union[Path, str] = ROOT, **variables: str) -> "Answer[str]":
    settings = {**os.environ, **variables}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=settings, capture_output=True, text=True)


def set_up(repository: Path, *prefix: str, **variables: str) -> "Answer[str]":
    """Have a script set up the tools, and do nothing with them; prefix is a command that runs it."""
    return run(*prefix, repository / "scripts" / "build-fork.sh", "--help", **variables)


@pytest.fixture
def repository() -> Iterator[Path]:
    """A clone that anybody may read, without any tools, in a path that needs quoting."""
    with environments.open_directory() as directory:
        ignored = shutil.ignore_patterns(".*", "__pycache__")
        repository = shutil.copytree(ROOT, directory / "o'clone", ignore=ignored)
        (repository / "scripts" / "requirements.txt").write_text("packaging\n")
        yield repository


def refusal(answer: "Answer[str]") -> List[str]:
    assert (answer.returncode, answer.stdout) == (2, ""), answer
    return answer.stderr.splitlines()


def tools(repository: Path) -> List[Path]:
    """The environments, oldest first; each must be whole, and nothing besides left behind."""
    found = sorted(repository.glob(".tools*"), key=lambda path: path.stat().st_ctime)
    for path in found:
        subprocess.run([path / "bin" / "python", "-c", "import packaging"], check=True)
    return found


@pytest.mark.full
def test_made_once(repository: Path) -> None:
    """For all scripts. What somebody constrains is not ours, and there may be no home."""
    (repository / "constraint.txt").write_text("packaging==20.0\n")
    others = {"PIP_CONSTRAINT": str(repository / "constraint.txt"), "PIP_TARGET": str(repository / "elsewhere")}
    first = set_up(repository, "env", "-u", "HOME", **others)
    assert first.returncode == 0 and first.stderr.startswith("Setting up the tools in "), first.stderr
    [made] = tools(repository)
    before = made.stat().st_ino
    again = set_up(repository)
    assert (again.returncode, again.stderr) == (0, "")
    run(repository / "scripts" / "apply.sh", "none", cwd=repository)
    assert [path.stat().st_ino for path in tools(repository)] == [before]

    # Another Python, and other requirements, get another: what has the old one may still be running
    oldest, python = next(iter(environments.pythons().items()))
    assert set_up(repository, PYTHON=str(python)).returncode == 0
    assert (tools(repository)[-1] / "lib" / f"python{oldest[0]}.{oldest[1]}").is_dir()
    with (repository / "scripts" / "requirements.txt").open("a") as requirements:
        requirements.write("\n# More\n")
    assert set_up(repository).returncode == 0
    assert len(tools(repository)) == 3
    assert made.stat().st_ino == before


def fake_python(path: Path, before: str) -> Path:
    """A Python that runs this first, in sh; with "venv" as its second argument it is to make an environment."""
    path.write_text(f'#!/bin/sh\n{before}\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.full
def test_of_two_first_runs_the_slower_leaves_the_tools_of_the_faster(repository: Path, tmp_path: Path) -> None:
    """They are in use. But what is no tools stays in the way."""
    # When the slower run is to make an environment, it waits for the whole of the faster one
    faster = f'FASTER=1 "{repository}/scripts/build-fork.sh" --help; (cd "{repository}"/.tools-* && touch faster)'
    python = fake_python(tmp_path / "python", f'[ "$2$FASTER" != venv ] || {{ {faster}; }}')
    assert set_up(repository, PYTHON=str(python)).returncode == 0
    [made] = tools(repository)
    assert (made / "faster").exists()

    (made / "bin" / "python").unlink()
    said = refusal(set_up(repository, PYTHON=str(python), FASTER="1"))
    assert said[-1].endswith(f" to {made}; if there is something at {made}, remove it")
    assert list(repository.glob(".tools*")) == [made]


def test_without_tests_apply_needs_none(repository: Path, tmp_path: Path) -> None:
    venv = trees.light(tmp_path / "venv", trees.source()).path
    for option, status in (("--check", 1), ("--dry-run", 0), ("--no-tests", 0), ("--check", 0), ("--revert", 0)):
        answer = run(repository / "scripts" / "apply.sh", option, venv)
        assert (answer.returncode, answer.stderr) == (status, "")
    assert tools(repository) == []


def test_a_python_of_no_use(repository: Path) -> None:
    [said] = refusal(set_up(repository, PYTHON="/nonexistent"))
    assert said == (
        "build-fork.sh: expected Python 3.6 or later for the tools, found /nonexistent;"
        " install one, or name it: PYTHON=/path/to/python3"
    )
    assert tools(repository) == []


def test_packages_that_cannot_be_had(repository: Path) -> None:
    told, dots, *said = refusal(set_up(repository, PIP_NO_INDEX="1", PIP_FIND_LINKS=""))
    assert told.startswith("Setting up the tools in ") and re.fullmatch(r"\.+", dots), "it goes on"
    start = "build-fork.sh: pip cannot install the tools; check the network, the index and its certificate"
    assert said[0].startswith(start) and "scripts/bundle.sh" in said[0]
    assert "Debian" not in "".join(said)
    assert tools(repository) == []


def test_a_python_without_venv(repository: Path, tmp_path: Path) -> None:
    """As Debian's, without python3-venv."""
    python = fake_python(tmp_path / "python", '[ "$2" != venv ] || { echo no ensurepip; exit 1; }')
    assert refusal(set_up(repository, PYTHON=str(python)))[-1] == (
        "build-fork.sh: cannot make the tools' environment (on Debian: apt install python3-venv): no ensurepip"
    )


def test_a_clone_that_may_not_be_written(repository: Path) -> None:
    repository.chmod(0o555)
    nobody = ["setpriv", f"--reuid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    [said] = refusal(set_up(repository, *nobody))
    assert said == (
        f"build-fork.sh: cannot write to {repository}, where the tools' environment goes;"
        " run this once as a user who may, or in a clone of your own"
    )


SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.sh"))


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name not in ("tools.sh", "reopen.sh")])
def test_by_another_shell(script: str, repository: Path) -> None:
    [said] = refusal(run("dash", f"scripts/{script}", cwd=repository))
    assert said == f"{script}: expected bash, found another shell; run it as it is, without sh in front"
    assert not list(repository.glob(".tools*"))


@pytest.mark.parametrize("one", [("bench", "--fast"), ("bench", "", ""), ("bundle",), ("bundle", "-x")])
def test_wrong_arguments(one: Sequence[str]) -> None:
    script, *arguments = one
    [said] = refusal(run(ROOT / "scripts" / f"{script}.sh", *arguments))
    assert said.startswith(f"{script}.sh: expected ") and ", found " in said


# What the tests need and is missing is said before they run

NOWHERE = "http://127.0.0.1:9/simple/"
NO_OTHER = {"PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
NO_INDEX = {**NO_OTHER, "PIP_INDEX_URL": NOWHERE, "PIP_CONFIG_FILE": os.devnull}
UNREACHED = "test.sh: uv does not reach the package index; try UV_INDEX_URL and SSL_CERT_FILE: "


def missing(root: Path, **variables: str) -> List[str]:
    """What is said to be missing; nothing must be run."""
    # If all is there this is soon done
    return refusal(run(root / "scripts" / "test.sh", "--version", **{"UV_INDEX_URL": "", **variables}))


def test_all_that_is_missing_at_once(repository: Path) -> None:
    with (repository / "tests" / "packages").open("a") as more:
        more.write("hello hello-there\nhello-2 hello-again\n")
    packages, index = missing(repository, **NO_INDEX)
    assert packages == (
        "test.sh: Debian packages are missing; as root: apt-get install --no-install-recommends hello hello-2"
    )
    assert re.fullmatch(rf"test.sh: pip does not reach the package index; .*: Could not fetch URL {NOWHERE}.*", index)
    packages, python = missing(repository, PYTHON="/bin/false")
    assert packages.endswith(" hello hello-2")
    assert python.startswith("test.sh: expected Python 3.9 or later for the tools, found /bin/false; install one")
    assert not list(repository.glob(".tools*"))


def test_uv_asks_the_index_of_pip(tmp_path: Path) -> None:
    """Unless it is told another one."""
    [uv] = missing(ROOT, UV_INDEX_URL=NOWHERE)
    assert uv.startswith(UNREACHED)
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {NOWHERE}\n")
    for variables in (NO_INDEX, {**NO_OTHER, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}):
        pip, uv = missing(ROOT, **variables)
        assert "pip does not reach" in pip and NOWHERE in pip
        assert uv.startswith(UNREACHED) and NOWHERE in uv


def test_what_fails_has_another_exit_status(repository: Path) -> None:
    """Also if its own is 2, as that of ruff is when it cannot read its settings."""
    shutil.copy(ROOT / "scripts" / "requirements.txt", repository / "scripts")
    for made in ROOT.glob(".tools-*"):
        (repository / made.name).symlink_to(made)
    (repository / ".ruff.toml").write_text("nonsense")
    answer = run(repository / "scripts" / "test.sh")
    assert answer.returncode == 1, answer
    assert "ruff failed" in answer.stderr


def test_the_documents_name_the_packages() -> None:
    lines = (ROOT / "tests" / "packages").read_text().splitlines()
    packages = [line.split()[0] for line in lines if line[0] != "#"]
    for document in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        [command] = re.findall(r"sudo apt-get install --no-install-recommends ([\w -]*)", text)
        assert command.split() == packages, document
