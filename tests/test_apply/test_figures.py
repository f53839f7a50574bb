"""The table of before and after, and what is said while there is nothing else to say."""

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List

import environments
import pytest
from usr1.apply import apply, figures, proof, screen
from usr1.apply.environment import Environment, find
from usr1.apply.figures import Figures

from test_apply import trees
from test_apply.test_cli import HOLDS, suite

LOST = {"access.log": 12_000, "root.log": 403}
BAD = Figures(LOST, 7, 96_110, 14, 24_041, 1, 1, 6, None)
GOOD = Figures(dict.fromkeys(LOST, 0), 0, 95_872, 0, 23_968, 0, 0, 6, 0.0213)
TABLE = """
In 6 / 6 rotations:           as found     patched
log lines lost                  12,403           0   of 96,110 / 95,872
log lines doubled                    7           0
requests broken                     14           0   of 24,041 / 23,968
workers killed or hung               2           0
slowest to let go of a log       never      0.02 s

"""
CLEAN = "As found it is clean: in these rotations nothing went wrong.\n"

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


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(proof, "ROOT", tmp_path / "root")
    return measures(tmp_path / "root")


def test_before_and_after(root: Path, environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    """Side by side at the end; where there is nothing to patch, as it is, and that it is clean."""
    assert apply.main([str(environment.path)]) == 0
    said = capsys.readouterr().out
    assert TABLE in said and CLEAN not in said
    assert apply.main([str(environment.path)]) == 0
    said = capsys.readouterr().out
    assert "\nIn 6 rotations:               as found\nlog lines lost                       0   of 95,872\n" in said
    assert CLEAN in said


def test_without_figures(root: Path, environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--tests-only", "--create"):  # There is one: nothing is created
        assert apply.main([option, "--no-figures", str(environment.path)]) == 0
    assert "rotations" not in capsys.readouterr().out
    assert not (root / "tests" / "measured").exists()
    with pytest.raises(SystemExit):
        apply.main(["--no-tests", "--no-figures", str(environment.path)])
    assert "--no-figures goes with what tests" in capsys.readouterr().err


def test_what_cannot_be_served_is_told(
    root: Path, environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """It decides nothing: the properties do."""
    measures(root, "print('no worker comes up')\nexit(1)\n")
    assert apply.main([str(environment.path)]) == 0
    said = capsys.readouterr().out
    assert "no figures as found: no worker comes up\n" in said and "no figures patched: " in said
    assert "rotations" not in said


@contextlib.contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
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
def test_colour_on_a_terminal(variables: Dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as its:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        figures.show({"as found": BAD, "patched": GOOD})
        said = read(its).replace("\r\n", "\n")
    assert re.sub(r"\033\[\d+m", "", said) == TABLE
    assert said.count("\033[31m") == said.count("\033[32m") == (0 if variables else 4)


SLOW = """
import sys
print("first", flush=True)
sys.stdin.read(1)
print("second", end="")
"""


def test_what_goes_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal in one line, which the next thing that is said replaces; or by dots, which replace nothing."""
    monkeypatch.setattr(screen, "PATIENCE", 0.05)
    command = [sys.executable, "-c", SLOW]
    with terminal(monkeypatch) as its, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdin is not None

        told: List[str] = []

        def waiting() -> None:
            """Tell it twice, then let it go on."""
            if "first" not in told:  # It takes its time to start
                return
            screen.tell("waiting " * 40)
            told.append("waiting")
            if len(told) == 3:
                process.stdin.close()  # type: ignore[union-attr]

        for line in screen.heard(process, waiting):
            told.append(line)
            screen.say(line)
        said = read(its)
        screen.dot()
        screen.dot()
        screen.say("done")
        dotted = read(its)
    status = ("waiting " * 40)[:79]
    replaced = "\r\033[K"
    assert said.startswith(f"first\r\n{status}{replaced}"), said
    assert said.endswith(f"{status}{replaced}second\r\n")
    assert dotted == "..\r\ndone\r\n"


def test_what_goes_on_is_told_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a file, but only what follows on silence."""
    screen.say("first")
    screen.tell("too soon")
    monkeypatch.setattr(screen, "PATIENCE", 0)
    screen.tell("second")
    assert capsys.readouterr().out == "first\nsecond\n"


def test_a_terminal_is_not_told_what_to_do(
    root: Path, environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """By code that may be another user's."""
    suite(root, "def test_it():\n    print('\\033]0;title\\007\\tü')\n")
    (root / "setup.cfg").write_text("[tool:pytest]\naddopts = -s\n")
    proof.hold(environment)
    assert "?]0;title?\tü\n" in capsys.readouterr().out


def test_properties_are_counted(
    root: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite(root, "def test_it():\n    print('PASSED a promise (0.1 s, 3 of 7)', flush=True)\n    input()\n")
    (root / "setup.cfg").write_text("[tool:pytest]\naddopts = -s\n")
    monkeypatch.setattr(screen, "PATIENCE", 0.01)
    proof.hold(environment)
    said = capsys.readouterr().out
    assert "  ... promises: starting, 0 s\n" in said
    assert re.search(r"^  \.\.\. promises: 3 of 7 done, \d s$", said, re.MULTILINE), said


RELEASES = {"0.13.1": "20.0.4", "0.18.3": "20.1.0", "0.54.0": "27.0.1"}


@pytest.mark.parametrize(
    "release", [pytest.param(one, marks=[] if one == trees.NEWEST else [pytest.mark.full]) for one in RELEASES]
)
def test_figures_of_a_real_server(release: str, tmp_path: Path) -> None:
    """As published each of these loses lines or workers; patched, none."""
    python = environments.pythons_for(release)[-1 if release == trees.NEWEST else 0]
    gunicorn = RELEASES[release]
    pristine = environments.cached(python, *environments.packages(release, f"gunicorn=={gunicorn}"))
    copy = environments.patched_copy(pristine, tmp_path / "venv", "uvicorn", release)
    environments.patched(copy, "gunicorn", gunicorn)
    before, after = (figures.measure(find(one.path), "here") for one in (pristine, copy))
    assert before and after
    assert before.rotations == after.rotations == 6
    assert before.dead if release == "0.18.3" else sum(before.lost.values()) > 1000, before
    assert not before.clean and before.slowest is None
    assert after.clean and after.slowest is not None, after
