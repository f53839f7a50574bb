"""Gunicorn processes that still run the code that a file held before it was changed."""

import os
from pathlib import Path
from typing import Iterable, List

import psutil

from usr1.apply.environment import Environment


def outdated(environment: Environment, files: Iterable[Path]) -> List[int]:
    """
    The arbiters of an environment that started before one of the files was changed, by pid.

    An arbiter imports the worker class once, and its workers are forked from it: new workers and a
    reload (HUP) do not help. What belongs to other users is found as far as /proc shows it.
    """
    if psutil.LINUX and not os.path.exists("/proc/self/status"):
        return []  # In a chroot without /proc psutil sees nothing, not even this process, and raises IndexError
    changed = max(map(_changed, files), default=0.0)
    ours = {process.pid: process for process in psutil.process_iter() if _runs(process, environment)}
    arbiters = [process for process in ours.values() if _parent(process) not in ours]
    # psutil counts from the second the system booted in, so it is right to a second only: rather say one too many.
    return sorted(process.pid for process in arbiters if process.create_time() < changed + 1)


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0


def _runs(process: psutil.Process, environment: Environment) -> bool:
    try:
        command = process.cmdline()
        if not any("gunicorn" in argument for argument in command):
            return False
        return any(_inside(argument, process, environment) for argument in command) or _mapped(process, environment)
    except (psutil.Error, OSError):
        return False


def _inside(argument: str, process: psutil.Process, environment: Environment) -> bool:
    """Whether it was started by a path like this into the environment, such as venv/bin/gunicorn."""
    if "/" not in argument:
        return False
    path = argument if os.path.isabs(argument) else os.path.join(process.cwd(), argument)
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(environment.path / "bin")


def _mapped(process: psutil.Process, environment: Environment) -> bool:
    """Whether it has a file of the environment in memory, such as an extension module."""
    inside = os.path.realpath(environment.site_packages) + os.sep
    with open(f"/proc/{process.pid}/maps", errors="surrogateescape") as maps:
        return any(inside in line for line in maps)
