"""
The properties as they are run for people, on their machines.

And whole runs: with one old Python on the machine, on PyPy, and with Gunicorn and no uvicorn.
"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Set, Tuple

import environments
import pytest
from properties import promises
from properties import run as properties
from properties.environment import is_patched
from properties.expect import MEANINGS, MISSES
from test_gunicorn.conftest import NEWEST, python
from usr1 import patches
from usr1.apply import proof
from usr1.apply.environment import Environment

from test_apply import trees
from test_apply.trees import Run


def test_what_fails_says_why_in_a_few_words() -> None:
    status, output = properties.run(trees.source().path, "--tb=no", "-rN", test="test_boot.py::test_boot")
    assert status == 1
    failed, why, means, *_, kind, verdict, _ = [line for line in output.splitlines() if line]
    assert failed.startswith("FAILED A worker that is still starting when the logs are rotated ")
    assert (
        why == "       1 of 1 processes still wrote to a rotated access.log, error.log after SIGUSR1 during post_fork"
    )
    assert means == f"       {MEANINGS[MISSES]}"
    assert kind == "starting                    0/1  1 broken"
    assert verdict == "1 of 1 promise is broken here: a rotation at a bad moment does not reopen log files"


def test_a_long_path_to_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than that of a socket may be; and no socket of another gunicorn's is in danger."""
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        (tmp_path / (name * 16)).mkdir()
        monkeypatch.setenv(name, str(tmp_path / (name * 16)))
    status, output = properties.run(trees.source().path, test="test_serving.py::test_promptness")
    assert status == 0, output
    assert [list(directory.iterdir()) for directory in tmp_path.iterdir()] == [[], []]


def collected(environment: Path) -> Set[str]:
    status, output = properties.run(environment, "--collect-only")
    assert status == 0 and "NOTSET" not in output, output
    return {line.partition("[")[0] for line in output.splitlines() if "::" in line}


def test_there_are_as_many_before_and_after(tmp_path: Path, run: Run) -> None:
    """Each has its kind, and none is there for nothing: as pytest has it where there is nothing to be tested with."""
    pristine, patched = trees.source().path, tmp_path / "patched"
    shutil.copytree(pristine, patched, symlinks=True)
    run("--no-tests", patched)
    found = collected(pristine)
    assert found == collected(patched) and len(found) > 30
    assert {promises.kind(name) for name in found} == set(promises.KINDS.values())


def test_a_set_up_that_fails_breaks_no_promise(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The patch stays. What fails in a test itself, or breaks a promise, is another thing."""
    shutil.copytree(patches.PATCHES.parent, root, ignore=shutil.ignore_patterns(".*", "test_*"))
    for raised, kept in (("ValueError('odd')", True), ("Broken('odd')", False)):
        (root / "tests" / "properties" / "test_boot.py").write_text(FAILING.format(raised))
        assert proof.run_checks(trees.source()) == kept
        said = capsys.readouterr().out
        assert ("UNTESTED It starts.\n       this could not be tested to its end, for ValueError: " in said) == kept
    verdict = "1 of 2 promises is broken here: a rotation at a bad moment changes what is not its business\n"
    assert said.endswith(verdict)


FAILING = """
import pytest
from properties.expect import Broken

@pytest.fixture
def odd():
    raise {}

def test_boot(odd):
    \"\"\"It starts.\"\"\"

def test_other():
    \"\"\"It goes on.\"\"\"
"""


def test_pypy_s_packages_are_found(environment: Environment, run: Run) -> None:
    """In lib/pypy3.9, say."""
    run("--no-tests", environment)
    library = environment.site_packages.parent
    library.rename(library.with_name(library.name.replace("python", "pypy")))
    assert is_patched(environment.path, "gunicorn")


def report(name: str, harm: str = "") -> SimpleNamespace:
    return SimpleNamespace(nodeid=f"tests/properties/{name}", harm=harm, sentence="It works.")


def test_what_is_kept_is_kept_under_every_worker_class() -> None:
    passed = [report("test_boot.py::test_boot[one]"), report("test_exit.py::test_way_out[one]")]
    failed = [
        report("test_exit.py::test_way_out[other]", "kills workers"),
        report("test_worse.py::test_drawn[one]", "loses lines"),
    ]
    untested = [report("test_dispositions.py::test_others")]
    skipped = [report("test_boot.py::test_boot[other]"), report("test_customised.py::test_system_calls[one]")]
    stats = {"passed": passed, "failed": failed, "untested": untested, "skipped": skipped, "": passed[:1]}
    assert promises.summary(stats) == [
        "starting                    1/1",
        "serving                     0/1  1 not tested here",
        "stopping                    0/1  1 broken",
        "other signals               0/1  1 not tested here",
        "no worse than unpatched     0/1  1 broken",
        "2 of 5 promises are broken here: a rotation at a bad moment kills workers and loses lines "
        "(2 others could not be tested)",
    ]
    assert promises.summary({"passed": passed[:1]})[-1] == "1 of 1 promise holds here"
    mostly = {"passed": passed, "skipped": skipped}
    assert promises.summary(mostly)[-1] == "2 of 3 promises hold here (1 other could not be tested)"
    assert promises.summary({"skipped": skipped})[-1] == "no promise was tested here"


#: A release of the time for each Python that the newest tools do not run on.
OLD = {(3, 6): "0.13.4", (3, 7): "0.16.0", (3, 8): "0.30.0"}


def only(python: Path, directory: Path) -> str:
    """A PATH on which this Python is all that could run anything of ours."""
    directory.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(place).iterdir():
            if not program.name.startswith(("python", "pip", "uv")) and not (directory / program.name).exists():
                (directory / program.name).symlink_to(program)
    (directory / python.name).symlink_to(python)
    return str(directory)


@pytest.mark.full
@pytest.mark.parametrize("python", OLD, ids=lambda python: "%d.%d" % python)
def test_one_old_python(python: Tuple[int, int], tmp_path: Path) -> None:
    """With a clone that has no tools yet."""
    if python not in environments.pythons():
        pytest.skip(f"no Python {python} is at hand")
    clone = shutil.copytree(proof.ROOT, tmp_path / "clone", ignore=shutil.ignore_patterns(".*"))
    venv = environments.make(tmp_path / "venv", python, *environments.packages(OLD[python])).path
    variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    # Without a home, where pyenv's Pythons might be, and without a locale that knows more than ASCII
    variables.update(PATH=only(environments.pythons()[python], tmp_path / "bin"), HOME=str(tmp_path), LC_ALL="C")

    def script(status: int, *arguments: str) -> str:
        process = trees.start(clone / "scripts" / "apply.sh", *arguments, venv, env=variables)
        said, _ = process.communicate()
        assert process.returncode == status, said
        return said

    before = trees.snapshot(venv)
    script(1, "--check")
    script(0, "--dry-run")
    said = script(0)
    assert " promises hold here" in said, said
    # Progress is one line on a terminal, and elsewhere one each ten seconds
    said = re.sub(r"^  tests: .* done\n", "", said, flags=re.MULTILINE)
    assert len(said.splitlines()) <= 30 and not re.search(r"NOTSET|\[100%\]|empty parameter", said), said
    assert f"uvicorn {OLD[python]}: patched" in script(0, "--check")
    script(0, "--revert")
    assert trees.snapshot(venv) == before
    for tools in clone.glob(".tools-*"):
        assert (tools / "lib" / f"python{python[0]}.{python[1]}").is_dir()


@pytest.mark.full
@pytest.mark.parametrize("release", ["20.1.0", NEWEST])
def test_gunicorn_alone(release: str, tmp_path: Path, run: Run) -> None:
    version = list(environments.pythons())[-1] if release == NEWEST else (3, 8)
    packages = [f"gunicorn=={release}", "gevent", "packaging", "setuptools<81"]
    venv = environments.make(tmp_path / "venv", version, *packages).path
    assert "broken here: a rotation" in run("--tests-only", "--no-figures", venv, status=1).out
    said = run("--verbose", venv).out
    assert "promises hold here" in said
    for worker_class in ("SyncWorker", "ThreadWorker", "GeventWorker"):
        assert f"{worker_class}]" in said


@pytest.mark.full
def test_pypy(tmp_path: Path, run: Run) -> None:
    pypy = shutil.which("pypy3")
    if pypy is None:
        pytest.skip("no PyPy is at hand (on Debian: apt install pypy3-venv)")
    venv = tmp_path / "venv"
    subprocess.run([pypy, "-m", "venv", venv], check=True)
    packages = ["gunicorn==23.0.0", "uvicorn==0.39.0"]  # The newest for Debian 12's
    subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", *packages], check=True)
    assert "promises hold here" in run(venv).out


@pytest.mark.full
def test_verdict_within_a_minute(tmp_path: Path, run: Run) -> None:
    """Where most promises are broken, each of which takes its time; on a machine that has nothing else to do."""
    packages = environments.packages("0.18.3", "gunicorn==20.1.0")
    venv = environments.make(tmp_path / "venv", python("20.1.0"), *packages).path
    start = time.monotonic()
    run("--tests-only", venv, status=1)
    assert time.monotonic() - start < 60
