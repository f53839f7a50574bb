"""The series for upstream's maintainers, commit by commit: `git am`, their own tests and style, and its tests."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Set, Tuple

import environments
import pytest
from environments import GUNICORN, NEWEST, UVICORN, Environment, git, output
from properties.environment import GEVENT, GTHREAD, SYNC
from properties.expect import Broken
from properties.server import Server
from test_gunicorn.test_gunicorn import pristine_environment, python, rotate_under_load
from usr1 import patches
from usr1.patches import Patch
from usr1.upkeep import refresh, releases

FOLDER = patches.PATCHES / "upstream"

#: What upstream's tests import, as upstream pins it; and for those of uvicorn-worker, which are run on uvicorn, httpx.
REQUIREMENTS = {
    "uvicorn": (
        *("pytest>=9.1.1", "pytest-mock==3.15.1", "pytest-codspeed>=4.1.1", "httpx2", "trustme==1.2.1"),
        *("cryptography>=44.0.3", "a2wsgi==1.10.10", "wsproto==1.3.2", "httpx==0.28.1"),
    ),
    "uvicorn-worker": ("pytest==8.3.4", "httpx==0.28.1", "trustme==1.2.1", "cryptography==44.0.0", "mypy==1.14.1"),
    "gunicorn": (
        *("pytest>=9.0.3", "pytest-asyncio", "pycodestyle==2.14.0"),
        *("gevent>=24.10.1", "tornado>=6.5.7", "h2>=4.4.1"),
        *("httpx[http2]", "packaging"),
    ),
}
#: Upstream's own tests of what the series touches, quick ones; all of its tests are run with --full.
OWN_TESTS = {
    "uvicorn": ["tests/test_server.py", "tests/supervisors/test_signal.py"],
    "uvicorn-worker": ["tests/test_workers.py", "-k", "(boot_error or get_request) and not H11"],
    "gunicorn": ["tests/test_logger.py", "tests/test_dirty_worker.py"],
}
SERIES = {name: sorted((FOLDER / name).glob("*.patch")) for name in patches.DISTRIBUTIONS}


class Commit(NamedTuple):
    distribution: str
    number: int

    def __str__(self) -> str:
        return f"{self.distribution}-{self.number}"

    @property
    def mails(self) -> List[Path]:
        """Those of the series up to this one."""
        return SERIES[self.distribution][: self.number]

    @property
    def tested_by(self) -> "Commit":
        """The one with its tests: uvicorn's maintainers want none that need Gunicorn, so they are uvicorn-worker's."""
        return Commit("uvicorn-worker", self.number) if self.distribution == "uvicorn" else self


COMMITS = [Commit(name, number + 1) for name in patches.DISTRIBUTIONS for number in range(len(SERIES[name]))]
every_project = pytest.mark.parametrize("distribution", patches.DISTRIBUTIONS)


def newest(distribution: str) -> Patch:
    return refresh.newest(distribution, patches.catalogue(distribution))


def repository(folder: Path, distribution: str, series: Sequence[Path]) -> Path:
    """A repository with the newest published source of a project and these commits on top."""
    shutil.copytree(releases.source(distribution, newest(distribution).releases[-1]), folder)
    environments.commit_all(folder)
    git(folder, "tag", "published")
    git(folder, "am", "--quiet", *series)
    return folder


@pytest.fixture
def tree(distribution: str, tmp_path: Path) -> Path:
    return repository(tmp_path / "tree", distribution, SERIES[distribution])


def environment(distribution: str) -> Environment:
    uvicorn = f"uvicorn[standard]=={NEWEST}"
    return environments.cached(python(GUNICORN), uvicorn, "gunicorn", *REQUIREMENTS[distribution])


#: Upstream's tests sleep while a server starts, and wait for its end, for times that a busy machine exceeds.
PATIENT = """
import os, subprocess, time

PATIENCE = int(os.environ["PATIENCE"])
sleep, wait = time.sleep, subprocess.Popen.wait
time.sleep = lambda seconds: sleep(seconds * PATIENCE)
subprocess.Popen.wait = lambda self, timeout=None: wait(self, timeout and timeout * PATIENCE)
"""
#: The servers themselves name the signal when they are imported.
WITHOUT_SIGUSR1 = """
import signal
import gunicorn.arbiter, gunicorn.dirty.arbiter, gunicorn.workers.gasgi, gunicorn.workers.gthread
import {}

del signal.SIGUSR1
"""


def run_tests(environment: Environment, tree: Path, *arguments: str, patience: int = 1) -> Dict[str, str]:
    """How each of upstream's tests ended, when they wait so many times as long."""
    (tree.parent / "patient.py").write_text(PATIENT)
    settings = {
        **os.environ,
        "HOME": str(tree.parent),  # Where Gunicorn puts its control socket
        "PATH": f"{environment.path}/bin:{os.environ['PATH']}",
        "PATIENCE": str(patience),
        "PYTEST_ADDOPTS": "",
        "PYTHONPATH": f"{tree.parent}:{tree}",
    }
    command = [str(environment.python), "-m", "pytest", "-qrA", "-o", "addopts=", "-p", "patient", *arguments]
    said = tree.parent / "said"
    with open(said, "w") as file, tempfile.TemporaryDirectory() as base:
        # In the usual place, pytest would end by deleting what earlier runs of other tests left: a minute's work. With
        # a long path, a log that a test of Gunicorn's never reads fills its pipe, and the server hangs.
        command += ["--basetemp", base]
        tests = subprocess.Popen(command, cwd=tree, env=settings, stdout=file, stderr=file, start_new_session=True)
        try:
            tests.wait(1800)
        finally:
            # Upstream's fixtures leave servers behind that do not stop in time.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(tests.pid, signal.SIGKILL)
            tests.wait()
            print(said.read_text())
    summary = said.read_text().rpartition("short test summary info")[2]
    ended = re.findall(r"(?m)^(PASSED|FAILED|ERROR|SKIPPED|XPASS|XFAIL) (.*?)(?: - .*)?$", summary)
    return {name: outcome for outcome, name in ended}


def outcome(environment: Environment, tree: Path, *arguments: str) -> Tuple[int, Set[str]]:
    """How many of upstream's tests pass, and which ones fail three times, however long they wait."""
    passed, failed = 0, set()
    for patience in (1, 4, 16):
        ended = run_tests(environment, tree, *arguments, "--last-failed", patience=patience)
        failed = {name for name in ended if ended[name] in ("FAILED", "ERROR")}
        passed += list(ended.values()).count("PASSED")
        if not failed:
            break
    return passed, failed


def added_tests(commit: Commit) -> List[str]:
    return re.findall(r"(?m)^\+ *def (test_\w+)", commit.mails[-1].read_text())


@every_project
def test_is_the_patch_and_written_by_git(distribution: str, tree: Path) -> None:
    """The series is what the patch is, less what the maintainers would refuse of it: that is left-out.diff."""
    # What git am has made of it, as mail again, is the same: no hunk was found at another line, or in another file.
    options = ["--zero-commit", "--no-stat", "--full-index", "--no-signature", "--output-directory=../mails"]
    git(tree, "format-patch", *options, "published..")
    written = {path.name: path.read_text() for path in (tree.parent / "mails").iterdir()}
    assert written == {path.name: path.read_text() for path in SERIES[distribution]}
    patch = newest(distribution)
    package = patch.parts[0].target.partition("/")[0]
    assert set(git(tree, "diff", "--name-only", "published", "--", package).split()) == set(patch.pristine)
    git(tree, "checkout", "--quiet", "published", "--", *patch.pristine)
    git(tree, "apply", patch.path)
    assert git(tree, "diff", "--full-index", "main") == (FOLDER / distribution / "left-out.diff").read_text()


#: usr1=10, say, or kill(pid, 10), or kill -10
NUMBER_OF_A_SIGNAL = r"(?i)(sig|usr1)\w* *[:=]=? *\d|\b(kill|signal)\([^()]*\b\d+\)|\bkill -\d"


@pytest.mark.parametrize("commit", COMMITS, ids=str)
def test_mail(commit: Commit) -> None:
    mail = commit.mails[-1].read_text()
    header, *body = mail.partition("\ndiff --git")[0].split("\n\n", 1)
    assert mail.isascii()
    assert max(map(len, "\n".join([header, *body]).splitlines())) <= 80
    assert body, "it says why"
    [subject] = re.findall(r"(?m)^Subject: \[PATCH \d+/\d+\] (.*(?:\n .*)*)", header)
    subject = subject.replace("\n", "")
    assert f"| {commit.number}. {subject} " in (FOLDER / commit.distribution / "0000-cover-letter.md").read_text()
    # They differ: that of SIGUSR1 under Linux is that of SIGBUS under macOS and FreeBSD.
    assert not [line for line in re.findall(r"(?m)^\+(.*)", mail) if re.search(NUMBER_OF_A_SIGNAL, line)]


@pytest.mark.parametrize("distribution", ["gunicorn", "uvicorn-worker"])
def test_files_import_without_sigusr1(distribution: str, tree: Path) -> None:
    """As on Windows: what a test file needs the signal for, it needs when a test runs."""
    (tree.parent / "without.py").write_text(WITHOUT_SIGUSR1.format(distribution.replace("-", "_")))
    files = git(tree, "diff", "--name-only", "published", "--", "tests").split()
    run_tests(environment(distribution), tree, "-p", "without", "--collect-only", *files)
    said = (tree.parent / "said").read_text()
    assert not re.search(r"(?m)^ERROR", said)
    assert all(name in said for one in COMMITS if one.distribution == distribution for name in added_tests(one))


@every_project
def test_every_commit_has_upstreams_style(distribution: str, tree: Path, pytestconfig: pytest.Config) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    commands: List[List[object]] = [[ruff, "check", "--no-cache"], [ruff, "format", "--no-cache", "--check", "--diff"]]
    if distribution == "uvicorn-worker" and pytestconfig.getoption("--full"):  # The change to uvicorn is the same
        mypy = [environment(distribution).python, "-m", "mypy", "--cache-dir", "../mypy"]
        commands.append([*mypy, "uvicorn_worker", "tests"])
    for revision in git(tree, "rev-list", "published..").split():
        git(tree, "checkout", "--quiet", revision)
        if distribution == "gunicorn":
            changed = git(tree, "diff", "--name-only", "HEAD^", "--", "gunicorn").split()
            commands = [[environment(distribution).python, "-m", "pycodestyle", *changed]]
        for command in commands:
            output(*command, cwd=tree)


TESTED = [one for one in COMMITS if added_tests(one.tested_by)]


@pytest.mark.parametrize("commit", environments.parameters(TESTED, ["gunicorn-1", "gunicorn-3", "uvicorn-worker-3"]))
def test_tests_of_a_commit(commit: Commit, tmp_path: Path) -> None:
    """Those that it adds pass, and fail with the code of the commit before."""
    distribution, tests = commit.distribution, commit.tested_by
    tree = repository(tmp_path / "tree", distribution, commit.mails)
    if tests != commit:
        theirs = repository(tmp_path / "theirs", tests.distribution, tests.mails) / "tests" / "test_workers.py"
        ours = theirs.read_text().replace("from uvicorn_worker import", "from uvicorn.workers import")
        (tree / "tests" / "test_workers.py").write_text(ours)
    files = re.findall(r"(?m)^diff --git a/(tests/\S+)", tests.mails[-1].read_text())
    names = added_tests(tests)
    arguments = [*files, "-W", "ignore::DeprecationWarning", "-k", " or ".join(names)]
    passed = run_tests(environment(distribution), tree, *arguments)
    assert {*passed.values()} == {"PASSED"} and len(passed) >= len(names)
    git(tree, "checkout", "--quiet", "HEAD^", "--", *newest(distribution).pristine)
    assert run_tests(environment(distribution), tree, *arguments) == dict.fromkeys(passed, "FAILED")


@pytest.mark.parametrize("commit", environments.parameters(COMMITS, ["gunicorn-11", "uvicorn-6"]))
def test_upstreams_own_tests_pass(commit: Commit, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    distribution = commit.distribution
    tree = repository(tmp_path / "tree", distribution, commit.mails)
    arguments = [] if request.config.getoption("--full") else OWN_TESTS[distribution]
    passed, failed = outcome(environment(distribution), tree, *arguments)
    assert passed >= 1 and not failed


#: The oldest release of Gunicorn, one in the middle and the newest, with what their tests import.
RELEASES = {
    "20.0.0": ("pytest", "aiohttp", "gevent", "setuptools<81"),
    "23.0.0": ("pytest", "gevent", "eventlet"),
    "27.0.1": ("pytest>=9.0.3", "pytest-asyncio", "gevent", "tornado", "h2", "uvloop", "httpx[http2]"),
}


@pytest.mark.full
@pytest.mark.parametrize("release", RELEASES)
def test_the_same_tests_fail(release: str, tmp_path: Path) -> None:
    """On code of Gunicorn with the patch the same ones as on pristine, and no other; from the source archive."""
    pristine = environments.cached(python(release), f"gunicorn=={release}", *RELEASES[release])
    # What they start is the installed one; what they import is its code, in the same place for both.
    patched = pristine.copied(tmp_path / "patched", f"gunicorn {release}")
    found, tree = [], tmp_path / "tree"
    for environment in (pristine, patched):
        shutil.copytree(releases.source("gunicorn", release), tree)
        shutil.copytree(environment.site_packages / "gunicorn", tree / "gunicorn", dirs_exist_ok=True)
        found.append(outcome(environment, tree))
        shutil.rmtree(tree)
    assert found[0] == found[1] and found[0][0] > 100


def rotate(environment: Environment, worker_class: str) -> None:
    """With two signals to each process for each rotation."""
    with Server(environment.python, worker_class, options=["--capture-output"]) as server:
        rotate_under_load(server, worker_class, 200, target="all", times=2)


@pytest.mark.full
@pytest.mark.parametrize("worker_class", [UVICORN, SYNC, GTHREAD, GEVENT])
def test_the_first_commit_alone_loses_nothing(worker_class: str, tmp_path: Path) -> None:
    """For Gunicorn's maintainers, if they take no other; the published Gunicorn loses lines."""
    tree = repository(tmp_path / "tree", "gunicorn", SERIES["gunicorn"][:1])
    pristine = pristine_environment(GUNICORN)
    if worker_class != GEVENT:  # It leaves the signal to a greenlet
        with pytest.raises(Broken):
            rotate(pristine, worker_class)
    environment = pristine.copied(tmp_path / "venv")
    shutil.copytree(tree / "gunicorn", environment.site_packages / "gunicorn", dirs_exist_ok=True)
    rotate(environment, worker_class)
