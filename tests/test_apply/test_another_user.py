"""Root patches a tree that its owner keeps changing: whatever comes of the tree, nothing outside it is written to."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from usr1.apply import apply
from usr1.apply.environment import Environment

from test_apply import trees
from test_apply.test_hostile import DIRECTORIES, FILES

NOBODY = 65534
RUNS = 200

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can work on what is another user's"),
]


class Owner:
    """Has each directory, and each file that is read, be a link to root's own for an instant, in any order."""

    def __init__(self, environment: Environment, outside: Path) -> None:
        self.environment, self.outside = environment, outside

    def __enter__(self) -> "Owner":
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                signal.signal(signal.SIGTERM, self._end)
                self._change()
            os._exit(1)
        return self

    def _end(self, *_: object) -> None:
        self.ending = True

    ending = False

    def _change(self) -> None:
        # Those that are there: a path below a directory that was swapped is another one's
        paths = [place(self.environment) for place in (*DIRECTORIES.values(), *FILES.values())]
        paths = [path for path in paths if path.exists()]
        choose, aside = random.Random(0), self.environment.path / "aside"
        while not self.ending:
            path = choose.choice(paths)
            path.rename(aside)
            path.symlink_to(self.outside / path.relative_to(self.environment.path))
            time.sleep(choose.uniform(0, 0.002))
            path.unlink()
            aside.rename(path)
            time.sleep(choose.uniform(0, 0.02))
        os._exit(0)

    def __exit__(self, *exc_info: object) -> None:
        os.kill(self.pid, signal.SIGTERM)
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, "the owner could not go on"


def started(option: str, environment: Environment) -> int:
    """A run of apply.sh in a process of its own, by pid; in a new group, as a kill must not reach the tests."""
    pid = os.fork()
    if pid == 0:
        status = 70
        with contextlib.suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            status = apply.main([option, str(environment.path)])
        os._exit(status)
    return pid


@pytest.mark.parametrize("killed", [False, True], ids=["swaps", "kills and swaps"])
def test_nothing_outside_is_written(killed: bool, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = trees.light(place / "venv", trees.source(), bytecode=True)
    outside = place / "outside"
    shutil.copytree(environment.path, outside, symlinks=True)
    subprocess.run(["chown", "-R", str(NOBODY), environment.path], check=True)
    before = trees.snapshot(environment.path)
    untouched = everything(outside)
    choose, ends = random.Random(1), Counter[int]()
    start = time.monotonic()
    os.waitpid(started("--no-tests", environment), 0)
    takes = time.monotonic() - start
    with Owner(environment, outside):
        while sum(ends.values()) < RUNS or killed and ends[-signal.SIGKILL] < RUNS:
            n = sum(ends.values())
            pid = started(("--revert", "--no-tests")[n % 2], environment)
            if killed and n % 9:  # The others may end, however slow the machine is
                time.sleep(choose.uniform(0, takes / 2))
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            ends[os.waitstatus_to_exitcode(status)] += 1
            assert everything(outside) == untouched, f"by run {n}"
    with capsys.disabled():
        print(f"\n{'kills and swaps' if killed else 'swaps'}: {dict(ends)}")
    assert ends[0] and set(ends) <= ({0, 2, 3, -signal.SIGKILL} if killed else {0, 2, 3})
    # And what the owner has left alone is whole, or made whole
    for option in ("--no-tests", "--revert"):
        assert apply.main([option, str(environment.path)]) == 0
    assert trees.snapshot(environment.path) == before


def everything(directory: Path) -> object:
    return {
        path: (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_ctime_ns, path.lstat().st_uid)
        for path in [directory, *directory.rglob("*")]
    }
