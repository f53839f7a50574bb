"""Several runs at once on one environment: one after the other."""

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest
from usr1.apply import apply
from usr1.apply.environment import Environment
from usr1.apply.installed import State

from test_apply import trees

SCRIPTS = Path(apply.__file__).parents[2]


@contextmanager
def held(environment: Environment) -> Iterator[None]:
    """As by another run."""
    directory = os.open(environment.site_packages, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(directory)


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "usr1.apply.apply", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.measured
def test_another_waits_and_says_so(environment: Environment) -> None:
    """And looking does not wait."""
    with held(environment):
        waiting = start("--no-tests", environment.path)
        assert waiting.stdout is not None
        said = waiting.stdout.readline()
        assert said == f"waiting for another run on {environment.path} to end ...\n"
        assert waiting.poll() is None
        assert apply.main(["--check", str(environment.path)]) == 1
    assert waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0


def test_many(environment: Environment, tmp_path: Path) -> None:
    """Applies and reverts, all at once: each succeeds, and the last one's result is whole."""
    pristine = trees.snapshot(environment.path)
    runs = [start(("--no-tests", "--revert")[number % 2], environment.path) for number in range(12)]
    assert [(run.communicate()[0], run.returncode)[1] for run in runs] == [0] * 12
    one = trees.only(environment)
    assert one.state in (State.PRISTINE, State.PATCHED) and one.finished
    assert trees.disagreements(environment) == [] and trees.stale(environment) == []
    assert apply.main(["--revert", str(environment.path)]) == 0
    assert trees.snapshot(environment.path) == pristine, "no lock file is left"
