"""
Killed at any system call, or failed there: whole files, a true exit status, and a next run that ends it well.

strace makes each file-system call of a change fail, or kills the process at it.
"""

import ctypes
import functools
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Counter as CounterType
from typing import Dict, List, NamedTuple, Optional

import pytest
from usr1 import patches
from usr1.apply import change, installed
from usr1.apply.environment import Environment
from usr1.apply.installed import State
from usr1.refusal import HalfDone, Refusal

from test_apply import trees

#: Tests run side by side: each takes every so-many-th of the calls.
SHARDS = 4

#: What touches files; what CPython does not use on this machine is simply not found.
LOOKING = (
    "?access,?close,?dup,?dup3,?fadvise64,?fcntl,?flock,?fstat,?fstatfs,?getdents64,?lseek,?lstat,?newfstatat,"
    "?pread64,?read,?readlink,?readlinkat,?stat,?statfs,?statx"
)
CHANGING = (
    "?chmod,?chown,?fallocate,?fchdir,?fchmod,?fchmodat,?fchown,?fchownat,?fdatasync,?fsync,?ftruncate,?futimesat,"
    "?link,?linkat,?mkdir,?mkdirat,?open,?openat,?pwrite64,?rename,?renameat,?renameat2,?rmdir,?symlink,?sync,"
    "?truncate,?unlink,?unlinkat,?utimensat,?write,?writev"
)
OPPOSITE = {"apply": "revert", "revert": "apply"}

#: Marks for the log of strace
BEGIN, END = "/the-change-begins", "/the-change-ends"
PR_SET_PTRACER, ANY = 0x59616D61, -1


def make(what: str, environment: Environment) -> None:
    """What scripts/apply.sh does between finding the environment and testing it."""
    with change.alone(environment):
        found = installed.find(environment)
        for one in found:
            if one.problem:
                raise one.problem
        change.make(environment, [(one, one.patched if what == "apply" else one.pristine) for one in found])


def status_of(what: str, environment: Environment) -> int:
    try:
        make(what, environment)
    except Refusal:
        return 2
    except HalfDone:
        return 3
    return 0


def followed(what: str, environment: Environment, log: Path, *options: str) -> Optional[int]:
    """
    The exit status of a change under strace with these options, negative if a signal ended it.

    Forked, not started, so that all is imported and strace counts nothing but the change.
    """
    fork = multiprocessing.get_context("fork")
    go = fork.Event()  # Without a system call that is counted
    process = fork.Process(target=_follow_me, args=(what, environment, go))
    process.start()
    try:
        command = ["strace", "-o", str(log), "-p", str(process.pid), *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            assert "attached" in said, f"strace, which this test needs, said {said!r}"
            go.set()
            process.join()
    finally:
        process.kill()
        process.join()
    return process.exitcode


def _follow_me(what: str, environment: Environment, go: Event) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
    go.wait()
    os.access(BEGIN, os.F_OK)
    exit_status = status_of(what, environment)
    os.access(END, os.F_OK)
    sys.exit(exit_status)


class Call(NamedTuple):
    name: str
    number: int  # Among the calls of that name in the life of the process
    changes: bool  # Something on disk

    def injection(self, fault: str) -> List[str]:
        """fault like error=EIO; with a + behind it, all later calls of that name fail too."""
        when = f"{self.number}{'+' * fault.endswith('+')}"
        return ["-e", f"trace={self.name}", "-e", f"inject={self.name}:{fault.rstrip('+')}:when={when}"]


def calls(what: str, environment: Environment, log: Path) -> List[Call]:
    """The file-system calls of a change, each once."""
    assert followed(what, environment, log, "-e", f"trace={LOOKING},{CHANGING}") == 0
    seen: CounterType[str] = Counter()
    found: List[Call] = []
    within = False
    for name, rest in re.findall(r"(?m)^([a-z0-9_]+)\((.*)", log.read_text(errors="replace")):
        seen[name] += 1
        if BEGIN in rest or END in rest:
            within = BEGIN in rest
        elif within:  # An open that creates nothing only looks
            changes = "O_CREAT" in rest if name.startswith("open") else f"?{name}" in CHANGING.split(",")
            found.append(Call(name, seen[name], changes))
    assert sum(call.changes for call in found) > 10
    return found


class Trial(NamedTuple):
    environment: Environment
    after: Dict[str, trees.Snapshot]
    log: Path
    copy: Path

    def calls(self, what: str) -> List[Call]:
        """The calls of a change that is yet to be made."""
        make(OPPOSITE[what], self.environment)
        trees.compile_all(self.environment)
        found = calls(what, self.environment, self.log)
        make(OPPOSITE[what], self.environment)
        shutil.copytree(self.environment.path, self.copy, symlinks=True)
        return found

    def try_all(self, what: str, fault: str, calls: List[Call]) -> None:
        assert calls
        for call in calls:
            self.after_fault(call, fault, what)

    def after_fault(self, call: Call, fault: str, what: str) -> None:
        """Have one call of a change fail, or kill it; see it end well."""
        trees.compile_all(self.environment)
        status = followed(what, self.environment, self.log, *call.injection(fault))
        assert status == -9 or "INJECTED" in self.log.read_text()
        assert trees.stale(self.environment) == []
        states = {one.state for one in installed.find(self.environment)}
        assert states <= {State.PRISTINE, State.PARTLY, State.PATCHED}, "each file is whole, old or new"
        now = trees.snapshot(self.environment.path)
        if fault == "error=EIO+" and call.name == "unlink":  # Nor can it remove what it has made then
            now = {name: entry for name, entry in now.items() if not name.endswith(installed.UNFINISHED)}
        if fault == "signal=KILL":
            assert status == -9
        elif status == 0:
            assert now == self.after[what]
        elif status == 2:
            assert now == self.after[OPPOSITE[what]]
        else:
            assert status == 3 and fault.endswith("+"), "only an error that stays also keeps it from being undone"

        following = what if call.number % 2 else OPPOSITE[what]
        assert status_of(following, self.environment) == 0
        assert trees.snapshot(self.environment.path) == self.after[following]
        if following == what:
            shutil.rmtree(self.environment.path)
            shutil.copytree(self.copy, self.environment.path, symlinks=True)


@pytest.fixture
def trial(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """The patches are read before, for it is not their file system that fails."""
    monkeypatch.setattr(patches, "catalogue", functools.lru_cache(patches.catalogue))
    pristine = trees.snapshot(environment.path)
    make("apply", environment)
    assert trees.disagreements(environment) == []
    patched = trees.snapshot(environment.path)
    make("revert", environment)
    assert trees.snapshot(environment.path) == pristine
    return Trial(environment, {"apply": patched, "revert": pristine}, tmp_path / "log", tmp_path / "copy")


@pytest.mark.full
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("what", OPPOSITE)
def test_any_call_may_fail(what: str, shard: int, trial: Trial) -> None:
    trial.try_all(what, "error=EIO", trial.calls(what)[shard::SHARDS])


@pytest.mark.parametrize("what", ["apply", pytest.param("revert", marks=pytest.mark.full)])
def test_killed_at_any_call(what: str, trial: Trial, request: pytest.FixtureRequest) -> None:
    """Where it only looks, nothing changes until the next call, so to be killed there is to be killed then."""
    every = request.config.getoption("--full")
    trial.try_all(
        what, "signal=KILL", [call for call in trial.calls(what) if every or call.changes and call.number % 3 == 1]
    )


@pytest.mark.parametrize("what", ["apply", pytest.param("revert", marks=pytest.mark.full)])
@pytest.mark.parametrize("fault", ["error=ENOSPC", pytest.param("error=EIO+", marks=pytest.mark.full)])
def test_a_disk_that_is_full_or_fails_for_good(fault: str, what: str, trial: Trial) -> None:
    """When an error stays, what was done cannot always be undone; that is said, and the next run does it."""
    names = ("write", "fsync", "rename") if fault == "error=ENOSPC" else ("openat", "fsync", "rename", "unlink")
    changes = [call for call in trial.calls(what) if call.changes]
    trial.try_all(what, fault, [call for call in changes if call.name in names])


@pytest.mark.parametrize("what", OPPOSITE)
def test_a_write_that_lies(what: str, trial: Trial) -> None:
    """One that writes nothing, and says it has written all."""
    trial.try_all(what, f"retval={2**20}", [call for call in trial.calls(what) if call.name == "write"])
