"""One change of an environment, in a process of its own that strace can follow."""

import ctypes
import os
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from usr1.apply import change, installed
from usr1.apply.environment import Environment
from usr1.refusal import HalfDone, Refusal

#: Marks for the log of strace
BEGIN, END = "/the-change-begins", "/the-change-ends"
PR_SET_PTRACER, ANY = 0x59616D61, -1


def make(what: str, environment: Environment) -> None:
    """What scripts/apply.sh does between finding the environment and testing it."""
    with change.alone(environment, print):
        found = installed.find(environment)
        for one in found:
            if one.problem:
                raise one.problem
        change.make(environment, [(one, one.patched if what == "apply" else one.pristine) for one in found])


def status(what: str, environment: Environment) -> int:
    """The same with the exit status of scripts/apply.sh."""
    try:
        make(what, environment)
    except Refusal:
        return 2
    except HalfDone:
        return 3
    return 0


def followed(what: str, environment: Environment, log: Path, *options: str) -> int:
    """
    The exit status of a change under strace with these options, negative if a signal ended it.

    Forked, not started, so that all is imported and strace counts nothing but the change.
    """
    go, went = os.pipe()
    pid = os.fork()
    if pid == 0:
        _follow_me(what, environment, go)
    try:
        command = ["strace", "-o", str(log), "-p", str(pid), *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            assert "attached" in said, f"strace, which this test needs, said {said!r}"
            os.write(went, b"!")
            _, ended = os.waitpid(pid, 0)
            pid = 0
    finally:
        os.close(go)
        os.close(went)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(ended)


def _follow_me(what: str, environment: Environment, go: int) -> None:
    exit_status = 70
    try:
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
        select.select([go], [], [])  # Not read(2): whether strace counts a call it finds waiting is a matter of chance
        os.access(BEGIN, os.F_OK)
        exit_status = status(what, environment)
        os.access(END, os.F_OK)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(exit_status)
