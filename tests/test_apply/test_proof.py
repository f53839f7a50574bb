"""
What people see of the tests on their machines: the table of before and after, progress, and what fails.

And whole runs: with one old Python on the machine, on PyPy, and with Gunicorn and no uvicorn.
"""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, Iterator, List, Tuple

import environments
import pytest
from environments import output as command
from properties import promises
from properties import run as properties
from properties.environment import is_patched
from properties.expect import CHANGES, MEANINGS
from pytest import CaptureFixture, MonkeyPatch
from test_gunicorn.test_gunicorn import NEWEST, python
from usr1 import patches
from usr1.apply import figures, proof, screen
from usr1.apply.environment import Environment, find
from usr1.apply.figures import Figures

from test_apply import conftest as trees
from test_apply.conftest import Run
from test_apply.test_cli import HOLDS, suite

LOST = {"access.log": 12_000, "root.log": 403}
BAD = Figures("uvicorn.workers.UvicornWorker", LOST, 7, 48_054, 14, 24_041, 1, 1, 6, None)
GOOD = Figures("uvicorn.workers.UvicornWorker", dict.fromkeys(LOST, 0), 0, 47_936, 0, 23_968, 0, 0, 6, 0.0213)
TABLE = """
In 6 rotations, under load:           before       after
lines lost of access.log              12,000           0   of 24,027 before, 23,968 after
lines lost of root.log                   403           0   of 24,027 before, 23,968 after
lines written twice                        7           0
requests broken                           14           0   of 24,041 before, 23,968 after
workers killed or hung                     2           0
time to close all rotated files        > 1 s      0.02 s

"""
WRONG = "lose lines of access.log and root.log, write lines twice, break requests, kill workers and hang workers"

#: In the place of tests/properties/figures.py: bad before the first rotation, and good after it.
MEASURES = """
import os, pathlib, sys
print("step 1 of 7")
mark = pathlib.Path(__file__).with_name("measured")
print({good!r} if mark.exists() else {bad!r})
mark.touch()
"""


def measures(root: Path, code: str = MEASURES) -> None:
    """A suite with other figures, too."""
    good, bad = (json.dumps(figures._asdict()) for figures in (GOOD, BAD))
    (suite(root, HOLDS) / "tests" / "properties" / "figures.py").write_text(code.format(good=good, bad=bad))


def test_before_and_after(root: Path, environment: Environment, run: Run) -> None:
    measures(root)
    said = run(environment).out
    assert TABLE in said
    conclusion = f"Before the patch, rotations could {WRONG}. After it, nothing went wrong in these rotations. "
    assert conclusion in " ".join(said.split())
    said = run(environment).out
    assert "\nIn 6 rotations, under load:              now\nlines lost of access.log                   0   of " in said
    assert "\nNothing went wrong in these rotations.\n" in said


def test_the_verdict_and_the_table_agree(root: Path, environment: Environment, run: Run) -> None:
    """What is patched and still loses lines breaks its promise, whatever the tests find."""
    measures(root, "print({bad!r})\n")
    said = run("--only", "gunicorn", environment, status=1).out
    assert f"Although patched, rotations {WRONG} here. " in " ".join(said.split())
    assert "is as it was found" in said
    assert "undo: " not in said
    said = run("--tests-only", environment, status=1).out
    assert f"Here rotations {WRONG}. Patching uvicorn or gunicorn fixes this." in " ".join(said.split())


CONCLUSIONS = [
    ({"now": GOOD}, False, "Nothing went wrong in these rotations, but others do harm: see the broken promises above."),
    ({"before": GOOD, "after": GOOD}, True, "Nothing went wrong in these rotations."),
    (
        {"now": BAD._replace(worker_class="gunicorn.workers.sync.SyncWorker", doubled=0, broken=0, dead=0, hung=0)},
        True,
        "Here rotations lose lines of access.log and root.log. Patching gunicorn fixes this.",
    ),
    (
        {"now": GOOD._replace(worker_class="uvicorn_worker.UvicornWorker", hung=1)},
        False,
        "Here rotations hang workers. Patching uvicorn-worker or gunicorn fixes this.",
    ),
]


@pytest.mark.parametrize("columns, kept, said", CONCLUSIONS)
def test_conclusion(columns: figures.Columns, kept: bool, said: str) -> None:
    assert figures.conclusion(columns, kept, []) == said


def test_without_figures(root: Path, environment: Environment, run: Run) -> None:
    measures(root)
    for option in ("--tests-only", "--create"):  # There is one: nothing is created
        assert "rotations" not in run(option, "--no-figures", environment).out
    assert not (root / "tests" / "properties" / "measured").exists()


def test_what_cannot_be_served_is_told(root: Path, environment: Environment, run: Run) -> None:
    """It decides nothing: the properties do."""
    measures(root, "print('no worker comes up')\nexit(1)\n")
    said = run(environment).out
    assert "no figures before: no worker comes up\n" in said and "no figures now: " in said
    assert "rotations" not in said


@contextlib.contextmanager
def terminal(monkeypatch: MonkeyPatch) -> Iterator[int]:
    """Have what is said go to a terminal; its other end."""
    ours, its = pty.openpty()
    with open(its, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setenv("TERM", "xterm")
        yield ours
    os.close(ours)


def read(terminal: int) -> str:
    """What has been written to it so far."""
    said = b""
    while select.select([terminal], [], [], 0)[0]:
        said += os.read(terminal, 65536)
    return said.decode()


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_colour_on_a_terminal(variables: Dict[str, str], monkeypatch: MonkeyPatch) -> None:
    with terminal(monkeypatch) as its:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        figures.show({"before": BAD, "after": GOOD}, True, [])
        said = read(its).replace("\r\n", "\n")
    assert re.sub(r"\033\[\d+m", "", said).startswith(TABLE)
    assert said.count("\033[31m") == said.count("\033[32m") == (0 if variables else 5)


def test_what_goes_on_is_told(monkeypatch: MonkeyPatch) -> None:
    """On a terminal in one line, which the next thing that is said replaces; or by dots, which replace nothing."""
    with terminal(monkeypatch) as its:
        screen.say("first")
        screen.progress("waiting", 1, 4)
        screen.progress("waiting", 2, 4)
        screen.say("second")
        said = read(its)
        screen.dot()
        screen.dot()
        screen.say("done")
        dotted = read(its)
    bars = [f"waiting [{'#' * 10 * done:40}] {done}/4\r\033[K" for done in (1, 2)]
    assert said == f"first\r\n{bars[0]}{bars[1]}second\r\n"
    assert dotted == "..\r\ndone\r\n"


def test_what_a_process_says(monkeypatch: MonkeyPatch) -> None:
    """Line by line, be it that the last one has no end; while it says nothing, something else is done."""
    monkeypatch.setattr(screen, "PATIENCE", 0.05)
    command = ["sh", "-c", "printf 'first\\nsec'; read -r rest; printf ond"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert list(screen.lines_of(process, process.stdin.close)) == ["first", "second"]


def test_what_goes_on_is_told_elsewhere(monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]) -> None:
    """In a file a line for progress, but only after twenty seconds of silence."""
    screen.say("first")
    now = time.monotonic()
    for seconds in (19.0, 21.0, 22.0, 42.0):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        screen.progress("tests", int(seconds), 50)
    assert capsys.readouterr().out == "first\n  tests: 21 of 50 done\n  tests: 42 of 50 done\n"


#: One line tells a terminal what to do: it may come from another user's code.
RESULTS = """
def test_it():
    print("PASSED one (0.1 s, 1 of 7)\\n       why")
    print("SKIPPED two (0.1 s, 2 of 7)\\n       why not")
    print("FAILED three (0.1 s, 3 of 7)\\n       what is wrong\\n       what it means")
    print("serving\\tü\\033 1/3\\n\\n1 of 3 promises is broken here")
"""
SHOWN = ["FAILED three"]
VERBOSE = ["PASSED one (0.1 s)", "       why", "SKIPPED two (0.1 s)", "       why not", "FAILED three (0.1 s)"]


@pytest.mark.parametrize("verbose, shown", [(False, SHOWN), (True, VERBOSE)])
def test_what_fails_is_shown(
    verbose: bool, shown: List[str], root: Path, environment: Environment, monkeypatch: MonkeyPatch, run: Run
) -> None:
    """In full, and what pytest sums up; what passes, and is left out, with --verbose only. Nothing else of pytest's."""
    suite(root, RESULTS)
    monkeypatch.setattr(screen, "INTERVAL", float("inf"))  # No line for progress
    proof.run_checks(environment, verbose=verbose)
    sums = ["serving\tü? 1/3", "1 of 3 promises is broken here", "."]  # The stub has no conftest that ends it otherwise
    details = ["       what is wrong", "       what it means"]
    assert run.capsys.readouterr().out.splitlines() == [*shown, *details, *sums]


#: Releases of uvicorn with those of Gunicorn of their time; the newest by default.
RELEASES = {"0.13.1": "20.0.4", "0.18.3": "20.1.0", trees.NEWEST: "27.0.1"}


@pytest.mark.parametrize("release", environments.parameters(RELEASES, [trees.NEWEST]))
def test_figures_of_a_real_server(release: str, tmp_path: Path) -> None:
    python = environments.pythons_for(release)[-1 if release == trees.NEWEST else 0]
    gunicorn = RELEASES[release]
    pristine = environments.cached(python, *environments.packages(release, f"gunicorn=={gunicorn}"))
    copy = pristine.copied(tmp_path / "venv", f"uvicorn {release}", f"gunicorn {gunicorn}")
    before, after = (figures.measure(find(one.path), "here")["here"] for one in (pristine, copy))
    assert before.rotations == after.rotations == 6
    assert before.dead if release == "0.18.3" else sum(before.lost.values()) > before.requests / 4, before
    assert before.wrong
    assert before.slowest is None
    assert not after.wrong, after
    assert after.slowest is not None


def test_a_long_path_to_temporary_files(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """Longer than that of a socket may be; and no socket of another gunicorn's is in danger."""
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        (tmp_path / (name * 16)).mkdir()
        monkeypatch.setenv(name, str(tmp_path / (name * 16)))
    status, output = properties.run(trees.source().path, test="test_serving.py::test_promptness")
    assert status == 0, output
    assert [list(directory.iterdir()) for directory in tmp_path.iterdir()] == [[], []]


def test_there_are_as_many_before_and_after(tmp_path: Path, run: Run) -> None:
    """Each has its kind, and none is there for nothing: as pytest has it where there is nothing to be tested with."""
    pristine, patched = trees.source().path, tmp_path / "patched"
    shutil.copytree(pristine, patched, symlinks=True)
    run("--no-tests", patched)
    found = []
    for environment in (pristine, patched):
        status, output = properties.run(environment, "--collect-only")
        assert status == 0 and "NOTSET" not in output, output
        found.append({line.partition("[")[0] for line in output.splitlines() if "::" in line})
    assert found[0] == found[1] and len(found[0]) > 30
    assert {promises.kind(name) for name in found[0]} == set(promises.KINDS.values())


def test_a_set_up_that_fails_breaks_no_promise(root: Path, capsys: CaptureFixture[str]) -> None:
    """The patch stays. What fails in a test itself, or breaks a promise, is another thing, and is told in full."""
    shutil.copytree(patches.PATCHES.parent, root, ignore=shutil.ignore_patterns(".*", "test_*"))
    for raised, kept in (("ValueError('odd')", True), ("Broken('odd')", False)):
        (root / "tests" / "properties" / "test_boot.py").write_text(FAILING.format(raised))
        assert proof.run_checks(trees.source()) == kept
        said = capsys.readouterr().out
        assert ("UNTESTED It starts.\n       this could not be tested to its end, for ValueError: " in said) == kept
    assert said.endswith(BROKEN)


#: What a broken promise is, why, and what that means; how many of its kind are kept, and what all of them come to.
BROKEN = f"""FAILED It starts.
       odd
       {MEANINGS[CHANGES]}
starting                    1/2  1 broken
1 of 2 promises is broken here: a rotation at a bad moment changes what is not its business
"""

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
        "(2 others could not be tested: see --verbose)",
    ]
    assert promises.summary({"passed": passed[:1]})[-1] == "1 of 1 promise holds here"
    mostly = {"passed": passed, "skipped": skipped}
    assert promises.summary(mostly)[-1] == "2 of 3 promises hold here (1 other could not be tested: see --verbose)"
    assert promises.summary({"skipped": skipped})[-1] == "no promise was tested here"


#: A release of the time for each Python that the newest tools do not run on.
OLD = {(3, 6): "0.13.4", (3, 7): "0.16.0", (3, 8): "0.30.0"}


@pytest.mark.full
@pytest.mark.parametrize("python", OLD, ids=lambda python: "%d.%d" % python)
def test_one_old_python(python: Tuple[int, int], tmp_path: Path) -> None:
    """With a clone that has no tools yet."""
    if python not in environments.pythons():
        pytest.skip(f"no Python {python} is at hand")
    clone = shutil.copytree(proof.ROOT, tmp_path / "clone", ignore=shutil.ignore_patterns(".*"))
    venv = environments.make(tmp_path / "venv", python, *environments.packages(OLD[python])).path
    # This Python is all on the PATH that could run anything of ours
    others = shutil.ignore_patterns("python*", "pip*", "uv*")
    path = shutil.copytree("/usr/bin", tmp_path / "bin", symlinks=True, ignore=others, copy_function=os.symlink)
    (path / f"python{python[0]}.{python[1]}").symlink_to(environments.pythons()[python])
    settings = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]
    # Without a home, where pyenv's Pythons might be, and without a locale that knows more than ASCII
    settings += [f"PATH={path}", f"HOME={tmp_path}", "LC_ALL=C"]
    script = ("env", "--ignore-environment", *settings, clone / "scripts" / "apply.sh", venv)
    before = trees.snapshot(venv)
    command(*script, "--check", status=1)
    command(*script, "--dry-run")
    said = command(*script)
    assert " promises hold here" in said, said
    # Progress is one line on a terminal, and elsewhere one each ten seconds
    said = re.sub(r"^  tests: .* done\n", "", said, flags=re.MULTILINE)
    assert len(said.splitlines()) <= 30 and not re.search(r"NOTSET|\[100%\]|empty parameter", said), said
    assert f"uvicorn {OLD[python]}: patched" in command(*script, "--check")
    command(*script, "--revert")
    assert trees.snapshot(venv) == before
    for tools in clone.glob(".tools-*"):
        assert (tools / "lib" / f"python{python[0]}.{python[1]}").is_dir()


@pytest.mark.full
def test_gunicorn_alone(tmp_path: Path, run: Run) -> None:
    packages = [f"gunicorn=={NEWEST}", "gevent", "packaging", "setuptools<81"]
    venv = environments.make(tmp_path / "venv", python(NEWEST), *packages).path
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
