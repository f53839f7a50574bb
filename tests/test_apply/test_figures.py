"""The table of before and after, and what is said while there is nothing else to say."""

import contextlib
import json
import os
import pty
import re
import select
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Dict, Iterator, List

import environments
import pytest
from pytest import CaptureFixture, MonkeyPatch
from usr1.apply import figures, proof, screen
from usr1.apply.environment import Environment, find
from usr1.apply.figures import Figures

from test_apply import trees
from test_apply.test_cli import HOLDS, suite
from test_apply.trees import Run

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


def measures(root: Path, code: str = MEASURES) -> Path:
    """A suite with other figures, too."""
    good, bad = (json.dumps(figures._asdict()) for figures in (GOOD, BAD))
    (suite(root, HOLDS) / "tests" / "properties" / "figures.py").write_text(code.format(good=good, bad=bad))
    return root


def test_before_and_after(root: Path, environment: Environment, run: Run) -> None:
    measures(root)
    said = run(environment).out
    assert TABLE in said
    conclusion = f"Before the patch, rotations could {WRONG}. After it, nothing went wrong in these rotations. "
    assert conclusion in " ".join(said.split())
    said = run(environment).out
    assert "\nIn 6 rotations, under load:              now\nlines lost of access.log                   0   of " in said
    assert "\nNothing went wrong in these rotations.\n" in said


@pytest.mark.parametrize("only", [[], ["--only", "gunicorn"]])
def test_the_verdict_and_the_table_agree(only: List[str], root: Path, environment: Environment, run: Run) -> None:
    """What is patched and still loses lines breaks its promise, whatever the tests find."""
    measures(root, "print({bad!r})\n")
    said = run(*only, environment, status=1).out
    assert f"Although patched, rotations {WRONG} here. " in " ".join(said.split())
    assert "is as it was found" in said and "undo: " not in said
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
    monkeypatch.setattr(screen, "PATIENCE", 0.05)
    command = ["sh", "-c", "echo first; read -r rest; printf second"]
    told: List[str] = []

    def waiting() -> None:
        """Tell it twice, then let it go on."""
        if len(told) in (1, 2):  # It takes its time to start, and to go on
            screen.progress("waiting", len(told), 4)
            told.append("waiting")
        elif len(told) == 3 and process.stdin:
            process.stdin.close()

    with terminal(monkeypatch) as its, Popen(command, stdin=PIPE, stdout=PIPE) as process:
        for line in screen.lines_of(process, waiting):
            told.append(line)
            screen.say(line)
        said = read(its)
        screen.dot()
        screen.dot()
        screen.say("done")
        dotted = read(its)
    bars = [f"waiting [{'#' * 10 * done:40}] {done}/4\r\033[K" for done in (1, 2)]
    assert said == f"first\r\n{bars[0]}{bars[1]}second\r\n"
    assert dotted == "..\r\ndone\r\n"


def test_what_goes_on_is_told_elsewhere(monkeypatch: MonkeyPatch, capsys: CaptureFixture[str]) -> None:
    """In a file a line for progress, but only after twenty seconds of silence."""
    screen.say("first")
    now = time.monotonic()
    for seconds in (19.0, 21.0, 22.0, 42.0):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        screen.progress("tests", int(seconds), 50)
    assert capsys.readouterr().out == "first\n  tests: 21 of 50 done\n  tests: 42 of 50 done\n"


def test_a_terminal_is_not_told_what_to_do(root: Path, environment: Environment, run: Run) -> None:
    """By code that may be another user's."""
    suite(root, "def test_it():\n    print('\\033]0;title\\007\\tü')\n")
    proof.run_checks(environment)
    assert "?]0;title?\tü\n" in run.capsys.readouterr().out


RESULTS = """
def test_it():
    print("PASSED one (0.1 s, 1 of 7)\\n       why")
    print("SKIPPED two (0.1 s, 2 of 7)\\n       why not")
    print("FAILED three (0.1 s, 3 of 7)\\n       what is wrong\\n       what it means")
    print("serving  1/3\\n\\n1 of 3 promises is broken here")
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
    sums = ["serving  1/3", "1 of 3 promises is broken here", "."]  # The stub has no conftest that ends it otherwise
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
    assert before.wrong and before.slowest is None
    assert not after.wrong and after.slowest is not None, after
