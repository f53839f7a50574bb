"""The series for upstream's maintainers: what `git am`, their own tests and their style make of it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import environments
import pytest
from environments import Environment
from usr1 import patches, releases
from usr1.patches import Patch
from usr1.upkeep import refresh

FOLDER = patches.PATCHES / "upstream"
every_project = pytest.mark.parametrize("distribution", sorted(path.name for path in FOLDER.iterdir()))

#: What upstream's tests import, as upstream pins it.
REQUIREMENTS = {
    "uvicorn": (
        *("pytest>=9.1.1", "pytest-mock==3.15.1", "pytest-codspeed>=4.1.1", "httpx2", "trustme==1.2.1"),
        *("cryptography>=44.0.3", "a2wsgi==1.10.10", "wsproto==1.3.2"),
    ),
    "uvicorn-worker": ("pytest==8.3.4", "httpx==0.28.1", "trustme==1.2.1", "cryptography==44.0.0"),
    "gunicorn": ("pytest>=9.0.3", "pytest-asyncio", "pycodestyle==2.14.0"),
}
#: What all of its tests import besides.
MORE = {"gunicorn": ("gevent>=24.10.1", "tornado>=6.5.7", "h2>=4.4.1", "httpx[http2]", "packaging")}
#: Upstream's own tests of what the series touches, quick ones; all of its tests are run with --full.
OWN_TESTS = {
    "uvicorn": ["tests/test_server.py", "tests/supervisors/test_signal.py"],
    "uvicorn-worker": ["tests/test_workers.py", "-k", "(boot_error or get_request) and not H11"],
    "gunicorn": ["tests/test_logger.py", "tests/test_dirty_worker.py"],
}
#: Where the series adds tests, and where it adds those with a server of their own, if that is elsewhere.
ADDED = {
    "gunicorn": (
        *("tests/test_arbiter.py", "tests/test_log_rotation.py", "tests/test_logger.py"),
        "tests/dirty/test_log_rotation.py",
    )
}
ADDED_SLOW = {"gunicorn": ("tests/test_signal_integration.py",)}


def newest(distribution: str) -> Patch:
    return refresh.newest(distribution, patches.catalogue(distribution))


def git(tree: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@localhost", "-c", "core.autocrlf=false"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *identity, *arguments]
    answer = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture
def tree(distribution: str, tmp_path: Path) -> Path:
    """A repository with the newest published source of a project and the series on top."""
    folder = tmp_path / "tree"
    shutil.copytree(releases.source(distribution, newest(distribution).releases[-1]), folder)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message=as published")
    git(folder, "tag", "published")
    git(folder, "am", "--quiet", *map(str, sorted((FOLDER / distribution).glob("*.patch"))))
    return folder


@pytest.fixture
def environment(distribution: str, request: pytest.FixtureRequest) -> Environment:
    recent = [version for version in environments.pythons() if version >= (3, 10)]
    if not recent:
        pytest.skip("upstream's newest releases need Python 3.10 or later, and there is none")
    uvicorn = f"uvicorn[standard]=={newest('uvicorn').releases[-1]}"
    more = MORE.get(distribution, ()) if request.config.getoption("--full") else ()
    return environments.cached(recent[-1], uvicorn, "gunicorn", *REQUIREMENTS[distribution], *more)


#: Upstream's tests sleep while a server starts, and wait for its end, for times that a busy machine exceeds.
PATIENT = """
import os, subprocess, time

PATIENCE = int(os.environ["PATIENCE"])
sleep, wait = time.sleep, subprocess.Popen.wait
time.sleep = lambda seconds: sleep(seconds * PATIENCE)
subprocess.Popen.wait = lambda self, timeout=None: wait(self, timeout and timeout * PATIENCE)
"""


def run_tests(environment: Environment, tree: Path, *arguments: str, patience: int = 1) -> Dict[str, int]:
    """How many of upstream's tests ended how, when they wait so many times as long."""
    (tree.parent / "patient.py").write_text(PATIENT)
    settings = {
        **os.environ,
        "HOME": str(tree.parent),  # Where Gunicorn puts its control socket
        "PATH": f"{environment.path}/bin:{os.environ['PATH']}",
        "PATIENCE": str(patience),
        "PYTEST_ADDOPTS": "",
        "PYTHONPATH": str(tree.parent),
    }
    command = [str(environment.python), "-m", "pytest", "-q", "-o", "addopts=", "-p", "patient", *arguments]
    # In the usual place, pytest would end by deleting what earlier runs of other tests left: a minute's work.
    command += ["--basetemp", str(tree.parent / "base")]
    with open(tree.parent / "output", "w+") as output:
        tests = subprocess.Popen(command, cwd=tree, env=settings, stdout=output, stderr=output, start_new_session=True)
        try:
            tests.wait(1800)
        finally:
            # Upstream's fixtures leave servers behind that do not stop in time.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(tests.pid, signal.SIGKILL)
            tests.wait()
            output.seek(0)
            said = output.read()
            print(said)
    (tree.parent / "said").write_text(said)
    outcomes = re.findall(r"(\d+) (\w+)", said.splitlines()[-1].split(" in ")[0])
    return {
        outcome: int(number) for number, outcome in outcomes if outcome not in ("deselected", "warnings", "warning")
    }


def failures(tree: Path) -> "set[str]":
    """Which of upstream's tests failed in the last run, with -rfE among its arguments."""
    return set(re.findall(r"(?m)^(?:FAILED|ERROR) (.*?)(?: - .*)?$", (tree.parent / "said").read_text()))


def added_tests(distribution: str, tree: Path, full: bool) -> Tuple[List[str], List[str]]:
    """The names of the tests that the series adds, and arguments that select them."""
    files = [*ADDED.get(distribution, ["tests/test_workers.py"])]
    if full:
        files += ADDED_SLOW.get(distribution, ())
    names = re.findall(r"(?m)^\+def (test_\w+)", git(tree, "diff", "published", "main", "--", *files))
    # Of uvicorn's worker classes one: the other only has another parser.
    return names, [*files, "-k", f"({' or '.join(names)}) and not H11"]


@every_project
def test_applies_and_ends_in_the_patched_file(distribution: str, tree: Path) -> None:
    patch = newest(distribution)
    source = releases.source(distribution, patch.releases[-1])
    for part in patch.parts:
        assert (tree / part.target).read_bytes() == part.apply((source / part.target).read_bytes())
    package = patch.parts[0].target.partition("/")[0]
    assert git(tree, "diff", "--name-only", "published", "--", package).split() == sorted(patch.pristine)
    mails = sorted((FOLDER / distribution).glob("*.patch"))
    subjects = git(tree, "log", "--format=%s", "--reverse", "published..").splitlines()
    assert 3 <= len(subjects) == len(mails) <= 5 and all(len(subject) <= 72 for subject in subjects)
    for path in mails:
        message = path.read_text().split("\ndiff --git")[0]
        assert max(map(len, message.splitlines())) <= 80
        assert path.read_text().isascii()


@pytest.mark.parametrize("distribution", ["gunicorn"])
def test_is_written_by_git(distribution: str, tree: Path) -> None:
    """What git am has made of it, as mail again, is the same: no hunk was found at another line, or in another file."""
    options = ["--zero-commit", "--no-stat", "--full-index", "--no-signature", "--output-directory=../mails"]
    git(tree, "format-patch", *options, "published..")
    written = {path.name: path.read_text() for path in (tree.parent / "mails").iterdir()}
    assert written == {path.name: path.read_text() for path in (FOLDER / distribution).glob("*.patch")}


def style(distribution: str, environment: Environment, tree: Path) -> List[List[str]]:
    """The commands that tell whether a commit has upstream's style."""
    if distribution == "gunicorn":
        files = git(tree, "show", "--format=", "--name-only", "HEAD", "--", "gunicorn").split()
        return [[str(environment.python), "-m", "pycodestyle", *files]]
    ruff = str(Path(sys.executable).with_name("ruff"))
    return [[ruff, "check", "--no-cache", "."], [ruff, "format", "--no-cache", "--check", "--diff", "."]]


@every_project
def test_every_commit_has_upstreams_style(distribution: str, tree: Path, environment: Environment) -> None:
    for commit in git(tree, "rev-list", "published..").split():
        git(tree, "checkout", "--quiet", commit)
        for command in style(distribution, environment, tree):
            answer = subprocess.run(command, cwd=tree, capture_output=True, text=True)
            assert answer.returncode == 0, answer.stdout + answer.stderr


@every_project
def test_added_tests_pass(
    distribution: str, tree: Path, environment: Environment, request: pytest.FixtureRequest
) -> None:
    names, arguments = added_tests(distribution, tree, request.config.getoption("--full"))
    assert run_tests(environment, tree, *arguments) == {"passed": len(names)}


@pytest.mark.parametrize(
    "distribution",
    ["gunicorn", *(pytest.param(one, marks=pytest.mark.full) for one in ("uvicorn", "uvicorn-worker"))],
)
def test_added_tests_fail_without_the_fix(
    distribution: str, tree: Path, environment: Environment, request: pytest.FixtureRequest
) -> None:
    names, arguments = added_tests(distribution, tree, request.config.getoption("--full"))
    git(tree, "checkout", "--quiet", "published", "--", *newest(distribution).pristine)
    assert run_tests(environment, tree, *arguments) == {"failed": len(names)}


@pytest.mark.full
@pytest.mark.parametrize("distribution", ["gunicorn"])
def test_each_commit_has_its_tests(distribution: str, tree: Path, environment: Environment) -> None:
    """Those that a commit adds pass there, and fail with the code of the commit before."""
    for commit in git(tree, "rev-list", "--reverse", "published..").split():
        git(tree, "checkout", "--quiet", "--force", commit)
        names = re.findall(r"(?m)^\+def (test_\w+)", git(tree, "show", commit, "--", "tests"))
        files = git(tree, "show", "--format=", "--name-only", commit, "--", "tests").split()
        arguments = [*files, "-k", " or ".join(names)]
        assert run_tests(environment, tree, *arguments) == {"passed": len(names)}
        git(tree, "checkout", "--quiet", f"{commit}^", "--", "gunicorn")
        assert run_tests(environment, tree, *arguments) == {"failed": len(names)}


@pytest.mark.parametrize(
    "distribution",
    ["uvicorn", *(pytest.param(one, marks=pytest.mark.full) for one in ("gunicorn", "uvicorn-worker"))],
)
def test_upstreams_own_tests_pass(
    distribution: str, tree: Path, environment: Environment, request: pytest.FixtureRequest
) -> None:
    arguments = [] if request.config.getoption("--full") else OWN_TESTS[distribution]
    for patience in (1, 4, 16) if distribution == "uvicorn-worker" else (1, 1, 1):
        outcomes = run_tests(environment, tree, *arguments, "--last-failed", patience=patience)
        if not outcomes.keys() & {"failed", "error", "errors"}:
            break
    assert outcomes.keys() <= {"passed", "skipped", "xfailed"}
    assert outcomes["passed"] >= 1
