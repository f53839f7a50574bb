"""Gunicorn processes that still run the code that a file held before it was changed."""

import contextlib
import os
from pathlib import Path
from typing import Iterable, List

from usr1.apply import processes
from usr1.apply.environment import Environment


def outdated(environment: Environment, files: Iterable[Path]) -> List[int]:
    """
    The arbiters of an environment that started before one of the files was changed, by pid.

    An arbiter imports the worker class once, and its workers are forked from it: new workers and a
    reload (HUP) do not help. What belongs to other users is found as far as /proc shows it.
    """
    changed = 0.0
    for file in files:
        with contextlib.suppress(OSError):  # It is not there
            changed = max(changed, file.stat().st_mtime)
    ours = {}
    for pid, one in processes.running().items():
        with contextlib.suppress(OSError):  # It has ended meanwhile, or another user's is not to be looked at
            if _runs(Path(f"/proc/{pid}"), environment):
                ours[pid] = one
    arbiters = {pid: one for pid, one in ours.items() if one.parent not in ours}
    return sorted(pid for pid, one in arbiters.items() if one.started < changed + 1)  # Rather say one too many


def _runs(process: Path, environment: Environment) -> bool:
    command = (process / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
    if not any("gunicorn" in argument for argument in command):
        return False
    return any(_inside(argument, process, environment) for argument in command) or _mapped(process, environment)


def _inside(argument: str, process: Path, environment: Environment) -> bool:
    """Whether it was started by a path like this into the environment, such as venv/bin/gunicorn."""
    if "/" not in argument:
        return False
    path = argument if os.path.isabs(argument) else os.path.join(os.readlink(process / "cwd"), argument)
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(environment.path / "bin")


def _mapped(process: Path, environment: Environment) -> bool:
    """Whether it has a file of the environment in memory, such as an extension module."""
    inside = os.path.realpath(environment.site_packages) + os.sep
    with open(process / "maps", errors="surrogateescape") as maps:
        return any(inside in line for line in maps)
