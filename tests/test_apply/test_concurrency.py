"""Several runs at once on one environment: one after the other."""

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

import pytest
from usr1.apply import apply
from usr1.apply.environment import Environment
from usr1.apply.installed import State

from test_apply import changing, trees

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


@pytest.mark.parametrize("option", ["--no-tests", "--revert"])
def test_another_waits_and_says_so(option: str, environment: Environment) -> None:
    with held(environment):
        waiting = start(option, environment.path)
        assert waiting.stdout is not None
        said = waiting.stdout.readline()
        assert said == f"waiting for another run on {environment.path} to end ...\n"
        assert waiting.poll() is None
        assert apply.main(["--check", str(environment.path)]) == 1, "looking does not wait"
    assert waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0


def test_many(environment: Environment, tmp_path: Path) -> None:
    """Applies and reverts, all at once: each succeeds, and the last one's result is whole."""
    pristine = trees.snapshot(environment.path)
    children: List[int] = []
    for number in range(12):
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = changing.status(("apply", "revert")[number % 2], environment)
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 12
    one = trees.only(environment)
    assert one.state in (State.PRISTINE, State.PATCHED) and one.finished
    assert trees.disagreements(environment) == [] and trees.stale(environment) == []
    assert changing.status("revert", environment) == 0
    assert trees.snapshot(environment.path) == pristine, "no lock file is left"


def test_a_lock_dies_with_its_holder(environment: Environment) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(environment.site_packages)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.communicate()
    assert apply.main(["--no-tests", str(environment.path)]) == 0


_HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
